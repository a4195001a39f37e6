"""Frames as restoring over time takes them: the planes as they are stored.

Nothing is converted to RGB and back, so what is not changed stays as it was, bit for
bit: planes are those of the decoded frame, luma and chroma or green, blue and red, in
8 to 16 bits.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from etils import epy

with epy.lazy_imports():
    import cv2

# Rec. 601, in the order of the planes: green, blue, red.
_LUMA = (0.587, 0.114, 0.299)

# A frame doubles the one before where no square of so many pixels differs on average
# by so many levels of 255: what coding a copy again leaves, and less than grain does.
_SQUARE = 8
_DOUBLED = 1.5

# Copies of a frame that are held together.
MOST_COPIES = 8

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How planes are to be read.

    Attributes:
      bits: of each sample.
      colors: "yuv", "rgb" (planes green, blue, red) or "gray".
      alpha: whether the last plane is opacity, which is never changed.
      full: whether samples use the full range; else black is at 16 of 255.
    """

    bits: int = 8
    colors: str = "yuv"
    alpha: bool = False
    full: bool = False

    @property
    def top(self) -> int:
        """The largest sample."""
        return (1 << self.bits) - 1

    @property
    def black(self) -> int:
        """The sample of black in luma, green, blue and red."""
        return 0 if self.full or self.colors == "rgb" else 16 << (self.bits - 8)


@dataclasses.dataclass(frozen=True)
class Still:
    """One frame.

    Attributes:
      number: from 0, in the order of showing.
      planes: uint8 or uint16 (height, width) each; chroma may be smaller.
      grey: uint8 (height, width), its luma.
      scratched: where standing scratches were filled, bool (height, width), or None.
      given: what the user's mask marks, bool (height, width), or None.
      copies: later frames that show the same, which are restored alike.
      tag: what goes with the frame to the encoder.
    """

    number: int
    planes: tuple[np.ndarray, ...]
    grey: np.ndarray
    scratched: np.ndarray | None = None
    given: np.ndarray | None = None
    copies: tuple["Still", ...] = ()
    tag: Any = None


def to_grey(planes: Sequence[np.ndarray], layout: Layout) -> np.ndarray:
    """Returns the luma of planes as uint8, at their range."""
    shift = layout.bits - 8
    if layout.colors != "rgb":
        return (planes[0] >> shift).astype(np.uint8) if shift else planes[0]
    total = sum(
        weight * plane.astype(np.float32)
        for weight, plane in zip(_LUMA, planes, strict=False)
    )
    return (total / (1 << shift) + 0.5).astype(np.uint8)


def colored(planes: Sequence[np.ndarray], layout: Layout) -> int:
    """Returns how many of the planes are not opacity."""
    return len(planes) - layout.alpha


def zero(index: int, layout: Layout) -> int:
    """Returns the sample that brightness does not move: black, or no color.

    Args:
      index: of the plane.
      layout: of the planes.
    """
    if layout.colors == "yuv" and index in (1, 2):
        return 1 << (layout.bits - 1)
    return layout.black


def mask_at(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns a mask for a plane of another size; what is partly covered counts."""
    if mask.shape == shape:
        return mask
    small = cv2.resize(
        mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA
    )
    return small > 0


def is_doubled(one: np.ndarray, other: np.ndarray) -> bool:
    """Returns whether two frames' luma shows the same, but for coding."""
    height, width = (side // _SQUARE * _SQUARE for side in one.shape)
    if not height or not width:
        return bool(np.array_equal(one, other))
    if np.abs(one[::7, ::7].astype(np.int16) - other[::7, ::7]).mean() > _DOUBLED:
        return False
    difference = np.abs(one[:height, :width].astype(np.int16) - other[:height, :width])
    squares = difference.reshape(height // _SQUARE, _SQUARE, width // _SQUARE, _SQUARE)
    return float(squares.mean((1, 3)).max()) < _DOUBLED


def undoubled(frames: Iterable[Still]) -> Iterator[Still]:
    """Yields each frame once, with those that double it as its copies.

    Dirt on a frame that was doubled, as for another frame rate, lies on both, where
    neighbours cannot show it.
    """
    held: Still | None = None
    for frame in frames:
        if held is None:
            held = frame
        elif len(held.copies) < MOST_COPIES and is_doubled(held.grey, frame.grey):
            given = held.given
            if frame.given is not None:
                given = frame.given if given is None else given | frame.given
            copies = (*held.copies, frame)
            held = dataclasses.replace(held, copies=copies, given=given)
        else:
            yield held
            held = frame
    if held is not None:
        yield held


def windows(items: Iterable[T], radius: int) -> Iterator[tuple[list[T], T, list[T]]]:
    """Yields each item with those before and after it, nearest to it innermost.

    Args:
      items: any.
      radius: the most on each side.

    Yields:
      (before, item, after), the lists in the order of the items.
    """
    before: list[T] = []
    ahead: list[T] = []
    for item in items:
        ahead.append(item)
        if len(ahead) > radius:
            current = ahead.pop(0)
            yield before, current, list(ahead)
            before = [*before, current][-radius:]
    while ahead:
        current = ahead.pop(0)
        yield before, current, list(ahead)
        before = [*before, current][-radius:]
