"""What limits of `decide` give and take: damage found and filled, and false finds.

    python -m experiments.pretrain.mask_limits --bench BENCH --clean CLEAN

For each choice of limits: of the benchmark's damage what share is found, what share of
what is found is damage, and the PSNR after filling alone; of healthy pictures made to
look old (`harm`), on which nothing landed, what share is marked, and what share filling
changes widely (`finder_quality.changed_share`), in the mean and in the worst picture.
The limits of `restoration.inference.decide` are to be chosen by the last: a missed
crack is a pity, a lost sleeve a fault, and a hair's breadth that was filled where
nothing is hardly seen.
"""

import dataclasses
import itertools
import json
import pathlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epy

from restoration.base import cli, config, errors, files
from restoration.devices import backend
from restoration.images import frames

with epy.lazy_imports():
    import jax

    from experiments.pretrain import finder_quality, harm, quality
    from restoration.inference import decide, engine
    from restoration.models import pretrained

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "mask_limits.json"


@dataclasses.dataclass(frozen=True)
class LimitOptions:
    """Options of `python -m experiments.pretrain.mask_limits`."""

    bench: str = config.option(help="folder of tracks: TRACK/input, output, mask")
    clean: str = config.option(help="folder of clean pictures")
    thin: tuple[str, ...] = config.option(
        ("0.7", "0.8", "0.9", "0.95"), help="limits of what is thin; repeatable"
    )
    wide: tuple[str, ...] = config.option(
        ("0.95", "0.98", "1.1"), help="limits of what is wide; repeatable"
    )
    near: tuple[str, ...] = config.option(
        ("0.5", "0.6", "0.7"), help="limits of what hangs together with it; repeatable"
    )
    every: int = config.option(1, help="measure every so many-th picture", minimum=1)
    finder: str = config.option("", help="weights of a finder instead of the shipped")
    filler: str = config.option("", help="weights of a filler instead of the shipped")
    out: str = config.option(str(RESULTS), help="JSON file", short="o")

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        for name in (*self.thin, *self.wide, *self.near):
            try:
                float(name)
            except ValueError:
                raise errors.InputError(f"{name}: a limit is a number") from None


@dataclasses.dataclass(frozen=True)
class _Picture:
    """A picture, what was found in it, and its target and damage where known."""

    image: np.ndarray
    found: np.ndarray
    target: np.ndarray | None = None
    damage: np.ndarray | None = None


def with_weights(options: LimitOptions) -> "engine.Engine":
    """Returns the shipped engine, with a finder or a filler in place of the shipped."""
    weights = engine.load_weights("", "")
    for name in ("finder", "filler"):
        if getattr(options, name):
            part = pretrained.load_part(name, getattr(options, name))
            weights = dataclasses.replace(weights, **{name: engine.Part(*part)})
    used = engine.make_engine(weights)
    if not (used.finder and used.filler):
        raise errors.InputError(
            "no finder or filler is shipped; give --finder, --filler"
        )
    return used


def _found(used: "engine.Engine", image: np.ndarray) -> np.ndarray:
    rows = used.finder.strips([image], image.shape[:2])
    return np.concatenate(list(rows))[..., 0]


def bench_pictures(
    used: "engine.Engine", options: LimitOptions
) -> Iterator[tuple[str, _Picture]]:
    """Yields each picture of a benchmark with the name of its track."""
    for track in sorted(
        path.parent for path in pathlib.Path(options.bench).glob("*/input")
    ):
        for path in sorted((track / "input").glob("*.png"))[:: options.every]:
            image, target, mask = (
                frames.read(track / side / path.name)
                for side in ("input", "output", "mask")
            )
            damage = mask[..., 0] > finder_quality.DAMAGED / 255
            yield track.name, _Picture(image, _found(used, image), target, damage)


def old_pictures(used: "engine.Engine", options: LimitOptions) -> Iterator[_Picture]:
    """Yields healthy pictures made to look old."""
    folder = pathlib.Path(options.clean)
    for number, name in enumerate(sorted(frames.list_images(folder))):
        if number % options.every == 0:
            image = harm.make_old(frames.read(folder / name), number, seed=4021)
            yield _Picture(image, _found(used, image))


def decided(limits: "decide.Limits", picture: _Picture) -> np.ndarray:
    """Returns the mask, float (height, width), see `decide.decide`."""
    ones = np.ones_like(picture.found)
    maps = np.stack([picture.found, 0 * ones, ones], -1)
    height, width = picture.found.shape
    side = -(-max(height, width) // 512) * 512
    padded = np.pad(
        maps, ((0, side - height), (0, side - width), (0, 0)), mode="symmetric"
    )
    found = jax.jit(decide.decide)(limits, padded[None])
    return np.asarray(found)[0, :height, :width, 0]


def _filled(used: "engine.Engine", picture: _Picture, mask: np.ndarray) -> np.ndarray:
    shown = np.concatenate([picture.image, mask[..., None]], -1).astype(np.float32)
    rows = used.filler.strips([shown], mask.shape, changes=lambda c: c[..., 3].any())
    return np.concatenate(list(rows))[..., :3]


def _false(
    used: "engine.Engine", limits: "decide.Limits", pictures: Sequence[_Picture]
) -> dict[str, float]:
    """Returns what is marked, and changed widely, of healthy pictures, percent."""
    marked, changed = [], []
    for picture in pictures:
        mask = decided(limits, picture)
        filled = _filled(used, picture, mask)
        marked.append(100 * float((mask > 0).mean()))
        changed.append(100 * finder_quality.changed_share(picture.image, filled))
    return {
        "marked": round(statistics.fmean(marked), 4),
        "worst_marked": round(max(marked), 3),
        "changed": round(statistics.fmean(changed), 4),
        "worst_changed": round(max(changed), 3),
    }


def _found_and_filled(
    used: "engine.Engine", limits: "decide.Limits", pictures: Sequence[_Picture]
) -> dict[str, float]:
    """Returns recall and precision of pixels, and the mean PSNR after filling."""
    masks = [decided(limits, picture) for picture in pictures]
    hits = sum((p.damage & (m > 0)).sum() for m, p in zip(masks, pictures, strict=True))
    psnr = [
        quality.score(_filled(used, picture, mask), picture.target)["psnr"]
        for picture, mask in zip(pictures, masks, strict=True)
    ]
    return {
        "recall": round(float(hits / sum(p.damage.sum() for p in pictures)), 4),
        "precision": round(float(hits / max(1, sum((m > 0).sum() for m in masks))), 4),
        "filled_psnr": round(statistics.fmean(psnr), 3),
    }


def measure(options: LimitOptions) -> dict[str, Any]:
    """Returns the figures of each choice of limits."""
    used = with_weights(options)
    bench: dict[str, list[_Picture]] = {}
    for track, picture in bench_pictures(used, options):
        bench.setdefault(track, []).append(picture)
    if not bench:
        raise errors.InputError(f"{options.bench}: no TRACK/input; check --bench")
    old, rows = list(old_pictures(used, options)), []
    for thin, wide, near in itertools.product(options.thin, options.wide, options.near):
        thin, wide = float(thin), max(float(thin), float(wide))
        limits = decide.Limits(thin, wide, min(thin, float(near)))
        row: dict[str, Any] = limits._asdict() | _false(used, limits, old)
        for track, pictures in bench.items():
            row[track] = _found_and_filled(used, limits, pictures)
        rows.append(row)
    inputs = {
        track: round(
            statistics.fmean(
                quality.score(p.image, p.target)["psnr"] for p in pictures
            ),
            3,
        )
        for track, pictures in bench.items()
    }
    return {"weights": used.weights.digests(), "input_psnr": inputs, "limits": rows}


def table(found: dict[str, Any]) -> str:
    """Returns the figures as a Markdown table."""
    tracks = list(found["input_psnr"])
    heads = [f"{t}: recall | precision | filled, dB" for t in tracks]
    lines = [
        "| thin | wide | near | falsely marked, mean % | worst % | changed, mean % "
        f"| worst % | {' | '.join(heads)} |",
        "|--:|--:|--:|--:|--:|--:|--:|" + "--:|--:|--:|" * len(tracks),
    ]
    for row in found["limits"]:
        cells = [f"{row[name]:g}" for name in ("thin", "wide", "near")]
        for name in ("marked", "changed"):
            cells += [f"{row[name]:.3f}", f"{row[f'worst_{name}']:.2f}"]
        for track in tracks:
            figures = row[track]
            cells += [f"{figures['recall']:.2f}", f"{figures['precision']:.2f}"]
            cells.append(f"{figures['filled_psnr']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main(options: LimitOptions) -> None:
    """Entry point: measures, writes the JSON file and prints the table."""
    backend.keep_freed_memory(large=False)
    backend.cache_compilations()
    found = measure(options)
    files.write_text(options.out, json.dumps(found, indent=1) + "\n")
    print(table(found), end="")


if __name__ == "__main__":
    cli.run(main, LimitOptions)
