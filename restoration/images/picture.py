"""Picture files as their pages, read in strips of rows, as they are stored.

Nothing is lost on the way in: values keep their depth and number of channels,
and pixels stay unrotated, in the colors of their profile. What a format stores
in a way that cannot be given back (a palette, CMYK) is told in a note.
"""

import dataclasses
import os
import pathlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from restoration.base import errors
from restoration.images import jp2_heic, metadata
from restoration.images.metadata import blocks, jpeg, png, tiff

# A batch opens many files once; remembered operations would only hold memory.
pyvips.cache_set_max(0)

# What is read, by suffix; the file's contents decide how.
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp",
    *jp2_heic.SUFFIXES,
)  # fmt: skip

# Pictures that are refused by name rather than passed over in silence.
REFUSED = (
    ".gif", ".avif", ".jxl", ".psd", ".psb", ".svg", ".exr", ".hdr", ".dng", ".cr2",
    ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".ico", ".pcx", ".tga", ".ppm",
    ".pgm", ".pbm", ".pnm",
)  # fmt: skip

_FORMATS = {
    "jpegload": "jpeg",
    "pngload": "png",
    "webpload": "webp",
    "tiffload": "tiff",
    "gifload": "gif",
}

# The pixel formats of libvips that are restored, as numpy's.
_TYPES = {"uchar": "uint8", "ushort": "uint16", "float": "float32"}

# Pixels of the rows that are read at once.
_PIXELS = 1 << 18

_READ_ERRORS = (
    pyvips.Error, OSError, ValueError, IndexError, struct.error, MemoryError,
    SyntaxError, Image.DecompressionBombError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Page:
    """One picture of a file.

    Attributes:
      number: its place in the file.
      width: pixels.
      height: pixels.
      bands: channels, colors first.
      dtype: numpy's name of the values' type.
      colors: 1 for grey, 3 for RGB; further channels are no colors.
      alpha: whether the channel after the colors is transparency.
      premultiplied: whether colors are stored multiplied by alpha.
      profile: the ICC profile of the colors, empty for sRGB.
      resolution: pixels per millimetre across and down.
      tags: what a TIFF page's directory holds.
      pyramid: "pages" or "subifds" where smaller copies lie, or "".
    """

    number: int
    width: int
    height: int
    bands: int
    dtype: str
    colors: int
    alpha: bool = False
    premultiplied: bool = False
    profile: bytes = b""
    resolution: tuple[float, float] = (1.0, 1.0)
    tags: dict[int, tiff.Entry] = dataclasses.field(default_factory=dict)
    pyramid: str = ""

    @property
    def scale(self) -> float:
        """The value of white, and of full opacity."""
        return {"uint8": 255.0, "uint16": 65535.0}.get(self.dtype, 1.0)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture file.

    Attributes:
      path: the file.
      format: "jpeg", "png", "webp", "tiff", "bmp", "jp2" or "heic".
      pages: what is restored, one but for TIFF files.
      notes: what cannot be given back as it was.
      big: whether it is a BigTIFF.
    """

    path: pathlib.Path
    format: str
    pages: tuple[Page, ...]
    notes: tuple[str, ...] = ()
    big: bool = False


def unreadable(path: str | os.PathLike, error: Exception) -> errors.InputError:
    """Returns the one line that tells of a file that cannot be read."""
    reason = " ".join((getattr(error, "detail", "") or str(error)).split())[:160]
    return errors.InputError(
        f"{path}: not a readable image ({reason or type(error).__name__}); "
        "replace or remove it"
    )


def _load(path: pathlib.Path, **options: Any) -> pyvips.Image:
    return pyvips.Image.new_from_file(
        str(path), access="sequential", fail_on="error", **options
    )


def _load_premultiplied(path: pathlib.Path, page: Page) -> pyvips.Image:
    """Opens a TIFF page whose colors are stored multiplied by alpha, as they are.

    libvips would divide them, and lose precision, if it knew; so the tag that tells
    it is changed while the file is read.
    """
    file = path.open("rb")
    order = tiff.form_of(file).order
    place = page.tags[tiff.EXTRA_SAMPLES].place
    patch = struct.pack(f"{order}H", 2)

    def read(size: int) -> bytes:
        start = file.tell()
        data = bytearray(file.read(size))
        for offset, byte in enumerate(patch, place - start):
            if 0 <= offset < len(data):
                data[offset] = byte
        return bytes(data)

    source = pyvips.SourceCustom()
    source.on_read(read)
    source.on_seek(file.seek)
    return pyvips.Image.new_from_source(
        source, "", access="sequential", fail_on="error", page=page.number
    )


def _converted(image: pyvips.Image) -> pyvips.Image:
    """Returns CMYK as RGB in sRGB, through its profile or a common one."""
    depth = 16 if image.format == "ushort" else 8
    return image.icc_transform(
        "srgb", embedded=True, input_profile="cmyk", depth=depth, intent="relative"
    )


def _check_size(
    path: pathlib.Path, sizes: Sequence[tuple[int, int]], max_pixels: int
) -> None:
    for width, height in sizes:
        if width * height > max_pixels:
            raise errors.InputError(
                f"{path}: {width}×{height} pixels are more than --max_pixels="
                f"{max_pixels}; raise it if the file is trusted"
            )


def _extra_samples(directory: tiff.Directory) -> tuple[int, ...]:
    entry = directory.get(tiff.EXTRA_SAMPLES)
    return entry.values if entry else ()


def _page(
    path: pathlib.Path, image: pyvips.Image, number: int, directory: tiff.Directory
) -> tuple[Page, list[str]]:
    notes = []
    if image.interpretation == "cmyk":
        image = _converted(image)
        notes.append("CMYK was converted to RGB (sRGB)")
        profile = b""
    else:
        known = image.get_typeof("icc-profile-data")
        profile = image.get("icc-profile-data") if known else b""
    if image.format not in _TYPES or image.interpretation in ("multiband", "lab"):
        raise errors.InputError(
            f"{path}: values of type {image.format} ({image.interpretation}) are not "
            "supported; convert it to grey or RGB of 8 or 16 bits or float"
        )
    kept = image.get_fields()
    if "palette" in kept or 3 in directory.get(262, tiff.Entry(3, b"")).values:
        notes.append("the palette became full colors")
    bits = image.get("bits-per-sample") if "bits-per-sample" in kept else 8
    if bits < 8 and "palette" not in kept:
        notes.append(f"{bits} bits became 8")
    if bits == 16 and image.format == "float":
        notes.append("floats of 16 bits became 32")
    colors = 1 if image.bands < 3 or image.interpretation in ("b-w", "grey16") else 3
    extra = _extra_samples(directory)
    alpha = image.bands > colors and (not directory or extra[:1] in ((1,), (2,)))
    return Page(
        number, image.width, image.height, image.bands, _TYPES[image.format], colors,
        alpha=alpha,
        premultiplied=alpha and extra[:1] == (1,),
        profile=profile,
        resolution=(image.xres, image.yres),
        tags=directory,
    ), notes  # fmt: skip


def _side(directory: tiff.Directory) -> tuple[int, int]:
    width, length = directory.get(256), directory.get(257)
    if not (width and length and width.values and length.values):
        raise blocks.MalformedError("a page without a size")
    return width.values[0], length.values[0]


def _halves(large: tuple[int, int], small: tuple[int, int]) -> bool:
    return (
        all(b in (a // 2, -(-a // 2)) for a, b in zip(large, small, strict=True))
        and max(large) > 1
    )


def _pyramids(
    found: Sequence[tiff.Directory],
) -> tuple[list[tuple[int, str]], list[str]]:
    """Returns (number, pyramid) of the pages to restore, and notes."""
    pages, notes, last = [], [], (0, 0)
    for number, directory in enumerate(found):
        kind = directory.get(tiff.SUBFILE)
        kind = kind.values[0] if kind and kind.values else 0
        size = _side(directory)
        tiled = tiff.TILE_WIDTH in directory
        if pages and _halves(last, size) and (kind & 1 or tiled):
            pages[-1] = (pages[-1][0], "pages")
            last = size
            continue
        if kind & 1 and len(found) > 1:
            notes.append("a thumbnail was left out")
            continue
        if kind & 4:
            raise blocks.MalformedError("a transparency mask page; flatten it")
        below = directory.get(tiff.SUB_IFDS)
        smaller = below and below.children and _halves(size, _side(below.children[0]))
        pages.append((number, "subifds" if smaller else ""))
        last = size
    if not pages:
        raise blocks.MalformedError("no full-size page")
    return pages, notes


def _inspect_tiff(path: pathlib.Path, max_pixels: int) -> Picture:
    with path.open("rb") as file:
        big = tiff.form_of(file).big
        file.seek(0)
        found = tiff.directories(file)
    numbers, notes = _pyramids(found)
    _check_size(path, [_side(found[number]) for number, _ in numbers], max_pixels)
    pages = []
    for number, pyramid in numbers:
        page, more = _page(path, _load(path, page=number), number, found[number])
        pages.append(dataclasses.replace(page, pyramid=pyramid))
        notes.extend(more)
    return Picture(path, "tiff", tuple(pages), tuple(dict.fromkeys(notes)), big)


def _inspect_pillow(path: pathlib.Path, max_pixels: int) -> Picture:
    """A BMP file: the libvips wheel has no reader."""
    with Image.open(path, formats=("BMP",)) as image:
        _check_size(path, [image.size], max_pixels)
        if image.mode not in ("RGB", "L", "RGBA", "1", "P"):
            raise blocks.MalformedError(f"mode {image.mode}")
        image.load()
        bands = {"L": 1, "RGBA": 4}.get(image.mode, 3)
        page = Page(
            0, *image.size, bands, "uint8", min(bands, 3), alpha=bands == 4
        )  # fmt: skip
    return Picture(path, "bmp", (page,))


def _inspect_extra(path: pathlib.Path, max_pixels: int) -> Picture:
    header = jp2_heic.inspect(path, lambda *size: _check_size(path, [size], max_pixels))
    page = Page(
        0, header.width, header.height, header.bands, header.dtype,
        1 if header.bands < 3 else 3,
        alpha=header.bands in (2, 4),
        profile=header.blocks.icc,
    )  # fmt: skip
    return Picture(path, header.format, (page,), header.notes)


def _inspect_vips(path: pathlib.Path, max_pixels: int) -> Picture:
    image = _load(path)
    kind = _FORMATS.get(image.get("vips-loader"))
    pages = image.get("n-pages") if "n-pages" in image.get_fields() else 1
    if kind in ("gif", "webp") and pages > 1:
        raise errors.InputError(
            f"{path}: an animated {kind.upper()} of {pages} frames; restore its "
            "frames as single pictures"
        )
    if kind not in metadata.FORMATS:
        raise errors.InputError(
            f"{path}: a {kind or 'picture'} file is not supported; convert it to PNG"
        )
    if kind == "png" and png.is_animated(path):
        raise errors.InputError(
            f"{path}: an animated PNG; restore its frames as single pictures"
        )
    _check_size(path, [(image.width, image.height)], max_pixels)
    page, notes = _page(path, image, 0, {})
    if kind == "jpeg" and jpeg.is_multiple(path):
        notes.append("only the first of several pictures in the file was restored")
    return Picture(path, kind, (page,), tuple(notes))


def inspect(path: str | os.PathLike, *, max_pixels: int = 2**63) -> Picture:
    """Finds out what a picture file holds, from its headers.

    Args:
      path: the file.
      max_pixels: the most pixels that a page may have.

    Returns:
      The picture.

    Raises:
      InputError: for a file that is missing, empty, damaged, too large, animated
        or of a kind that is not supported.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.InputError(f"{path}: no such file")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise errors.InputError(
            f"{shown}: a name that is not UTF-8; rename the file or its folder"
        ) from None
    try:
        with path.open("rb") as file:
            start = file.read(32)
        if not start:
            raise blocks.MalformedError("it is empty")
        if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _inspect_tiff(path, max_pixels)
        if start[:2] == b"BM":
            return _inspect_pillow(path, max_pixels)
        if jp2_heic.recognises(start):
            return _inspect_extra(path, max_pixels)
        return _inspect_vips(path, max_pixels)
    except errors.InputError:
        raise
    except _READ_ERRORS as error:
        raise unreadable(path, error) from None


def _whole(picture: Picture) -> np.ndarray:
    """Decodes a format that can only be read as a whole."""
    if picture.format == "bmp":
        with Image.open(picture.path) as image:
            mode = {1: "L", 3: "RGB", 4: "RGBA"}[picture.pages[0].bands]
            return np.asarray(image.convert(mode))
    return jp2_heic.decode(picture.path)


def rows(picture: Picture, page: Page) -> Iterator[np.ndarray]:
    """Reads a page from the top, a few rows at once.

    Args:
      picture: from `inspect`.
      page: one of its pages.

    Yields:
      Arrays (rows, width, bands) of the page's type.

    Raises:
      InputError: where the file is damaged.
    """
    count = max(1, _PIXELS // page.width)
    try:
        if picture.format not in metadata.FORMATS:
            values = _whole(picture).reshape(page.height, page.width, page.bands)
            for top in range(0, page.height, count):
                yield values[top : top + count]
            return
        if page.premultiplied:
            image = _load_premultiplied(picture.path, page)
        else:
            options = {"page": page.number} if picture.format == "tiff" else {}
            image = _load(picture.path, **options)
        if image.interpretation == "cmyk":
            image = _converted(image)
        region = pyvips.Region.new(image)
        for top in range(0, page.height, count):
            high = min(count, page.height - top)
            data = region.fetch(0, top, page.width, high)
            yield np.frombuffer(data, page.dtype).reshape(high, page.width, page.bands)
    except _READ_ERRORS as error:
        raise unreadable(picture.path, error) from None
