"""Segments of JPEG files."""

import contextlib
import io
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from restoration.images.metadata import blocks

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_ICC, _PHOTOSHOP, _RESOURCE = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"8BIM"
_IPTC_RESOURCE = 0x0404
_APP0, _APP1, _APP2, _APP13, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_SCAN, _TABLES = 0xDA, 0xDB

# A segment's length field counts itself.
_LARGEST = 65533

Segment = tuple[int, bytes]


def _segments(file: BinaryIO) -> Iterator[Segment]:
    """Yields (marker, payload) up to the scan, where the file then stands."""
    if blocks.take(file, 2) != b"\xff\xd8":
        raise blocks.MalformedError("not a JPEG file")
    while True:
        start = file.tell()
        mark, marker = blocks.take(file, 2)
        while marker == 0xFF:  # padding
            marker = blocks.take(file, 1)[0]
        if mark != 0xFF:
            raise blocks.MalformedError("no marker where one should be")
        if marker == _SCAN:
            file.seek(start)
            return
        (length,) = struct.unpack(">H", blocks.take(file, 2))
        yield marker, blocks.take(file, max(0, length - 2))


def _carried(marker: int, payload: bytes, profile: bool) -> bool:
    """Whether a segment tells of the picture rather than of its encoding."""
    if marker == _APP2:
        # Of several pictures in one file only the first is restored; its index
        # of the others (MPF) would point nowhere.
        return profile if payload.startswith(_ICC) else not payload.startswith(b"MPF\0")
    # APP14 says how the colors are encoded, which the writer decided.
    return (_APP0 <= marker <= 0xEF and marker != _APP14) or marker == _COMMENT


def _put(path: pathlib.Path, segments: Iterable[Segment]) -> None:
    with blocks.rewriting(path) as (old, new):
        own = [s for s in _segments(old) if not _carried(*s, profile=True)]
        new.write(b"\xff\xd8")
        for marker, payload in [*segments, *own]:
            new.write(struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload)
        blocks.copy_rest(old, new)


def carry(
    source: str | os.PathLike, target: str | os.PathLike, *, profile: bool = True
) -> None:
    """Puts the metadata segments of one JPEG file into another, replacing its own.

    Args:
      source: where they are.
      target: the file to change.
      profile: whether the color profile goes too.
    """
    with open(source, "rb") as file:
        kept = [s for s in _segments(file) if _carried(*s, profile)]
    _put(pathlib.Path(target), kept)


def is_multiple(path: str | os.PathLike) -> bool:
    """Returns whether a JPEG file holds further pictures behind the first."""
    with open(path, "rb") as file:
        return any(m == _APP2 and p.startswith(b"MPF\0") for m, p in _segments(file))


def quantisation(data: bytes) -> list[bytes]:
    """Returns the quantisation tables of a JPEG stream as they are stored.

    Args:
      data: a file, or the tables alone as TIFF keeps them.

    Returns:
      For each table 64 steps of one byte, in zigzag order; larger steps as 255.
    """
    tables, file = {}, io.BytesIO(data)
    with contextlib.suppress(blocks.MalformedError):
        for marker, payload in _segments(file):
            place = 0
            while marker == _TABLES and place < len(payload):
                deep, number = payload[place] >> 4, payload[place] & 15
                size = 128 if deep else 64
                steps = payload[place + 1 : place + 1 + size]
                if deep:
                    large = struct.iter_unpack(">H", steps)
                    steps = bytes(min(255, step) for (step,) in large)
                tables[number] = steps
                place += 1 + size
    return [tables[number] for number in sorted(tables)]


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields (number, data) of Photoshop's image resources."""
    place = 0
    while data[place : place + 4] == _RESOURCE and place + 7 < len(data):
        (number,) = struct.unpack_from(">H", data, place + 4)
        place += 6 + (data[place + 6] + 2) // 2 * 2  # a name of even length
        if place + 4 > len(data):
            return
        (length,) = struct.unpack_from(">I", data, place)
        yield number, data[place + 4 : place + 4 + length]
        place += 4 + (length + 1) // 2 * 2


def read(path: str | os.PathLike) -> blocks.Blocks:
    """Returns the blocks of a JPEG file."""
    exif = xmp = photoshop = b""
    icc = {}
    with open(path, "rb") as file:
        for marker, payload in _segments(file):
            if marker == _APP1 and payload.startswith(_EXIF):
                exif = payload[len(_EXIF) :]
            elif marker == _APP1 and payload.startswith(_XMP):
                xmp = payload[len(_XMP) :]
            elif marker == _APP2 and payload.startswith(_ICC):
                icc[payload[len(_ICC)]] = payload[len(_ICC) + 2 :]
            elif marker == _APP13 and payload.startswith(_PHOTOSHOP):
                photoshop += payload[len(_PHOTOSHOP) :]
    iptc = dict(_resources(photoshop)).get(_IPTC_RESOURCE, b"")
    return blocks.Blocks(exif, xmp, iptc, b"".join(icc[n] for n in sorted(icc)))


def _profile_segments(icc: bytes) -> list[Segment]:
    room = _LARGEST - len(_ICC) - 2
    parts = [icc[start : start + room] for start in range(0, len(icc), room)]
    return [
        (_APP2, _ICC + bytes([number, len(parts)]) + part)
        for number, part in enumerate(parts, 1)
    ]


def insert(path: str | os.PathLike, found: blocks.Blocks) -> list[str]:
    """Puts blocks into a JPEG file; returns the names of those without room."""
    wanted = {
        "EXIF": (_APP1, _EXIF, found.exif),
        "XMP": (_APP1, _XMP, found.xmp),
    }
    if found.iptc:
        head = struct.pack(">4sHHI", _RESOURCE, _IPTC_RESOURCE, 0, len(found.iptc))
        padding = b"\0" * (len(found.iptc) % 2)
        wanted["IPTC"] = (_APP13, _PHOTOSHOP, head + found.iptc + padding)
    segments, lost = [], []
    for name, (marker, mark, data) in wanted.items():
        if len(mark + data) > _LARGEST:
            lost.append(name)
        elif data:
            segments.append((marker, mark + data))
    with open(path, "rb") as file:
        # What the writer says of the resolution stays.
        own = [s for s in _segments(file) if s[0] == _APP0]
    _put(pathlib.Path(path), [*own, *segments, *_profile_segments(found.icc)])
    return lost
