"""Where uploaded pictures lie: a temporary folder of the user alone.

It is deleted when the page's program ends; what a killed one left, the next removes.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import tempfile

import psutil

from restoration.base import errors

_PREFIX = "film-restoration-page-"

# Where Linux keeps larger temporary files.
_ON_DISK = pathlib.Path("/var/tmp")

FULL = "the disk is full; free some space and try again"

# Bytes that stay free on the disk, whatever is uploaded.
_RESERVE = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the page takes at most.

    Attributes:
      file: bytes of one picture.
      film: bytes of one film.
      total: bytes of all files, results included.
      files: pictures at a time.
      pixels: of one picture.
    """

    file: int = 2 * 10**9
    film: int = 50 * 10**9
    total: int = 200 * 10**9
    files: int = 2000
    pixels: int = 400_000_000


def place() -> pathlib.Path:
    """Returns where the folder is made: on a disk, where nothing else was chosen.

    Many Linux systems keep /tmp in memory, which a film would use up.
    """
    found = pathlib.Path(tempfile.gettempdir())
    if any(map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))):
        return found
    kinds = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    mounts = (str(path) for path in (found, *found.parents))
    in_memory = kinds.get(next(filter(kinds.get, mounts), "")) == "tmpfs"
    return _ON_DISK if in_memory and os.access(_ON_DISK, os.W_OK) else found


def create() -> pathlib.Path:
    """Makes the folder, which nobody else may look into (mode 0700)."""
    made = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place())
    return pathlib.Path(made)


def remove(folder: pathlib.Path) -> None:
    """Deletes a folder with all that lies in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _in_use(folder: pathlib.Path, number: int) -> bool:
    try:
        started = psutil.Process(number).create_time()
    except psutil.Error:
        return False
    # A process that began later only has the same number.
    return started <= folder.stat().st_mtime + 1


def remove_abandoned() -> list[pathlib.Path]:
    """Deletes the user's folders whose program is gone; returns them."""
    found = []
    for folder in place().glob(f"{_PREFIX}*"):
        number = re.match(rf"{_PREFIX}(\d+)-", folder.name)
        try:
            ours = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
            if folder.is_symlink() or not (number and ours and folder.is_dir()):
                continue
            if _in_use(folder, int(number[1])):
                continue
        except OSError:  # gone, or of someone else
            continue
        remove(folder)
        found.append(folder)
    return found


def used(folder: pathlib.Path) -> int:
    """Returns the bytes of all files in a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # removed meanwhile
                continue
    return total


def check_size(size: int, limits: Limits, *, film: bool) -> None:
    """Raises InputError where a file has more bytes than the page takes."""
    most = limits.film if film else limits.file
    if size > most:
        option = "--max_film_gigabytes" if film else "--max_megabytes"
        raise errors.InputError(
            f"larger than {most / 1e6:,.0f} MB, the most that the page takes ({option})"
        )


def check_room(folder: pathlib.Path, size: int, total: int) -> None:
    """Raises InputError where some bytes more have no room.

    Args:
      folder: of the page.
      size: of what is to come, bytes.
      total: the most that all files may take, bytes.
    """
    if used(folder) + size > total:
        raise errors.InputError(
            f"all files together take more than {total / 1e6:,.0f} MB, the most "
            "that the page takes (--max_gigabytes); remove some from the page first"
        )
    if shutil.disk_usage(folder).free - size < _RESERVE:
        raise errors.InputError(FULL)
