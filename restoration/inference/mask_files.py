"""Files of masks, and of infrared scans, that a user gives: which, and their rows."""

import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from restoration.base import errors
from restoration.images import picture
from restoration.inference import jobs

# What the name of an infrared scan ends in.
_INFRARED = ("_ir", "_IR")


def _candidates(path: pathlib.PurePath, job: jobs.Job) -> Iterator[pathlib.PurePath]:
    """Yields what a picture's mask may be named in a folder, without page numbers."""
    endings = [path.suffix, *picture.SUFFIXES]
    stems = [path.stem, f"{path.stem}_damage", f"{job.beside}_damage",
             f"{job.target.name}_damage"]  # fmt: skip
    for stem, ending in itertools.product(stems, endings):
        yield path.with_name(stem + ending)


def find_file(
    given: str, job: jobs.Job, number: int, *, option: str
) -> tuple[pathlib.Path, int]:
    """Returns the file, and the page in it, of the mask of a picture's page.

    In a folder it has the picture's path and name, or that of a mask that an earlier
    run wrote; for later pages with their number, as in `a_2.png`, unless the first
    page's file has so many pages.

    Args:
      given: a file, or a folder.
      job: of which picture.
      number: of which page, from 0.
      option: that gives the mask, for errors.

    Raises:
      InputError: when there is none.
    """
    path = pathlib.Path(given)
    found = [path]
    if path.is_dir():
        found = list(_candidates(path / job.relative, job))
    if number:
        for candidate in found:
            of_page = candidate.with_stem(f"{candidate.stem}_{number + 1}")
            if of_page.is_file():
                return of_page, 0
    for candidate in found:
        if candidate.is_file():
            count = len(picture.inspect(candidate).pages)
            if number < count:
                return candidate, number
            raise errors.InputError(
                f"{candidate}: --{option} has no mask of page {number + 1}; add "
                f"{candidate.stem}_{number + 1}{candidate.suffix}"
            )
    expected = (path / job.relative).with_suffix(".png") if path.is_dir() else path
    raise errors.InputError(
        f"{job.source}: no mask {expected} for --{option}; add one, or leave it out"
    )


def read_rows(
    path: pathlib.Path, number: int, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yields rows of a mask file, uint8 (rows, width, 1), 0 for black, 255 for white.

    Raises:
      InputError: for a mask of another size than the page's height and width, and for
        what cannot be read.
    """
    mask = picture.inspect(path)
    page = mask.pages[number]
    if (page.height, page.width) != size:
        raise errors.InputError(
            f"{path}: a mask of {page.width}×{page.height} pixels for a picture of "
            f"{size[1]}×{size[0]}; make them equal"
        )
    for values in picture.rows(mask, page):
        colors = picture.normalized(page, values)[..., : page.colors]
        grey = np.nan_to_num(colors.mean(-1, keepdims=True))
        yield np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)


def read_infrared(path: pathlib.Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yields rows of an infrared scan in a file, float32 (rows, width, 1) in [0, 1].

    Raises:
      InputError: for a scan of another size than the page's height and width, and for
        what cannot be read.
    """
    scan = picture.inspect(path)
    page = scan.pages[0]
    if (page.height, page.width) != size:
        raise errors.InputError(
            f"{path}: an infrared scan of {page.width}×{page.height} pixels for a "
            f"picture of {size[1]}×{size[0]}; scan both alike"
        )
    for values in picture.rows(scan, page):
        colors = picture.normalized(page, values)[..., : page.colors]
        yield np.clip(np.nan_to_num(colors.mean(-1, keepdims=True)), 0, 1)


def find_infrared(source: pathlib.Path) -> pathlib.Path | None:
    """Returns the infrared scan beside a picture, such as `NAME_ir.tif`, or None."""
    for ending, suffix in itertools.product(_INFRARED, (".tif", ".tiff", ".png")):
        path = source.with_name(f"{source.stem}{ending}{suffix}")
        if path.is_file():
            return path
    return None
