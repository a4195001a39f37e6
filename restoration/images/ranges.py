"""Which values are black and white in files of floating-point numbers."""

import math
import struct
from collections.abc import Iterable

import numpy as np

from restoration.images.metadata import tiff

_SMALLEST_SAMPLE, _LARGEST_SAMPLE = 340, 341
_FLOATS = {11: "f", 12: "d"}

# The whites of integer types, whose values programs write as floats, and the ranges of
# signed values.
_WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
_SIGNED = ((-1.0, 1.0), (-128.0, 127.0), (-32768.0, 32767.0))

# Pictures of light that are mostly above white stay below this.
_LIGHT = 16.0

# Values are signed, and black is the least of them, where more than this share of them
# is below 0, and the least is below this part of the largest. What resampling or other
# primaries leave below 0 is less.
_NEGATIVE, _BELOW = 0.2, -0.3

Range = tuple[float, float]
USUAL = (0.0, 1.0)


def _number(directory: tiff.Directory, tag: int) -> float | None:
    """Returns the largest number of a tag, None where there is none of use."""
    entry = directory.get(tag)
    if not entry:
        return None
    if entry.kind in _FLOATS:
        count = len(entry.data) // struct.calcsize(_FLOATS[entry.kind])
        values = struct.unpack(f"={count}{_FLOATS[entry.kind]}", entry.data)
    else:
        values = entry.values
    largest = max(values, default=math.nan)
    return float(largest) if math.isfinite(largest) else None


def of_tags(directory: tiff.Directory) -> Range | None:
    """Returns black and white by SMinSampleValue and SMaxSampleValue, None without.

    Programs also write the least and largest values that occur there. So a white below
    1 is 1, and a black above 0 is 0.
    """
    white, black = (_number(directory, t) for t in (_LARGEST_SAMPLE, _SMALLEST_SAMPLE))
    if white is None or white <= 0:
        return None
    return min(black or 0.0, 0.0), max(white, 1.0)


def of_values(blocks: Iterable[np.ndarray]) -> Range:
    """Returns the black and white of floats by their own range.

    Light is stored from 0 to 1, and above 1 where a scene is lighter than white (HDR).
    So floats have another white only where most values are above 1, or where all are
    integers: the least white of an integer type that holds them, or else the largest.
    A scene whose lightest part is a few times white is one of light all the same.
    Signed values, many of which are far below 0, have a black below 0.

    Args:
      blocks: all of a picture's colors.

    Returns:
      Black and white, `USUAL` for the usual range.
    """
    least, largest, above, below, whole, count = 0.0, 0.0, 0, 0, True, 0
    for block in blocks:
        known = block[np.isfinite(block)]
        least = min(least, float(known.min(initial=0)))
        largest = max(largest, float(known.max(initial=0)))
        above += int((known > 1).sum())
        below += int((known < 0).sum())
        whole = whole and bool((known == np.rint(known)).all())
        count += known.size
    if largest > 0 and below > _NEGATIVE * count and least < _BELOW * largest:
        fitting = (r for r in _SIGNED if r[0] <= least and largest <= r[1])
        known = next(fitting, (least, largest))
        return known if least <= known[0] / 2 else (least, largest)
    if largest <= 1 or not (whole or (above > count / 2 and largest > _LIGHT)):
        return USUAL
    return 0.0, next((white for white in _WHITES if largest <= white), largest)
