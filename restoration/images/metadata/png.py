"""Chunks of PNG files."""

import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from restoration.images.metadata import blocks, dependent

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP = b"XML:com.adobe.xmp"

# They describe the pixels' encoding (a palette, significant bits), which the
# writer decides, or of an animation.
_ENCODING = {b"PLTE", b"tRNS", b"bKGD", b"hIST", b"sBIT", b"acTL", b"fcTL", b"fdAT"}
_COLOR = {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI"}

# What a compressed block may hold; a few bytes can claim gigabytes.
_MOST_BYTES = 1 << 26

Chunk = tuple[bytes, bytes]


def _chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yields (name, data) of every chunk but the pixels; the file stands after it."""
    if blocks.take(file, 8) != _SIGNATURE:
        raise blocks.MalformedError("not a PNG file")
    while True:
        length, name = struct.unpack(">I4s", blocks.take(file, 8))
        if name == b"IDAT":
            file.seek(length + 4, os.SEEK_CUR)
            continue
        data = blocks.take(file, length)
        blocks.take(file, 4)
        yield name, data
        if name == b"IEND":
            return


def is_animated(path: str | os.PathLike) -> bool:
    """Returns whether a PNG file holds an animation."""
    with open(path, "rb") as file:
        return any(name == b"acTL" for name, _ in _chunks(file))


def resolution(path: str | os.PathLike) -> tuple[float, float] | None:
    """Returns pixels per millimetre across and down, None where none is given."""
    with open(path, "rb") as file:
        known = dict(_chunks(file)).get(b"pHYs", b"")
    if len(known) != 9 or known[8] != 1:
        return None
    across, down = struct.unpack(">II", known[:8])
    return (across / 1000, down / 1000) if across and down else None


def color_chunks(path: str | os.PathLike) -> list[Chunk]:
    """Returns the chunks that say what a PNG file's colors mean."""
    with open(path, "rb") as file:
        return [(name, data) for name, data in _chunks(file) if name in _COLOR]


def _metadata(path: str | os.PathLike, profile: bool = True) -> list[Chunk]:
    # Upper case: critical, such as IHDR and IEND.
    with open(path, "rb") as file:
        return [
            (name, data)
            for name, data in _chunks(file)
            if name[:1].islower()
            and name not in _ENCODING
            and (profile or name not in _COLOR)
        ]


def _put(path: str | os.PathLike, chunks: list[Chunk]) -> None:
    """Writes chunks right after the header, instead of the file's own."""
    with blocks.rewriting(path) as (old, new):
        new.write(blocks.take(old, 8 + 25))
        for name, data in chunks:
            head = struct.pack(">I", len(data)) + name + data
            new.write(head + struct.pack(">I", zlib.crc32(name + data)))
        while True:
            head = blocks.take(old, 8)
            length, name = struct.unpack(">I4s", head)
            if name == b"IDAT" or name == b"PLTE" or name == b"tRNS":
                new.write(head + blocks.take(old, length + 4))
            elif name == b"IEND":
                new.write(head + blocks.take(old, length + 4))
                return
            else:
                old.seek(length + 4, os.SEEK_CUR)


# Chunks that a program need not know to copy end in a lower-case letter; the others
# depend on the pixels. Of these, what is known not to.
_KNOWN = {*_COLOR, b"tIME", b"sTER", b"pCAL", b"sCAL"}


def _text(data: bytes) -> tuple[bytes, bytes, bool]:
    """Returns an iTXt chunk's head, its text and whether it was compressed."""
    flag = data.index(b"\0") + 1
    start = data.index(b"\0", data.index(b"\0", flag + 2) + 1) + 1
    compressed = data[flag] == 1
    text = _inflated(data[start:]) if compressed else data[start:]
    return data[:start], text, compressed


def _renewed(
    name: bytes, data: bytes, preview: dependent.Preview
) -> tuple[bytes, list[str]]:
    """Returns a chunk's data for new pixels, b"" for none, and what it lost."""
    if name == b"eXIf":
        return dependent.renew_exif(data, preview)
    if name == b"iTXt" and data.startswith(_XMP + b"\0"):
        head, text, compressed = _text(data)
        packet, lost = dependent.renew_xmp(text, preview)
        if packet == text:
            return data, lost
        return head + (zlib.compress(packet) if compressed else packet), lost
    if data.startswith(b"Raw profile type "):  # hexadecimal, of ImageMagick
        rest = data[data.index(b"\0") + 1 :]
        text = _inflated(rest[1:]) if name == b"zTXt" else rest
        if b"ffd8ff" in re.sub(rb"\s", b"", text.lower()):
            return b"", [dependent.THUMBNAIL]
    elif name[3:4].isupper() and name not in _KNOWN:
        if name == b"caBX":
            return b"", [dependent.CREDENTIALS]
        return b"", [f"the chunk {name.decode('ascii', 'replace')}"]
    return data, []


def copy_metadata(
    source: str | os.PathLike,
    target: str | os.PathLike,
    preview: dependent.Preview,
    *,
    profile: bool = True,
) -> list[str]:
    """Puts the metadata chunks of one PNG file into another, replacing its own.

    Args:
      source: where they are.
      target: the file to change.
      preview: makes small copies of the target's picture.
      profile: whether what says what colors mean goes too.

    Returns:
      What was dropped since it depends on the old pixels.
    """
    chunks, dropped = [], []
    for name, data in _metadata(source, profile):
        changed, lost = _renewed(name, data, preview)
        dropped += lost
        if changed or not data:
            chunks.append((name, changed))
    _put(target, chunks)
    return dropped


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, _MOST_BYTES)
    except zlib.error:
        raise blocks.MalformedError("a compressed block is damaged") from None
    if not inflater.eof:
        raise blocks.MalformedError("a compressed block is cut off, or too large")
    return inflated


def read(path: str | os.PathLike) -> blocks.Blocks:
    """Returns the blocks of a PNG file; PNG cannot hold IPTC."""
    exif = xmp = icc = b""
    for name, data in _metadata(path):
        if name == b"eXIf":
            exif = data
        elif name == b"iCCP":
            icc = _inflated(data[data.index(b"\0") + 2 :])
        elif name == b"iTXt" and data.startswith(_XMP + b"\0"):
            compressed = data[len(_XMP) + 1]
            # After two flags: language and translated keyword, each ended by 0.
            text = data[len(_XMP) + 3 :].split(b"\0", 2)[-1]
            xmp = _inflated(text) if compressed else text
    return blocks.Blocks(exif=exif, xmp=xmp, icc=icc)


def insert(
    path: str | os.PathLike,
    found: blocks.Blocks,
    *,
    resolution: tuple[float, float] | None = None,
    color: Sequence[Chunk] = (),
) -> list[str]:
    """Puts blocks into a PNG file.

    Args:
      path: the file to change.
      found: the blocks.
      resolution: pixels per millimetre, if known: the file's own stays.
      color: chunks that say what colors mean, instead of a profile.

    Returns:
      The names of the blocks without room.
    """
    chunks = [(n, d) for n, d in _metadata(path) if n == b"pHYs" and resolution]
    chunks += color
    if found.icc and not color:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(found.icc)))
    if found.exif:
        chunks.append((b"eXIf", found.exif))
    if found.xmp:
        chunks.append((b"iTXt", _XMP + b"\0\0\0\0\0" + found.xmp))
    _put(path, chunks)
    return ["IPTC"] if found.iptc else []
