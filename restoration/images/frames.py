"""Image files in and out, through libvips; nothing else touches image files.

In memory a frame is a float32 array (height, width, 3), RGB in [0, 1]. The
training pipeline alone decodes on its own, inside tf.data.
"""

import logging
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
from etils import epy
from PIL import Image

from restoration.base import errors, files

with epy.lazy_imports():  # training on arrays does without libvips
    import pyvips

# It logs each picture at INFO, and at WARNING what its errors say again.
logging.getLogger("pyvips").setLevel(logging.ERROR)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

# A frame is in memory whole; what claims more pixels is an error or an attack.
MOST_PIXELS = 1 << 27

# A full-scale value of each pixel format that libvips delivers.
_FULL_SCALE = {"uchar": 255.0, "ushort": 65535.0, "float": 1.0, "double": 1.0}


def is_image(path: str | os.PathLike) -> bool:
    """Returns whether a path is named as an image and is not a hidden file."""
    name = os.path.basename(path)
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def list_images(folder: str | os.PathLike, *, recursive: bool = True) -> Iterator[str]:
    """Yields the image files of a folder as relative POSIX paths, in order.

    Symbolic links to folders are not followed; hidden folders are passed over.

    Args:
      folder: where to look.
      recursive: whether to look into sub-folders too.

    Yields:
      Paths relative to the folder, sorted within each folder.

    Raises:
      InputError: when a folder cannot be read.
    """
    # Names and no more: of a million files an entry each would be half a gigabyte.
    names: list[str] = []
    folders: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if recursive and not entry.name.startswith("."):
                        names.append(entry.name)
                        folders.add(entry.name)
                elif is_image(entry.name) and entry.is_file():
                    names.append(entry.name)
    except OSError as error:
        raise errors.InputError(f"{folder}: {error.strerror}; check the path") from None
    names.sort()
    for name in names:
        if name in folders:
            for below in list_images(os.path.join(folder, name)):
                yield f"{name}/{below}"
        else:
            yield name


def _is_utf8(path: pathlib.Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _open(path: str | os.PathLike) -> "pyvips.Image":
    """Opens a file lazily; BMP, which the libvips wheel lacks, through Pillow."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.InputError(f"{path}: no such file")
    try:
        if path.suffix.lower() == ".bmp":
            with Image.open(path) as image:
                _check_size(path, *image.size)
                return pyvips.Image.new_from_array(np.asarray(image.convert("RGB")))
        options = {"access": "sequential", "fail_on": "error"}
        if not _is_utf8(path):  # libvips would refuse the name
            image = pyvips.Image.new_from_buffer(path.read_bytes(), "", **options)
        else:
            image = pyvips.Image.new_from_file(str(path), **options)
        _check_size(path, image.width, image.height)
        return image
    except errors.InputError:
        raise
    except (pyvips.Error, OSError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None


def _check_size(path: pathlib.Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise errors.InputError(
            f"{path}: {width}×{height} pixels, of which a frame may have "
            f"{MOST_PIXELS:,}; cut it, or restore it with python -m restoration.restore"
        )


def _unreadable(path: str | os.PathLike, error: Exception) -> errors.InputError:
    reason = " ".join((getattr(error, "detail", "") or str(error)).split())[:160]
    return errors.InputError(
        f"{path}: not a readable image ({reason}); replace or remove it"
    )


def size(path: str | os.PathLike) -> tuple[int, int]:
    """Returns (height, width) of an image file, from its header alone."""
    image = _open(path)
    return image.height, image.width


def read(path: str | os.PathLike) -> np.ndarray:
    """Reads an image file.

    Grey becomes RGB, transparency is dropped, 16 bits keep their precision,
    the EXIF orientation is not applied (pixels stay as they are stored).

    Args:
      path: an image file of one of `SUFFIXES`.

    Returns:
      A float32 array (height, width, 3), RGB in [0, 1].

    Raises:
      InputError: for a file that is missing, damaged or not an image.
    """
    image = _open(path)
    try:
        if image.interpretation == "cmyk":
            image = image.colourspace("srgb")
        if image.format not in _FULL_SCALE:
            image = image.cast("uchar")
        values = image.numpy()
    except pyvips.Error as error:
        raise _unreadable(path, error) from None
    if values.ndim == 2:
        values = values[..., None]
    values = values[..., :3] if values.shape[-1] >= 3 else values[..., :1]
    scaled = values.astype(np.float32) / np.float32(_FULL_SCALE[image.format])
    return np.ascontiguousarray(
        np.broadcast_to(np.clip(scaled, 0, 1), (*scaled.shape[:2], 3))
    )


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Returns float pixels in [0, 1] as uint8, rounded to the nearest."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _with_metadata(picture: "pyvips.Image", source: "pyvips.Image") -> "pyvips.Image":
    picture = picture.copy(xres=source.xres, yres=source.yres)
    # The profile of another color space would be wrong for RGB.
    converted = source.interpretation == "cmyk"
    for name in source.get_fields():
        if _METADATA.fullmatch(name) and not (converted and name.startswith("icc")):
            picture.set_type(source.get_typeof(name), name, source.get(name))
    return picture


# What goes with the pixels: color profile, camera data, how to hold it.
_METADATA = re.compile(
    r"exif-.*|xmp-data|iptc-data|icc-profile-data|orientation|resolution-unit"
)


def write(
    path: str | os.PathLike, image: np.ndarray, *, like: str | os.PathLike | None = None
) -> None:
    """Writes an image file of 8 bits, whole or not at all.

    Args:
      path: where to; the suffix gives the format. JPEG and WebP are written at
        quality 95 without chroma subsampling.
      image: float (height, width, 3) in [0, 1], or (height, width) for grey.
      like: an image file whose metadata is taken over.

    Raises:
      InputError: for a suffix that cannot be written or a disk that is full.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    options = {}
    if suffix in (".jpg", ".jpeg"):
        options = {"Q": 95, "subsample_mode": "off"}
    elif suffix == ".webp":
        options = {"Q": 95}
    elif suffix in (".tif", ".tiff"):
        options = {"compression": "deflate"}
    try:
        with files.replacing(path) as temporary:
            pixels = to_uint8(image)
            if suffix == ".bmp":
                Image.fromarray(pixels).save(temporary)
            else:
                picture = pyvips.Image.new_from_array(pixels)
                if like is not None:
                    picture = _with_metadata(picture, _open(like))
                picture.write_to_file(str(temporary), **options)
    except (pyvips.Error, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise errors.InputError(f"{path}: cannot be written ({reason})") from None
