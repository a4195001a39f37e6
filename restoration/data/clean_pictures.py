"""Clean pictures that pairs are drawn from: read, held out, cut into pieces.

Pictures come from a folder, or from a `.zip` that `experiments.pretrain` packs of one,
so that they can be carried to another machine. Files are decoded with Pillow, and not
by `restoration.images.frames`, since the machines that train need not have libvips.
"""

import hashlib
import io
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from restoration.base import errors
from restoration.data import pairs

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

# Folders inside a packed file.
PICTURES, OVERLAYS = "pictures/", "overlays/"

# Larger scans of dirt are scaled down to so many pixels a side.
_OVERLAY_SIDE = 400

# Names of pictures to the bytes of their files.
Files = dict[str, bytes]


def _walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    # Sets are put together of links to folders; one to a folder around it has no end.
    for parent, folders, names in os.walk(folder, followlinks=True):
        here = pathlib.Path(parent).resolve()
        folders[:] = sorted(
            name for name in folders if not here.is_relative_to((here / name).resolve())
        )
        yield from (pathlib.Path(parent) / name for name in sorted(names))


def read_files(path: str, *, inside: str) -> Files:
    """Reads the pictures' files of a folder or of a packed file.

    Args:
      path: a folder, or a `.zip` that `pack` wrote.
      inside: which folder of the `.zip`: PICTURES or OVERLAYS.

    Returns:
      The files by their names below the folder, in order.

    Raises:
      InputError: where there are none.
    """
    root = pathlib.Path(path)
    files: Files = {}
    if root.is_dir():
        for file in _walk(root):
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith("."):
                files[file.relative_to(root).as_posix()] = file.read_bytes()
    else:
        try:
            with zipfile.ZipFile(root) as archive:
                for name in sorted(archive.namelist()):
                    if name.startswith(inside) and name.lower().endswith(_SUFFIXES):
                        files[name.removeprefix(inside)] = archive.read(name)
        except (OSError, zipfile.BadZipFile) as error:
            raise errors.InputError(
                f"{root}: neither a folder nor a packed file ({error}); check the path"
            ) from None
    if not files:
        raise errors.InputError(f"{root}: no images ({', '.join(_SUFFIXES)})")
    return files


def digest(*files: Files) -> str:
    """Returns a SHA-256 of files and their names, the same packed or not."""
    found = hashlib.sha256()
    for group in files:
        for name, data in sorted(group.items()):
            found.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\0".encode())
        found.update(b"\0")
    return found.hexdigest()


def _decoded(name: str, data: bytes, mode: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert(mode)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise errors.InputError(
            f"{name}: not a readable image ({error}); replace or remove it"
        ) from None


def decode(name: str, data: bytes) -> np.ndarray:
    """Returns a picture, uint8 (height, width, 3), or raises InputError naming it."""
    return np.asarray(_decoded(name, data, "RGB"))


def _starts(length: int, side: int) -> list[int]:
    """Returns where pieces begin that cover a length, overlapping by a quarter."""
    room = max(0, length - side)
    count = -(-room // (side * 3 // 4)) + 1
    return [round(start) for start in np.linspace(0, room, count)]


def cut(files: Mapping[str, bytes], side: int) -> np.ndarray:
    """Cuts pictures into pieces of one size that cover them.

    Args:
      files: pictures by name.
      side: of the pieces, pixels; smaller pictures are continued by reflection.

    Returns:
      uint8 (pieces, side, side, 3).

    Raises:
      InputError: naming a file that is no readable image.
    """
    pieces = []
    for name, data in files.items():
        image = np.asarray(_decoded(name, data, "RGB"))
        below, right = (max(0, side - length) for length in image.shape[:2])
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
        for top in _starts(image.shape[0], side):
            for left in _starts(image.shape[1], side):
                pieces.append(image[top : top + side, left : left + side])
    return np.stack(pieces)


def _clip(name: str) -> str:
    """Returns what frames of one shot have in common: all but the last number."""
    path = pathlib.PurePosixPath(name)
    return str(path.with_name(pairs.clip_of(path.stem)))


def hold_out(files: Files, share: float) -> tuple[Files, Files]:
    """Divides pictures, never the frames of one shot, by a hash of their names.

    Args:
      files: pictures by name.
      share: of the shots that is held out; one is at least.

    Returns:
      The pictures to train on and those that are held out.

    Raises:
      InputError: where nothing would be left to train on.
    """
    clips = sorted(
        {_clip(name) for name in files},
        key=lambda clip: hashlib.sha256(clip.encode()).digest(),
    )
    held = set(clips[: max(1, round(share * len(clips)))])
    if len(held) == len(clips):
        raise errors.InputError(
            "one clean picture alone: one is held out, and none is left to train on; "
            "add pictures to --clean"
        )
    train = {name: data for name, data in files.items() if _clip(name) not in held}
    return train, {name: data for name, data in files.items() if name not in train}


def read_overlays(path: str) -> tuple[Files, np.ndarray]:
    """Reads scanned dirt.

    Args:
      path: a folder, a `.zip` that `pack` wrote, or "" for none.

    Returns:
      Its files, and their `masks`: uint8 (0, 1, 1) for none.

    Raises:
      InputError: where there are none, or one is opaque.
    """
    if not path:
        return {}, np.zeros((0, 1, 1), np.uint8)
    files = read_files(path, inside=OVERLAYS)
    return files, masks(files)


def masks(files: Mapping[str, bytes]) -> np.ndarray:
    """Returns the alpha channels of scanned dirt, each in the middle of a square.

    Args:
      files: RGBA pictures by name; only alpha is read.

    Returns:
      uint8 (count, side, side), side being that of the largest, 400 at most.

    Raises:
      InputError: naming a picture without transparency, or none at all.
    """
    channels = []
    for name, data in files.items():
        alpha = _decoded(name, data, "RGBA").getchannel("A")
        if alpha.getextrema()[0] == 255:
            raise errors.InputError(
                f"{name}: opaque everywhere; overlays are RGBA pictures whose alpha "
                "is the dirt"
            )
        alpha.thumbnail((_OVERLAY_SIDE, _OVERLAY_SIDE), Image.Resampling.LANCZOS)
        channels.append(np.asarray(alpha))
    side = max(max(channel.shape) for channel in channels)
    squares = np.zeros((len(channels), side, side), np.uint8)
    for square, channel in zip(squares, channels, strict=True):
        top, left = ((side - length) // 2 for length in channel.shape)
        square[top : top + channel.shape[0], left : left + channel.shape[1]] = channel
    return squares
