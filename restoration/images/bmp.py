"""The resolution in BMP files, which Pillow rounds by way of inches."""

import os
import struct

# Where BITMAPINFOHEADER keeps pixels per metre; the older header has none.
_OFFSET, _OLD_HEADER = 38, 12


def resolution(path: str | os.PathLike) -> tuple[float, float] | None:
    """Returns pixels per millimetre across and down, None where none is given."""
    with open(path, "rb") as file:
        head = file.read(54)
    if len(head) < 54 or struct.unpack_from("<I", head, 14)[0] <= _OLD_HEADER:
        return None
    across, down = struct.unpack_from("<ii", head, _OFFSET)
    return (across / 1000, down / 1000) if across > 0 and down > 0 else None


def set_resolution(path: str | os.PathLike, found: tuple[float, float] | None) -> None:
    """Writes pixels per millimetre into a file that Pillow wrote; None: unknown."""
    across, down = (round(1000 * value) for value in found or (0, 0))
    with open(path, "r+b") as file:
        file.seek(_OFFSET)
        file.write(struct.pack("<ii", across, down))
