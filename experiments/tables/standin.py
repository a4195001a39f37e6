"""Stand-in pairs for the seed report's film stills.

    python -m experiments.tables.standin --out standin

The stills are not available, so squares are cut from clean images and degraded by
`restoration.damage`. Every pair depends only on the seed and its number, and is made on
the device, in JAX. All squares of an image are in the same split. The command prints
the data card of the pairs as JSON, and draws a sheet of pairs.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import skimage
from etils import epy

from experiments.figures import damage_sheet
from restoration.base import cli, config, errors
from restoration.data import arrays, pairs
from restoration.devices import backend
from restoration.images import frames

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp

    from restoration import damage
    from restoration.evaluation import metrics

# Color photographs of different scenes in the scikit-image package.
PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png",
    "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip

# The damage of the report's stills: scratches, cue marks, dirt and grain.
KINDS = ("cue_marks", "dirt", "dust", "grain", "running_scratches", "scratches")

# The report's number of pairs, and its split.
PAIRS = 31_801
_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}

# The severity is found by this many bisections on this many training pairs.
_HALVINGS = 10
_CALIBRATION = 256
_HIGHEST_SEVERITY = 8.0

# Number of pixels damaged in one call.
_PIXELS_PER_CALL = {"cpu": 2**16, "accelerator": 2**24}


@dataclasses.dataclass(frozen=True)
class StandinOptions:
    """Options that define the stand-in pairs."""

    data_dir: str = config.option(
        "", help="folder of clean images; default: scikit-image's photographs"
    )
    pairs: int = config.option(PAIRS, help="pairs of all splits", minimum=10)
    image_size: int = config.option(256, help="side of a pair, pixels", minimum=16)
    input_psnr: float = config.option(
        28.0,
        help="mean PSNR of the degraded images, dB; the report does not give its own",
        minimum=5.0,
        maximum=60.0,
    )
    seed: int = config.option(0, help="seed of positions and damage", minimum=0)

    def __post_init__(self):
        """Checks limits."""
        config.check(self)


class Square(NamedTuple):
    """A pair that is not made yet; `data.pairs` handles it like a pair of files.

    Attributes:
      name: `image_number`.
      clip: name of the clean image.
      number: over all splits, from 0; it determines position and damage.
    """

    name: str
    clip: str
    number: int


class Clean(NamedTuple):
    """Clean images of any sizes, concatenated, on the device.

    Attributes:
      pixels: uint8 (pixels of all images, 3).
      offset: int32 (images,), index of each image's first pixel.
      height: int32 (images,).
      width: int32 (images,).
    """

    pixels: Any
    offset: Any
    height: Any
    width: Any


@dataclasses.dataclass(frozen=True)
class Standin:
    """Stand-in pairs that are planned, but not made yet.

    Attributes:
      options: that define them.
      sources: names of the clean images.
      splits: pairs by split.
      clean: the images.
      severity: of the damage.
      sample_psnr: mean PSNR in dB of the pairs on which the severity was found.
    """

    options: StandinOptions
    sources: tuple[str, ...]
    splits: Mapping[str, tuple[Square, ...]]
    clean: Clean
    severity: float
    sample_psnr: float


def find_sources(data_dir: str) -> dict[str, pathlib.Path]:
    """Returns the files of clean images by name, in order.

    Args:
      data_dir: a folder, searched with its sub-folders; "" for scikit-image's.

    Returns:
      Files by name: the path below the folder, without suffix.

    Raises:
      InputError: if there are fewer than three images, one for each split.
    """
    folder = pathlib.Path(data_dir or pathlib.Path(skimage.__file__).parent / "data")
    names = list(frames.list_images(folder)) if data_dir else PHOTOGRAPHS
    if len(names) < len(pairs.SPLITS):
        raise errors.InputError(
            f"{folder}: {len(names)} images; at least {len(pairs.SPLITS)} are needed"
        )
    return {name[: name.rindex(".")]: folder / name for name in names}


def identity(options: StandinOptions) -> dict[str, Any]:
    """Returns the options as JSON that is the same on every machine.

    Instead of the folder's path, it has the folder's name, the number of its images and
    a hash of their names and sizes.
    """
    values = dataclasses.asdict(options)
    if options.data_dir:
        sources = find_sources(options.data_dir)
        lines = [f"{name} {path.stat().st_size}" for name, path in sources.items()]
        digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape"))
        folder = pathlib.Path(options.data_dir).name
        # Stored in results, so the wording stays.
        values["data_dir"] = (
            f"{folder}, {len(lines)} pictures, {digest.hexdigest()[:8]}"
        )
    return values


def _shot(name: str) -> str:
    """Returns the unit that stays in one split: a still, or the frames of a shot."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{pairs.clip_of(last)}" if folder else pairs.clip_of(last)


def split_sources(sources: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Splits images 80/10/10 by a hash of their names, see `pairs.split_by_clip`."""
    whole = [Square(name, _shot(name), number) for number, name in enumerate(sources)]
    split = pairs.split_by_clip(whole)
    return {name: tuple(p.name for p in members) for name, members in split.items()}


def lay_out(sources: Iterable[str], count: int) -> dict[str, tuple[Square, ...]]:
    """Assigns an image to each pair: 80/10/10 of the pairs, images in turn.

    Args:
      sources: names of the clean images.
      count: pairs of all splits.

    Returns:
      The pairs of each split.
    """
    by_split = split_sources(sources)
    bounds = np.rint(np.cumsum([0, *_SHARES.values()]) * count).astype(int)
    splits = {}
    for split, first, last in zip(_SHARES, bounds, bounds[1:], strict=False):
        names = by_split[split]
        splits[split] = tuple(
            Square(f"{name}_{number:06d}", name, number)
            for number in range(first, last)
            for name in [names[number % len(names)]]
        )
    return splits


def load_clean(sources: Mapping[str, pathlib.Path], image_size: int) -> Clean:
    """Reads clean images onto the device.

    Args:
      sources: files by name.
      image_size: side of the squares, pixels.

    Returns:
      The images.

    Raises:
      InputError: if a file cannot be read or is smaller than a square.
    """
    pixels, heights, widths = [], [], []
    for path in sources.values():
        image = frames.to_uint8(frames.read(path))
        height, width = image.shape[:2]
        if min(height, width) < image_size:
            raise errors.InputError(
                f"{path}: {width}×{height} is smaller than --image_size={image_size}; "
                "remove it or choose a smaller --image_size"
            )
        pixels.append(image.reshape(-1, 3))
        heights.append(height)
        widths.append(width)
    lengths = [len(rows) for rows in pixels]
    offsets = np.cumsum([0, *lengths[:-1]])
    return Clean(
        jnp.asarray(np.concatenate(pixels)),
        *(jnp.asarray(values, jnp.int32) for values in (offsets, heights, widths)),
    )


def _to_uint8(image: Any) -> Any:
    return jnp.rint(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8)


def _make_pair(
    clean: Clean,
    picture: Any,
    key: Any,
    severity: Any,
    *,
    size: int,
    kinds: tuple[str, ...],
) -> arrays.PairArrays:
    """Cuts a square and degrades it; returns both, uint8 (size, size, 3) each."""
    position_key, damage_key = jax.random.split(key)
    height, width = clean.height[picture], clean.width[picture]
    room = jnp.stack([height, width]) - size + 1
    top, left = (jax.random.uniform(position_key, (2,)) * room).astype(jnp.int32)
    rows = clean.offset[picture] + (top + jnp.arange(size)) * width + left
    target = clean.pixels[rows[:, None] + jnp.arange(size)]
    degraded, _ = damage.damage(
        damage_key, target.astype(jnp.float32) / 255, severity=severity, kinds=kinds
    )
    return arrays.PairArrays(_to_uint8(degraded), target)


@functools.cache
def _make_batch(size: int, kinds: tuple[str, ...]) -> Any:
    """Returns a jitted function (clean, pictures, numbers, severity, seed) -> pairs."""

    def make(clean: Clean, pictures: Any, numbers: Any, severity: Any, seed: Any):
        first = jax.random.key(seed)
        keys = jax.vmap(lambda number: jax.random.fold_in(first, number))(numbers)
        one = functools.partial(_make_pair, size=size, kinds=kinds)
        return jax.vmap(one, (None, 0, 0, None))(clean, pictures, keys, severity)

    return jax.jit(make)


def _make(
    options: StandinOptions,
    clean: Clean,
    sources: Sequence[str],
    members: Sequence[Square],
    severity: float,
) -> arrays.PairArrays:
    device = "cpu" if backend.is_cpu() else "accelerator"
    size = max(1, _PIXELS_PER_CALL[device] // options.image_size**2)
    index = {name: number for number, name in enumerate(sources)}
    pictures = np.array([index[member.clip] for member in members], np.int32)
    numbers = np.array([member.number for member in members], np.int32)
    made = []
    for start in range(0, len(members), size):
        # The last call repeats pairs, so that one compiled program is enough.
        rows = np.resize(np.arange(start, min(start + size, len(members))), size)
        made.append(
            _make_batch(options.image_size, KINDS)(
                clean, pictures[rows], numbers[rows], severity, options.seed
            )
        )
    return arrays.PairArrays(
        *(jnp.concatenate(side)[: len(members)] for side in zip(*made, strict=True))
    )


def psnr(made: arrays.PairArrays) -> float:
    """Returns the mean PSNR of degraded images in dB, by `metrics.PROTOCOL`."""
    sides = (side.astype(jnp.float32) / 255 for side in made)
    return float(jnp.mean(metrics.all_metrics(*sides)["psnr"]))


def _find_severity(
    options: StandinOptions,
    clean: Clean,
    sources: Sequence[str],
    members: Sequence[Square],
) -> tuple[float, float]:
    """Returns the severity with the PSNR nearest to the wanted one, and that PSNR."""
    sample = members[:_CALIBRATION]
    low, high, tried = 0.0, _HIGHEST_SEVERITY, {}
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried[middle] = psnr(_make(options, clean, sources, sample, middle))
        if tried[middle] > options.input_psnr:
            low = middle
        else:
            high = middle
    return min(tried.items(), key=lambda item: abs(item[1] - options.input_psnr))


def prepare(options: StandinOptions) -> Standin:
    """Plans the pairs and finds the severity.

    Args:
      options: that define the pairs.

    Returns:
      The planned pairs; `draw` makes them.

    Raises:
      InputError: if the folder or an image cannot be used.
    """
    sources = find_sources(options.data_dir)
    splits = lay_out(sources, options.pairs)
    clean = load_clean(sources, options.image_size)
    names = tuple(sources)
    severity, reached = _find_severity(options, clean, names, splits["train"])
    return Standin(options, names, splits, clean, severity, reached)


def draw(standin: Standin, members: Sequence[Square]) -> arrays.PairArrays:
    """Makes some of the pairs.

    Args:
      standin: from `prepare`.
      members: the pairs to make, in any order.

    Returns:
      uint8 (len(members), image_size, image_size, 3) for each side, on the device.
    """
    return _make(
        standin.options, standin.clean, standin.sources, members, standin.severity
    )


def card(standin: Standin) -> dict[str, Any]:
    """Returns the data card of the pairs, for the files of results."""
    options = standin.options
    folder = pathlib.Path(options.data_dir).name
    pictures = f"{len(standin.sources)} pictures of the folder {folder}"
    if not options.data_dir:
        pictures = "scikit-image's photographs (licences: skimage/data/README.txt)"
    by_split = {
        split: sorted({member.clip for member in members})
        for split, members in standin.splits.items()
    }
    return {
        "what": "squares of clean pictures, worn by restoration.damage; they stand in "
        "for the report's film stills, which cannot be had",
        "pictures": pictures,
        "pictures_in": {split: len(names) for split, names in by_split.items()},
        "names": {} if options.data_dir else by_split,
        "split": "80/10/10 of the pairs; a picture, or the frames of a shot, lies in "
        "one split alone",
        "pairs_in": {split: len(m) for split, m in standin.splits.items()},
        "image_size": options.image_size,
        "kinds": list(KINDS),
        "severity": standin.severity,
        "input_psnr_wanted": options.input_psnr,
        "input_psnr_found": round(standin.sample_psnr, 3),
        "found_on": f"the first {_CALIBRATION} training pairs at most",
        "seed": options.seed,
        "limits": "Damage is drawn independently of the picture, and the truth is the "
        "picture as it was found, not a remaster: color and sharpness do not change.",
    }


@dataclasses.dataclass(frozen=True)
class SheetOptions(StandinOptions):
    """Options of `python -m experiments.tables.standin`."""

    out: str = config.option(
        "standin.png", short="o", help="sheet of pairs to write, degraded beside clean"
    )


def sheet(standin: Standin, count: int = 12) -> np.ndarray:
    """Returns a sheet of pairs of every split, at full size.

    Args:
      standin: from `prepare`.
      count: pairs of each split, at most.

    Returns:
      float (height, width, 3) in [0, 1].
    """
    cells = []
    for split, members in standin.splits.items():
        spread = np.linspace(0, len(members) - 1, min(count, len(members)))
        chosen = [members[int(number)] for number in spread]
        made = draw(standin, chosen)
        for member, degraded, target in zip(chosen, *made, strict=True):
            pair = np.hstack([np.asarray(degraded), np.asarray(target)]) / 255
            text = f"{split} {pathlib.PurePosixPath(member.name).name}"
            cells.append(damage_sheet.label(pair.astype(np.float32), text))
    return damage_sheet.grid(cells, 4)


def main(options: SheetOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    standin = prepare(options)
    print(json.dumps(card(standin), indent=1))
    frames.write(options.out, sheet(standin))
    print(options.out)


if __name__ == "__main__":
    cli.run(main, SheetOptions)
