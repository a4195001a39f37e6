"""Pictures as a screen shows them: upright, in sRGB, 8 bits, in levels of tiles.

A level has half the width and height of the one before; the last fits into one tile.
A page can so look at a scan of any size at any magnification. The file is a tiled TIFF
pyramid without compression, which is written and read in strips and tiles.
"""

import os
import pathlib

import numpy as np
import pyvips

from restoration.images import color, dpx, metadata, picture, scratch
from restoration.images.metadata import tiff

# Side of a tile, pixels.
TILE = 512

# Clockwise quarter turns and mirrorings that show a picture upright, by the number of
# EXIF's orientation.
_UPRIGHT = {
    1: ("d0", ""),
    2: ("d0", "horizontal"),
    3: ("d180", ""),
    4: ("d0", "vertical"),
    5: ("d90", "horizontal"),
    6: ("d90", ""),
    7: ("d90", "vertical"),
    8: ("d270", ""),
}


def orientation(source: picture.Picture) -> int:
    """Returns how a picture's first page is to be held, EXIF's 1 to 8.

    HEIC and JPEG 2000 files are turned when they are decoded: 1.
    """
    found = 1
    if source.format == "tiff":
        entry = source.pages[0].tags.get(tiff.ORIENTATION)
        found = entry.values[0] if entry and entry.values else 1
    elif source.format in ("jpeg", "png", "webp"):
        exif = metadata.FORMATS[source.format].read(source.path).exif
        found = tiff.orientation_of(exif)
    elif source.format == "dpx":
        with source.path.open("rb") as file:
            found = dpx.read_header(file).orientation
    return found if found in _UPRIGHT else 1


def size(source: picture.Picture) -> tuple[int, int]:
    """Returns (width, height) of a picture's first page when it is held upright."""
    page = source.pages[0]
    turned = orientation(source) > 4
    return (page.height, page.width) if turned else (page.width, page.height)


def upright(values: np.ndarray, number: int) -> np.ndarray:
    """Returns stored values (height, width, ...) as they are held upright."""
    turn, mirror = _UPRIGHT[number]
    values = np.rot90(values, -int(turn[1:]) // 90)
    return {"": values, "horizontal": values[:, ::-1], "vertical": values[::-1]}[mirror]


def stored(values: np.ndarray, number: int) -> np.ndarray:
    """Returns upright values (height, width, ...) as they lie in the file."""
    turn, mirror = _UPRIGHT[number]
    values = {"": values, "horizontal": values[:, ::-1], "vertical": values[::-1]}[
        mirror
    ]
    return np.rot90(values, int(turn[1:]) // 90)


def _held(image: pyvips.Image, number: int) -> pyvips.Image:
    turn, mirror = _UPRIGHT[number]
    image = image.rot(turn) if turn != "d0" else image
    return image.flip(mirror) if mirror else image


def write_levels(
    path: str | os.PathLike, source: picture.Picture, *, held: int | None = None
) -> list[tuple[int, int]]:
    """Writes the levels of a picture's first page.

    Args:
      path: the file to write.
      source: the picture. Transparency is shown on white; a page of one channel
        has levels of one channel.
      held: EXIF's orientation to show it in; None is the picture's own.

    Returns:
      (width, height) of each level, the largest first.

    Raises:
      InputError: where the picture is damaged.
    """
    page = source.pages[0]
    number = orientation(source) if held is None else held
    to_model, _, _ = color.make_color(page)
    bands = 1 if page.colors == 1 and not page.profile else 3
    folder = pathlib.Path(path).parent
    with scratch.create(folder, (page.height, page.width, bands), "uint8") as file:
        for rows in picture.rows(source, page):
            shown = to_model(rows)
            if page.alpha:
                alpha = rows[..., page.colors, None] / np.float32(page.opacity)
                shown = 1 - alpha + alpha * shown
            file.write(np.rint(255 * np.clip(shown[..., :bands], 0, 1)).astype("uint8"))
        access = "sequential" if number == 1 else "random"
        image = _held(scratch.image(file, access=access), number)
        # libvips does not read tiles that are much larger than the picture.
        across, down = (
            min(TILE, -(-side // 16) * 16) for side in (image.width, image.height)
        )
        image.tiffsave(
            str(path),
            tile=True,
            tile_width=across,
            tile_height=down,
            pyramid=True,
            compression="none",
            bigtiff=True,
            keep="none",
        )
    return levels(path)


def levels(path: str | os.PathLike) -> list[tuple[int, int]]:
    """Returns (width, height) of each level of a file of `write_levels`."""
    found = []
    count = pyvips.Image.new_from_file(str(path)).get("n-pages")
    for number in range(count):
        image = pyvips.Image.new_from_file(str(path), page=number)
        found.append((image.width, image.height))
    return found


def read_tile(
    path: str | os.PathLike,
    level: int,
    column: int,
    row: int,
    *,
    tint: tuple[int, int, int] | None = None,
) -> bytes:
    """Returns one tile as a PNG file.

    Args:
      path: a file of `write_levels`.
      level: 0 for the largest.
      column: of the tile, from the left.
      row: of the tile, from the top.
      tint: a color; the tile is then of this color, its values being the opacity.

    Raises:
      IndexError: where there is no such tile.
    """
    count = pyvips.Image.new_from_file(str(path)).get("n-pages")
    if not 0 <= level < count:
        raise IndexError(f"level {level} of {count}")
    image = pyvips.Image.new_from_file(str(path), page=level)
    left, top = TILE * column, TILE * row
    if not (0 <= left < image.width and 0 <= top < image.height):
        raise IndexError(f"tile {column}, {row} of {image.width}x{image.height}")
    width, height = min(TILE, image.width - left), min(TILE, image.height - top)
    tile = image.crop(left, top, width, height)
    if tint is not None:
        plain = pyvips.Image.black(width, height, bands=3) + list(tint)
        tile = plain.cast("uchar").bandjoin(tile[0]).copy(interpretation="srgb")
    return tile.pngsave_buffer(compression=1, keep="none")


def read_small(path: str | os.PathLike, side: int) -> bytes:
    """Returns the whole picture of a file of `write_levels`, small, as a PNG file.

    Args:
      path: the file.
      side: the most pixels that the shorter side has.
    """
    last = pyvips.Image.new_from_file(str(path)).get("n-pages") - 1
    image = pyvips.Image.new_from_file(str(path), page=last)
    scale = min(1.0, side / min(image.width, image.height))
    return image.resize(scale).pngsave_buffer(keep="none")
