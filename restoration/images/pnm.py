"""PPM, PGM and PBM files (netpbm's P1 to P6), of 8 and 16 bits.

Pillow reads them too, but takes 16-bit color down to 8 bits.
"""

import dataclasses
import os
import pathlib
import re
from typing import BinaryIO

import numpy as np

from restoration.images.metadata import blocks

SUFFIXES = (".ppm", ".pgm", ".pbm", ".pnm")

# What a header with its comments may take.
_MOST_HEADER = 1 << 16


@dataclasses.dataclass(frozen=True)
class Header:
    """A file's header.

    Attributes:
      number: after P.
      width: pixels.
      height: pixels.
      most: the highest value.
      length: bytes of the header.
      several: whether further pictures follow.
    """

    number: int
    width: int
    height: int
    most: int
    length: int
    several: bool = False

    @property
    def bands(self) -> int:
        """Channels."""
        return 3 if self.number in (3, 6) else 1

    @property
    def dtype(self) -> str:
        """Numpy's name of the values' type."""
        return "uint16" if self.most > 255 else "uint8"


def recognizes(start: bytes) -> bool:
    """Returns whether a file begins as these do."""
    return re.match(rb"P[1-6][\s#]", start) is not None


def read_header(file: BinaryIO) -> Header:
    """Reads a header; the file then stands after it.

    Raises:
      MalformedError: when it is none.
    """
    data = file.read(_MOST_HEADER)
    number = int(data[1:2]) if recognizes(data) else 0
    if not number:
        raise blocks.MalformedError("not a PNM file")
    wanted = 2 if number in (1, 4) else 3
    gap = rb"(?:\s|#[^\r\n]*[\r\n])+"
    pattern = rb"P[1-6]" + (gap + rb"(\d{1,9})") * wanted + rb"(?:#[^\r\n]*)?\s"
    found = re.match(pattern, data)
    if not found:
        raise blocks.MalformedError("a header without its numbers")
    width, height, *most = (int(text) for text in found.groups())
    highest = most[0] if most else 1
    if not (width and height and 0 < highest < 65536):
        raise blocks.MalformedError("a header with a number out of range")
    header = Header(number, width, height, highest, found.end())
    if number < 4:
        file.seek(header.length)
        return header
    end = header.length + _size(header)
    whole = file.seek(0, os.SEEK_END)
    if data[header.length - 1 :][:2] == b"\r\n" and whole == end + 1:
        header, end = dataclasses.replace(header, length=header.length + 1), end + 1
    file.seek(end)
    several = recognizes(file.read(3))
    file.seek(header.length)
    return dataclasses.replace(header, several=several)


def _size(header: Header) -> int:
    """Returns how many bytes a file's binary pixels take."""
    if header.number == 4:
        return -(-header.width // 8) * header.height
    return header.width * header.height * header.bands * (1 + (header.most > 255))


def _plain(data: bytes, header: Header, count: int) -> np.ndarray:
    """Returns the numbers of a file that is written as text."""
    text = re.sub(rb"#[^\r\n]*", b" ", data)
    if header.number == 1:  # digits need no space between them
        digits = np.frombuffer(bytes(b for b in text if b in b"01"), np.uint8)
        return digits[:count] - ord("0")
    numbers = np.array(text.split()[:count], dtype=np.int64)
    return numbers


def read(path: pathlib.Path) -> np.ndarray:
    """Returns a file's values, (height, width, bands); those of PBM are 0 and 255.

    Raises:
      MalformedError: where it is cut off or not of this format.
    """
    with path.open("rb") as file:
        header = read_header(file)
        data = file.read()
    shape = (header.height, header.width, header.bands)
    count = header.height * header.width * header.bands
    if header.number == 4:
        packed = np.frombuffer(data[: _size(header)], np.uint8)
        if packed.size < _size(header):
            raise blocks.MalformedError("it ends too early")
        bits = np.unpackbits(packed.reshape(header.height, -1), axis=1)
        return (255 * (1 - bits[:, : header.width]))[..., None]
    if header.number < 4:
        try:
            values = _plain(data, header, count)
        except (ValueError, OverflowError):
            raise blocks.MalformedError("text that is no number") from None
    else:
        kind = ">u2" if header.most > 255 else "u1"
        size = _size(header)
        values = np.frombuffer(data[:size], kind) if len(data) >= size else data[:0]
    if len(values) < count:
        raise blocks.MalformedError("it ends too early")
    if header.number == 1:
        values = 255 * (1 - values)
    elif values.max(initial=0) > header.most or values.min(initial=0) < 0:
        raise blocks.MalformedError("a value above the highest")
    return values.astype(header.dtype).reshape(shape)


def write(path: pathlib.Path, values: np.ndarray, source: pathlib.Path) -> None:
    """Writes values under the header of another file of these formats.

    Comments stay. What was text becomes binary, as what was of 1 bit becomes PGM.

    Args:
      path: the file to write.
      values: (height, width, bands), of the source's type.
      source: the file whose header is taken.
    """
    with source.open("rb") as file:
        header = read_header(file)
        file.seek(0)
        head = bytearray(file.read(header.length))
    if header.number in (1, 4):
        head = bytearray(head.rstrip() + b"\n255\n")
    head[1:2] = b"6" if values.shape[-1] == 3 else b"5"
    deep = values.dtype == np.uint16
    with path.open("wb") as file:
        file.write(bytes(head))
        file.write(values.astype(">u2").tobytes() if deep else values.tobytes())
