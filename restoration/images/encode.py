"""Writing restored pictures in the format, and with the metadata, of their source.

Pixels come as scratch files, so that a picture is never in memory
as a whole; libvips encodes them in strips.
"""

import contextlib
import dataclasses
import errno
import functools
import os
import pathlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyvips
from PIL import Image

from restoration.base import errors, files
from restoration.images import (
    bmp,
    colorimetry,
    dpx,
    jp2_heic,
    metadata,
    pnm,
    preview,
    scratch,
)
from restoration.images.metadata import blocks, dependent, jpeg, png, tiff, webp
from restoration.images.picture import Page, Picture, normalized

EXTENSIONS = {"jpg": "jpeg", "png": "png", "tif": "tiff", "webp": "webp"}

# The depths that a format can hold, the deepest first.
_DEPTHS = {
    "jpeg": ("uint8",),
    "webp": ("uint8",),
    "bmp": ("uint8",),
    "png": ("uint16", "uint8"),
    "heic": ("uint16", "uint8"),
    "jp2": ("uint16", "uint8"),
    "pnm": ("uint16", "uint8"),
    "dpx": ("uint16", "uint8"),
    "tga": ("uint8",),
    "tiff": ("float32", "uint16", "uint8"),
}

# At least so good are lossy files written; better ones stay better.
_LEAST_QUALITY = 90
_LEAST_TIFF_QUALITY = 95

# libvips' names of the compressions that it writes, by TIFF's numbers.
_COMPRESSIONS = {1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32946: "deflate",
                 32773: "packbits"}  # fmt: skip

# TIFF's tag of the transfer function, whose size depends on the values' bits.
_TRANSFER = 301

# A classic TIFF file addresses 4 GiB.
_CLASSIC_LIMIT = 3_900_000_000


@dataclasses.dataclass(frozen=True)
class Written:
    """A page of restored values.

    Attributes:
      page: of what kind the source's values are.
      dtype: the type that is written.
      rows: from `scratch.create`.
      own: whether values are as the page stores them, in its range and polarity.
    """

    page: Page
    dtype: str
    rows: BinaryIO
    own: bool = True


def depth(kind: str, dtype: str) -> str:
    """Returns the type of values that a format stores for values of a type."""
    return dtype if dtype in _DEPTHS[kind] else _DEPTHS[kind][0]


def check_channels(path: pathlib.Path, kind: str, pages: Sequence[Page]) -> None:
    """Raises InputError where a format has no room for a picture's channels."""
    if kind != "tiff" and len(pages) > 1:
        raise errors.InputError(
            f"{path}: {len(pages)} pages; only TIFF holds several, choose --ext tif"
        )
    if kind != "tiff" and any(page.infrared for page in pages):
        raise errors.InputError(
            f"{path}: an infrared channel, which only TIFF holds; choose --ext tif"
        )
    if kind not in ("tiff", "dpx", "jp2") and any(
        page.bands > page.colors and not page.alpha for page in pages
    ):
        raise errors.InputError(
            f"{path}: a channel that is no transparency, which only TIFF holds; choose "
            "--ext tif"
        )
    extra = max(page.bands - page.colors for page in pages)
    room = {"jpeg": 0, "pnm": 0, "tiff": 99}.get(kind, 1)
    if extra > room:
        what = "transparency" if extra == 1 else f"{extra} channels beside the colors"
        raise errors.InputError(
            f"{path}: {what}, which {kind.upper()} does not hold; choose --ext tif"
            + " or png" * (extra == 1)
        )


def open_written(
    folder: pathlib.Path, page: Page, dtype: str, *, own: bool = True
) -> Written:
    """Opens a scratch file for the restored values of a page.

    Args:
      folder: where there is room.
      page: of what kind the values are.
      dtype: the type to write.
      own: whether values stay as the page stores them; else black is 0, and white the
        type's own.
    """
    shape = (page.height, page.width, page.bands)
    alpha = page.alpha or page.bands == page.colors
    file = scratch.create(folder, shape, dtype, alpha=alpha)
    return Written(page, dtype, file, own or page.plain)


def write_rows(written: Written, values: np.ndarray) -> None:
    """Appends rows of a page's values, scaled to what is written, white to white."""
    if not written.own or values.dtype != written.dtype:
        white = {"uint8": 255.0, "uint16": 65535.0}.get(written.dtype)
        page = written.page
        values = normalized(page, values)
        if page.premultiplied and not written.own:
            alpha = values[..., page.colors, None]
            colors = values[..., : page.colors]
            colors /= np.where(alpha > 0, alpha, 1)
        if white:  # which holds no NaN; models see black there, too
            values = np.rint(np.clip(np.nan_to_num(values, nan=0), 0, 1) * white)
        values = values.astype(written.dtype)
    written.rows.write(values)


def _raw_image(written: Written) -> pyvips.Image:
    page = written.page
    grey, deep = page.colors == 1, written.dtype == "uint16"
    space = ("grey16" if deep else "b-w") if grey else ("rgb16" if deep else "srgb")
    across, down = page.resolution or (1.0, 1.0)
    return scratch.image(written.rows).copy(
        interpretation=space, xres=across, yres=down
    )


def _array(written: Written) -> np.ndarray:
    page = written.page
    values = scratch.image(written.rows).numpy()
    return values.reshape(page.height, page.width, page.bands)


@functools.lru_cache
def _tables(quality: int) -> tuple[bytes, ...]:
    """Returns the quantisation tables that libvips writes for a quality."""
    data = pyvips.Image.black(8, 8, bands=3).jpegsave_buffer(Q=quality)
    return tuple(jpeg.quantisation(data))


def quality_for(tables: Sequence[bytes], least: int) -> int:
    """Returns the lowest JPEG quality whose steps are nowhere coarser.

    Args:
      tables: quantisation tables of the source, luma first.
      least: the lowest that is returned.

    Returns:
      A quality from `least` to 100.
    """
    for quality in range(least, 100):
        ours = _tables(quality)
        # Of one table it serves luma and chroma alike.
        theirs = (*tables, tables[-1]) if tables else ()
        steps = zip(b"".join(ours), b"".join(theirs), strict=False)
        if all(own <= other for own, other in steps):
            return quality
    return 100


def _jpeg_options(source: Picture) -> dict[str, Any]:
    quality, halved = 95, False
    if source.format == "jpeg":
        with source.path.open("rb") as file:
            quality = quality_for(jpeg.quantisation(file.read(1 << 20)), _LEAST_QUALITY)
        image = pyvips.Image.jpegload(os.fsencode(source.path))
        if "jpeg-chroma-subsample" in image.get_fields():
            halved = image.get("jpeg-chroma-subsample") == "4:2:0"
    return {"Q": quality, "subsample_mode": "on" if halved else "off"}


def _webp_options(source: Picture) -> dict[str, Any]:
    lossless = source.format != "webp" or webp.is_lossless(source.path)
    # exact: the colors under full transparency stay too.
    return {"Q": 95, "lossless": lossless, "exact": True}


def _values(page: Page, tag: int, default: int) -> int:
    entry = page.tags.get(tag)
    return entry.values[0] if entry and entry.values else default


def _tiff_options(written: Written, kind: str, big: bool) -> dict[str, Any]:
    page = written.page
    if kind != "tiff":
        return {"compression": "deflate", "predictor": "horizontal", "bigtiff": big}
    compression = _COMPRESSIONS.get(_values(page, tiff.COMPRESSION, 1), "deflate")
    if compression == "jpeg" and (
        written.dtype != "uint8"
        or page.bands != page.colors
        or page.role == "infrared"  # bit for bit
    ):
        compression = "deflate"
    options = {"compression": compression, "bigtiff": big}
    if compression in ("lzw", "deflate"):
        kinds = {2: "horizontal", 3: "float"}
        options["predictor"] = kinds.get(_values(page, tiff.PREDICTOR, 1), "none")
    if compression == "jpeg":
        tables = page.tags.get(tiff.JPEG_TABLES)
        found = jpeg.quantisation(tables.data) if tables else []
        options["Q"] = quality_for(found, _LEAST_TIFF_QUALITY) if found else 95
    if tiff.TILE_WIDTH in page.tags or page.pyramid:
        options |= {
            "tile": True,
            "tile_width": _values(page, tiff.TILE_WIDTH, 256),
            "tile_height": _values(page, tiff.TILE_LENGTH, 256),
        }
    if page.pyramid:
        options |= {"pyramid": True, "subifd": page.pyramid == "subifds"}
    return options


def _preview(written: Written) -> dependent.Preview:
    """Returns what makes small copies of a written page, for its metadata."""

    def pixels() -> np.ndarray:
        page = written.page
        image = scratch.image(written.rows)
        share = min(1.0, 640 / max(page.width, page.height))
        values = image.resize(share).numpy() if share < 1 else image.numpy()
        values = values.reshape(*values.shape[:2], page.bands)
        if written.own:
            colors = normalized(page, values)
        else:
            white = {"uint8": 255.0, "uint16": 65535.0}.get(written.dtype, 1.0)
            colors = values / white
        colors = np.clip(np.nan_to_num(colors[..., : page.colors]), 0, 1)
        colors = np.broadcast_to(colors, (*colors.shape[:2], 3))
        return np.ascontiguousarray(np.rint(255 * colors).astype(np.uint8))

    return dependent.preview_of(pixels)


def _page_tags(written: Written, *, strip: bool) -> tuple[tiff.Directory, list[str]]:
    """Returns what a TIFF page says besides how its pixels are stored."""
    page = written.page
    # The colors of CMYK were converted, and its profile fits no more.
    tags = tiff.described(page.tags, profile=bool(page.profile))
    if page.colorimetry is None:
        tags = {tag: entry for tag, entry in tags.items() if tag != _TRANSFER}
    tags, dropped = tiff.renewed(tags, _preview(written))
    if strip:
        kept = {tiff.ORIENTATION, tiff.ICC, 282, 283, 296, _TRANSFER, 318, 319}
        dropped = []
        marked = (
            page.colorimetry
            and tiff.EXIF in tags
            and not ({_TRANSFER, 318, 319} & tags.keys())
        )
        tags = {tag: entry for tag, entry in tags.items() if tag in kept}
        if marked:  # by EXIF, which goes
            icc = colorimetry.to_icc(page.colorimetry, page.colors)
            tags[tiff.ICC] = tiff.Entry(7, icc)
    extra = page.bands - page.colors
    if extra and tiff.EXTRA_SAMPLES in page.tags:
        tags[tiff.EXTRA_SAMPLES] = page.tags[tiff.EXTRA_SAMPLES]
    elif extra:  # of no stated meaning
        tags[tiff.EXTRA_SAMPLES] = tiff.Entry(
            3, struct.pack(f"={extra}H", *[0] * extra)
        )
    if page.inverted:
        tags[262] = tiff.Entry(3, struct.pack("=H", 0))
    if (page.white or page.black) and 341 in page.tags:
        tags |= {tag: page.tags[tag] for tag in (340, 341) if tag in page.tags}
    if page.role == "infrared" and tiff.SUBFILE in page.tags:
        tags[tiff.SUBFILE] = page.tags[tiff.SUBFILE]
    return tags, dropped


def _save_tiff(
    target: pathlib.Path, source: Picture, pages: Sequence[Written], strip: bool
) -> list[str]:
    """Writes pages as TIFF files of their own, then joins their directories.

    Returns what was dropped from their tags.
    """
    size = sum(
        w.page.width * w.page.height * w.page.bands * np.dtype(w.dtype).itemsize
        for w in pages
    )
    # A pyramid's smaller pages add a third.
    big = source.big or size * 4 / 3 > _CLASSIC_LIMIT
    files, dropped = [], []
    try:
        for written in pages:
            path = target.with_name(f"{target.stem}.{len(files)}.tif")
            files.append(path)
            options = _tiff_options(written, source.format, big)
            _raw_image(written).tiffsave(os.fsencode(path), keep="none", **options)
        if source.format == "tiff":
            found = [_page_tags(written, strip=strip) for written in pages]
            tiff.assemble(files[0], files[1:], [tags for tags, _ in found])
            dropped = [name for _, names in found for name in names]
        os.replace(files[0], target)
        return dropped
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def _blocks_of(source: Picture) -> blocks.Blocks:
    if source.format in metadata.FORMATS:
        return metadata.FORMATS[source.format].read(source.path)
    if source.format in ("jp2", "heic"):
        return jp2_heic.inspect(source.path).blocks
    number = preview.orientation(source)
    if number == 1:
        return blocks.Blocks()
    held = {tiff.ORIENTATION: tiff.Entry(3, struct.pack("=H", number))}
    return blocks.Blocks(exif=tiff.to_bytes(held))


def _only_needed(found: blocks.Blocks) -> blocks.Blocks:
    """Returns what a picture needs to be shown as it was: profile, orientation."""
    tags = tiff.tags_of(blocks.Blocks(exif=found.exif))
    held = {tag: tags[tag] for tag in (tiff.ORIENTATION,) if tag in tags}
    return blocks.Blocks(exif=tiff.to_bytes(held) if held else b"", icc=found.icc)


def _profile_of(page: Page, found: blocks.Blocks, kind: str) -> bytes:
    """Returns the profile that says what a page's colors mean, b"" for sRGB."""
    # What is grey is stored as RGB by WebP, and by BMP beside a profile.
    colors = 3 if kind in ("webp", "bmp") else page.colors
    if page.profile:
        profile = found.icc or page.profile
        return colorimetry.grey_as_rgb(profile) if colors > page.colors else profile
    if page.colorimetry:
        return colorimetry.to_icc(page.colorimetry, colors)
    return b""


def _copy_metadata(
    target: pathlib.Path, kind: str, source: Picture, written: Written, strip: bool
) -> tuple[list[str], list[str]]:
    """Puts the source's metadata into a written file.

    Returns what had no room, and what was dropped since it depends on the old pixels.
    """
    page, copies = source.pages[0], _preview(written)
    stated = bool(page.profile or page.colorimetry)
    if kind == source.format and not strip:
        if kind == "tiff":  # its tags went in with the pages
            return [], []
        copy = metadata.FORMATS[kind].copy_metadata
        # The colors of CMYK were converted, and its profile fits no more.
        profile = stated or kind != "jpeg"
        return [], copy(source.path, target, copies, profile=profile)
    if kind == source.format == "tiff":
        return [], []
    found = _blocks_of(source)
    if strip:
        found, dropped = _only_needed(found), []
    else:
        found, dropped = dependent.renew(found, copies)
        if source.format == "jpeg":
            dropped += [dependent.GAIN_MAP] * jpeg.has_gain_map(source.path)
            dropped += jpeg.behind(source.path)
            dropped += [dependent.CREDENTIALS] * jpeg.has_credentials(source.path)
    found = dataclasses.replace(found, icc=_profile_of(page, found, kind))
    known: dict[str, Any] = {"resolution": page.resolution}
    if kind == "png" and not page.profile:
        known["color"] = _color_chunks(source, page)
    return metadata.FORMATS[kind].insert(target, found, **known), dropped


def _color_chunks(source: Picture, page: Page) -> list[png.Chunk]:
    """Returns the chunks with which PNG says a meaning better than a profile does."""
    if source.format == "png":
        return png.color_chunks(source.path)
    code = page.colorimetry and page.colorimetry.code
    # PNG's samples are RGB of the full range.
    return [(b"cICP", bytes([code[0], code[1], 0, 1]))] if code else []


def _save(
    target: pathlib.Path, kind: str, source: Picture, pages: Sequence[Written]
) -> None:
    if kind == "bmp":
        page = source.pages[0]
        profile = _profile_of(page, blocks.Blocks(), kind)
        bmp.write(target, _array(pages[0]), resolution=page.resolution, profile=profile)
        return
    name = os.fsencode(target)
    if kind == "jpeg":
        _raw_image(pages[0]).jpegsave(name, keep="none", **_jpeg_options(source))
    elif kind == "webp":
        _raw_image(pages[0]).webpsave(name, keep="none", **_webp_options(source))
    else:
        _raw_image(pages[0]).pngsave(name, keep="none")


def _save_tga(target: pathlib.Path, source: Picture, values: np.ndarray) -> None:
    """Writes a TGA file as the source's: compressed or not, the same way up."""
    with Image.open(source.path, formats=("TGA",)) as image:
        known = dict(image.info)
    options = {name: known[name] for name in ("orientation",) if name in known}
    if "compression" in known:
        options["compression"] = known["compression"]
    if known.get("id_section"):
        options["id_section"] = known["id_section"]
    values = values[..., 0] if values.shape[-1] == 1 else values
    Image.fromarray(values).save(target, format="TGA", **options)


@contextlib.contextmanager
def naming_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns what can go wrong in writing a file into one line that names it."""
    try:
        yield
    except (pyvips.Error, OSError, blocks.MalformedError, struct.error) as error:
        # libvips puts the reason into `detail`, the system into `strerror`.
        said = getattr(error, "detail", "") or getattr(error, "strerror", "")
        reason = " ".join((said or str(error)).split())[:160]
        remedy = "see that the folder may be written to and the disk has room"
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            remedy = "choose a shorter --suffix, or another name for the picture"
        raise errors.InputError(
            f"{path}: cannot be written ({reason}); {remedy}"
        ) from None


def save(
    path: str | os.PathLike,
    source: Picture,
    pages: Sequence[Written],
    *,
    kind: str,
    strip: bool = False,
) -> list[str]:
    """Writes a restored picture, whole or not at all.

    Args:
      path: where to.
      source: what it was made of.
      pages: restored values of all its pages.
      kind: the format to write.
      strip: whether metadata is left out, but for the color profile and the
        orientation.

    Returns:
      Notes of what the format had no room for.

    Raises:
      InputError: when it cannot be written.
    """
    with naming_errors(path), files.replacing(path) as temporary:
        dropped = lost = ()
        if kind in ("jp2", "heic"):
            dropped = jp2_heic.encode(
                temporary, _array(pages[0]), source.path, strip, _preview(pages[0])
            )
        elif kind in ("pnm", "dpx"):
            {"pnm": pnm, "dpx": dpx}[kind].write(
                temporary, _array(pages[0]), source.path
            )
        elif kind == "tga":
            _save_tga(temporary, source, _array(pages[0]))
        else:
            if kind == "tiff":
                dropped = _save_tiff(temporary, source, pages, strip)
            else:
                _save(temporary, kind, source, pages)
            if kind != "bmp":
                lost, more = _copy_metadata(temporary, kind, source, pages[0], strip)
                dropped = [*dropped, *more]
    notes = [f"{name} had no room in {kind.upper()}" for name in lost]
    if kind == "heic" and pages[0].dtype == "uint16":
        notes.append("written with 12 bits")
    if dropped:
        notes.append(f"left out: {', '.join(dict.fromkeys(dropped))}")
    return notes


def save_plain(path: str | os.PathLike, written: Written) -> None:
    """Writes 8-bit values as a PNG without metadata, whole or not at all."""
    with naming_errors(path), files.replacing(path) as temporary:
        _raw_image(written).pngsave(os.fsencode(temporary), keep="none")
        png.insert(temporary, blocks.Blocks(), resolution=written.page.resolution)
