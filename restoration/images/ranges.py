"""Which value is white in files of floating-point numbers."""

import math
import struct
from collections.abc import Iterable

import numpy as np

from restoration.images.metadata import tiff

_LARGEST_SAMPLE = 341
_FLOATS = {11: "f", 12: "d"}

# The whites of integer types, whose values programs write as floats.
_WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)

# Pictures of light that are mostly above white stay below this.
_LIGHT = 16.0


def white_of_tag(directory: tiff.Directory) -> float:
    """Returns what SMaxSampleValue says, 0 where it says nothing of use."""
    entry = directory.get(_LARGEST_SAMPLE)
    if not entry:
        return 0.0
    if entry.kind in _FLOATS:
        count = len(entry.data) // struct.calcsize(_FLOATS[entry.kind])
        values = struct.unpack(f"={count}{_FLOATS[entry.kind]}", entry.data)
    else:
        values = entry.values
    largest = max(values, default=0)
    return float(largest) if math.isfinite(largest) and largest > 0 else 0.0


def white_of_values(blocks: Iterable[np.ndarray]) -> float:
    """Returns the white of floats by their own range.

    Light is stored from 0 to 1, and above 1 where a scene is lighter than white (HDR).
    So floats have another white only where most values are above 1, or where all are
    integers: the least white of an integer type that holds them, or else the largest.
    A scene whose lightest part is a few times white is one of light all the same.

    Args:
      blocks: all of a picture's colors.

    Returns:
      The white, 1 for the usual range.
    """
    largest, above, whole, count = 0.0, 0, True, 0
    for block in blocks:
        known = block[np.isfinite(block)]
        largest = max(largest, float(known.max(initial=0)))
        above += int((known > 1).sum())
        whole = whole and bool((known == np.rint(known)).all())
        count += known.size
    if largest <= 1 or not (whole or (above > count / 2 and largest > _LIGHT)):
        return 1.0
    return next((white for white in _WHITES if largest <= white), largest)
