"""Picture files as their pages, read in strips of rows, as they are stored.

Nothing is lost on the way in: values keep their depth and number of channels,
and pixels stay unrotated, in the colors of their profile. What a format stores
in a way that cannot be given back (a palette, CMYK) is said in a note.
"""

import dataclasses
import logging
import os
import pathlib
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from restoration.base import errors
from restoration.images import (
    bmp,
    color_sources,
    colorimetry,
    contents,
    dpx,
    infrared,
    jp2_heic,
    metadata,
    pnm,
    ranges,
)
from restoration.images.colorimetry import Colorimetry
from restoration.images.metadata import blocks, jpeg, png, tiff

# What libvips warns of is in the notes.
logging.getLogger("pyvips").setLevel(logging.ERROR)

# A batch opens many files once; remembered operations would only hold memory.
pyvips.cache_set_max(0)

_TGA = (".tga", ".targa", ".icb", ".vda", ".vst")

# What is read, by suffix; the file's contents decide how.
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff",
    ".webp", *jp2_heic.SUFFIXES, *pnm.SUFFIXES, *dpx.SUFFIXES, *_TGA,
)  # fmt: skip

# Pictures that are refused by name rather than passed over in silence.
REFUSED = (
    ".gif", ".avif", ".jxl", ".psd", ".psb", ".svg", ".exr", ".hdr", ".dng", ".cr2",
    ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".ico", ".pcx",
)  # fmt: skip

# The loaders of libvips that are used: by what a file begins with. Which one libvips
# would pick depends on its version and on what else the file holds.
_MARKS = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"BM": "bmp",
}

# The pixel formats of libvips that are restored, as numpy's.
_TYPES = {"uchar": "uint8", "ushort": "uint16", "float": "float32", "double": "float32"}

# Pixels of the rows that are read at once.
_PIXELS = 1 << 18

# What libraries say of files that are whole, but of a kind that they do not read.
_NOT_READ = re.compile(
    r"(\w+ compression) support is not configured|compression (?:scheme|tag) (\d+)"
    r"|(tiled separate planes)"
    r"|unsupported (BMP (?:bitfields|compression|pixel)[a-z ]*)",
    re.IGNORECASE,
)

_READ_ERRORS = (
    pyvips.Error, OSError, ValueError, IndexError, struct.error, MemoryError,
    SyntaxError, Image.DecompressionBombError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Page:
    """One picture of a file.

    Attributes:
      number: its index in the file.
      width: pixels.
      height: pixels.
      bands: channels, colors first.
      dtype: numpy's name of the values' type.
      colors: 1 for grey, 3 for RGB; further channels are no colors.
      alpha: whether the channel after the colors is transparency.
      infrared: the channel that is infrared, or 0 for none; no restoring touches it.
      role: "picture", or "infrared" for a page that goes with the one before it and
        is written as it is.
      premultiplied: whether colors are stored multiplied by alpha.
      profile: the ICC profile of the colors, or empty.
      colorimetry: what the colors mean where the file says it without a profile; None
        for sRGB.
      white: the value of white, where it is not the type's own.
      black: the value of black.
      opaque: the value of full opacity, where it is not white's.
      inverted: whether 0 is white.
      resolution: pixels per millimetre across and down, None where none is known.
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
    infrared: int = 0
    role: str = "picture"
    profile: bytes = b""
    colorimetry: Colorimetry | None = None
    white: float = 0.0
    black: float = 0.0
    opaque: float = 0.0
    inverted: bool = False
    resolution: tuple[float, float] | None = None
    tags: dict[int, tiff.Entry] = dataclasses.field(default_factory=dict)
    pyramid: str = ""

    @property
    def scale(self) -> float:
        """The value of white."""
        types = {"uint8": 255.0, "uint16": 65535.0}
        return self.white or types.get(self.dtype, 1.0)

    @property
    def opacity(self) -> float:
        """The value of full opacity."""
        return self.opaque or self.scale

    @property
    def plain(self) -> bool:
        """Whether values are as any format of their type stores them."""
        return not (self.white or self.black or self.inverted or self.premultiplied)


def normalized(page: Page, values: np.ndarray) -> np.ndarray:
    """Returns a page's stored values with black at 0 and white at 1, not clipped.

    Args:
      page: of what kind they are.
      values: (rows, width, bands); further channels are only scaled.

    Returns:
      float32 of the same shape.
    """
    result = values.astype(np.float32)
    span = np.float32(page.scale - page.black)
    colors = (result[..., : page.colors] - np.float32(page.black)) / span
    result[..., : page.colors] = 1 - colors if page.inverted else colors
    result[..., page.colors :] /= np.float32(page.opacity)
    return result


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture file.

    Attributes:
      path: the file.
      format: "jpeg", "png", "webp", "tiff", "bmp", "jp2", "heic", "pnm", "tga", "dpx".
      pages: what is restored, one but for TIFF files.
      notes: what cannot be given back as it was.
      big: whether it is a BigTIFF.
      ended: whether it is a JPEG file that lacks its end marker, and nothing else.
    """

    path: pathlib.Path
    format: str
    pages: tuple[Page, ...]
    notes: tuple[str, ...] = ()
    big: bool = False
    ended: bool = True


def unreadable(path: str | os.PathLike, error: Exception) -> errors.InputError:
    """Returns the one line about a file that cannot be read."""
    reason = " ".join((getattr(error, "detail", "") or str(error)).split())[:160]
    other = _NOT_READ.search(reason)
    if other:
        named, number = next(filter(None, other.groups())).strip(), other[2]
        reason = f"compression of number {number}" if number else named
    if other or isinstance(error, blocks.UnsupportedError):
        return errors.InputError(
            f"{path}: {reason}: whole, but not of a kind that is restored; convert it "
            "to plain RGB or grey, e.g. a TIFF file with LZW"
        )
    return errors.InputError(
        f"{path}: not a readable image ({reason or type(error).__name__}); "
        "replace or remove it"
    )


def _load(path: pathlib.Path, kind: str, **options: Any) -> pyvips.Image:
    """Opens a file of a format that libvips reads; names need not be UTF-8."""
    loader = getattr(pyvips.Image, f"{kind}load")
    return loader(os.fsencode(path), access="sequential", fail_on="error", **options)


def _load_ended(path: pathlib.Path) -> pyvips.Image:
    """Opens a JPEG file that lacks its end marker, or holds stray bytes."""
    data = jpeg.ended(path.read_bytes())
    return pyvips.Image.jpegload_buffer(data, access="sequential", fail_on="error")


def _jpeg_damage(path: pathlib.Path, *, ended: bool) -> str:
    """Decodes a JPEG file and returns what is wrong with it, "" where nothing is.

    Raises:
      MalformedError: where pixels are missing.
    """
    options = {"access": "sequential", "fail_on": "warning"}
    try:
        if ended:
            pyvips.Image.jpegload(os.fsencode(path), **options).avg()
        else:
            data = jpeg.ended(path.read_bytes())
            pyvips.Image.jpegload_buffer(data, **options).avg()
    except pyvips.Error as error:
        said = str(getattr(error, "detail", "") or error)
        if "premature end" in said.lower():
            raise blocks.MalformedError("it is cut short: pixels are missing") from None
        found = re.search(r"Corrupt JPEG data: ([^\n]*)", said)
        return found[1] if found else ""
    return ""


def _load_premultiplied(path: pathlib.Path, page: Page) -> pyvips.Image:
    """Opens a TIFF page whose colors are stored multiplied by alpha, as they are.

    libvips would divide them, and lose precision, if it knew; so the tag that says
    it is changed while the file is read.
    """
    file = path.open("rb")
    order = tiff.form_of(file).order
    position = page.tags[tiff.EXTRA_SAMPLES].offset
    patch = struct.pack(f"{order}H", 2)

    def read(size: int) -> bytes:
        start = file.tell()
        data = bytearray(file.read(size))
        for offset, byte in enumerate(patch, position - start):
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


def _resolution(
    image: pyvips.Image, directory: tiff.Directory
) -> tuple[float, float] | None:
    """Returns pixels per millimetre, None for what libvips puts where none is known."""
    unit = directory.get(296)
    stated = not directory or (unit and unit.values[:1] in ((2,), (3,)))
    known = (image.xres, image.yres)
    return known if stated and known != (1.0, 1.0) else None


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
        notes.append(f"{bits} bit{'s' * (bits > 1)} became 8")
    if image.format in ("float", "double") and bits in (16, 64):
        notes.append(f"floats of {bits} bits became 32")
    colors = 1 if image.bands < 3 or image.interpretation in ("b-w", "grey16") else 3
    extra = _extra_samples(directory)
    alpha = image.bands > colors and (not directory or extra[:1] in ((1,), (2,)))
    light = 0 in directory.get(262, tiff.Entry(3, b"")).values
    return Page(
        number, image.width, image.height, image.bands, _TYPES[image.format], colors,
        alpha=alpha,
        premultiplied=alpha and extra[:1] == (1,),
        profile=profile,
        # libvips turns integers over.
        inverted=light and image.format in ("float", "double"),
        resolution=_resolution(image, directory),
        tags=directory,
    ), notes  # fmt: skip


def _side(directory: tiff.Directory) -> tuple[int, int]:
    width, length = directory.get(256), directory.get(257)
    if not (width and length and width.values and length.values):
        raise blocks.MalformedError("a page without a size")
    return width.values[0], length.values[0]


# Photometric interpretations: CIELab and its variants, and LogLuv.
_OTHER_COLORS = {8: "CIELab", 9: "ICCLab", 10: "ITULab", 32844: "LogL", 32845: "LogLuv"}


def _unsupported(directory: tiff.Directory) -> str:
    """Returns why a TIFF page's values are not read, "" where they are."""
    photometric, bits, kinds = (
        directory.get(tag, tiff.Entry(3, b"")).values for tag in (262, 258, 339)
    )
    if photometric and photometric[0] in _OTHER_COLORS:
        return f"{_OTHER_COLORS[photometric[0]]} colors"
    if bits and bits[0] > 32:
        return f"values of {bits[0]} bits"
    if kinds and kinds[0] == 2:
        return "signed integers"
    if bits and bits[0] == 32 and (not kinds or kinds[0] == 1):
        return "integers of 32 bits"
    return "complex values" if kinds and kinds[0] in (5, 6) else ""


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
        reduced = contents.is_reduced(directory)
        if pages and _halves(last, size) and (reduced or tiled):
            pages[-1] = (pages[-1][0], "pages")
            last = size
            continue
        if reduced and len(found) > 1:
            notes.append("a thumbnail was left out")
            continue
        bits = directory.get(258, tiff.Entry(3, b"")).values
        if 4 in directory.get(262, tiff.Entry(3, b"")).values or (
            kind & 4 and max(bits, default=1) < 8
        ):
            raise blocks.UnsupportedError("a page that is a transparency mask")
        if reason := _unsupported(directory):
            raise blocks.UnsupportedError(reason)
        below = directory.get(tiff.SUB_IFDS)
        smaller = below and below.children and _halves(size, _side(below.children[0]))
        if below and below.children and not smaller:
            notes.append("a picture in a sub-directory was left out")
        pages.append((number, "subifds" if smaller else ""))
        last = size
    if not pages:
        raise blocks.MalformedError("no full-size page")
    return pages, notes


def _sampled(picture: Picture, page: Page) -> np.ndarray:
    """Returns every few rows of a page whole: neighbours along rows stay neighbours."""
    every = max(1, page.height // 256)
    kept, top = [], 0
    for values in rows(picture, page):
        kept.append(normalized(page, values[-top % every :: every]))
        top += len(values)
    return np.concatenate(kept)


def _with_infrared_channel(picture: Picture, page: Page) -> tuple[Page, list[str]]:
    """Finds out whether a channel after the colors is infrared.

    ExtraSamples says what it means; where that says nothing of use, or says
    transparency of values that cannot be, by how it looks.
    """
    if page.bands == page.colors or picture.format != "tiff":
        return page, []
    values = _sampled(picture, page)
    for channel in range(page.colors, page.bands):
        if infrared.is_channel(values[..., channel]):
            break
    else:
        return page, []
    changes, said = {"infrared": channel}, ""
    if channel == page.colors:
        said = "transparency by its tag, " if page.alpha else ""
        changes |= {"alpha": False, "premultiplied": False}
    note = f"channel {channel + 1} ({said}infrared by its values) stays as it is"
    return dataclasses.replace(page, **changes), [note]


def _is_named_infrared(page: Page) -> bool:
    texts = [page.tags[tag].data for tag in (270, 285) if tag in page.tags]
    return infrared.is_named(*texts)


def _is_infrared_page(picture: Picture, before: Page, page: Page) -> tuple[bool, bool]:
    """Returns whether a page is the infrared of that before, and if so by its looks."""
    size = (before.width, before.height)
    if page.bands > 1 or (page.width, page.height) != size:
        return False, False
    kind = page.tags.get(tiff.SUBFILE)
    if kind and kind.values[:1] == (4,):
        return True, False
    if page.profile or before.bands < 3:
        return False, False
    lightness = _sampled(picture, before)[..., : before.colors].mean(-1)
    return infrared.is_page(_sampled(picture, page)[..., 0], lightness), True


def _with_roles(picture: Picture) -> Picture:
    """Finds out which channels and pages are infrared, and where floats are white."""
    pages, notes = [], list(picture.notes)
    named = [_is_named_infrared(page) for page in picture.pages]
    for page, is_named in zip(picture.pages, named, strict=True):
        before = pages[-1] if pages else None
        if page.dtype == "float32":
            page, more = _with_range(picture, page)
            notes += more
        found, looks = is_named and not all(named), False
        if not found and before and before.role == "picture":
            found, looks = _is_infrared_page(picture, before, page)
        if found:
            page = dataclasses.replace(page, role="infrared")
            by = " by its values" if looks else ""
            notes.append(f"page {len(pages) + 1} is infrared{by} and stays as it is")
        else:
            page, more = _with_infrared_channel(picture, page)
            notes += more
        pages.append(page)
    return dataclasses.replace(
        picture, pages=tuple(pages), notes=tuple(dict.fromkeys(notes))
    )


def _with_range(picture: Picture, page: Page) -> tuple[Page, list[str]]:
    """Finds out which values of floats are black, white and opaque."""
    found, by = ranges.of_tags(page.tags), "SMaxSampleValue"
    if not found:
        colors = (values[..., : page.colors] for values in rows(picture, page))
        found, by = ranges.of_values(colors), "the range of its values"
    if found == ranges.USUAL:
        return page, []
    black, white = found
    others = (values[..., page.colors :] for values in rows(picture, page))
    usual = page.bands > page.colors and ranges.of_values(others) == ranges.USUAL
    page = dataclasses.replace(
        page, black=black, white=white, opaque=1.0 if usual else 0.0
    )
    note = f"black is {black:g} and white {white:g}" if black else f"white is {white:g}"
    return page, [f"{note} by {by}"] if white != 1 or black else []


def _inspect_tiff(path: pathlib.Path, max_pixels: int) -> Picture:
    with path.open("rb") as file:
        big = tiff.form_of(file).big
        file.seek(0)
        found = tiff.directories(file)
    if raw := contents.raw_reason(found):
        raise errors.InputError(f"{path}: {raw}, not a picture yet; {contents.DEVELOP}")
    numbers, notes = _pyramids(found)
    _check_size(path, [_side(found[number]) for number, _ in numbers], max_pixels)
    pages = []
    for number, pyramid in numbers:
        image = _load(path, "tiff", page=number)
        page, more = _page(path, image, number, found[number])
        known = None if page.profile else color_sources.of_tiff(page.tags, page.colors)
        pages.append(dataclasses.replace(page, pyramid=pyramid, colorimetry=known))
        notes.extend(more)
    return _with_roles(Picture(path, "tiff", tuple(pages), tuple(notes), big))


def _clear_everywhere(image: Image.Image) -> bool:
    """Returns whether an alpha channel is 0 in all of a picture: none that is meant."""
    alpha = "A" in image.getbands()
    return alpha and image.getchannel("A").getextrema()[1] == 0


_FIRST = "only the first of several pictures in the file was restored"
_NO_ALPHA = "the transparency, 0 everywhere, was left out"


def _inspect_bmp(path: pathlib.Path, max_pixels: int) -> Picture:
    """A BMP file: the libvips wheel has no reader."""
    with Image.open(path, formats=("BMP",)) as image:
        _check_size(path, [image.size], max_pixels)
        if image.mode not in ("RGB", "L", "RGBA", "1", "P"):
            raise blocks.UnsupportedError(f"mode {image.mode}")
        image.load()
        notes = {"1": "1 bit became 8", "P": "the palette became full colors"}
        grey, clear = image.mode in ("1", "L"), _clear_everywhere(image)
        bands = 1 if grey else 4 if image.mode == "RGBA" and not clear else 3
        profile = bmp.profile(path)
        page = Page(
            0, *image.size, bands, "uint8", min(bands, 3),
            alpha=bands == 4,
            profile=profile,
            colorimetry=None if profile else bmp.meaning(path, min(bands, 3)),
            resolution=bmp.resolution(path),
        )  # fmt: skip
        found = [notes[image.mode]] if image.mode in notes else []
        found += ["16 bits became 24"] * (bmp.bits(path) == 16) + [_NO_ALPHA] * clear
    return Picture(path, "bmp", (page,), tuple(found))


def _inspect_tga(path: pathlib.Path, max_pixels: int) -> Picture:
    with Image.open(path, formats=("TGA",)) as image:
        _check_size(path, [image.size], max_pixels)
        if image.mode not in ("RGB", "L", "LA", "RGBA", "1", "P"):
            raise blocks.UnsupportedError(f"mode {image.mode}")
        image.load()
        clear = _clear_everywhere(image)
        bands = {"L": 1, "1": 1, "LA": 2, "RGBA": 4}.get(image.mode, 3) - clear
        notes = ["the palette became full colors"] * (image.mode == "P")
        page = Page(
            0, *image.size, bands, "uint8", 1 if bands < 3 else 3,
            alpha=bands in (2, 4),
        )  # fmt: skip
    return Picture(path, "tga", (page,), (*notes, *[_NO_ALPHA] * clear))


def _inspect_pnm(path: pathlib.Path, max_pixels: int) -> Picture:
    with path.open("rb") as file:
        header = pnm.read_header(file)
    _check_size(path, [(header.width, header.height)], max_pixels)
    whites = {"uint8": 255, "uint16": 65535}
    bit = header.number in (1, 4)
    page = Page(
        0, header.width, header.height, header.bands, header.dtype, header.bands,
        white=0.0 if bit or header.most == whites[header.dtype] else float(header.most),
    )  # fmt: skip
    notes = ["1 bit became 8"] * bit + [_FIRST] * header.several
    return Picture(path, "pnm", (page,), tuple(notes))


def _inspect_dpx(path: pathlib.Path, max_pixels: int) -> Picture:
    with path.open("rb") as file:
        header = dpx.read_header(file)
    _check_size(path, [(header.width, header.height)], max_pixels)
    film = colorimetry.Colorimetry(transfer="cineon") if header.logarithmic else None
    page = Page(
        0, header.width, header.height, header.bands, header.dtype,
        min(header.bands, 3),
        alpha=header.bands == 4,
        colorimetry=film,
        white=0.0 if header.bits in (8, 16) else float(header.white),
    )  # fmt: skip
    return Picture(path, "dpx", (page,))


def _inspect_extra(path: pathlib.Path, max_pixels: int) -> Picture:
    header = jp2_heic.inspect(path, lambda *size: _check_size(path, [size], max_pixels))
    page = Page(
        0, header.width, header.height, header.bands, header.dtype,
        1 if header.bands < 3 else 3,
        alpha=header.bands in (2, 4),
        profile=header.blocks.icc,
        colorimetry=None if header.blocks.icc else header.colorimetry,
        resolution=tiff.resolution_of(header.blocks.exif),
    )  # fmt: skip
    return Picture(path, header.format, (page,), header.notes)


def _inspect_vips(path: pathlib.Path, kind: str, max_pixels: int) -> Picture:
    notes, ended = [], True
    if kind == "jpeg":
        layout = jpeg.layout(path.read_bytes())
        ended = bool(layout.end)
        if not ended:
            notes.append("its end marker was missing, but no pixel")
        if layout.stray:
            notes.append(
                f"{layout.stray} stray bytes between its markers were left out"
            )
    image = _load(path, kind) if ended else _load_ended(path)
    pages = image.get("n-pages") if "n-pages" in image.get_fields() else 1
    if pages > 1 or (kind == "png" and png.is_animated(path)):
        frames = f" of {pages} frames" if pages > 1 else ""
        raise errors.InputError(
            f"{path}: an animated {kind.upper()}{frames}; restore its frames as "
            "single pictures"
        )
    _check_size(path, [(image.width, image.height)], max_pixels)
    if kind == "jpeg":
        sound = ended and not layout.stray
        damage = _jpeg_damage(path, ended=sound)
        if damage and not sound and "extraneous" not in damage:
            raise blocks.MalformedError(f"it is cut short, or damaged: {damage}")
        if damage:
            notes.append(f"its data is damaged in places ({damage}), and was decoded")
    page, more = _page(path, image, 0, {})
    # libvips puts 72 dpi where none is known.
    stated = {"png": png.resolution, "jpeg": jpeg.resolution}.get(kind)
    exif = metadata.FORMATS[kind].read(path).exif
    known = (stated(path) if stated else None) or tiff.resolution_of(exif)
    page = dataclasses.replace(page, resolution=known)
    if kind == "jpeg" and jpeg.is_multiple(path) and not jpeg.has_gain_map(path):
        notes.append(_FIRST)
    if kind == "png" and page.profile and color_sources.has_code(path):
        page = dataclasses.replace(page, profile=b"")
    if not page.profile and "CMYK was converted to RGB (sRGB)" not in more:
        known = color_sources.of_file(path, kind, page.colors)
        page = dataclasses.replace(page, colorimetry=known)
    return Picture(path, kind, (page,), tuple(notes + more), ended=ended)


_READERS = {
    "tiff": _inspect_tiff,
    "bmp": _inspect_bmp,
    "tga": _inspect_tga,
    "pnm": _inspect_pnm,
    "dpx": _inspect_dpx,
    "extra": _inspect_extra,
}


def _kind(path: pathlib.Path, start: bytes) -> str:
    """Returns of which format a file is, by what it begins with.

    Raises:
      InputError: for a file of a kind that is not restored.
      MalformedError: for one of no known kind.
    """
    if not start:
        raise blocks.MalformedError("it is empty")
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if jp2_heic.recognises(start):
        return "extra"
    if start.startswith(b"GIF8"):
        with Image.open(path, formats=("GIF",)) as image:
            frames = image.n_frames
        if frames > 1:
            raise errors.InputError(
                f"{path}: an animated GIF of {frames} frames; restore its frames as "
                "single pictures"
            )
    if (other := contents.other_kind(start)) is not None:
        raise errors.InputError(
            f"{path}: {other.name}: whole, but not a format that is restored; "
            f"{other.remedy}"
        )
    for mark, kind in _MARKS.items():
        if start.startswith(mark):
            return kind
    if pnm.recognizes(start):
        return "pnm"
    if dpx.recognizes(start):
        return "dpx"
    # TGA begins with no mark: its header's fields must fit.
    if path.suffix.lower() in _TGA and (
        start[1:2] in (b"\0", b"\1")
        and start[2:3] in (b"\1", b"\2", b"\3", b"\x09", b"\x0a", b"\x0b")
        and start[16:17] in (b"\x08", b"\x0f", b"\x10", b"\x18", b"\x20")
    ):
        return "tga"
    raise blocks.MalformedError("of no known format")


def inspect(path: str | os.PathLike, *, max_pixels: int = 2**63) -> Picture:
    """Finds out what a picture file holds.

    Headers say it; where these leave it open (floats, infrared, a missing end), pixels.

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
        with path.open("rb") as file:
            kind = _kind(path, file.read(32))
        if kind in _READERS:
            return _READERS[kind](path, max_pixels)
        return _inspect_vips(path, kind, max_pixels)
    except errors.InputError:
        raise
    except _READ_ERRORS as error:
        raise unreadable(path, error) from None


def _whole(picture: Picture) -> np.ndarray:
    """Decodes a format that can only be read as a whole."""
    if picture.format in ("bmp", "tga"):
        with Image.open(picture.path, formats=(picture.format.upper(),)) as image:
            mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[picture.pages[0].bands]
            # What is clear everywhere is not to hide the colors.
            bare = {"RGBA": "RGB", "LA": "L"}.get(image.mode)
            parts = image.getbands()[: len(mode)]
            if bare == mode:
                return np.stack([np.asarray(image.getchannel(p)) for p in parts], -1)
            return np.asarray(image.convert(mode))
    if picture.format in ("pnm", "dpx"):
        return {"pnm": pnm, "dpx": dpx}[picture.format].read(picture.path)
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
        if _extra_samples(page.tags)[:1] == (1,):
            image = _load_premultiplied(picture.path, page)
        elif not picture.ended:
            image = _load_ended(picture.path)
        else:
            options = {"page": page.number} if picture.format == "tiff" else {}
            image = _load(picture.path, picture.format, **options)
        if image.interpretation == "cmyk":
            image = _converted(image)
        if image.format == "double":
            image = image.cast("float")
        region = pyvips.Region.new(image)
        for top in range(0, page.height, count):
            high = min(count, page.height - top)
            data = region.fetch(0, top, page.width, high)
            yield np.frombuffer(data, page.dtype).reshape(high, page.width, page.bands)
    except _READ_ERRORS as error:
        raise unreadable(picture.path, error) from None


def infrared_of(
    picture: Picture, number: int
) -> Callable[[], Iterator[np.ndarray]] | None:
    """Returns what reads the infrared that a file holds of one of its pages.

    Args:
      picture: from `inspect`.
      number: of the page, from 0.

    Returns:
      A function that yields float32 (rows, width, 1) in [0, 1], or None.
    """
    page, channel = picture.pages[number], picture.pages[number].infrared
    size = (page.width, page.height)
    following = [
        other
        for other in picture.pages[number + 1 : number + 2]
        if other.role == "infrared" and (other.width, other.height) == size
    ]
    if not channel and following:
        page, channel = following[0], 0
    elif not channel:
        return None

    def read() -> Iterator[np.ndarray]:
        for values in rows(picture, page):
            known = normalized(page, values)[..., channel : channel + 1]
            yield np.clip(np.nan_to_num(known), 0, 1)

    return read
