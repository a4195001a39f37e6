"""What Pillow does not read or write of BMP files: resolution, colors, transparency.

Source: Microsoft's descriptions of BITMAPINFOHEADER and BITMAPV5HEADER.
"""

import os
import pathlib
import struct

import numpy as np
from PIL import Image

from restoration.images import colorimetry
from restoration.images.colorimetry import Colorimetry

# Sizes of headers. From the fourth version on they say what colors mean.
_V1, _V3, _V4, _V5 = 12, 40, 108, 124

# Offsets in the file of: the header, its bits of a pixel, its pixels per metre, its
# color space and, for the fifth version, where a profile lies.
_HEADER, _BITS, _DENSITY, _SPACE, _PROFILE = 14, 28, 38, 70, 126

# Names of color spaces: values of its own (primaries and gammas), a profile inside.
_CALIBRATED, _EMBEDDED, _SRGB = 0, 0x4D424544, 0x73524742

# Where the largest profile ends that is read.
_MOST_BYTES = 1 << 26


def _head(path: str | os.PathLike) -> tuple[bytes, int]:
    """Returns a file's headers, filled up with zeros, and the size of its second."""
    with open(path, "rb") as file:
        head = file.read(_HEADER + _V5)
    size = struct.unpack_from("<I", head, _HEADER)[0] if len(head) >= 18 else 0
    return head[: _HEADER + size].ljust(_HEADER + _V5, b"\0"), size


def bits(path: str | os.PathLike) -> int:
    """Returns how many bits a pixel takes."""
    head, size = _head(path)
    return struct.unpack_from("<H", head, 24 if size == _V1 else _BITS)[0]


def resolution(path: str | os.PathLike) -> tuple[float, float] | None:
    """Returns pixels per millimetre across and down, None where none is given."""
    head, size = _head(path)
    across, down = struct.unpack_from("<ii", head, _DENSITY)
    known = size >= _V3 and across > 0 and down > 0
    return (across / 1000, down / 1000) if known else None


def profile(path: str | os.PathLike) -> bytes:
    """Returns the color profile inside a file, b"" where there is none."""
    head, size = _head(path)
    (space,) = struct.unpack_from("<I", head, _SPACE)
    start, length = struct.unpack_from("<II", head, _PROFILE)
    if size < _V5 or space != _EMBEDDED or not 128 <= length <= _MOST_BYTES:
        return b""
    with open(path, "rb") as file:
        file.seek(_HEADER + start)
        data = file.read(length)
    return data if len(data) == length and data[36:40] == b"acsp" else b""


def meaning(path: str | os.PathLike, colors: int) -> Colorimetry | None:
    """Returns what a file's primaries and gammas say, None for sRGB or nothing."""
    head, size = _head(path)
    (space,) = struct.unpack_from("<I", head, _SPACE)
    if size < _V4 or space != _CALIBRATED:
        return None
    ends = np.array(struct.unpack_from("<9i", head, _SPACE + 4)).reshape(3, 3)
    gammas = np.array(struct.unpack_from("<3I", head, _SPACE + 40)) / 65536
    sums = ends.sum(1, keepdims=True)
    if (sums <= 0).any() or not (0.2 <= gammas.min() <= gammas.max() <= 5):
        return None
    # The ends are X, Y and Z, and add up to white.
    white = ends.sum(0) / ends.sum()
    primaries = (*(ends / sums)[:, :2].ravel(), *white[:2])
    found = Colorimetry(tuple(map(float, primaries)), float(gammas[1]))
    if np.ptp(gammas) > 0.01:
        steps = np.linspace(0, 1, 1024)
        tables = tuple(tuple(map(float, steps**gamma)) for gamma in gammas)
        found = Colorimetry(found.primaries, tables)
    if not colorimetry.is_usable(found) or colorimetry.is_srgb(found, colors):
        return None
    return found


def write(
    path: pathlib.Path,
    values: np.ndarray,
    *,
    resolution: tuple[float, float] | None,
    profile: bytes,
) -> None:
    """Writes a BMP file.

    Args:
      path: the file.
      values: uint8 (height, width, 1, 3 or 4), grey, RGB or RGBA.
      resolution: pixels per millimetre across and down; None: unknown.
      profile: an ICC profile of the colors, or b"".
    """
    height, width, bands = values.shape
    across, down = (round(1000 * value) for value in resolution or (0, 0))
    if bands < 4 and not profile:
        shown = values[..., 0] if bands == 1 else values
        Image.fromarray(shown).save(path, format="BMP")
        with path.open("r+b") as file:
            file.seek(_DENSITY)
            file.write(struct.pack("<ii", across, down))
        return
    if bands == 1:
        values, bands = values.repeat(3, -1), 3
    stored = np.concatenate([values[..., 2::-1], values[..., 3:]], -1)[::-1]
    rows = stored.reshape(height, -1)
    pixels = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    alpha = bands == 4
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000) if alpha else (0, 0, 0, 0)
    header = struct.pack(
        "<IiiHHIIiiII4II48xIIII",
        _V5, width, height, 1, 8 * bands, 3 if alpha else 0, len(pixels), across, down,
        0, 0, *masks, _EMBEDDED if profile else _SRGB,
        4,  # the rendering intent of pictures
        _V5 + len(pixels) if profile else 0, len(profile), 0,
    )  # fmt: skip
    start = _HEADER + len(header)
    size = start + len(pixels) + len(profile)
    path.write_bytes(
        struct.pack("<2sIHHI", b"BM", size, 0, 0, start) + header + pixels + profile
    )
