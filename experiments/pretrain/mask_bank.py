"""Renders damage once, for `pretrain_masks` to compose pairs of.

    python -m experiments.pretrain.mask_bank --clean CLEAN --out bank.npz

Every kind of `restoration.damage` that covers a picture is drawn on black, so that
color times opacity and opacity are left; and what looks like damage and belongs to a
picture is drawn on clean ones.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epy

from experiments.pretrain import sources
from restoration.base import cli, config, errors
from restoration.data import clean_pictures
from restoration.devices import backend

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp

    from restoration import damage
    from restoration.damage import lookalikes, prints

# Severities of what is drawn, and of what only looks like damage.
_SEVERITIES, _ALIKE = (0.5, 2.0), (0.5, 1.5)

# What is too small in a picture to be worth a layer of its own.
_LEAST_SHARE = 1e-3


class Bank(NamedTuple):
    """What was rendered; see `mask_pairs.Material`.

    Attributes:
      drawn: by kind, uint8 (count, side, side, 4): color times opacity, opacity.
      belonging: clean pictures, uint8 (side, side, 3) each.
    """

    drawn: Mapping[str, np.ndarray]
    belonging: Sequence[np.ndarray]


def read(path: str) -> Bank:
    """Reads what `write` wrote."""
    with np.load(path, allow_pickle=False) as found:
        drawn = {
            name.removeprefix("drawn/"): found[name]
            for name in found.files
            if name.startswith("drawn/")
        }
        belonging = found["belonging"] if "belonging" in found.files else ()
    return Bank(drawn, list(belonging))


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `python -m experiments.pretrain.mask_bank`."""

    clean: str = config.option(help="folder of clean pictures, or a packed file")
    out: str = config.option(help="file to write, .npz")
    sources: str = config.option(
        "",
        help="JSON list of what may be used, with licences; all: every picture; by "
        "default experiments/pretrain_sources.json",
    )
    count: int = config.option(40, help="layers of each kind", minimum=1)
    belonging: int = config.option(
        200, help="pictures with specks that belong", minimum=0
    )
    side: int = config.option(384, help="of the layers, pixels", minimum=64)
    kinds: str = config.option("", help="kinds, with commas between; empty: all")
    seed: int = config.option(0, help="of all that is drawn", minimum=0)


def covers() -> dict[str, Callable]:
    """Returns what covers a picture and does not look at it, by kind."""
    return {
        "creases": damage.random_creases,
        "cue_marks": damage.random_cue_marks,
        "dirt": damage.random_dirt,
        "dust": damage.random_dust,
        "hairs": damage.random_hairs,
        "lint": damage.random_lint,
        "missing": damage.random_missing,
        "running_scratches": damage.random_running_scratches,
        "scratches": damage.random_scratches,
        "spots": damage.random_spots,
        "stains": damage.random_stains,
        **{name: prints.KINDS[name] for name in prints.LAYERED},
    }


def _to_uint8(image: jax.Array) -> np.ndarray:
    return np.asarray(jnp.round(jnp.clip(image, 0, 1) * 255)).astype(np.uint8)


def render(cover: Callable, *, key: jax.Array, count: int, side: int) -> np.ndarray:
    """Draws a kind of damage on black, again and again.

    Args:
      cover: (key, image, *, severity) -> painted, opacity.
      key: PRNG key.
      count: of the layers.
      side: of each, pixels.

    Returns:
      uint8 (count, side, side, 4): color times opacity, and opacity.
    """
    black = jnp.zeros((side, side, 3))
    drawn = jax.jit(lambda key, severity: cover(key, black, severity=severity))
    layers = []
    # A draw that leaves the picture as good as it is is drawn anew, a few times.
    for number in range(4 * count):
        each = jax.random.fold_in(key, number)
        low, high = _SEVERITIES
        severity = low + (high - low) * jax.random.uniform(jax.random.fold_in(each, 1))
        color, opacity = drawn(each, severity)
        if float((opacity > 0.1).mean()) > _LEAST_SHARE:
            layers.append(_to_uint8(jnp.concatenate([color, opacity[..., None]], -1)))
        if len(layers) == count:
            break
    return np.stack(layers) if layers else np.zeros((0, side, side, 4), np.uint8)


def render_belonging(
    pictures: Sequence[np.ndarray], *, key: jax.Array, count: int, side: int
) -> np.ndarray:
    """Draws what looks like damage and belongs there on clean pictures.

    Args:
      pictures: uint8 (height, width, 3) each.
      key: PRNG key.
      count: of the pictures to draw on.
      side: of the piece that is taken of each, pixels; smaller ones are passed over.

    Returns:
      uint8 (count, side, side, 3).
    """
    fitting = [picture for picture in pictures if min(picture.shape[:2]) >= side]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    kinds = [
        jax.jit(
            lambda key, image, severity, kind=kind: kind(key, image, severity=severity)
        )
        for kind in lookalikes.KINDS.values()
    ]
    found = []
    for number in range(count if fitting else 0):
        drawn = kinds[number * len(kinds) // count]
        picture = fitting[rng.integers(len(fitting))]
        top, left = (rng.integers(0, length - side + 1) for length in picture.shape[:2])
        piece = picture[top : top + side, left : left + side].astype(np.float32) / 255
        each = jax.random.fold_in(key, number)
        drawn_on = drawn(each, piece, rng.uniform(*_ALIKE))
        found.append(_to_uint8(drawn_on))
    return np.stack(found) if found else np.zeros((0, side, side, 3), np.uint8)


def main(options: Options) -> None:
    """Entry point."""
    backend.cache_compilations()
    key, known = jax.random.key(options.seed), covers()
    wanted = [name for name in options.kinds.split(",") if name] or list(known)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise errors.InputError(f"--kinds={unknown[0]}: choose of {', '.join(known)}")
    arrays = {}
    for name in wanted:
        arrays[f"drawn/{name}"] = render(
            known[name],
            key=jax.random.fold_in(key, list(known).index(name)),
            count=options.count,
            side=options.side,
        )
        print(f"{name}: {len(arrays[f'drawn/{name}'])} layers", flush=True)
        np.savez(options.out, **arrays)
    if options.belonging:
        listed = sources.read_sources(options.sources or sources.SOURCES)
        found = sources.find(options.clean, listed)
        arrays["belonging"] = render_belonging(
            [clean_pictures.decode(name, data) for name, data in found.items()],
            key=jax.random.fold_in(key, 1000),
            count=options.belonging,
            side=options.side,
        )
        np.savez(options.out, **arrays)
    print(options.out)


if __name__ == "__main__":
    cli.run(main, Options)
