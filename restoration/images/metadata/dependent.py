"""Metadata that depends on the pixels: renewed for new pixels, or dropped and named.

Thumbnails and previews show the old picture; a gain map, depth map or signature holds
for the old pixels alone. A JPEG stream inside a block is replaced where it lies by a
small copy of the new picture, filled up with zeros to the same length, so that every
offset holds and every other byte stays (maker notes are full of offsets).

Sources: Exif 3.0 (thumbnails), Adobe's XMP and Photoshop specifications, Google's
Ultra HDR and Motion Photo formats, ISO 21496-1, C2PA 2.1.
"""

import base64
import io
import re
import struct
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from restoration.images.metadata import blocks

# Of width, height and the most bytes: a JPEG of the new picture that fits, or b"".
Preview = Callable[[int, int, int], bytes]

_START = b"\xff\xd8\xff"
_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")

# Frame headers, which hold height and width.
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB}

THUMBNAIL = "a thumbnail of the old pixels"
CREDENTIALS = "content credentials (C2PA), which sign the old pixels"
GAIN_MAP = "the gain map (HDR) of the old pixels"
VIDEO = "the video of the motion photo"
BEHIND = "pictures behind the first"
OTHER_DATA = "data behind the picture"
EXTENDED = "extended XMP with pictures of the old pixels"
LAYERS = "layers of the old pixels"


def jpeg_extent(data: bytes, start: int) -> tuple[int, int, int]:
    """Returns the end, width and height of a JPEG stream in other data.

    The end is 0 where it is none, or is cut off; the size is then what was found.
    """
    offset, width, height = start + 2, 0, 0
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:
            offset += 1
            continue
        if marker == 0xD9:
            return (offset + 2 if width and height else 0), width, height
        (length,) = struct.unpack_from(">H", data, offset + 2)
        if marker in _FRAMES and offset + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, offset + 5)
        offset += 2 + length
        if marker == 0xDA:
            found = _AFTER_SCAN.search(data, offset)
            if not found:
                return 0, width, height
            offset = found.start(1) - 1
    if data[offset : offset + 2] == b"\xff\xd9" and width and height:
        return offset + 2, width, height
    return 0, width, height


def jpegs(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yields start, end, width and height of each whole JPEG stream in other data."""
    start = data.find(_START)
    while start >= 0:
        end, width, height = jpeg_extent(data, start)
        if end:
            yield start, end, width, height
        start = data.find(_START, end or start + 3)


def renew_jpegs(data: bytes, preview: Preview) -> tuple[bytes, list[str]]:
    """Replaces every JPEG stream in a block by a small copy of the new picture.

    Args:
      data: a block of metadata.
      preview: makes the copies.

    Returns:
      The block, as long as before, and what had to be dropped from it.
    """
    found = list(jpegs(data))
    result, dropped = bytearray(data), []
    for start, end, width, height in found:
        small = preview(width, height, end - start)
        if not small:
            dropped.append(THUMBNAIL)
        result[start:end] = small.ljust(end - start, b"\0")
    return bytes(result), dropped


def _without_plain_thumbnail(exif: bytes) -> tuple[bytes, list[str]]:
    """Unlinks and blanks a second directory whose thumbnail is not a JPEG."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if not order:
        return exif, []
    (first,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, first)
    link = first + 2 + 12 * count
    (second,) = struct.unpack_from(f"{order}I", exif, link)
    if not second:
        return exif, []
    (count,) = struct.unpack_from(f"{order}H", exif, second)
    tags = {}
    for offset in range(second + 2, second + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", exif, offset)
        code = f"{order}H" if kind == 3 else f"{order}I"
        tags[tag] = (number, struct.unpack_from(code, exif, offset + 8)[0])
    # 513: a JPEG, which is renewed where it lies; 273, 279: strips.
    if 513 in tags or 273 not in tags or 279 not in tags:
        return exif, []
    result = bytearray(exif)
    struct.pack_into(f"{order}I", result, link, 0)
    if tags[273][0] == tags[279][0] == 1:
        start, size = tags[273][1], tags[279][1]
        result[start : start + size] = b"\0" * len(result[start : start + size])
    return bytes(result), [THUMBNAIL]


def renew_exif(exif: bytes, preview: Preview) -> tuple[bytes, list[str]]:
    """Returns an EXIF block with thumbnails of the new pixels, and what was dropped."""
    try:
        exif, dropped = _without_plain_thumbnail(exif)
    except struct.error:  # a damaged block stays as it is, but for its pictures
        dropped = []
    exif, more = renew_jpegs(exif, preview)
    return exif, dropped + more


_BASE64 = re.compile(rb"/9j/(?:[A-Za-z0-9+/=\s]|&#x?[0-9A-Fa-f]+;){64,}")


def _renew_base64(packet: bytes, preview: Preview) -> tuple[bytes, list[str]]:
    dropped = []

    def replaced(found: re.Match) -> bytes:
        text = re.sub(rb"&#x?[0-9A-Fa-f]+;|\s|=", b"", found[0])
        data = base64.b64decode(text + b"=" * (-len(text) % 4))
        _, width, height = jpeg_extent(data, 0)
        small = preview(width, height, len(found[0]) // 4 * 3) if width else b""
        if not small:
            dropped.append(THUMBNAIL)
        return base64.b64encode(small).ljust(len(found[0]))

    return _BASE64.sub(replaced, packet), dropped


def _prefix(packet: bytes, address: bytes, usual: bytes) -> bytes:
    found = re.search(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(address), packet)
    return found[1] if found else usual


def _without(packet: bytes, name: bytes) -> bytes:
    """Returns a packet without a property, as attribute or element."""
    packet = re.sub(rb"\s+" + name + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", b"", packet)
    element = rb"<" + name + rb"(?:\s[^>]*)?(?:/>|>.*?</" + name + rb">)"
    return re.sub(element, b"", packet, flags=re.DOTALL)


_CAMERA, _CONTAINER = (
    b"http://ns.google.com/photos/1.0/camera/",
    (b"http://ns.google.com/photos/1.0/container/"),
)
_HDR = b"http://ns.adobe.com/hdr-gain-map/1.0/"


def _without_items(packet: bytes, kinds: tuple[bytes, ...]) -> bytes:
    """Returns a packet whose container lists no items of some meaning."""
    prefix = _prefix(packet, _CONTAINER, b"Container")

    def kept(found: re.Match) -> bytes:
        semantic = re.search(rb"Semantic\s*(?:=\s*[\"']|>)\s*(\w+)", found[0])
        return b"" if semantic and semantic[1] in kinds else found[0]

    item = rb"<rdf:li\b(?:(?!</rdf:li>|<rdf:li\b).)*?</rdf:li>\s*"
    packet = re.sub(item, kept, packet, flags=re.DOTALL)
    listed = re.findall(rb"Semantic\s*(?:=\s*[\"']|>)\s*(\w+)", packet)
    return (
        packet
        if set(listed) - {b"Primary"}
        else _without(packet, prefix + rb":Directory")
    )


def drop_gain_map(packet: bytes) -> bytes:
    """Returns an XMP packet that speaks of no gain map."""
    prefix = _prefix(packet, _HDR, b"hdrgm")
    if prefix + b":" not in packet and b"GainMap" not in packet:
        return packet
    packet = _without(packet, prefix + rb":[\w]+")
    return _without_items(packet, (b"GainMap", b"RecoveryMap"))


def drop_video(packet: bytes) -> bytes:
    """Returns an XMP packet that speaks of no motion photo."""
    prefix = _prefix(packet, _CAMERA, b"GCamera")
    if prefix + b":M" not in packet and b"MotionPhoto" not in packet:
        return packet
    packet = _without(packet, prefix + rb":(?:MotionPhoto|MicroVideo)\w*")
    return _without_items(packet, (b"MotionPhoto",))


def renew_xmp(
    packet: bytes, preview: Preview, *, video: bool = False, extended: bool = False
) -> tuple[bytes, list[str]]:
    """Returns an XMP packet that says nothing untrue of the new pixels.

    Args:
      packet: the packet.
      preview: makes copies of the new picture.
      video: whether a motion photo's video is written too, at the end.
      extended: whether the extended part is written too.

    Returns:
      The packet, of which all else stays byte for byte, and what was dropped.
    """
    packet, dropped = _renew_base64(packet, preview)
    packet = drop_gain_map(packet)
    if not video:
        packet = drop_video(packet)
    if not extended:
        packet = _without(packet, rb"xmpNote:HasExtendedXMP")
    # Where the content credentials are.
    return _without(packet, rb"dcterms:provenance"), dropped


def upright(exif: bytes, packet: bytes) -> tuple[bytes, bytes]:
    """Returns EXIF and XMP that say that pixels lie upright, orientation 1."""
    result = bytearray(exif)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        (first,) = struct.unpack_from(f"{order or '<'}I", exif, 4) if order else (0,)
        (count,) = struct.unpack_from(f"{order}H", exif, first) if order else (0,)
        for offset in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(f"{order}HHI", exif, offset)
            if tag == 274:
                code = {1: "B", 3: "H", 4: "I"}.get(kind, "H")
                struct.pack_into(f"{order}{code}", result, offset + 8, 1)
    except struct.error:
        pass
    packet = re.sub(
        rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]", rb"\g<1>1", packet
    )
    return bytes(result), packet


def renew(found: blocks.Blocks, preview: Preview) -> tuple[blocks.Blocks, list[str]]:
    """Returns blocks for another format's file, and what was dropped from them."""
    exif, dropped = renew_exif(found.exif, preview)
    packet, more = renew_xmp(found.xmp, preview)
    return blocks.Blocks(exif, packet, found.iptc, found.icc), dropped + more


def no_preview(width: int, height: int, most: int) -> bytes:
    """Makes no copy, so that thumbnails are dropped."""
    return b""


def preview_of(pixels: Callable[[], np.ndarray]) -> Preview:
    """Returns what makes previews of a picture.

    Args:
      pixels: returns it, small, as uint8 (height, width, 3); called when needed.
    """
    known = []

    def make(width: int, height: int, most: int) -> bytes:
        if not known:
            known.append(Image.fromarray(pixels()))
        small = known[0].copy()
        small.thumbnail((width, height))
        for quality in (90, 75, 60, 40, 20):
            file = io.BytesIO()
            small.save(file, "JPEG", quality=quality)
            if file.tell() <= most:
                return file.getvalue()
        return b""

    return make
