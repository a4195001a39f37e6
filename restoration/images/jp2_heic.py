"""JPEG 2000 and HEIC through the packages of the extra `formats`.

Both are read and written whole, not in strips.
"""

import dataclasses
import io
import os
import pathlib
import struct
from collections.abc import Callable, Iterator

import numpy as np
from etils import epy
from PIL import Image

from restoration.base import errors
from restoration.images import colorimetry
from restoration.images.colorimetry import Colorimetry
from restoration.images.metadata import blocks, dependent

with epy.lazy_imports():
    import imagecodecs
    import pillow_heif

_JP2, _HEIC = (".jp2", ".jpx", ".j2k", ".j2c", ".jpc"), (".heic", ".heif", ".hif")
SUFFIXES = (*_JP2, *_HEIC)

# The markers SOC and SIZ, with which a codestream begins.
_JP2_STREAM = b"\xff\x4f\xff\x51"

# What pillow-heif raises for damaged files, besides ValueError.
_HEIC_ERRORS = (RuntimeError, EOFError, SyntaxError)

_JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


@dataclasses.dataclass(frozen=True)
class Header:
    """What such a file holds; `notes` say what cannot be given back."""

    format: str
    width: int
    height: int
    bands: int
    dtype: str
    blocks: blocks.Blocks
    notes: tuple[str, ...] = ()
    colorimetry: Colorimetry | None = None


def recognises(start: bytes) -> bool:
    """Returns whether a file's first 32 bytes are of one of these formats."""
    return start.startswith((_JP2_START, _JP2_STREAM)) or _is_heic(start)


def _is_heic(start: bytes) -> bool:
    others = b"avif" in start[16:] and b"hei" not in start[16:]
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS and not others


def _missing(path: str | os.PathLike, package: str) -> errors.InputError:
    return errors.InputError(
        f"{path}: needs the package {package}; pip install 'film-restoration[formats]'"
    )


def _start(path: str | os.PathLike) -> bytes:
    with open(path, "rb") as file:
        return file.read(32)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields (name, whole box) of a JPEG 2000 file."""
    offset = 0
    while offset + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, offset)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, offset + 8)
        length = length or len(data) - offset
        if length < 8:
            raise blocks.MalformedError("a box of no length")
        yield name, data[offset : offset + length]
        offset += length


def _open_heic(path: str | os.PathLike) -> "pillow_heif.HeifFile":
    try:
        return pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
    except ImportError:
        raise _missing(path, "pillow-heif") from None
    except _HEIC_ERRORS as error:
        raise blocks.MalformedError(str(error)) from None


def _inspect_heic(path: pathlib.Path) -> Header:
    image = _open_heic(path)
    deep = ";" in image.mode
    bands = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[image.mode.split(";")[0]]
    notes = []
    if len(image) > 1:
        notes.append("only the main picture of several in the file was restored")
    beside = {
        "a gain map (HDR)": any(
            "gainmap" in name.lower() for name in image.info["aux"]
        ),
        "a depth map": bool(image.info["depth_images"]),
    }
    lost = [name for name, there in beside.items() if there]
    if lost:
        notes.append(f"left out: {', '.join(lost)} of the old pixels")
    info = image.info
    exif = (info.get("exif") or b"").removeprefix(b"Exif\0\0")
    # libheif has turned the pixels: by HEIF's own properties, beside which EXIF's
    # orientation says nothing.
    exif, packet = dependent.upright(exif, info.get("xmp") or b"")
    found = blocks.Blocks(exif, packet, b"", info.get("icc_profile") or b"")
    known = None if found.icc else _stated(info.get("nclx_profile"), bands)
    dtype = "uint16" if deep else "uint8"
    return Header("heic", *image.size, bands, dtype, found, tuple(notes), known)


def _stated(nclx: dict | None, bands: int) -> Colorimetry | None:
    """Returns what the numbers of H.273 in a file say, None for sRGB."""
    if not nclx:
        return None
    names = ("color_primaries", "transfer_characteristics", "matrix_coefficients")
    code = (*(int(nclx[name]) for name in names), int(nclx["full_range_flag"]))
    found = colorimetry.from_code(code)
    if not found or colorimetry.is_srgb(found, 1 if bands < 3 else 3):
        return None
    return found


def _jp2_header(path: pathlib.Path) -> tuple[tuple[int, int], int]:
    """Returns the width and height of a JPEG 2000 file's picture and its bits."""
    data = path.read_bytes()
    if data.startswith(_JP2_STREAM):  # a codestream without boxes
        right, bottom, left, top = struct.unpack_from(">4I", data, 8)
        return (right - left, bottom - top), (data[42] & 0x7F) + 1
    found = dict(_boxes(data))
    missing = {b"jp2h", b"jp2c"} - found.keys()
    if missing:
        raise blocks.MalformedError(f"no box {missing.pop().decode()}")
    # After the box's own head: height, width, channels, bits less one.
    offset = found[b"jp2h"].index(b"ihdr") + 4 + 10
    bits = (found[b"jp2h"][offset] & 0x7F) + 1
    # What is decoded is as large as the codestream says: ISO 15444-1, A.5.1.
    stream = found[b"jp2c"].index(_JP2_STREAM) + len(_JP2_STREAM)
    right, bottom, left, top = struct.unpack_from(">4I", found[b"jp2c"], stream + 4)
    return (right - left, bottom - top), bits


def _inspect_jp2(path: pathlib.Path, check: Callable[[int, int], None]) -> Header:
    with Image.open(path, formats=("JPEG2000",)) as image:
        width, height = image.size
        profile = image.info.get("icc_profile") or b""
    size, bits = _jp2_header(path)
    if size != (width, height):
        raise blocks.MalformedError("two sizes")
    check(width, height)
    values = _decode_jp2(path)
    bands = 1 if values.ndim == 2 else values.shape[2]
    if bits != 8 * values.dtype.itemsize or values.dtype.kind != "u":
        raise blocks.UnsupportedError(
            f"values of {bits} bits, of which 8 and 16 are read"
        )
    return Header(
        "jp2", width, height, bands, str(values.dtype), blocks.Blocks(icc=profile)
    )


def inspect(
    path: pathlib.Path, check: Callable[[int, int], None] = lambda width, height: None
) -> Header:
    """Returns what a file of these formats holds.

    Args:
      path: the file.
      check: raises where a picture of some width and height is too large; called
        before anything is decoded.

    Raises:
      InputError: when the package that reads it is not installed.
    """
    if not _is_heic(_start(path)):
        return _inspect_jp2(path, check)
    header = _inspect_heic(path)
    check(header.width, header.height)
    return header


def _decode_jp2(path: pathlib.Path) -> np.ndarray:
    try:
        codecs = imagecodecs.jpeg2k_decode
    except ImportError:
        raise _missing(path, "imagecodecs") from None
    try:
        return codecs(path.read_bytes())
    except RuntimeError as error:  # of imagecodecs
        raise blocks.MalformedError(str(error)) from None


def decode(path: pathlib.Path) -> np.ndarray:
    """Returns the stored values of a file of these formats."""
    if not _is_heic(_start(path)):
        return _decode_jp2(path)
    image = _open_heic(path)
    try:
        return np.asarray(image)
    except _HEIC_ERRORS as error:
        raise blocks.MalformedError(str(error)) from None


def _encode_jp2(
    target: pathlib.Path,
    values: np.ndarray,
    source: pathlib.Path,
    strip: bool,
    preview: dependent.Preview,
) -> list[str]:
    """Writes the boxes of the source around a codestream of other values."""
    values = values[..., 0] if values.shape[-1] == 1 else values
    stream = imagecodecs.jpeg2k_encode(
        values, level=0, reversible=True, codecformat="j2k"
    )
    data = source.read_bytes()
    if data.startswith(_JP2_STREAM):
        target.write_bytes(stream)
        return []
    result, dropped = io.BytesIO(), []
    for name, box in _boxes(data):
        if strip and name in (b"uuid", b"xml ", b"uinf"):
            continue
        if name == b"jumb" and b"c2pa" in box[:128]:
            dropped += [dependent.CREDENTIALS] * (not strip)
            continue
        if name in (b"uuid", b"xml "):
            box, lost = dependent.renew_jpegs(box, preview)
            dropped += lost
        if name == b"jp2c":
            box = struct.pack(">I4s", len(stream) + 8, b"jp2c") + stream
        result.write(box)
    target.write_bytes(result.getvalue())
    return dropped


def _encode_heic(
    target: pathlib.Path,
    values: np.ndarray,
    found: blocks.Blocks,
    code: tuple[int, int, int, int] | None,
) -> None:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[values.shape[-1]]
    deep = values.dtype == np.uint16
    image = pillow_heif.from_bytes(
        mode=f"{mode};16" if deep else mode,
        size=(values.shape[1], values.shape[0]),
        data=np.ascontiguousarray(values).tobytes(),
    )
    options = {
        "exif": found.exif and b"Exif\0\0" + found.exif,
        "xmp": found.xmp,
        "icc_profile": found.icc,
    }
    given = {name: data for name, data in options.items() if data}
    if code:
        names = ("color_primaries", "transfer_characteristics", "matrix_coefficients")
        given |= dict(zip((*names, "full_range_flag"), code, strict=True))
    image.save(str(target), quality=95, chroma="444", **given)


def encode(
    target: pathlib.Path,
    values: np.ndarray,
    source: pathlib.Path,
    strip: bool,
    preview: dependent.Preview,
) -> list[str]:
    """Writes a file of the source's format.

    Args:
      target: the file to write.
      values: array (height, width, bands) of the source's type and size.
      source: where metadata is taken from.
      strip: whether only what the pixels need is taken.
      preview: makes small copies of the new picture.

    Returns:
      What was dropped since it depends on the old pixels.
    """
    header = inspect(source)
    try:
        if header.format == "jp2":
            return _encode_jp2(target, values, source, strip, preview)
        if strip:
            found, dropped = blocks.Blocks(icc=header.blocks.icc), []
        else:
            found, dropped = dependent.renew(header.blocks, preview)
        code = header.colorimetry.code if header.colorimetry else None
        _encode_heic(target, values, found, code)
        return dropped
    except (RuntimeError, ValueError) as error:
        raise blocks.MalformedError(str(error)) from None
