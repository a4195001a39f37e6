"""Segments of JPEG files."""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from restoration.images.metadata import blocks, dependent

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_ICC, _PHOTOSHOP, _RESOURCE = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"8BIM"
_IPTC_RESOURCE = 0x0404
_APP0, _APP1, _APP2, _APP11, _APP13, _APP14, _COMMENT = (
    0xE0,
    0xE1,
    0xE2,
    0xEB,
    0xED,
    0xEE,
    0xFE,
)
_SCAN, _TABLES, _END = 0xDA, 0xDB, 0xD9

# A segment's length field counts itself.
_LARGEST = 65533

Segment = tuple[int, bytes]


def _next_marker(file: BinaryIO) -> tuple[int, int]:
    """Returns the next marker and how many stray bytes lie before it, as libjpeg."""
    stray = 0
    while True:
        while blocks.take(file, 1) != b"\xff":
            stray += 1
        marker = 0xFF
        while marker == 0xFF:  # padding
            marker = blocks.take(file, 1)[0]
        if marker:
            return marker, stray
        stray += 2


def _segments(file: BinaryIO) -> Iterator[Segment]:
    """Yields (marker, payload) up to the scan, where the file then stands."""
    if blocks.take(file, 2) != b"\xff\xd8":
        raise blocks.MalformedError("not a JPEG file")
    while True:
        marker, _ = _next_marker(file)
        if marker == _SCAN:
            file.seek(-2, os.SEEK_CUR)
            return
        (length,) = struct.unpack(">H", blocks.take(file, 2))
        yield marker, blocks.take(file, max(0, length - 2))


# A marker that ends entropy-coded data: neither a stuffed byte nor a restart.
_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a file lies.

    Attributes:
      stray: bytes before markers that belong to nothing.
      end: the offset after the first picture's end marker, 0 where there is none.
    """

    stray: int
    end: int


def layout(data: bytes) -> Layout:
    """Returns how a JPEG file lies, from its markers alone."""
    file, stray = io.BytesIO(data), 0
    if file.read(2) != b"\xff\xd8":
        raise blocks.MalformedError("not a JPEG file")
    try:
        while True:
            marker, skipped = _next_marker(file)
            stray += skipped
            if marker == _END:
                return Layout(stray, file.tell())
            (length,) = struct.unpack(">H", blocks.take(file, 2))
            blocks.take(file, max(0, length - 2))
            if marker == _SCAN:
                found = _AFTER_SCAN.search(data, file.tell())
                if not found:
                    return Layout(stray, 0)
                file.seek(found.start(1) - 1)
    except blocks.MalformedError:
        return Layout(stray, 0)


def ended(data: bytes) -> bytes:
    """Returns a file without end marker as one that has it, and no stray bytes."""
    file = io.BytesIO(data)
    segments = list(_segments(file))
    padded = data[file.tell() :].rstrip(b"\xff")
    scan = padded.rstrip(b"\0")
    # Zeros at the end are padding, but for one that belongs to a byte of 255.
    scan += b"\0" * (scan != padded and scan.endswith(b"\xff"))
    head = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
        for marker, payload in segments
    )
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


def _is_copied(marker: int, payload: bytes, profile: bool) -> bool:
    """Whether a segment is about the picture rather than about its encoding."""
    if marker == _APP2:
        # Of several pictures in one file only the first is restored; the index of the
        # others (MPF) and what says how to apply a gain map would point nowhere.
        if payload.startswith(_ICC):
            return profile
        return not payload.startswith((b"MPF\0", _GAIN_MAP))
    # APP14 says how the colors are encoded, which the writer decided.
    return (_APP0 <= marker <= 0xEF and marker != _APP14) or marker == _COMMENT


def _put(path: pathlib.Path, segments: Iterable[Segment]) -> None:
    with blocks.rewriting(path) as (old, new):
        own = [s for s in _segments(old) if not _is_copied(*s, profile=True)]
        new.write(b"\xff\xd8")
        for marker, payload in [*segments, *own]:
            new.write(struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload)
        blocks.copy_rest(old, new)


def _without_credentials(segments: list[Segment]) -> tuple[list[Segment], list[str]]:
    """Leaves out JUMBF boxes of C2PA, which lie in segments of one number each."""
    numbers = {
        payload[2:4]
        for marker, payload in segments
        if marker == _APP11 and payload[:2] == b"JP" and b"c2pa" in payload[:64]
    }
    kept = [
        (marker, payload)
        for marker, payload in segments
        if not (marker == _APP11 and payload[:2] == b"JP" and payload[2:4] in numbers)
    ]
    return kept, [dependent.CREDENTIALS] * bool(numbers)


def _without_extension(segments: list[Segment]) -> tuple[list[Segment], bool, bool]:
    """Leaves out extended XMP that holds pictures.

    Returns the others, whether extended XMP is left, and whether some was left out.
    """
    parts = [p for m, p in segments if m == _APP1 and p.startswith(_EXTENSION)]
    # 40 bytes of each are a digest, the whole length and the offset.
    whole = b"".join(part[len(_EXTENSION) + 40 :] for part in parts)
    if b"/9j/" not in whole and b"GDepth" not in whole:
        return segments, bool(parts), False
    kept = [s for s in segments if not s[1].startswith(_EXTENSION)]
    return kept, False, True


def _renewed_photoshop(
    segments: list[Segment], preview: dependent.Preview
) -> tuple[list[Segment], list[str]]:
    """Renews the thumbnails in Photoshop's segments, which may cut them anywhere."""
    whole = b"".join(p[len(_PHOTOSHOP) :] for m, p in segments if _is_photoshop(m, p))
    whole, dropped = dependent.renew_jpegs(whole, preview)
    result, start = [], 0
    for marker, payload in segments:
        if _is_photoshop(marker, payload):
            size = len(payload) - len(_PHOTOSHOP)
            payload = _PHOTOSHOP + whole[start : start + size]
            start += size
        result.append((marker, payload))
    return result, dropped


def _is_photoshop(marker: int, payload: bytes) -> bool:
    return marker == _APP13 and payload.startswith(_PHOTOSHOP)


def _renewed_segment(
    marker: int,
    payload: bytes,
    preview: dependent.Preview,
    video: bool,
    extended: bool,
) -> tuple[bytes, list[str]]:
    """Returns a segment's payload for new pixels, b"" for none, and what it lost."""
    if marker == _APP0 and payload.startswith(b"JFIF\0") and len(payload) > 14:
        return payload[:12] + b"\0\0", [dependent.THUMBNAIL]
    if marker == _APP0 and payload.startswith(b"JFXX\0"):
        return b"", [dependent.THUMBNAIL]
    if marker == _APP1 and payload.startswith(_EXIF):
        exif, lost = dependent.renew_exif(payload[len(_EXIF) :], preview)
        return _EXIF + exif, lost
    if marker == _APP1 and payload.startswith(_XMP):
        packet, lost = dependent.renew_xmp(
            payload[len(_XMP) :], preview, video=video, extended=extended
        )
        return _XMP + packet, lost
    if _is_photoshop(marker, payload) or payload.startswith(_ICC):
        return payload, []
    payload, lost = dependent.renew_jpegs(payload, preview)
    start = payload.find(b"\xff\xd8\xff")
    if start >= 0:
        end, width, _ = dependent.jpeg_extent(payload, start)
        if width and not end:  # a preview that goes on in the next segments
            return b"", [*lost, dependent.THUMBNAIL]
    return payload, lost


def _renewed(
    segments: list[Segment], preview: dependent.Preview, video: bool
) -> tuple[list[Segment], list[str]]:
    """Returns segments that hold for new pixels, and what was dropped."""
    segments, dropped = _without_credentials(segments)
    segments, extended, cut = _without_extension(segments)
    dropped += [dependent.EXTENDED] * cut
    segments, more = _renewed_photoshop(segments, preview)
    dropped, result, gone = dropped + more, [], set()
    for marker, payload in segments:
        if marker in gone:
            continue
        changed, more = _renewed_segment(marker, payload, preview, video, extended)
        dropped += more
        if changed:
            result.append((marker, changed))
        elif marker != _APP0 and payload:
            gone.add(marker)
    return result, dropped


@dataclasses.dataclass(frozen=True)
class Trailer:
    """What lies behind a file's pictures.

    Attributes:
      kept: what stays true of new pixels.
      video: whether that is a motion photo's video.
      pictures: whether there were further pictures, which are not in `kept`.
    """

    kept: bytes = b""
    video: bool = False
    pictures: bool = False


def trailer(data: bytes) -> Trailer:
    """Returns what lies behind a file's pictures.

    The index of such data counts from the file's end. Further pictures are left out.
    """
    rest = data[layout(data).end :] if layout(data).end else b""
    pictures = False
    while rest:
        start = rest.find(b"\xff\xd8\xff")
        if rest[4:8] == b"ftyp":
            return Trailer(rest, True, pictures)
        plain = start >= 0 and not rest[:start].strip(b"\0")
        if plain and (end := dependent.jpeg_extent(rest, start)[0]):
            rest, pictures = rest[end:], True
            continue
        break
    video = b"ftyp" in rest[:256]
    if not video and any(True for _ in dependent.jpegs(rest)):
        return Trailer(pictures=True)
    if not rest.strip(b"\0"):
        return Trailer(pictures=pictures)
    return Trailer(rest, video or b"ftyp" in rest, pictures)


def behind(path: str | os.PathLike) -> list[str]:
    """Returns what lies behind a JPEG file's pictures, and other formats cannot keep.

    What the file's index of pictures or its gain map says is named by these.
    """
    found = trailer(pathlib.Path(path).read_bytes())
    names = _left_out(path, found)
    if found.video:
        return [*names, dependent.VIDEO]
    return names + [dependent.OTHER_DATA] * bool(found.kept.strip())


def _left_out(path: str | os.PathLike, found: Trailer) -> list[str]:
    """Returns the name of further pictures that nothing in the file names."""
    listed = is_multiple(path) or has_gain_map(path)
    return [dependent.BEHIND] * (found.pictures and not listed)


def resolution(path: str | os.PathLike) -> tuple[float, float] | None:
    """Returns pixels per millimetre across and down by JFIF, None where not given."""
    with open(path, "rb") as file:
        for marker, payload in _segments(file):
            if marker == _APP0 and payload[:5] == b"JFIF\0" and len(payload) >= 12:
                unit, across, down = struct.unpack_from(">BHH", payload, 7)
                millimetres = {1: 25.4, 2: 10.0}.get(unit)
                if millimetres and across and down:
                    return across / millimetres, down / millimetres
    return None


def has_gain_map(path: str | os.PathLike) -> bool:
    """Returns whether a JPEG file says that it holds a gain map for HDR."""
    with open(path, "rb") as file:
        return any(
            (m == _APP2 and p.startswith(_GAIN_MAP))
            or (m == _APP1 and p.startswith(_XMP) and b"hdr-gain-map" in p)
            for m, p in _segments(file)
        )


def has_credentials(path: str | os.PathLike) -> bool:
    """Returns whether a JPEG file holds content credentials (C2PA)."""
    with open(path, "rb") as file:
        return bool(_without_credentials(list(_segments(file)))[1])


def copy_metadata(
    source: str | os.PathLike,
    target: str | os.PathLike,
    preview: dependent.Preview,
    *,
    profile: bool = True,
) -> list[str]:
    """Puts the metadata segments of one JPEG file into another, replacing its own.

    What lies behind the pictures, such as a motion photo's video, goes to the end.

    Args:
      source: where they are.
      target: the file to change.
      preview: makes small copies of the target's picture.
      profile: whether the color profile goes too.

    Returns:
      What was dropped since it depends on the old pixels.
    """
    with open(source, "rb") as file:
        kept = [s for s in _segments(file) if _is_copied(*s, profile)]
        file.seek(0)
        rest = trailer(file.read())
    kept, dropped = _renewed(kept, preview, rest.video)
    _put(pathlib.Path(target), kept)
    with open(target, "ab") as file:
        file.write(rest.kept)
    dropped += _left_out(source, rest)
    return [dependent.GAIN_MAP] * has_gain_map(source) + dropped


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
            offset = 0
            while marker == _TABLES and offset < len(payload):
                deep, number = payload[offset] >> 4, payload[offset] & 15
                size = 128 if deep else 64
                steps = payload[offset + 1 : offset + 1 + size]
                if deep:
                    large = struct.iter_unpack(">H", steps)
                    steps = bytes(min(255, step) for (step,) in large)
                tables[number] = steps
                offset += 1 + size
    return [tables[number] for number in sorted(tables)]


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields (number, data) of Photoshop's image resources."""
    offset = 0
    while data[offset : offset + 4] == _RESOURCE and offset + 7 < len(data):
        (number,) = struct.unpack_from(">H", data, offset + 4)
        offset += 6 + (data[offset + 6] + 2) // 2 * 2  # a name of even length
        if offset + 4 > len(data):
            return
        (length,) = struct.unpack_from(">I", data, offset)
        yield number, data[offset + 4 : offset + 4 + length]
        offset += 4 + (length + 1) // 2 * 2


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


def _jfif(resolution: tuple[float, float] | None) -> Segment:
    """Returns the segment that states pixels per millimetre, or just square pixels."""
    unit, *density = (0, 1, 1)
    if resolution:
        unit, *density = (1, *(round(25.4 * value) for value in resolution))
    density = [min(max(value, 1), 65535) for value in density]
    return _APP0, b"JFIF\0\1\1" + struct.pack(">BHHBB", unit, *density, 0, 0)


def insert(
    path: str | os.PathLike,
    found: blocks.Blocks,
    *,
    resolution: tuple[float, float] | None = None,
) -> list[str]:
    """Puts blocks into a JPEG file.

    Args:
      path: the file to change.
      found: the blocks.
      resolution: pixels per millimetre across and down, if known.

    Returns:
      The names of the blocks without room.
    """
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
    profile = _profile_segments(found.icc)
    _put(pathlib.Path(path), [_jfif(resolution), *segments, *profile])
    return lost
