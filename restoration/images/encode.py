"""Writing restored pictures in the format, and with the metadata, of their source.

Pixels come as scratch files, so that a picture is never in memory
as a whole; libvips encodes them in strips.
"""

import contextlib
import dataclasses
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
from restoration.images import jp2_heic, metadata, scratch
from restoration.images.metadata import blocks, jpeg, tiff, webp
from restoration.images.picture import Page, Picture

EXTENSIONS = {"jpg": "jpeg", "png": "png", "tif": "tiff", "webp": "webp"}

# The depths that a format can hold, the deepest first.
_DEPTHS = {
    "jpeg": ("uint8",),
    "webp": ("uint8",),
    "bmp": ("uint8",),
    "png": ("uint16", "uint8"),
    "heic": ("uint16", "uint8"),
    "jp2": ("uint16", "uint8"),
    "tiff": ("float32", "uint16", "uint8"),
}

# At least so good are lossy files written; better ones stay better.
_LEAST_QUALITY = 90
_LEAST_TIFF_QUALITY = 95

# libvips' names of the compressions that it writes, by TIFF's numbers.
_COMPRESSIONS = {1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32946: "deflate",
                 32773: "packbits"}  # fmt: skip

# A classic TIFF file addresses 4 GiB.
_CLASSIC_LIMIT = 3_900_000_000


@dataclasses.dataclass(frozen=True)
class Written:
    """A page of restored values: their type, and their rows from `scratch.create`."""

    page: Page
    dtype: str
    rows: BinaryIO


def depth(kind: str, dtype: str) -> str:
    """Returns the type of values that a format stores for values of a type."""
    return dtype if dtype in _DEPTHS[kind] else _DEPTHS[kind][0]


def check_channels(path: pathlib.Path, kind: str, pages: Sequence[Page]) -> None:
    """Raises InputError where a format has no room for a picture's channels."""
    if kind != "tiff" and len(pages) > 1:
        raise errors.InputError(
            f"{path}: {len(pages)} pages; only TIFF holds several, choose --ext tif"
        )
    extra = max(page.bands - page.colors for page in pages)
    room = {"jpeg": 0, "tiff": 99}.get(kind, 1)
    if extra > room:
        raise errors.InputError(
            f"{path}: {extra} channels besides the colors (alpha), but "
            f"{kind.upper()} holds {room}; choose --ext tif or png"
        )


def open_written(folder: pathlib.Path, page: Page, dtype: str) -> Written:
    """Opens a scratch file for the restored values of a page."""
    shape = (page.height, page.width, page.bands)
    return Written(page, dtype, scratch.create(folder, shape, dtype))


def as_depth(values: np.ndarray, dtype: str) -> np.ndarray:
    """Returns values scaled to another type, white to white."""
    if values.dtype == dtype:
        return values
    whites = {"uint8": 255.0, "uint16": 65535.0}
    scaled = values / whites.get(str(values.dtype), 1.0)
    return np.rint(np.clip(scaled, 0, 1) * whites[dtype]).astype(dtype)


def _raw_image(written: Written) -> pyvips.Image:
    page = written.page
    grey, deep = page.colors == 1, written.dtype == "uint16"
    space = ("grey16" if deep else "b-w") if grey else ("rgb16" if deep else "srgb")
    across, down = page.resolution
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
        sampling = pyvips.Image.new_from_file(str(source.path)).get_fields()
        if "jpeg-chroma-subsample" in sampling:
            image = pyvips.Image.new_from_file(str(source.path))
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
        written.dtype != "uint8" or page.bands != page.colors
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


def _page_tags(page: Page, *, strip: bool) -> tiff.Directory:
    """Returns what is told of a TIFF page besides how its pixels are stored."""
    # The colors of CMYK were converted, and its profile fits no more.
    tags = tiff.described(page.tags, profile=bool(page.profile))
    if strip:
        kept = {tiff.ORIENTATION, tiff.ICC, 282, 283, 296}
        tags = {tag: entry for tag, entry in tags.items() if tag in kept}
    if tiff.EXTRA_SAMPLES in page.tags and page.bands > page.colors:
        tags[tiff.EXTRA_SAMPLES] = page.tags[tiff.EXTRA_SAMPLES]
    return tags


def _save_tiff(
    target: pathlib.Path, source: Picture, pages: Sequence[Written], strip: bool
) -> None:
    """Writes pages as TIFF files of their own, then joins their directories."""
    size = sum(
        w.page.width * w.page.height * w.page.bands * np.dtype(w.dtype).itemsize
        for w in pages
    )
    # A pyramid's smaller pages add a third.
    big = source.big or size * 4 / 3 > _CLASSIC_LIMIT
    files = []
    try:
        for written in pages:
            path = target.with_name(f"{target.stem}.{len(files)}.tif")
            files.append(path)
            options = _tiff_options(written, source.format, big)
            _raw_image(written).tiffsave(str(path), keep="none", **options)
        if source.format == "tiff":
            tags = [_page_tags(written.page, strip=strip) for written in pages]
            tiff.assemble(files[0], files[1:], tags)
        os.replace(files[0], target)
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def _blocks_of(source: Picture) -> blocks.Blocks:
    if source.format in metadata.FORMATS:
        return metadata.FORMATS[source.format].read(source.path)
    if source.format == "bmp":
        return blocks.Blocks()
    return jp2_heic.inspect(source.path).blocks


def _only_needed(found: blocks.Blocks) -> blocks.Blocks:
    """Returns what a picture needs to be shown as it was: profile, orientation."""
    tags = tiff.tags_of(blocks.Blocks(exif=found.exif))
    held = {tag: tags[tag] for tag in (tiff.ORIENTATION,) if tag in tags}
    return blocks.Blocks(exif=tiff.to_bytes(held) if held else b"", icc=found.icc)


def _carry(target: pathlib.Path, kind: str, source: Picture, strip: bool) -> list[str]:
    """Puts the source's metadata into a written file; returns what had no room."""
    profile = bool(source.pages[0].profile)
    if kind == source.format and not strip:
        if kind != "tiff":  # its tags went in with the pages
            metadata.FORMATS[kind].carry(source.path, target, profile=profile)
        return []
    if kind == source.format == "tiff":
        return []
    found = _blocks_of(source)
    if strip:
        found = _only_needed(found)
    if not profile:
        found = dataclasses.replace(found, icc=b"")
    return metadata.FORMATS[kind].insert(target, found)


def _save(
    target: pathlib.Path, kind: str, source: Picture, pages: Sequence[Written]
) -> None:
    if kind == "bmp":
        values = _array(pages[0])
        values = values[..., 0] if values.shape[-1] == 1 else values
        Image.fromarray(values).save(target, format="BMP")
    elif kind == "jpeg":
        _raw_image(pages[0]).jpegsave(str(target), keep="none", **_jpeg_options(source))
    elif kind == "webp":
        _raw_image(pages[0]).webpsave(str(target), keep="none", **_webp_options(source))
    else:
        _raw_image(pages[0]).pngsave(str(target), keep="none")


@contextlib.contextmanager
def told(path: str | os.PathLike) -> Iterator[None]:
    """Turns what can go wrong in writing a file into one line that names it."""
    try:
        yield
    except (pyvips.Error, OSError, blocks.MalformedError, struct.error) as error:
        # libvips tells it in `detail`, the system in `strerror`.
        said = getattr(error, "detail", "") or getattr(error, "strerror", "")
        reason = " ".join((said or str(error)).split())[:160]
        raise errors.InputError(
            f"{path}: cannot be written ({reason}); see that the folder may be "
            "written to and the disk has room"
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
    with told(path), files.replacing(path) as temporary:
        if kind in ("jp2", "heic"):
            jp2_heic.encode(temporary, _array(pages[0]), source.path, strip)
            lost = []
        else:
            if kind == "tiff":
                _save_tiff(temporary, source, pages, strip)
            else:
                _save(temporary, kind, source, pages)
            lost = [] if kind == "bmp" else _carry(temporary, kind, source, strip)
    return [f"{name} had no room in {kind.upper()}" for name in lost]


def save_plain(path: str | os.PathLike, written: Written) -> None:
    """Writes 8-bit values as a PNG without metadata, whole or not at all."""
    with told(path), files.replacing(path) as temporary:
        _raw_image(written).pngsave(str(temporary), keep="none")
