"""Measures the finder and the filler on a benchmark with true masks."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from restoration.models import filler, finder

# Damage is what is more opaque, of 255.
DAMAGED = 25

# All pictures are computed at this size, continued by reflection.
_SIDE = 384


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
        image = image[..., 2::-1]
    return np.float32(image) / 255


def pictures(root: pathlib.Path, track: str, every: int = 1) -> Iterator[tuple]:
    """Yields name, input, output and mask of a track's pictures."""
    for path in sorted((root / track / "input").glob("*.png"))[::every]:
        mask = read(root / track / "mask" / path.name)
        mask = mask if mask.ndim == 2 else mask[..., 0]
        yield path.name, read(path), read(root / track / "output" / path.name), mask


def _padded(image: np.ndarray) -> np.ndarray:
    below, right = (_SIDE - length for length in image.shape[:2])
    rest = ((0, 0),) * (image.ndim - 2)
    return np.pad(image, ((0, below), (0, right), *rest), mode="symmetric")


@functools.cache
def _compiled(network: str) -> Any:
    if network == "finder":
        return jax.jit(lambda p, x: jax.nn.sigmoid(finder.Finder().apply(p, x)))
    return jax.jit(lambda p, x, m: filler.Filler().apply(p, x, m))


def find(parameters: Any, image: np.ndarray) -> np.ndarray:
    """Returns how likely each pixel is damaged, float32 (height, width)."""
    height, width = image.shape[:2]
    if max(height, width) <= _SIDE:
        image = _padded(image)
    found = _compiled("finder")(parameters, jnp.asarray(image[None]))
    return np.asarray(found)[0, :height, :width, 0]


def fill(parameters: Any, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns a picture filled where a mask (height, width) is above 0."""
    height, width = image.shape[:2]
    if max(height, width) <= _SIDE:
        image, mask = _padded(image), _padded(mask)
    mask = np.float32(mask)[None, ..., None]
    filled = _compiled("filler")(parameters, jnp.asarray(image[None]), mask)
    return np.asarray(filled)[0, :height, :width]


def validate(network: str, parameters: Any, bench: str) -> dict[str, float]:
    """Measures on every second picture of a benchmark; {} without one.

    Args:
      network: "finder" or "filler".
      parameters: of it.
      bench: folder with `film` and `photo`, each `input`, `output` and `mask`.

    Returns:
      Average precision of each track, or PSNR on film with the true masks.
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
    return {"film_psnr": round(float(np.mean(rows)), 3)}
