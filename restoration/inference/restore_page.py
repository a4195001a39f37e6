"""Restoring one page: find, fill, restore, grade, of a file or of an array alike.

The page passes through in strips. First the finder looks at it, and what it finds and
what a user says become the mask (`masks`). Then the filler fills what the mask hides,
and the network restores, held to small changes where the mask is black.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from restoration.base import errors
from restoration.images import color, picture
from restoration.inference import (
    blending,
    decide,
    engine,
    grade,
    masks,
    negative,
    rows,
    true_specks,
)


@dataclasses.dataclass(frozen=True)
class How:
    """How a page is restored.

    Attributes:
      strength: 1 restores, 0 gives back the input.
      blind: whether damage is looked for.
      sensitivity: how readily something counts as damage, 0 to 1.
      only_damage: whether only what is damaged is changed.
      negative: whether it is a negative: "yes", "no", or "auto" to find out.
    """

    strength: float = 1.0
    blind: bool = True
    sensitivity: float = 0.5
    only_damage: bool = False
    negative: str = "auto"


@dataclasses.dataclass(frozen=True)
class Strip:
    """A part of a restored page, from the top.

    Attributes:
      values: restored values, (rows, width, bands), of the page's type.
      before: RGB of sRGB before, float32 (rows, width, 3) in [0, 1].
      after: the same after.
    """

    values: np.ndarray
    before: np.ndarray
    after: np.ndarray


def _look(page: picture.Page, read: rows.Read, to_model: color.ToModel) -> grade.Cells:
    """Looks at a whole page, small: its colors, for its grade."""
    every = grade.stride((page.height, page.width))

    def seen() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        top = 0
        for values in read():
            part = values[-top % every :: every, ::every]
            top += len(values)
            if len(part):
                yield to_model(part), blending.visible(page, part)

    return grade.look(seen(), (-(-page.height // every), -(-page.width // every)))


def _shown(show: color.ToModel, values: np.ndarray) -> np.ndarray:
    """Returns RGB, and after it 1: free to be changed; the shape of its tile."""
    free = np.ones((*values.shape[:2], 1), np.float32)
    return np.concatenate([show(values), free], axis=-1, dtype=np.float32)


def _shown_masked(show: color.ToModel, values: np.ndarray) -> np.ndarray:
    """Returns RGB, and after it the mask, the last channel, as `decide.given` does."""
    mask = decide.given(values[..., -1:])
    return np.concatenate([show(values[..., :-1]), mask], axis=-1, dtype=np.float32)


def _ungated(filled: np.ndarray) -> np.ndarray:
    """Returns filled RGB, and after it 1: all may be changed freely."""
    return np.concatenate([filled[..., :3], np.ones_like(filled[..., 3:])], axis=-1)


def _restored(
    stored: Iterator[np.ndarray],
    size: tuple[int, int],
    show: color.ToModel,
    mask: masks.Mask | None,
    restorer: engine.Engine,
) -> Iterator[np.ndarray]:
    """Returns rows of restored RGB of stored ones, filled where the mask is white."""
    if mask is None or not (mask.share or restorer.gated):
        prepare = functools.partial(_shown, show)
        return restorer.network.strips(stored, size, prepare)
    masked = functools.partial(_shown_masked, show)
    blocks = rows.beside(stored, mask.rows())
    if not mask.share:
        return restorer.network.strips(blocks, size, masked)
    if not restorer.filler:
        raise errors.InputError(
            "no weights of a filler are shipped, and a mask cannot be filled; give "
            "neither --damage nor --infrared"
        )
    filled = restorer.filler.strips(
        blocks, size, masked, changes=lambda core: bool(core[..., 3].any())
    )
    if restorer.gated:
        return restorer.network.strips(filled, size)
    return restorer.network.strips(filled, size, _ungated)


@dataclasses.dataclass(frozen=True)
class _Shown:
    """How a page's values are shown to networks, and changed by what these give.

    Attributes:
      to_model: makes RGB of them, as they are.
      show: the same, graded.
      change_of: of RGB before and after, the difference of stored colors.
      grey: whether no color may come in.
      notes: what was done.
    """

    to_model: color.ToModel
    show: color.ToModel
    change_of: color.Change
    grey: bool
    notes: list[str]


def _shown_page(page: picture.Page, read: rows.Read, grader: Any, how: How) -> _Shown:
    """Looks at a whole page, small: whether it is grey, a negative, or faded."""
    to_model, change_of, notes = color.make_color(page)
    stated = how.negative == "yes"
    if not how.strength or not (grader is not None or page.colors > 1 or stated):
        return _Shown(to_model, to_model, change_of, False, notes)
    cells = _look(page, read, to_model)
    grey = page.colors > 1 and grade.is_grey(cells)
    film, note = None, "restored as a negative, as was asked for, and not graded"
    if stated:
        film = negative.stated(cells)
    elif how.negative == "auto" and page.colors > 1:
        film = negative.find(cells)
        note = (
            "taken for a color negative: restored as such, not graded; --negative=no "
            "says that it is none"
        )
    if film:
        notes.append(note)
        to_model, change_of = negative.positive(film, to_model, change_of)
    show = to_model
    found = None if film or grader is None else grade.estimate(grader, cells)
    if found is not None:
        show = grade.make_prepare(to_model, found)
        notes.append("graded; --keep_color leaves color and tone")
    return _Shown(to_model, show, change_of, grey, notes)


@dataclasses.dataclass(frozen=True)
class _Masks:
    """What is damaged, and what is left alone since it belongs to the picture.

    Attributes:
      damage: the mask that is filled, or None.
      specks: uint8 rows, 0 where specks that belong there are left alone, or None.
      notes: what was found.
    """

    damage: masks.Mask | None
    specks: rows.Read | None
    notes: list[str]


def _masks(
    page: picture.Page,
    read: rows.Read,
    to_model: color.ToModel,
    finder: engine.Network | None,
    how: How,
    given: masks.Given,
    folder: str | os.PathLike,
    stack: contextlib.ExitStack,
) -> _Masks:
    """Finds what is damaged, and specks that belong there."""
    mask, specks, notes = None, None, []
    # Who gives a mask has looked.
    if how.strength and how.blind and not (given.damage or given.keep):
        specks = true_specks.find(read, to_model, (page.height, page.width))
    if specks:
        given = dataclasses.replace(given, keep=specks)
        notes.append(
            "many small bright things (as stars, snow or dots) were left alone; --mask "
            "says where to restore all the same, --strength how much of the rest"
        )
    if how.strength and (finder or given.damage or given.infrared):
        mask, more = masks.make(
            page, read, to_model,
            finder=finder, given=given, sensitivity=how.sensitivity, folder=folder,
            stack=stack,
        )  # fmt: skip
        notes += more
        if mask.share:
            notes.append(f"{_percent(mask.share)} damaged, filled")
    return _Masks(mask, specks, notes)


def restore_page(
    page: picture.Page,
    read: rows.Read,
    restorer: engine.Engine,
    how: How,
    given: masks.Given,
    *,
    folder: str | os.PathLike,
    stack: contextlib.ExitStack,
    write: Callable[[Strip], None],
) -> tuple[masks.Mask | None, list[str]]:
    """Restores a page.

    Args:
      page: of what kind the values are.
      read: gives the stored values' rows from the top; more than once.
      restorer: from `engine.make_engine`.
      how: how.
      given: masks of a user.
      folder: where there is room for scratch files.
      stack: closes those that stay open for the mask.
      write: takes the restored rows from the top.

    Returns:
      The mask that was used, None where none was asked for, and notes.

    Raises:
      InputError: for a mask that cannot be used, and where values cannot be read.
    """
    size = (page.height, page.width)
    if how.strength and (how.blind or given.damage or given.infrared):
        restorer.prepare(size, find=how.blind)
    # Where a mask divides a picture, its parts would be of two grades.
    divided = given.keep is not None or how.only_damage
    grader = None if divided else restorer.grader
    shown = _shown_page(page, read, grader, how)
    to_model, show = shown.to_model, shown.show
    finder = restorer.finder if how.blind else None
    found = _masks(page, read, to_model, finder, how, given, folder, stack)
    mask, specks = found.damage, found.specks
    ahead = rows.read_ahead(read())
    seen_by_networks, stored = itertools.tee(ahead)
    take_stored = rows.regrouped(stored)
    take_keep = rows.regrouped(given.keep()) if given.keep else None
    take_specks = rows.regrouped(specks()) if specks else None
    take_mask = rows.regrouped(mask.rows()) if mask and how.only_damage else None
    with contextlib.closing(ahead):
        for after in _restored(seen_by_networks, size, show, mask, restorer):
            values = take_stored(len(after))
            weight = np.float32(how.strength)
            if take_keep:
                weight = weight * (take_keep(len(after)) / np.float32(255))
            if take_mask:
                weight = weight * (take_mask(len(after)) > 0)
            before = to_model(values)
            if shown.grey:
                after = color.uncolored(before, after)
            if take_specks:  # graded as the rest is
                free = take_specks(len(after)) > 0
                after = np.where(free, after, show(values))
            change = shown.change_of(before, after)
            changed = blending.apply_change(page, values, change, weight)
            seen = blending.visible(page, values)
            part = weight if seen is None else weight * (seen > 0)
            write(Strip(changed, before, before + part * (after - before)))
    return mask, [*shown.notes, *found.notes]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"
