"""Thumbnails of all frames of a film, their times, and its shots.

The thumbnails are in a file on disk, so that memory does not grow with the film.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from restoration.base import errors
from restoration.film import shots, video


@dataclasses.dataclass(frozen=True)
class Footage:
    """A film's thumbnails and shots.

    Attributes:
      film: the film.
      thumbnails: uint8 (frames, height, width), see `shots`; black for a damaged
        frame.
      seconds: the time at which each frame is shown.
      shots: the parts between its cuts.
      failure: why decoding ended early; "" if it did not.
    """

    film: video.Film
    thumbnails: np.ndarray
    seconds: np.ndarray
    shots: tuple[shots.Shot, ...]
    failure: str


def progress(
    frames: Iterator[video.Frame], total: int, label: str
) -> Iterator[video.Frame]:
    """Returns the frames with a progress bar; a total of 0 means unknown."""
    return tqdm.tqdm(frames, total=total or None, unit="frame", desc=label)


def look_through(film: video.Film, folder: pathlib.Path, *, cuts: bool) -> Footage:
    """Decodes a film once.

    Args:
      film: from `video.describe`.
      folder: for the thumbnails; must exist as long as the footage is used.
      cuts: whether to find cuts; otherwise the film is one shot.

    Returns:
      The footage, up to where the film is broken.

    Raises:
      InputError: if no frame can be decoded, or the folder's disk is full.
    """
    failure, seconds = "", []
    path = folder / "thumbnails"
    try:
        with open(path, "wb") as file:
            try:
                found = progress(video.decode(film), film.length, film.path.name)
                for frame in found:
                    small = video.to_grey(frame, shots.SIZE)
                    missing = frame.number - len(seconds)
                    file.write(bytes(missing * small.size))
                    seconds += [frame.seconds] * (missing + 1)
                    file.write(small.tobytes())
            except errors.InputError as error:
                failure = str(error)
    except OSError as error:
        raise errors.InputError(
            f"{path}: cannot be written ({error.strerror}); make room, or set TMPDIR "
            "to a larger disk"
        ) from None
    if not seconds:
        raise errors.InputError(failure or f"{film.path}: has no frames; replace it")
    thumbnails = np.memmap(path, np.uint8, "r", shape=(len(seconds), *shots.SIZE))
    divided = shots.find(thumbnails) if cuts else (shots.Shot(0, len(seconds)),)
    return Footage(film, thumbnails, np.array(seconds), divided, failure)


def chosen(numbers: Sequence[Any], every: int, per_shot: int) -> list[Any]:
    """Chooses the frames of a shot to write.

    Args:
      numbers: frame numbers, or matches of frames, in order.
      every: choose every n-th, from the first on.
      per_shot: choose this many instead, evenly spread; 0: every n-th.

    Returns:
      The chosen ones, in order.
    """
    if not per_shot:
        return list(numbers[::every])
    count = min(per_shot, len(numbers))
    # The middles of equal parts, since compression is worst near cuts.
    return [numbers[int((k + 0.5) * len(numbers) / count)] for k in range(count)]


def frame_name(film: video.Film, shot: int, number: int) -> str:
    """Returns a frame's path below the output folder, without suffix.

    Args:
      film: the film, whose name is the sub-folder.
      shot: the shot's index, from 0.
      number: the frame's number in the film.
    """
    return f"{folder_name(film)}/shot{shot + 1:04d}_{number:07d}"


def folder_name(film: video.Film) -> str:
    """Returns the sub-folder of a film's frames, which is never a hidden one."""
    return film.path.stem.lstrip(".") or "film"


def refuse_existing(targets: Iterable[pathlib.Path]) -> None:
    """Raises InputError if one of these files exists."""
    for target in targets:
        if target.exists():
            raise errors.InputError(f"{target}: exists; --overwrite replaces it")
