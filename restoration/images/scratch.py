"""Rows of a picture on disk, between the computation and the encoder.

The file is an uncompressed BigTIFF without a name: it leaves nothing behind when a
run is killed, and libvips reads it strip by strip. (Raw values it would map into
memory as a whole.)
"""

import os
import pathlib
import struct
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyvips

from restoration.images.metadata import tiff

_ROWS = 64
_SHORT, _LONG8 = 3, 16

# TIFF's numbers: photometric, extra samples of unknown meaning, sample formats.
_GREY, _RGB, _UNSPECIFIED, _ALPHA = 1, 2, 0, 2
_INTEGER, _FLOAT = 1, 3


def _shorts(*values: int) -> tiff.Entry:
    return tiff.Entry(_SHORT, struct.pack(f"={len(values)}H", *values))


def _longs(*values: int) -> tiff.Entry:
    return tiff.Entry(_LONG8, struct.pack(f"={len(values)}Q", *values))


def _base(height: int) -> int:
    """Returns where in a file the rows of a picture begin."""
    return 4096 + 16 * -(-height // _ROWS)


def create(
    folder: str | os.PathLike,
    shape: tuple[int, int, int],
    dtype: str,
    *,
    alpha: bool = True,
) -> BinaryIO:
    """Opens a file that takes rows, one after the other, as raw bytes.

    Args:
      folder: where there is room for them; made if it is not there.
      shape: height, width and channels of the picture.
      dtype: numpy's name of the values' type.
      alpha: whether a channel after the colors is transparency.

    Returns:
      The file; closing it removes it.
    """
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    height, width, bands = shape
    item = np.dtype(dtype).itemsize
    tops = range(0, height, _ROWS)
    row = width * bands * item
    counts = [min(_ROWS, height - top) * row for top in tops]
    base = _base(height)
    colors = 3 if bands >= 3 else 1
    kind = _FLOAT if dtype.startswith("float") else _INTEGER
    directory = {
        256: _longs(width),
        257: _longs(height),
        258: _shorts(*[8 * item] * bands),
        259: _shorts(1),
        262: _shorts(_RGB if colors == 3 else _GREY),
        273: _longs(*(base + top * row for top in tops)),
        277: _shorts(bands),
        278: _longs(_ROWS),
        279: _longs(*counts),
        284: _shorts(1),
        339: _shorts(*[kind] * bands),
    }
    if bands > colors:
        more = [_UNSPECIFIED] * (bands - colors - 1)
        first = _ALPHA if alpha else _UNSPECIFIED
        directory[tiff.EXTRA_SAMPLES] = _shorts(first, *more)
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    tiff.start(file, directory)
    file.write(b"\0" * (base - file.seek(0, os.SEEK_END)))
    return file


def rows(
    file: BinaryIO, shape: tuple[int, int, int], dtype: str
) -> Iterator[np.ndarray]:
    """Reads the rows that were written, a few at once; several may read together.

    Args:
      file: from `create`, with all its rows.
      shape: height, width and channels of the picture.
      dtype: numpy's name of the values' type.

    Yields:
      Arrays (rows, width, channels).
    """
    file.flush()
    height, width, bands = shape
    row, position = width * bands * np.dtype(dtype).itemsize, _base(height)
    for top in range(0, height, _ROWS):
        count = min(_ROWS, height - top)
        data = os.pread(file.fileno(), count * row, position)
        yield np.frombuffer(data, dtype).reshape(count, width, bands)
        position += len(data)


def image(file: BinaryIO, *, access: str = "sequential") -> pyvips.Image:
    """Returns the rows that were written as an image.

    Args:
      file: from `create`.
      access: "sequential" to read it once, from the top; "random" for any order.
    """
    file.flush()
    file.seek(0)
    source = pyvips.Source.new_from_descriptor(file.fileno())
    return pyvips.Image.new_from_source(
        source, "", access=access, unlimited=True, fail_on="error"
    )
