"""Registers two images: finds scale and shift to a fraction of a pixel.

Positions are measured from the image's edge: pixel i extends from i to i + 1. When an
image is resized by a factor, positions are multiplied by the same factor.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from restoration.film import shots
from restoration.images import similarity

# The longer side of the finest and of the coarsest level, in pixels, at most.
_LARGEST = 1024
_SMALLEST = 96

# Iterations end when no corner moves farther than this, in pixels.
_ITERATIONS = 15
_SETTLED = 0.01

# Images that overlap by a smaller share of the first are not compared.
_OVERLAP = 0.2

# Likeness is measured at this size, where grain and small dirt average out.
_COMPARED = 64

# Residuals beyond this many robust standard deviations have no weight (Tukey).
_TUKEY = 4.685


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Maps positions (x, y) of one image to positions (X, Y) of another.

    X = scale_x · x + shift_x and Y = scale_y · y + shift_y, in pixels.
    """

    scale_x: float = 1.0
    scale_y: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    def resized(
        self, first: tuple[float, float], second: tuple[float, float]
    ) -> "Geometry":
        """Returns the geometry after both images are resized.

        Args:
          first: factors (down, across) by which the first image is resized.
          second: those of the second image.
        """
        return Geometry(
            self.scale_x * second[1] / first[1],
            self.scale_y * second[0] / first[0],
            self.shift_x * second[1],
            self.shift_y * second[0],
        )

    def cropped(
        self, first: tuple[float, float], second: tuple[float, float]
    ) -> "Geometry":
        """Returns the geometry after both images are cropped.

        Args:
          first: (left, top) of the crop of the first image.
          second: (left, top) of the crop of the second image.
        """
        left, top, _, _ = self.box(*first, *first)
        return dataclasses.replace(
            self, shift_x=left - second[0], shift_y=top - second[1]
        )

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple:
        """Returns the position of a box of the first image in the second."""
        return (
            self.scale_x * left + self.shift_x,
            self.scale_y * top + self.shift_y,
            self.scale_x * right + self.shift_x,
            self.scale_y * bottom + self.shift_y,
        )


def distance(one: Geometry, other: Geometry, shape: Sequence[int]) -> float:
    """Returns the largest distance of the image's corners under two geometries."""
    corners = 0, 0, shape[1], shape[0]
    return max(
        abs(a - b) for a, b in zip(one.box(*corners), other.box(*corners), strict=True)
    )


def median(found: Sequence[Geometry]) -> Geometry:
    """Returns the median of each of the four numbers."""
    return Geometry(*np.median([dataclasses.astuple(g) for g in found], axis=0))


def common_box(
    geometry: Geometry, first: Sequence[int], second: Sequence[int]
) -> tuple[int, int, int, int]:
    """Returns the part of the first image that the second shows too.

    Args:
      geometry: maps the first image to the second.
      first: (height, width).
      second: (height, width).

    Returns:
      (left, top, right, bottom) in whole pixels of the first image. The part is empty
      if right is not above left or bottom not above top.
    """
    # Less than a hundredth of a pixel beyond the edge is a rounding error.
    slack = 0.01
    spans = []
    for scale, shift, near, far in (
        (geometry.scale_x, geometry.shift_x, first[1], second[1]),
        (geometry.scale_y, geometry.shift_y, first[0], second[0]),
    ):
        start = math.ceil((0 - shift) / scale - slack)
        end = math.floor((far - shift) / scale + slack)
        spans.append((max(0, start), min(near, end)))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def cut_out(
    image: np.ndarray, geometry: Geometry, box: tuple[int, int, int, int]
) -> np.ndarray:
    """Resamples the second image onto a box of the first (Lanczos, antialiased).

    Args:
      image: uint8 (height, width, 3), the second image.
      geometry: maps the first image to the second.
      box: (left, top, right, bottom) in the first image, from `common_box`.

    Returns:
      uint8 (bottom - top, right - left, 3).
    """
    left, top, right, bottom = geometry.box(*box)
    height, width = image.shape[:2]
    inside = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    size = box[2] - box[0], box[3] - box[1]
    whole = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(whole.resize(size, Image.LANCZOS, box=inside))


def _resized(luma: np.ndarray, factors: tuple[float, float]) -> np.ndarray:
    """Returns luma resized by about the factors (down, across), antialiased."""
    height, width = (
        max(8, round(size * factor))
        for size, factor in zip(luma.shape, factors, strict=True)
    )
    image = Image.fromarray(np.asarray(luma, np.float32))
    return np.asarray(image.resize((width, height), Image.BICUBIC))


def _warped(
    image: Image.Image, geometry: Geometry, shape: tuple[int, int], kernel: int
) -> np.ndarray:
    moved = image.transform(
        shape[::-1],
        Image.AFFINE,
        (geometry.scale_x, 0, geometry.shift_x, 0, geometry.scale_y, geometry.shift_y),
        resample=kernel,
    )
    return np.asarray(moved)


def _inside(
    geometry: Geometry, first: tuple[int, int], second: tuple[int, int]
) -> np.ndarray:
    """Returns the pixels of the first inside the second, 2 pixels from its edge."""
    x = geometry.scale_x * (np.arange(first[1]) + 0.5) + geometry.shift_x
    y = geometry.scale_y * (np.arange(first[0]) + 0.5) + geometry.shift_y
    return np.outer((y > 2) & (y < second[0] - 2), (x > 2) & (x < second[1] - 2))


def _step(
    first: np.ndarray, second: np.ndarray, slopes: np.ndarray, inside: np.ndarray
) -> np.ndarray | None:
    """Solves for the change of (scale_x, shift_x, scale_y, shift_y) about the middle.

    Weighted least squares of first = gain · second + offset + effect of the change;
    pixels that fit badly have little weight.

    Returns:
      The four numbers, or None if the images do not determine them.
    """
    height, width = first.shape
    x = np.broadcast_to(np.arange(width) + 0.5 - width / 2, first.shape)[inside]
    y = np.broadcast_to((np.arange(height) + 0.5 - height / 2)[:, None], first.shape)
    right, down = slopes[0][inside], slopes[1][inside]
    here, there = first[inside], second[inside]
    residual = here - there
    residual = residual - np.median(residual)
    spread = _TUKEY * 1.4826 * np.median(np.abs(residual)) + 1e-3
    weight = np.clip(1 - (residual / spread) ** 2, 0, None) ** 2
    columns = np.stack(
        [right * x, right, down * y[inside], down, there, np.ones_like(there)]
    )
    weighted = columns * weight
    normal, moment = weighted @ columns.T, weighted @ here
    try:
        found = np.linalg.solve(normal.astype(float), moment.astype(float))
    except np.linalg.LinAlgError:
        return None
    gain = found[4]
    return found[:4] / gain if gain > 0.05 else None


def refine(
    first: np.ndarray, second: np.ndarray, start: Geometry
) -> tuple[Geometry, float]:
    """Improves a geometry until it no longer changes (Lucas and Kanade 1981).

    Args:
      first: local contrast of the first image, see `shots.local_contrast`.
      second: local contrast of the second image, at about the same scale.
      start: the geometry, correct to one or two pixels.

    Returns:
      The geometry, and the correlation of the images where they overlap; 0 if they do
      not determine the geometry.
    """
    geometry, moved = start, Image.fromarray(second)
    down, right = (Image.fromarray(g) for g in np.gradient(second))
    middle_x, middle_y = first.shape[1] / 2, first.shape[0] / 2
    for _ in range(_ITERATIONS):
        inside = _inside(geometry, first.shape, second.shape)
        if inside.mean() < _OVERLAP:
            return geometry, 0.0
        slopes = np.stack(
            [
                _warped(image, geometry, first.shape, Image.BILINEAR)
                for image in (right, down)
            ]
        )
        there = _warped(moved, geometry, first.shape, Image.BICUBIC)
        change = _step(first, there, slopes, inside)
        if change is None:
            return geometry, 0.0
        before = geometry
        geometry = Geometry(
            before.scale_x + change[0],
            before.scale_y + change[2],
            before.shift_x + change[1] - change[0] * middle_x,
            before.shift_y + change[3] - change[2] * middle_y,
        )
        if not (0.3 < geometry.scale_x < 3 and 0.3 < geometry.scale_y < 3):
            return before, 0.0
        if distance(geometry, before, first.shape) < _SETTLED:
            break
    return geometry, _correlation(first, second, geometry)


def _correlation(first: np.ndarray, second: np.ndarray, geometry: Geometry) -> float:
    """Returns the images' correlation where they overlap; 0 if they hardly do."""
    inside = _inside(geometry, first.shape, second.shape)
    if inside.mean() < _OVERLAP:
        return 0.0
    there = _warped(Image.fromarray(second), geometry, first.shape, Image.BICUBIC)
    return similarity.correlation(first[inside], there[inside])


_Factors = tuple[float, float]


def _both_resized(
    first: np.ndarray, second: np.ndarray, geometry: Geometry, largest: float
) -> tuple[np.ndarray, np.ndarray, _Factors, _Factors]:
    """Returns both images' local contrast at about one scale, and the factors."""
    factor = min(1.0, largest / max(first.shape))
    one = _resized(first, (factor, factor))
    other = _resized(
        second, (min(1, factor / geometry.scale_y), min(1, factor / geometry.scale_x))
    )
    return (
        shots.local_contrast(one),
        shots.local_contrast(other),
        _factors(one, first),
        _factors(other, second),
    )


def _factors(resized: np.ndarray, original: np.ndarray) -> _Factors:
    down, across = np.divide(resized.shape, original.shape)
    return float(down), float(across)


def likeness(first: np.ndarray, second: np.ndarray, geometry: Geometry) -> float:
    """Returns the likeness of two images under a geometry.

    Args:
      first: luma (height, width), 0 to 255.
      second: luma of any size.
      geometry: maps the first image to the second.

    Returns:
      The correlation of their local contrast at a small size, -1 to 1; 0 if they
      hardly overlap.
    """
    one, other, *factors = _both_resized(first, second, geometry, _COMPARED)
    return _correlation(one, other, geometry.resized(*factors))


def register(first: np.ndarray, second: np.ndarray, start: Geometry) -> Geometry:
    """Finds the geometry of two images, from coarse to fine.

    Args:
      first: luma (height, width), 0 to 255.
      second: luma of any size.
      start: a geometry, correct to about 3 % of the width.

    Returns:
      The geometry; check it with `likeness`.
    """
    # Local contrast depends on the image's edges, so both images are cropped to the
    # part that both show, and once more when the first estimate is known.
    geometry = _register_common(first, second, start)
    return _register_common(first, second, geometry, levels=1)


def _register_common(
    first: np.ndarray, second: np.ndarray, start: Geometry, levels: int | None = None
) -> Geometry:
    """Registers the part that both images show, on the `levels` finest levels."""
    left, top, right, bottom = common_box(start, first.shape, second.shape)
    if min(right - left, bottom - top) < _SMALLEST / 4:
        return start
    box = start.box(left, top, right, bottom)
    near = max(0, round(box[0])), max(0, round(box[1]))
    found = _register_levels(
        first[top:bottom, left:right],
        second[near[1] : round(box[3]), near[0] : round(box[2])],
        start.cropped((left, top), near),
        levels,
    )
    return found.cropped((-left, -top), (-near[0], -near[1]))


def _register_levels(
    first: np.ndarray, second: np.ndarray, start: Geometry, levels: int | None
) -> Geometry:
    """Registers from coarse to fine, on the `levels` finest levels; None: on all."""
    geometry = start
    sizes = [min(_LARGEST, max(first.shape))]
    while sizes[-1] > 2 * _SMALLEST:
        sizes.append(sizes[-1] / 2)
    for size in reversed(sizes[:levels]):
        one, other, *factors = _both_resized(first, second, geometry, size)
        found, _ = refine(one, other, geometry.resized(*factors))
        geometry = found.resized(*((1 / down, 1 / across) for down, across in factors))
    return geometry
