"""Where files without a profile say what their colors mean."""

import dataclasses
import io
import os
import struct

from restoration.images import colorimetry, metadata
from restoration.images.colorimetry import Colorimetry
from restoration.images.metadata import blocks, png, tiff

_TRANSFER, _WHITE, _PRIMARIES = 301, 318, 319
_COLOR_SPACE, _INTEROPERABILITY, _INDEX = 40961, 40965, 1

# Adobe RGB's gamma, as its specification gives it.
_ADOBE_GAMMA = 563 / 256

# Gammas of PNG files that mean something; others are mistakes of programs.
_LEAST_GAMMA, _MOST_GAMMA = 0.2, 5.0


def _meaningful(found: Colorimetry | None, colors: int) -> Colorimetry | None:
    """Returns a meaning that differs from sRGB and can be used, else None."""
    if not found or not colorimetry.is_usable(found):
        return None
    return None if colorimetry.is_srgb(found, colors) else found


def _rationals(entry: tiff.Entry | None) -> tuple[float, ...]:
    if not entry or entry.kind != 5:
        return ()
    pairs = struct.iter_unpack("=II", entry.data)
    return tuple(above / below if below else 0.0 for above, below in pairs)


def of_tiff(tags: tiff.Directory, colors: int) -> Colorimetry | None:
    """Returns what a TIFF page's tags 301, 318 and 319 say, None for sRGB."""
    white, primaries = (_rationals(tags.get(tag)) for tag in (_WHITE, _PRIMARIES))
    entry = tags.get(_TRANSFER)
    table = entry.values if entry else ()
    if not (len(primaries) == 6 or len(white) == 2 or table):
        return of_exif_tags(tags, colors)
    chosen = (primaries if len(primaries) == 6 else colorimetry.SRGB[:6]) + (
        white if len(white) == 2 else colorimetry.SRGB[6:]
    )
    bits = max(tags.get(258, tiff.Entry(3, b"")).values, default=8)
    size = 1 << bits if bits <= 16 else 0
    transfer = "srgb"
    if size and len(table) in (size, 3 * size):
        parts = range(0, len(table), size)
        transfer = tuple(
            tuple(value / 65535 for value in table[start : start + size])
            for start in parts
        )
    return _meaningful(Colorimetry(chosen, transfer), colors)


def of_exif_tags(tags: tiff.Directory, colors: int) -> Colorimetry | None:
    """Returns Adobe RGB where the directory of EXIF marks it (R03), else None."""
    camera = tags.get(tiff.EXIF)
    for directory in camera.children if camera else ():
        space = directory.get(_COLOR_SPACE)
        adobe = bool(space) and space.values[:1] == (2,)
        inter = directory.get(_INTEROPERABILITY)
        for child in inter.children if inter else ():
            adobe |= _INDEX in child and child[_INDEX].data[:3] == b"R03"
        if adobe and colors == 3:
            return Colorimetry(colorimetry.ADOBE_RGB, _ADOBE_GAMMA)
    return None


def of_exif(exif: bytes, colors: int) -> Colorimetry | None:
    """Returns what an EXIF block marks; a damaged block marks nothing."""
    try:
        found = tiff.directories(io.BytesIO(exif)) if exif else []
    except (blocks.MalformedError, struct.error):
        return None
    return of_exif_tags(found[0], colors) if found else None


def of_code(code: bytes) -> Colorimetry | None:
    """Returns what the content of a cICP chunk says, None where it is not known."""
    if len(code) != 4 or code[2] != 0:
        return None
    found = colorimetry.from_code(tuple(code))
    return found and dataclasses.replace(found, narrow=code[3] == 0)


def has_code(path: str | os.PathLike) -> bool:
    """Returns whether a PNG file's cICP chunk is known, which overrules a profile."""
    return of_code(dict(png.color_chunks(path)).get(b"cICP", b"")) is not None


def of_png(path: str | os.PathLike, colors: int) -> Colorimetry | None:
    """Returns what the chunks cICP, sRGB, gAMA and cHRM say, in this order."""
    chunks = dict(png.color_chunks(path))
    if found := of_code(chunks.get(b"cICP", b"")):
        return _meaningful(found, colors)
    if b"sRGB" in chunks or b"iCCP" in chunks:
        return None
    gamma, ends = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    primaries, transfer = colorimetry.SRGB, "srgb"
    if len(ends) == 32:
        values = [value / 100000 for (value,) in struct.iter_unpack(">I", ends)]
        primaries = (*values[2:], *values[:2])
    if len(gamma) == 4 and any(gamma):
        exponent = 100000 / struct.unpack(">I", gamma)[0]
        if _LEAST_GAMMA <= exponent <= _MOST_GAMMA:
            transfer = exponent
    return _meaningful(Colorimetry(primaries, transfer), colors)


def of_file(path: str | os.PathLike, kind: str, colors: int) -> Colorimetry | None:
    """Returns what a JPEG, PNG or WebP file without a profile says, None for sRGB."""
    if kind == "png" and png.color_chunks(path):
        return of_png(path, colors)
    return of_exif(metadata.FORMATS[kind].read(path).exif, colors)
