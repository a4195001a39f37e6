"""Pairs of frames of a degraded film and its remaster, aligned in time and space.

Networks are trained on the degraded film's pixels as they are: its frames are only
cropped, and the remaster's frames are resampled onto them.
"""

import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from PIL import Image

from restoration.base import errors, luma
from restoration.film import alignment, footage, matching, registration, shots, video
from restoration.images import frames

# Frames of each shot on which the geometry is measured.
_MEASURED = 7

# A shot gets its own geometry if that was measured on _ENOUGH frames and moves a corner
# by more than _SAME pixels of the remaster. Otherwise the film's is more precise.
_SAME = 0.5
_ENOUGH = 3

# Two films with fewer matched frames have nothing in common.
_FEWEST = 3

# Smallest side in pixels of the part that both films show.
_SMALLEST = 32

# Number of pairs kept in memory for the page, and their longest side.
_SHOWN = 24
_PICTURE = 400

_LUMA = np.array(luma.BT709, np.float32)


@dataclasses.dataclass(frozen=True)
class PairOptions:
    """Options of `write_pairs`, named as those of `python -m restoration.extract`."""

    output: pathlib.Path
    every: int
    per_shot: int
    cuts: bool
    min_likeness: float
    overwrite: bool


@dataclasses.dataclass(frozen=True)
class PairedShot:
    """A shot of the degraded film, aligned with the remaster.

    Attributes:
      index: of the shot in the degraded film, from 0.
      start: its first frame.
      end: the frame after its last.
      matches: (frame of the degraded film, frame of the remaster), in order.
      likeness: of each match's thumbnails.
      geometry: maps degraded frames to the remaster's; None if it was not measured
        on any frame of the shot.
      own: whether the geometry is this shot's own, not the whole film's.
      measured: number of frames on which the geometry was measured.
      spread: median difference of these measurements from the geometry, in pixels of
        the remaster, in the worst corner: noise, or an unsteady gate.
      box: (left, top, right, bottom), the part of a degraded frame that both show.
    """

    index: int
    start: int
    end: int
    matches: tuple[tuple[int, int], ...]
    likeness: tuple[float, ...]
    geometry: registration.Geometry | None
    own: bool
    measured: int
    spread: float
    box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class PairResult:
    """A chosen pair: written, or dropped.

    Attributes:
      likeness: of the two aligned frames.
      name: of the pair; "" if it was dropped since its likeness is too low.
      pictures: degraded and remastered frame for the page, uint8 (height, width, 3);
        only of some pairs.
    """

    likeness: float
    name: str
    pictures: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class Paired:
    """Two aligned films, and the pairs chosen from them.

    Attributes:
      degraded: the degraded film.
      target: its remaster.
      shots: the shots of the degraded film.
      results: of each chosen frame of the degraded film, by its number.
    """

    degraded: footage.Footage
    target: footage.Footage
    shots: tuple[PairedShot, ...]
    results: Mapping[int, PairResult]


def _together(
    degraded: video.Film,
    clean: video.Film,
    matches: Iterable[tuple[int, int]],
    label: str,
) -> Iterator[tuple[video.Frame, video.Frame]]:
    """Yields the two frames of each match, in order, decoding both films together."""
    partner = dict(matches)
    found = video.pick(degraded, partner)
    others = video.pick(clean, partner.values())
    other = next(others, None)
    for frame in footage.progress(found, len(partner), label):
        while other is not None and other.number < partner[frame.number]:
            other = next(others, None)
        if other is None:
            return
        if other.number == partner[frame.number]:
            yield frame, other


def _grey(frame: video.Frame) -> np.ndarray:
    return video.to_grey(frame, (frame.film.height, frame.film.width))


def _scaled(
    geometry: registration.Geometry, degraded: video.Film, clean: video.Film
) -> registration.Geometry:
    """Converts a geometry of thumbnails to one of the films' frames."""
    high, wide = shots.SIZE
    return geometry.resized(
        (degraded.height / high, degraded.width / wide),
        (clean.height / high, clean.width / wide),
    )


def _measure(
    degraded: video.Film,
    clean: video.Film,
    samples: Iterable[tuple[int, int]],
    start: registration.Geometry,
    least: float,
) -> dict[int, registration.Geometry]:
    """Returns the geometry of each sampled frame that can be registered."""
    found = {}
    for frame, other in _together(
        degraded, clean, samples, f"measure {degraded.path.name}"
    ):
        first, second = _grey(frame), _grey(other)
        geometry = registration.register(first, second, start)
        if registration.likeness(first, second, geometry) >= least:
            found[frame.number] = geometry
    return found


def _paired_shot(
    seen: footage.Footage,
    clean: video.Film,
    index: int,
    matched: matching.Match,
    measured: Mapping[int, registration.Geometry],
    usual: registration.Geometry,
) -> PairedShot:
    """Returns one shot with its matches and its geometry."""
    shot, shape = seen.shots[index], (seen.film.height, seen.film.width)
    inside = (matched.first >= shot.start) & (matched.first < shot.end)
    numbers = matched.first[inside].tolist(), matched.second[inside].tolist()
    own = [geometry for number, geometry in measured.items() if number in numbers[0]]
    geometry, alone = usual, False
    if len(own) >= _ENOUGH:
        middle = registration.median(own)
        alone = registration.distance(middle, usual, shape) > _SAME
        geometry = middle if alone else usual
    spread = [registration.distance(one, geometry, shape) for one in own]
    return PairedShot(
        index=index,
        start=shot.start,
        end=shot.end,
        matches=tuple(zip(*numbers, strict=True)),
        likeness=tuple(matched.likeness[inside].tolist()),
        geometry=geometry if own else None,
        own=alone,
        measured=len(own),
        spread=float(np.median(spread)) if spread else math.nan,
        box=registration.common_box(geometry, shape, (clean.height, clean.width)),
    )


def _nothing(degraded: video.Film, clean: video.Film) -> errors.InputError:
    return errors.InputError(
        f"{degraded.path} and {clean.path}: no frames match, nothing was written; "
        "check that both are the same film, or lower --min_likeness"
    )


def _align(
    seen: footage.Footage, clean: footage.Footage, least: float
) -> tuple[PairedShot, ...]:
    """Aligns two films in time and space; returns the degraded film's shots.

    Raises:
      InputError: if they have nothing in common.
    """
    shapes = [(film.height, film.width) for film in (seen.film, clean.film)]
    matched = alignment.match(seen.thumbnails, clean.thumbnails, *shapes, least=least)
    if len(matched.first) < _FEWEST:
        raise _nothing(seen.film, clean.film)
    samples = []
    for shot in seen.shots:
        inside = (matched.first >= shot.start) & (matched.first < shot.end)
        pairs = list(zip(matched.first[inside], matched.second[inside], strict=True))
        samples += footage.chosen(pairs, 1, _MEASURED) if pairs else []
    measured = _measure(
        seen.film,
        clean.film,
        samples,
        _scaled(matched.geometry, seen.film, clean.film),
        least,
    )
    if not measured:
        raise _nothing(seen.film, clean.film)
    usual = registration.median(list(measured.values()))
    return tuple(
        _paired_shot(seen, clean.film, index, matched, measured, usual)
        for index in range(len(seen.shots))
    )


def _usable(shot: PairedShot, least: float) -> list[tuple[int, int]]:
    """Returns the matches of a shot whose likeness is high enough."""
    left, top, right, bottom = shot.box
    if shot.geometry is None or min(right - left, bottom - top) < _SMALLEST:
        return []
    return [
        match
        for match, likeness in zip(shot.matches, shot.likeness, strict=True)
        if likeness >= least
    ]


def _cropped(
    degraded: np.ndarray, clean: np.ndarray, shot: PairedShot
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns the part of each frame that both show, and their likeness."""
    left, top, right, bottom = shot.box
    first = degraded[top:bottom, left:right]
    second = registration.cut_out(clean, shot.geometry, shot.box)
    same = registration.Geometry()
    return first, second, registration.likeness(first @ _LUMA, second @ _LUMA, same)


def _write(
    degraded: video.Film,
    clean: video.Film,
    chosen: Mapping[tuple[int, int], PairedShot],
    options: PairOptions,
) -> dict[int, PairResult]:
    """Writes the chosen pairs; returns the result of each degraded frame."""
    results, shown = {}, _to_show(chosen)
    for frame, other in _together(
        degraded, clean, list(chosen), f"write {degraded.path.name}"
    ):
        shot = chosen[frame.number, other.number]
        first, second, likeness = _cropped(
            video.to_rgb(frame), video.to_rgb(other), shot
        )
        pictures = ()
        if frame.number in shown:
            pictures = _shrunk(first), _shrunk(second)
        name = ""
        if likeness >= options.min_likeness:
            name = footage.frame_name(degraded, shot.index, frame.number)
            for side, image in (("input", first), ("output", second)):
                path = options.output / side / f"{name}.png"
                frames.write(path, image / np.float32(255))
        results[frame.number] = PairResult(likeness, name, pictures)
    return results


def _shrunk(image: np.ndarray) -> np.ndarray:
    """Returns an image shrunk to _PICTURE pixels, since many are kept."""
    small = Image.fromarray(image)
    small.thumbnail((_PICTURE, _PICTURE))
    return np.asarray(small)


def _to_show(chosen: Mapping[tuple[int, int], PairedShot]) -> set[int]:
    """Returns the degraded frames to show: one frame of each of some shots."""
    of_shot: dict[int, list[int]] = {}
    for (number, _), shot in chosen.items():
        of_shot.setdefault(shot.index, []).append(number)
    middles = [numbers[len(numbers) // 2] for numbers in of_shot.values()]
    return set(footage.chosen(middles, 1, _SHOWN)) if middles else set()


def write_pairs(
    degraded: video.Film, clean: video.Film, options: PairOptions
) -> Paired:
    """Aligns two films and writes pairs of frames that show the same.

    Args:
      degraded: the film whose frames become `input/`.
      clean: its remaster, whose frames become `output/`, resampled onto the others.
      options: which pairs to write, and where.

    Returns:
      The aligned films and the pairs.

    Raises:
      InputError: if the films have nothing in common, or files exist already; nothing
        is written then.
    """
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        seen = footage.look_through(degraded, pathlib.Path(one), cuts=options.cuts)
        other = footage.look_through(clean, pathlib.Path(two), cuts=False)
        found = _align(seen, other, options.min_likeness)
    chosen = {
        match: shot
        for shot in found
        for match in footage.chosen(
            _usable(shot, options.min_likeness), options.every, options.per_shot
        )
    }
    if not chosen:
        raise _nothing(degraded, clean)
    if not options.overwrite:
        footage.refuse_existing(
            options.output
            / side
            / f"{footage.frame_name(degraded, s.index, number)}.png"
            for (number, _), s in chosen.items()
            for side in ("input", "output")
        )
    results = _write(degraded, clean, chosen, options)
    return Paired(seen, other, found, results)
