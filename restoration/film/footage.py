"""A film looked through once: small pictures of all frames, their times, the shots.

The small pictures lie in a file on disk, so memory does not grow with the film.
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
    """What was seen of a film.

    Attributes:
      film: the film.
      thumbnails: uint8 (frames, height, width), see `shots`; black where a frame
        is damaged.
      seconds: when each frame is shown.
      shots: what lies between its cuts.
      failure: why not all of the film was seen; empty when all was.
    """

    film: video.Film
    thumbnails: np.ndarray
    seconds: np.ndarray
    shots: tuple[shots.Shot, ...]
    failure: str


def progress(
    frames: Iterator[video.Frame], total: int, label: str
) -> Iterator[video.Frame]:
    """Returns the same frames under a progress bar; the total 0 is unknown."""
    return tqdm.tqdm(frames, total=total or None, unit="frame", desc=label)


def look_through(film: video.Film, folder: pathlib.Path, *, cuts: bool) -> Footage:
    """Decodes a film once.

    Args:
      film: from `films.describe`.
      folder: where the thumbnails may lie while the footage is used.
      cuts: whether to look for cuts; otherwise the film is one shot.

    Returns:
      What was seen, up to where the film is broken.

    Raises:
      InputError: when no frame can be decoded, or the folder's disk is full.
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
        raise errors.InputError(failure or f"{film.path}: no frame in it; replace it")
    thumbnails = np.memmap(path, np.uint8, "r", shape=(len(seconds), *shots.SIZE))
    divided = shots.find(thumbnails) if cuts else (shots.Shot(0, len(seconds)),)
    return Footage(film, thumbnails, np.array(seconds), divided, failure)


def chosen(numbers: Sequence[Any], every: int, per_shot: int) -> list[Any]:
    """Returns the frames of a shot that are written, or matches of frames.

    Args:
      numbers: those that could be, in order.
      every: each so many-th, from the first on.
      per_shot: how many, evenly spread, instead; 0 for every so many-th.

    Returns:
      Some of them, in order.
    """
    if not per_shot:
        return list(numbers[::every])
    count = min(per_shot, len(numbers))
    # The middles of equal parts: cuts are where compression is worst.
    return [numbers[int((k + 0.5) * len(numbers) / count)] for k in range(count)]


def frame_name(film: video.Film, shot: int, number: int) -> str:
    """Returns a frame's name below the folder, without suffix; clip by shot.

    Args:
      film: the film, whose name is the sub-folder.
      shot: the shot's index, from 0.
      number: the frame's number in the film.
    """
    return f"{folder_name(film)}/shot{shot + 1:04d}_{number:07d}"


def folder_name(film: video.Film) -> str:
    """Returns the sub-folder of a film's frames; hidden ones would not be found."""
    return film.path.stem.lstrip(".") or "film"


def refuse_existing(targets: Iterable[pathlib.Path]) -> None:
    """Raises InputError for the first of these files that exists."""
    for target in targets:
        if target.exists():
            raise errors.InputError(f"{target}: exists; --overwrite replaces it")
