"""A damage mask as a brush changes it: strokes on a picture that is held upright."""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from restoration.base import errors
from restoration.images import picture, preview

# Points of all strokes together, and pixels across a brush.
_MOST_POINTS, _WIDEST = 500_000, 20_000


@dataclasses.dataclass(frozen=True)
class Stroke:
    """A line drawn with a round brush.

    Attributes:
      erase: whether damage is taken away rather than added.
      size: across the brush, pixels of the picture.
      points: (x, y) in pixels of the upright picture; (0, 0) is the corner of the
        first pixel.
    """

    erase: bool
    size: float
    points: tuple[tuple[float, float], ...]


def parse(values: Any) -> list[Stroke]:
    """Reads strokes as the page sends them.

    Args:
      values: a list of {"erase", "size", "points": [x, y, x, y, ...]}.

    Raises:
      InputError: for anything else.
    """
    strokes, count = [], 0
    try:
        for value in values:
            flat = [float(number) for number in value["points"]]
            size = float(value["size"])
            count += len(flat)
            if (
                len(flat) % 2
                or not flat
                or not 0 < size <= _WIDEST
                or not all(math.isfinite(n) and abs(n) < 1e6 for n in flat)
                or count > 2 * _MOST_POINTS
            ):
                raise ValueError
            points = tuple(zip(flat[::2], flat[1::2], strict=True))
            strokes.append(Stroke(bool(value["erase"]), size, points))
    except (TypeError, ValueError, KeyError, OverflowError):
        raise errors.InputError("strokes that the page could not have sent") from None
    return strokes


def paint(mask: np.ndarray, strokes: Iterable[Stroke]) -> np.ndarray:
    """Returns an upright mask with strokes on it, the later over the earlier.

    Args:
      mask: uint8 (height, width), see `inference.masks`.
      strokes: what is drawn.
    """
    image = Image.fromarray(np.ascontiguousarray(mask))
    draw = ImageDraw.Draw(image)
    for stroke in strokes:
        value, half = 0 if stroke.erase else 255, stroke.size / 2
        # Pillow's coordinates are those of pixels' centres.
        points = [(x - 0.5, y - 0.5) for x, y in stroke.points]
        for x, y in points:
            draw.ellipse((x - half, y - half, x + half, y + half), fill=value)
        for (x, y), (x2, y2) in itertools.pairwise(points):
            length = math.hypot(x2 - x, y2 - y)
            if length:
                across, down = (y2 - y) / length * half, (x - x2) / length * half
                corners = [
                    (x + across, y + down), (x2 + across, y2 + down),
                    (x2 - across, y2 - down), (x - across, y - down),
                ]  # fmt: skip
                draw.polygon(corners, fill=value)
    return np.asarray(image)


def read(path: pathlib.Path, source: picture.Picture) -> np.ndarray:
    """Reads a mask for a picture, as the picture's pixels are stored.

    Args:
      path: an image file: of the size of the stored pixels, or of the picture when it
        is held upright.
      source: the picture.

    Returns:
      uint8 (height, width), see `inference.masks`.

    Raises:
      InputError: for no image, or one of another size.
    """
    mask = picture.inspect(path)
    page, wanted = mask.pages[0], source.pages[0]
    size, stored = (page.width, page.height), (wanted.width, wanted.height)
    if size not in (stored, preview.size(source)):
        raise errors.InputError(
            f"{path}: a mask of {size[0]}×{size[1]} pixels for a picture of "
            f"{stored[0]}×{stored[1]}; make them equal"
        )
    rows = []
    for values in picture.rows(mask, page):
        grey = values[..., : page.colors].mean(-1, dtype=np.float32)
        rows.append(np.rint(255 * np.clip(grey / page.scale, 0, 1)).astype(np.uint8))
    values = np.concatenate(rows)
    if size != stored:
        values = preview.stored(values, preview.orientation(source))
    return np.ascontiguousarray(values)


def write(path: pathlib.Path, mask: np.ndarray) -> None:
    """Writes a mask uint8 (height, width) as a PNG file."""
    Image.fromarray(mask).save(path, format="PNG", compress_level=1)


def merge(
    base: pathlib.Path | None, strokes: Sequence[Stroke], source: picture.Picture
) -> np.ndarray:
    """Returns a mask with strokes on it, as the picture's pixels are stored.

    Args:
      base: the mask's file, None for an empty mask.
      strokes: what is drawn, on the upright picture.
      source: the picture.

    Returns:
      uint8 (height, width), see `inference.masks`.
    """
    page, number = source.pages[0], preview.orientation(source)
    if base is None:
        mask = np.zeros((page.height, page.width), np.uint8)
    else:
        mask = read(base, source)
    if strokes:
        painted = paint(preview.upright(mask, number), strokes)
        mask = preview.stored(painted, number)
    return np.ascontiguousarray(mask)
