"""DPX files of one picture (SMPTE ST 268): RGB, RGBA and grey of 8 to 16 bits.

Written files are the source's with other pixels: its header and what lies around the
pixels stay byte for byte.
"""

import dataclasses
import os
import pathlib
import struct
from typing import BinaryIO

import numpy as np

from restoration.images.metadata import blocks

SUFFIXES = (".dpx",)

_MAGIC = {b"SDPX": ">", b"XPDS": "<"}

# Descriptors of the one element, and their channels.
_CHANNELS = {6: 1, 50: 3, 51: 4}

# Printing density and logarithmic: film's own scale.
_LOGARITHMIC = {1, 3}

_UNDEFINED = 0xFFFFFFFF

# EXIF's orientations by this standard's: which way lines and pixels in them run.
_ORIENTATIONS = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 6, 6: 8, 7: 7}


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file holds.

    Attributes:
      order: `<` or `>`.
      width: pixels.
      height: pixels.
      bands: channels.
      bits: of each value.
      transfer: the standard's number of the transfer function.
      start: where pixels begin.
      row: bytes of a row of pixels.
      orientation: EXIF's number of how the picture is to be held.
    """

    order: str
    width: int
    height: int
    bands: int
    bits: int
    transfer: int
    start: int
    row: int
    orientation: int = 1

    @property
    def dtype(self) -> str:
        """Numpy's name of the values' type."""
        return "uint8" if self.bits == 8 else "uint16"

    @property
    def white(self) -> int:
        """The highest value."""
        return (1 << self.bits) - 1

    @property
    def logarithmic(self) -> bool:
        """Whether values are film densities.

        Values that are called linear are taken as they are shown: programs that write
        10 bits of light as linear do not exist, those that call video linear do.
        """
        return self.transfer in _LOGARITHMIC


def recognizes(start: bytes) -> bool:
    """Returns whether a file begins as these do."""
    return start[:4] in _MAGIC


def read_header(file: BinaryIO) -> Header:
    """Reads the header of a file.

    Raises:
      MalformedError: for what is no such file, or of a kind that is not read.
    """
    file.seek(0)
    head = blocks.take(file, 1664)
    order = _MAGIC.get(head[:4])
    if not order:
        raise blocks.MalformedError("not a DPX file")
    held, elements, width, height = struct.unpack_from(f"{order}HHII", head, 768)
    descriptor, transfer, _, bits = head[800:804]
    packing, encoding, offset, padding = struct.unpack_from(f"{order}HHII", head, 804)
    (offset_of_file,) = struct.unpack_from(f"{order}I", head, 4)
    if elements != 1 or descriptor not in _CHANNELS:
        raise blocks.UnsupportedError(
            f"{elements} DPX elements of kind {descriptor}, of which one of RGB, RGBA "
            "or grey is read"
        )
    if encoding not in (0, 0xFFFF):
        raise blocks.UnsupportedError("run-length encoded DPX")
    (signed,) = struct.unpack_from(f"{order}I", head, 780)
    if signed == 1:
        raise blocks.UnsupportedError("DPX of signed values")
    bands = _CHANNELS[descriptor]
    fits = bits in (8, 16) or (
        packing == 1 and (bits == 12 or (bands > 1 and bits == 10))
    )
    if not fits:
        raise blocks.UnsupportedError(
            f"DPX of {bits} bits of {bands} channels in packing {packing}"
        )
    if not width or not height:
        raise blocks.MalformedError("no pixels")
    start = offset if 0 < offset < _UNDEFINED else offset_of_file
    count = width * bands
    plain = {8: count, 10: -(-count // 3) * 4}.get(bits, 2 * count)
    end = file.seek(0, os.SEEK_END)
    row = plain + (padding if padding < _UNDEFINED else 0)
    aligned = -(-plain // 4) * 4
    if row == plain and end >= start + aligned * height:
        row = aligned
    if end < start + row * height:
        raise blocks.MalformedError("it ends too early")
    orientation = _ORIENTATIONS.get(held, 1)
    return Header(order, width, height, bands, bits, transfer, start, row, orientation)


def read(path: pathlib.Path) -> np.ndarray:
    """Returns a file's values, (height, width, bands)."""
    with path.open("rb") as file:
        header = read_header(file)
        file.seek(header.start)
        data = blocks.take(file, header.row * header.height)
    rows = np.frombuffer(data, np.uint8).reshape(header.height, header.row)
    count = header.width * header.bands
    if header.bits == 8:
        values = rows[:, :count]
    elif header.bits == 10:
        size = -(-count // 3) * 4
        words = np.ascontiguousarray(rows[:, :size]).view(f"{header.order}u4")
        parts = [(words >> shift) & 1023 for shift in (22, 12, 2)]
        values = np.stack(parts, -1).reshape(header.height, -1)[:, :count]
    else:
        values = np.ascontiguousarray(rows[:, : 2 * count]).view(f"{header.order}u2")
        values = values >> (16 - header.bits)
    shape = (header.height, header.width, header.bands)
    return values.astype(header.dtype).reshape(shape)


def write(path: pathlib.Path, values: np.ndarray, source: pathlib.Path) -> None:
    """Writes values into a copy of another file of this format.

    Args:
      path: the file to write.
      values: (height, width, bands), of the source's size and type.
      source: whose header and other contents are taken.
    """
    with source.open("rb") as file:
        header = read_header(file)
        file.seek(0)
        data = bytearray(file.read())
    flat = values.reshape(header.height, -1)
    if header.bits == 10:
        flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 3)))
        parts = flat.reshape(header.height, -1, 3).astype(np.uint32)
        words = parts[..., 0] << 22 | parts[..., 1] << 12 | parts[..., 2] << 2
        packed = words.astype(f"{header.order}u4").view(np.uint8)
    elif header.bits == 8:
        packed = flat.astype(np.uint8)
    else:
        deep = flat.astype(np.uint16) << (16 - header.bits)
        packed = deep.astype(f"{header.order}u2").view(np.uint8)
    size = header.row * header.height
    rows = np.frombuffer(data, np.uint8, size, header.start)
    rows = rows.reshape(header.height, header.row)
    rows[:, : packed.shape[1]] = packed
    path.write_bytes(data)
