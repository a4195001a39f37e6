"""How one picture lies on another: scale and shift, found to fractions of a pixel.

Places are measured from the picture's edge, so that pixel i reaches from i to
i + 1 and its middle lies at i + 0.5: a picture's size times a factor is then the
place's too, whatever the resolution.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from restoration.film import shots
from restoration.images import similarity

# Pictures are registered at this width or height at most.
_LARGEST = 1024
_SMALLEST = 96

_ITERATIONS = 15
_SETTLED = 0.01  # pixels, by which a corner still moves

# Pictures that overlap by less, as a part of the first, are not compared.
_OVERLAP = 0.2

# Likeness is measured at this size, where grain and small dirt average out.
_COMPARED = 64

# Residuals beyond so many robust deviations are dirt and count nothing (Tukey).
_TUKEY = 4.685


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where the places (x, y) of one picture lie in another, (X, Y).

    X = scale_x · x + shift_x and Y = scale_y · y + shift_y, in pixels.
    """

    scale_x: float = 1.0
    scale_y: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    def resized(
        self, first: tuple[float, float], second: tuple[float, float]
    ) -> "Geometry":
        """Returns the same for pictures that were resized.

        Args:
          first: factors (down, across) by which the first picture was resized.
          second: those of the second one.
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
        """Returns the same for pictures that were cropped.

        Args:
          first: (left, top) of what was kept of the first picture.
          second: that of the second one.
        """
        left, top, _, _ = self.box(*first, *first)
        return dataclasses.replace(
            self, shift_x=left - second[0], shift_y=top - second[1]
        )

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple:
        """Returns where a box of the first picture lies in the second."""
        return (
            self.scale_x * left + self.shift_x,
            self.scale_y * top + self.shift_y,
            self.scale_x * right + self.shift_x,
            self.scale_y * bottom + self.shift_y,
        )


def distance(one: Geometry, other: Geometry, shape: Sequence[int]) -> float:
    """Returns by how much two differ in the picture's corners, at most, in pixels."""
    corners = 0, 0, shape[1], shape[0]
    return max(
        abs(a - b) for a, b in zip(one.box(*corners), other.box(*corners), strict=True)
    )


def median(found: Sequence[Geometry]) -> Geometry:
    """Returns the median of each number."""
    return Geometry(*np.median([dataclasses.astuple(g) for g in found], axis=0))


def common_box(
    geometry: Geometry, first: Sequence[int], second: Sequence[int]
) -> tuple[int, int, int, int]:
    """Returns the part of the first picture that the second shows too.

    Args:
      geometry: where the first lies in the second.
      first: (height, width).
      second: (height, width).

    Returns:
      (left, top, right, bottom), whole pixels of the first; empty when right is
      not above left or bottom not above top.
    """
    # A hundredth of a pixel beyond the edge is rounding, and no reason to crop.
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
    picture: np.ndarray, geometry: Geometry, box: tuple[int, int, int, int]
) -> np.ndarray:
    """Resamples the second picture onto a box of the first (Lanczos, antialiased).

    Args:
      picture: uint8 (height, width, 3), the second picture.
      geometry: where the first lies in the second.
      box: (left, top, right, bottom) in the first, from `common_box`.

    Returns:
      uint8 (bottom - top, right - left, 3).
    """
    left, top, right, bottom = geometry.box(*box)
    height, width = picture.shape[:2]
    inside = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    size = box[2] - box[0], box[3] - box[1]
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize(size, Image.LANCZOS, box=inside))


def _resized(luma: np.ndarray, factors: tuple[float, float]) -> np.ndarray:
    """Returns luma resized by about these factors (down, across), antialiased."""
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
    """Returns where the second picture reaches, a pixel from its edge at least."""
    x = geometry.scale_x * (np.arange(first[1]) + 0.5) + geometry.shift_x
    y = geometry.scale_y * (np.arange(first[0]) + 0.5) + geometry.shift_y
    return np.outer((y > 2) & (y < second[0] - 2), (x > 2) & (x < second[1] - 2))


def _step(
    first: np.ndarray, second: np.ndarray, slopes: np.ndarray, inside: np.ndarray
) -> np.ndarray | None:
    """Solves for the change of (scale_x, x, scale_y, y) about the middle.

    Least squares of first = gain · second + offset + what the change adds, with
    weights that fade out what fits badly.

    Returns:
      The four numbers, or None where the pictures do not determine them.
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
    """Moves the second picture until it lies on the first (Lucas and Kanade).

    Args:
      first: local contrast, see `shots.local_contrast`.
      second: local contrast of about the same scale.
      start: right to a pixel or two.

    Returns:
      The geometry, and the correlation of both where they overlap; 0 where they
      do not determine it.
    """
    lying, moved = start, Image.fromarray(second)
    down, right = (Image.fromarray(g) for g in np.gradient(second))
    middle_x, middle_y = first.shape[1] / 2, first.shape[0] / 2
    for _ in range(_ITERATIONS):
        inside = _inside(lying, first.shape, second.shape)
        if inside.mean() < _OVERLAP:
            return lying, 0.0
        slopes = np.stack(
            [
                _warped(image, lying, first.shape, Image.BILINEAR)
                for image in (right, down)
            ]
        )
        there = _warped(moved, lying, first.shape, Image.BICUBIC)
        change = _step(first, there, slopes, inside)
        if change is None:
            return lying, 0.0
        before = lying
        lying = Geometry(
            before.scale_x + change[0],
            before.scale_y + change[2],
            before.shift_x + change[1] - change[0] * middle_x,
            before.shift_y + change[3] - change[2] * middle_y,
        )
        if not (0.3 < lying.scale_x < 3 and 0.3 < lying.scale_y < 3):
            return before, 0.0
        if distance(lying, before, first.shape) < _SETTLED:
            break
    return lying, _correlation(first, second, lying)


def _correlation(first: np.ndarray, second: np.ndarray, lying: Geometry) -> float:
    """Returns the correlation of both where they overlap; 0 where they hardly do."""
    inside = _inside(lying, first.shape, second.shape)
    if inside.mean() < _OVERLAP:
        return 0.0
    there = _warped(Image.fromarray(second), lying, first.shape, Image.BICUBIC)
    return similarity.correlation(first[inside], there[inside])


_Factors = tuple[float, float]


def _both_resized(
    first: np.ndarray, second: np.ndarray, lying: Geometry, largest: float
) -> tuple[np.ndarray, np.ndarray, _Factors, _Factors]:
    """Returns the local contrast of both at about one scale, and what resized them."""
    factor = min(1.0, largest / max(first.shape))
    one = _resized(first, (factor, factor))
    other = _resized(
        second, (min(1, factor / lying.scale_y), min(1, factor / lying.scale_x))
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


def likeness(first: np.ndarray, second: np.ndarray, lying: Geometry) -> float:
    """Returns how alike two pictures are, as the second lies on the first.

    Args:
      first: luma (height, width), 0 to 255.
      second: luma of any size.
      lying: how they lie on each other.

    Returns:
      The correlation of their local contrast, at a small size; 0 where they hardly
      overlap.
    """
    one, other, *factors = _both_resized(first, second, lying, _COMPARED)
    return _correlation(one, other, lying.resized(*factors))


def register(first: np.ndarray, second: np.ndarray, start: Geometry) -> Geometry:
    """Finds how the second picture lies on the first, from coarse to fine.

    Args:
      first: luma (height, width), 0 to 255.
      second: luma of any size.
      start: right to some 3 % of the width.

    Returns:
      The geometry; `likeness` tells what it is worth.
    """
    # Local contrast near an edge depends on what lies beyond: so on both sides the
    # same, and once more with the edges where the first estimate puts them.
    lying = _register_common(first, second, start)
    return _register_common(first, second, lying, levels=1)


def _register_common(
    first: np.ndarray, second: np.ndarray, start: Geometry, levels: int | None = None
) -> Geometry:
    """Registers what both pictures show, on so many of the finest levels."""
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
    """Registers from coarse to fine, on so many of the finest levels."""
    lying = start
    sizes = [min(_LARGEST, max(first.shape))]
    while sizes[-1] > 2 * _SMALLEST:
        sizes.append(sizes[-1] / 2)
    for size in reversed(sizes[:levels]):
        one, other, *factors = _both_resized(first, second, lying, size)
        found, _ = refine(one, other, lying.resized(*factors))
        lying = found.resized(*((1 / down, 1 / across) for down, across in factors))
    return lying
