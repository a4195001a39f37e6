"""Chunks of WebP files."""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from restoration.images.metadata import blocks, dependent

# Bits of the extended header.
_ICC, _ALPHA, _EXIF, _XMP = 0x20, 0x10, 0x08, 0x04

Chunk = tuple[bytes, bytes]


def _chunks(file: BinaryIO) -> Iterator[Chunk]:
    mark, _, form = struct.unpack("<4sI4s", blocks.take(file, 12))
    if (mark, form) != (b"RIFF", b"WEBP"):
        raise blocks.MalformedError("not a WebP file")
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        yield name, blocks.take(file, length)
        file.seek(length % 2, os.SEEK_CUR)


def is_lossless(path: str | os.PathLike) -> bool:
    """Returns whether the pixels of a WebP file are kept without loss."""
    with open(path, "rb") as file:
        return any(name == b"VP8L" for name, _ in _chunks(file))


def _size(path: str | os.PathLike, chunks: list[Chunk]) -> tuple[int, int, bool]:
    """Returns width, height and whether there is alpha."""
    for name, data in chunks:
        if name == b"VP8X":
            width, height = (int.from_bytes(data[i : i + 3], "little") for i in (4, 7))
            return width + 1, height + 1, bool(data[0] & _ALPHA)
        if name == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 1)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
        if name == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 6)
            return width & 0x3FFF, height & 0x3FFF, False
    raise blocks.MalformedError(f"{path} holds no picture")


def read(path: str | os.PathLike) -> blocks.Blocks:
    """Returns the blocks of a WebP file; WebP cannot hold IPTC."""
    with open(path, "rb") as file:
        found = dict(_chunks(file))
    exif = found.get(b"EXIF", b"")
    # Some writers put the mark in front that only JPEG has.
    exif = exif.removeprefix(b"Exif\0\0")
    return blocks.Blocks(exif, found.get(b"XMP ", b""), b"", found.get(b"ICCP", b""))


def insert(
    path: str | os.PathLike,
    found: blocks.Blocks,
    *,
    resolution: tuple[float, float] | None = None,
) -> list[str]:
    """Puts blocks into a WebP file, which has no resolution of its own.

    Returns:
      The names of those without room.
    """
    del resolution
    with open(path, "rb") as file:
        own = list(_chunks(file))
    width, height, alpha = _size(path, own)
    picture = [c for c in own if c[0] in (b"ALPH", b"VP8 ", b"VP8L")]
    flags = _ALPHA * alpha + _ICC * bool(found.icc)
    flags += _EXIF * bool(found.exif) + _XMP * bool(found.xmp)
    sizes = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    chunks = [
        (b"VP8X", bytes([flags, 0, 0, 0]) + sizes),
        (b"ICCP", found.icc),
        *picture,
        (b"EXIF", found.exif),
        (b"XMP ", found.xmp),
    ]
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
        if data
    )
    with blocks.rewriting(path) as (_, new):
        new.write(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)
    return ["IPTC"] if found.iptc else []


_KNOWN = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"EXIF", b"XMP "}


def copy_metadata(
    source: str | os.PathLike,
    target: str | os.PathLike,
    preview: dependent.Preview,
    *,
    profile: bool = True,
) -> list[str]:
    """Puts the metadata of one WebP file into another, replacing its own.

    Args:
      source: where it is.
      target: the file to change.
      preview: makes small copies of the target's picture.
      profile: whether the color profile goes too.

    Returns:
      What was dropped since it depends on the old pixels, or is not known.
    """
    with open(source, "rb") as file:
        others = [name for name, _ in _chunks(file) if name not in _KNOWN]
    found, dropped = dependent.renew(read(source), preview)
    icc = found.icc if profile else b""
    insert(target, blocks.Blocks(found.exif, found.xmp, b"", icc))
    names = {b"C2PA": dependent.CREDENTIALS}
    return dropped + [
        names.get(name, f"the chunk {name.decode('ascii', 'replace')}")
        for name in others
    ]
