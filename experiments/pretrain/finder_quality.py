"""Measures the finder and the filler on a benchmark with true masks.

    python -m experiments.pretrain.finder_quality --bench BENCH --healthy HEALTHY \
        --out quality.json

`BENCH` holds `film` and `photo`, each with `input`, `output` (undamaged) and `mask`
(the opacity of the damage). `HEALTHY` holds pictures without damage: what is found
there is false.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epy

from restoration.base import cli, config, errors, files
from restoration.devices import backend

with epy.lazy_imports():
    import cv2
    import jax
    import jax.numpy as jnp

    from experiments.pretrain import mask_pairs
    from restoration.inference import layout, tiling
    from restoration.models import filler, finder, pretrained

# Damage is what is more opaque, of 255.
DAMAGED = 25

# From which probability on a filler is given what was found.
_LIKELY = 0.5

# A filler computes pictures at this size, continued by reflection; so many of a
# finder's tiles are computed at once.
_SIDE, _BATCH = 384, 4


def average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Returns the area below precision over recall, as scikit-learn defines it.

    Args:
      truth: bool, any shape.
      score: of the same shape, higher where more likely.

    Returns:
      The sum of precision times the increase of recall, over all thresholds.
    """
    truth, score = truth.ravel(), score.ravel()
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    hits = np.cumsum(truth)[last].astype(np.float64)
    precision = hits / (last + 1)
    return float(np.sum(np.diff(hits, prepend=0.0) * precision) / hits[-1])


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Returns the PSNR of images in [0, 1], dB."""
    error = np.mean(np.square(np.float64(image) - np.float64(reference)))
    return float(-10 * np.log10(max(error, 1e-10)))


def read(path: pathlib.Path) -> np.ndarray:
    """Returns a picture, float32 (height, width, 3 or none) in [0, 1]."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., 2::-1])
    return np.float32(image) / 255


def pictures(root: pathlib.Path, track: str, every: int = 1) -> Iterator[tuple]:
    """Yields name, input, output and mask of a track's pictures."""
    for path in sorted((root / track / "input").glob("*.png"))[::every]:
        mask = read(root / track / "mask" / path.name)
        mask = mask if mask.ndim == 2 else mask[..., 0]
        yield path.name, read(path), read(root / track / "output" / path.name), mask


def check(bench: str) -> None:
    """Raises InputError where a folder is no benchmark."""
    for track in ("film", "photo"):
        if not any((pathlib.Path(bench) / track / "input").glob("*.png")):
            raise errors.InputError(
                f"--bench={bench}: no {track}/input/*.png; give a folder with film "
                "and photo, each with input, output and mask"
            )


def _padded(image: np.ndarray) -> np.ndarray:
    below, right = (_SIDE - length for length in image.shape[:2])
    rest = ((0, 0),) * (image.ndim - 2)
    return np.pad(image, ((0, below), (0, right), *rest), mode="symmetric")


@functools.cache
def _finding() -> tuple[Any, Any]:
    grid = layout.without_context(finder.Finder, batch=_BATCH)
    apply = finder.Finder().apply
    return grid, tiling.make_compute(lambda p, x: jax.nn.sigmoid(apply(p, x)), grid)


def find(parameters: Any, image: np.ndarray) -> np.ndarray:
    """Returns how likely each pixel is damaged, float32 (height, width)."""
    grid, compute = _finding()
    rows = tiling.restore_strips(
        functools.partial(compute, parameters), [image], grid, image.shape[:2]
    )
    return np.concatenate(list(rows))[..., 0]


@functools.cache
def _filling() -> Any:
    return jax.jit(filler.Filler().apply)


def fill(parameters: Any, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns a picture filled where a mask (height, width) is above 0."""
    height, width = image.shape[:2]
    if max(height, width) <= _SIDE:
        image, mask = _padded(image), _padded(mask)
    mask = np.float32(mask)[None, ..., None]
    filled = _filling()(parameters, jnp.asarray(image[None]), mask)
    return np.asarray(filled)[0, :height, :width]


def validate(
    network: str, parameters: Any, bench: str, of_finder: str = ""
) -> dict[str, float]:
    """Measures on every second picture of a benchmark; {} without one.

    Args:
      network: "finder" or "filler".
      parameters: of it.
      bench: folder with `film` and `photo`, each `input`, `output` and `mask`.
      of_finder: weights file of a finder, whose masks a filler is given too.

    Returns:
      Average precision of each track, or PSNR on film with the true masks, and with
      what a finder finds.
    """
    if not bench:
        return {}
    root, figures = pathlib.Path(bench), {}
    if network == "finder":
        for track in ("film", "photo"):
            rows = [
                average_precision(mask > DAMAGED / 255, find(parameters, image))
                for _, image, _, mask in pictures(root, track, 2)
                if (mask > DAMAGED / 255).any()
            ]
            figures[f"{track}_average_precision"] = round(float(np.mean(rows)), 4)
        return figures
    rows = [
        psnr(np.clip(fill(parameters, image, mask > DAMAGED / 255), 0, 1), target)
        for _, image, target, mask in pictures(root, "film", 2)
    ]
    figures["film_psnr"] = round(float(np.mean(rows)), 3)
    if of_finder:
        rows = [
            psnr(_filled(parameters, image, found), target)
            for image, target, found in _found_masks(bench, of_finder)
        ]
        figures["film_found_psnr"] = round(float(np.mean(rows)), 3)
    return figures


@functools.cache
def _found_masks(bench: str, of_finder: str) -> list[tuple[np.ndarray, ...]]:
    """Returns input, output and what a finder finds of every second film picture."""
    weights, _ = load(of_finder, finder.NAME)
    rows = []
    for _, image, target, _ in pictures(pathlib.Path(bench), "film", 2):
        mask = mask_pairs.found_mask(find(weights, image), _LIKELY)
        rows.append((image, target, mask))
    return rows


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `python -m experiments.pretrain.finder_quality`."""

    out: str = config.option(help="JSON file to write")
    bench: str = config.option("", help="folder of a benchmark with true masks")
    healthy: str = config.option("", help="folder of pictures without damage")
    finder: str = config.option("", help="weights file; empty: the shipped one")
    filler: str = config.option("", help="weights file; empty: the shipped one")
    every: int = config.option(1, help="takes every so many-th picture", minimum=1)


# Thresholds that are measured.
_THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)

# Healthy pictures count as changed where the mean over 15×15 pixels changed by more.
_WINDOW, _CHANGED = 15, 0.04


def dilated(mask: np.ndarray) -> np.ndarray:
    """Returns a mask, bool (height, width), a pixel wider all around."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def classic(image: np.ndarray, mask: np.ndarray, method: int) -> np.ndarray:
    """Fills with OpenCV's Telea or Navier-Stokes, radius 3, in 8 bits."""
    eight = np.uint8(np.clip(image, 0, 1) * 255 + 0.5)
    return np.float32(cv2.inpaint(eight, mask.astype(np.uint8), 3, method)) / 255


def changed_share(image: np.ndarray, result: np.ndarray) -> float:
    """Returns the share of a picture's pixels that changed widely and visibly."""
    mean = cv2.blur(np.float32(result) - np.float32(image), (_WINDOW, _WINDOW))
    return float((np.abs(mean).max(axis=2) > _CHANGED).mean())


def _filled(parameters: Any, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.clip(fill(parameters, image, mask), 0, 1)


def measure_bench(
    root: pathlib.Path, of_finder: Any, of_filler: Any, every: int
) -> dict[str, dict[str, float]]:
    """Measures a benchmark: average precision, and dB after filling.

    Args:
      root: the benchmark's folder.
      of_finder: parameters.
      of_filler: parameters.
      every: takes every so many-th picture.

    Returns:
      For each track the means over its pictures.
    """
    figures = {}
    for track in ("film", "photo"):
        rows: list[Mapping[str, float]] = []
        for _, image, target, opacity in pictures(root, track, every):
            truth = opacity > DAMAGED / 255
            found = find(of_finder, image)
            row = {"nothing, dB": psnr(image, target)}
            if truth.any():
                row["average precision"] = average_precision(truth, found)
            mask = dilated(truth)
            fills = {
                "filler": _filled(of_filler, image, np.float32(mask)),
                "Telea": classic(image, mask, cv2.INPAINT_TELEA),
                "Navier-Stokes": classic(image, mask, cv2.INPAINT_NS),
            }
            for name, result in fills.items():
                row[f"true mask, {name}, dB"] = psnr(result, target)
            for threshold in _THRESHOLDS:
                mask = mask_pairs.found_mask(found, threshold)
                result = _filled(of_filler, image, mask)
                row[f"found > {threshold}, filler, dB"] = psnr(result, target)
            rows.append(row)
        names = {name: None for row in rows for name in row}
        figures[track] = {
            name: round(float(np.mean([row[name] for row in rows if name in row])), 4)
            for name in names
        } | {"pictures": len(rows)}
    return figures


def measure_healthy(
    root: pathlib.Path, of_finder: Any, of_filler: Any, every: int
) -> dict[str, dict[str, Any]]:
    """Measures what is found, and changed, on pictures without damage.

    Args:
      root: their folder.
      of_finder: parameters.
      of_filler: parameters.
      every: takes every so many-th picture.

    Returns:
      For each threshold shares of the pixels, in percent, and mean PSNR (100 dB at
      most, where nothing changed).
    """
    rows: dict[float, list[tuple]] = {threshold: [] for threshold in _THRESHOLDS}
    paths = sorted(p for p in root.rglob("*") if p.suffix in (".png", ".jpg"))
    for path in paths[::every]:
        image = read(path)
        image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        image = image[:_SIDE, :_SIDE]
        found = find(of_finder, image)
        for threshold in _THRESHOLDS:
            mask = mask_pairs.found_mask(found, threshold)
            result = _filled(of_filler, image, mask)
            share = 100 * changed_share(image, result)
            rows[threshold].append(
                (100 * float((mask > 0).mean()), share, psnr(result, image), path.name)
            )
    return {
        f"found > {threshold}": {
            "found, %": round(float(np.mean([row[0] for row in found])), 4),
            "falsely changed, mean, %": round(float(np.mean([r[1] for r in found])), 4),
            "falsely changed, worst, %": round(max(r[1] for r in found), 3),
            "worst picture": max(found, key=lambda row: row[1])[3],
            "PSNR, dB": round(float(np.mean([row[2] for row in found])), 2),
            "pictures": len(found),
        }
        for threshold, found in rows.items()
    }


def load(path: str, name: str) -> tuple[Any, str]:
    """Loads weights by their file, or the shipped ones, and their SHA-256."""
    file = pathlib.Path(path) if path else pretrained.FOLDER / f"{name}.safetensors"
    return pretrained.load(file)[1], pretrained.read_card(file.with_suffix(".json"))[
        "sha256"
    ]


def main(options: Options) -> None:
    """Entry point."""
    backend.cache_compilations()
    of_finder, finder_digest = load(options.finder, finder.NAME)
    of_filler, filler_digest = load(options.filler, filler.NAME)
    figures: dict[str, Any] = {"finder": finder_digest, "filler": filler_digest}
    if options.bench:
        figures["bench"] = measure_bench(
            pathlib.Path(options.bench), of_finder, of_filler, options.every
        )
    if options.healthy:
        figures["healthy"] = measure_healthy(
            pathlib.Path(options.healthy), of_finder, of_filler, options.every
        )
    files.write_text(options.out, json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    cli.run(main, Options)
