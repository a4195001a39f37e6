"""The mask of damage that is used of a page: what was found and what a user says.

A mask that is used is a picture of 8 bits as large as the page: 255 where a user says
that there is damage, 240 to 254 where it was found, by how certain it is, 0 elsewhere
(`decide.given`). It is made in strips and lies in a scratch file.
"""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from restoration.base import errors
from restoration.images import color, encode, picture, scratch
from restoration.inference import (
    blending,
    decide,
    engine,
    infrared,
    rows,
    tiling,
)

# Rows that are handed on at once.
_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Given:
    """What a user says of a page.

    Attributes:
      damage: uint8 rows (rows, width, 1), white where there is damage, or None.
      keep: the same, black where nothing may be changed, or None.
      infrared: float32 rows of an infrared scan in [0, 1], or None.
      name: what the damage was read from, for errors.
    """

    damage: rows.Read | None = None
    keep: rows.Read | None = None
    infrared: rows.Read | None = None
    name: str = "--damage"


@dataclasses.dataclass(frozen=True)
class Mask:
    """The mask that is used of a page.

    Attributes:
      written: its values in a scratch file.
      share: of the page that is damaged, 0 to 1.
    """

    written: encode.Written
    share: float

    def rows(self) -> Iterator[np.ndarray]:
        """Yields uint8 (rows, width, 1), see above."""
        page = self.written.page
        return scratch.rows(self.written.rows, (page.height, page.width, 1), "uint8")


def plain(page: picture.Page, bands: int = 1) -> picture.Page:
    """Returns what a picture of 8 bits beside a page is, of 1 or 3 channels."""
    return picture.Page(
        0, page.width, page.height, bands, "uint8", bands, resolution=page.resolution
    )


def _with_infrared(
    given: Given, read: rows.Read, to_model: color.ToModel, size: tuple[int, int]
) -> tuple[Given, list[str]]:
    """Returns what is given, what infrared shows among the damage, and notes."""
    if given.infrared is None:
        return given, []

    def luma() -> Iterator[np.ndarray]:
        for values in read():
            yield (to_model(values) @ color.LUMA)[..., None]

    found, note = infrared.make(luma, given.infrared, size)
    marked = given.damage

    def both() -> Iterator[np.ndarray]:
        for values in rows.beside(found(), marked()):
            yield values.max(-1, keepdims=True)

    if found is None:
        return given, [note]
    damage = found if marked is None else both
    return dataclasses.replace(given, damage=damage), []


def _find(
    finder: engine.Network,
    page: picture.Page,
    read: rows.Read,
    to_model: color.ToModel,
    result: encode.Written,
) -> None:
    """Writes the probability of damage, 0 to 255; none where nothing is visible."""
    ahead = rows.read_ahead(read())
    shown, stored = itertools.tee(ahead)
    take = rows.regrouped(stored)
    with contextlib.closing(ahead):
        for found in finder.strips(shown, (page.height, page.width), to_model):
            values = take(len(found))
            seen = blending.visible(page, values)
            found = found if seen is None else found * (seen > 0)
            result.rows.write(np.rint(255 * found).astype(np.uint8))


def _constant(value: int, size: tuple[int, int]) -> rows.Read:
    """Returns what gives the rows of a mask of one value."""

    def blocks() -> Iterator[np.ndarray]:
        for top in range(0, size[0], _ROWS):
            count = min(_ROWS, size[0] - top)
            yield np.full((count, size[1], 1), value, np.uint8)

    return blocks


def _decided(
    probability: rows.Read,
    marked: rows.Read,
    allowed: rows.Read,
    limits: decide.Limits,
    size: tuple[int, int],
) -> Iterator[np.ndarray]:
    """Yields rows of the mask, uint8 (rows, width, 1)."""
    maps = rows.beside(probability(), marked(), allowed())
    compute = functools.partial(decide.compute, limits)
    for found in tiling.restore_strips(compute, maps, decide.GRID, size):
        yield decide.stored(found)


def _given(marked: rows.Read, allowed: rows.Read) -> Iterator[np.ndarray]:
    """Yields rows of what a user alone says, uint8 (rows, width, 1)."""
    for both in rows.beside(marked(), allowed()):
        yield decide.stored(decide.given(both[..., :1]) * (both[..., 1:] > 0))


def make(
    page: picture.Page,
    read: rows.Read,
    to_model: color.ToModel,
    *,
    finder: engine.Network | None,
    given: Given,
    sensitivity: float,
    folder: pathlib.Path,
    stack: contextlib.ExitStack,
) -> tuple[Mask, list[str]]:
    """Makes the mask of a page.

    Args:
      page: the page.
      read: gives its rows from the top, stored values.
      to_model: makes RGB of them.
      finder: finds damage; without it only what a user says counts.
      given: what a user says.
      sensitivity: see `decide.limits`.
      folder: where there is room for scratch files.
      stack: closes them.

    Returns:
      The mask, and notes.

    Raises:
      InputError: for a mask that is given and cannot be used.
    """
    size, grey = (page.height, page.width), plain(page)
    given, notes = _with_infrared(given, read, to_model, size)
    marked = given.damage or _constant(0, size)
    allowed = given.keep or _constant(255, size)

    def written(blocks: Iterator[np.ndarray]) -> Mask:
        result, count = encode.open_written(folder, grey, "uint8"), 0
        stack.enter_context(result.rows)
        for block in blocks:
            result.rows.write(block)
            count += int(np.count_nonzero(block))
        return Mask(result, count / (size[0] * size[1]))

    if not finder:
        mask = written(_given(marked, allowed))
    else:
        with contextlib.ExitStack() as inner:
            likely = encode.open_written(folder, grey, "uint8")
            inner.enter_context(likely.rows)
            _find(finder, page, read, to_model, likely)
            probability = functools.partial(
                scratch.rows, likely.rows, (*size, 1), "uint8"
            )
            limits = decide.limits(sensitivity)
            mask = written(_decided(probability, marked, allowed, limits, size))
        if mask.share > decide.MOST:
            notes.append(
                f"{100 * mask.share:.0f} % looked damaged, too much to be damage: "
                "nothing of it was filled; --damage says what is"
            )
            mask = written(_given(marked, allowed))
    if mask.share == 1:
        raise errors.InputError(
            f"{given.name}: the mask is all white and leaves nothing to fill from; "
            "paint white only what is damaged"
        )
    return mask, notes
