"""Pairs of frames of a worn film and its remaster, aligned in time and space.

The worn film is what a network will be given, so its frames are cropped and
otherwise left alone; the remaster's frames are resampled onto them.
"""

import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from PIL import Image

from restoration.base import errors
from restoration.film import alignment, footage, matching, registration, shots, video
from restoration.images import frames

# Frames of each shot whose geometry is measured.
_MEASURED = 7

# A shot has a geometry of its own where it differs by more from the film's, in
# pixels of the remaster, in a corner; else the film's is the better measured.
_SAME = 0.5
_ENOUGH = 3

# Fewer matched frames than this say nothing.
_FEWEST = 3

# What both films show must be this large, pixels.
_SMALLEST = 32

# Pairs that are kept in memory, to be shown, and their longest side.
_SHOWN = 24
_PICTURE = 400

# BT.709 luma, in 8 bits.
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclasses.dataclass(frozen=True)
class PairOptions:
    """What `write_pairs` needs of the options of `python -m restoration.extract`."""

    output: pathlib.Path
    every: int
    per_shot: int
    cuts: bool
    min_likeness: float
    overwrite: bool


@dataclasses.dataclass(frozen=True)
class PairedShot:
    """A shot of the worn film, as it lies in the remaster.

    Attributes:
      index: its place in the worn film, from 0.
      start: its first frame.
      end: the frame after its last.
      matches: frames of both films that show the same, in order.
      likeness: of each match, of small pictures.
      lying: how the frames lie on each other; None where no two frames do.
      own: whether that was measured on this shot alone, not on the whole film.
      measured: frames on which it was measured.
      spread: median distance of these measurements from it, pixels of the
        remaster, in the corner where it is largest: noise, or an unsteady gate.
      box: the part of the worn frame that both show: left, top, right, bottom.
    """

    index: int
    start: int
    end: int
    matches: tuple[tuple[int, int], ...]
    likeness: tuple[float, ...]
    lying: registration.Geometry | None
    own: bool
    measured: int
    spread: float
    box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Written:
    """What became of a chosen pair.

    Attributes:
      likeness: of the two frames as they lie on each other.
      name: of the pair; empty where it was dropped, for too low a likeness.
      pictures: worn and remastered frame, shrunk, uint8; of some pairs only.
    """

    likeness: float
    name: str
    pictures: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class Paired:
    """What was seen and written of two films.

    Attributes:
      degraded: the worn film.
      clean: its remaster.
      shots: shots of the worn film.
      written: for frames of the worn film that were chosen, what became of them.
    """

    degraded: footage.Footage
    clean: footage.Footage
    shots: tuple[PairedShot, ...]
    written: Mapping[int, Written]


def _together(
    degraded: video.Film,
    clean: video.Film,
    matches: Iterable[tuple[int, int]],
    label: str,
) -> Iterator[tuple[video.Frame, video.Frame]]:
    """Yields the frames of matches, ascending, decoding both films side by side."""
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


# Geometry.


def _scaled(
    lying: registration.Geometry, degraded: video.Film, clean: video.Film
) -> registration.Geometry:
    """Returns the geometry of thumbnails as that of the films' frames."""
    high, wide = shots.SIZE
    return lying.resized(
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
    """Returns the geometry measured on frames of the worn film, where it shows."""
    found = {}
    for frame, other in _together(
        degraded, clean, samples, f"measure {degraded.path.name}"
    ):
        first, second = _grey(frame), _grey(other)
        lying = registration.register(first, second, start)
        if registration.likeness(first, second, lying) >= least:
            found[frame.number] = lying
    return found


def _paired_shot(
    seen: footage.Footage,
    clean: video.Film,
    index: int,
    matched: matching.Match,
    measured: Mapping[int, registration.Geometry],
    usual: registration.Geometry,
) -> PairedShot:
    """Puts together what is known of one shot."""
    shot, shape = seen.shots[index], (seen.film.height, seen.film.width)
    inside = (matched.first >= shot.start) & (matched.first < shot.end)
    numbers = matched.first[inside].tolist(), matched.second[inside].tolist()
    own = [lying for number, lying in measured.items() if number in numbers[0]]
    lying, alone = usual, False
    if len(own) >= _ENOUGH:
        middle = registration.median(own)
        alone = registration.distance(middle, usual, shape) > _SAME
        lying = middle if alone else usual
    spread = [registration.distance(one, lying, shape) for one in own]
    return PairedShot(
        index=index,
        start=shot.start,
        end=shot.end,
        matches=tuple(zip(*numbers, strict=True)),
        likeness=tuple(matched.likeness[inside].tolist()),
        lying=lying if own else None,
        own=alone,
        measured=len(own),
        spread=float(np.median(spread)) if spread else math.nan,
        box=registration.common_box(lying, shape, (clean.height, clean.width)),
    )


def _nothing(degraded: video.Film, clean: video.Film) -> errors.InputError:
    return errors.InputError(
        f"{degraded.path} and {clean.path}: nothing in them matches, so nothing was "
        "written; are they the same film? --min_likeness lowers the bar"
    )


def _align(
    seen: footage.Footage, clean: footage.Footage, least: float
) -> tuple[PairedShot, ...]:
    """Aligns two films in time and space; returns the shots of the worn one.

    Raises:
      InputError: when they have nothing in common.
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


# Writing.


def _usable(shot: PairedShot, least: float) -> list[tuple[int, int]]:
    """Returns the matches of a shot that are alike enough."""
    left, top, right, bottom = shot.box
    if shot.lying is None or min(right - left, bottom - top) < _SMALLEST:
        return []
    return [
        match
        for match, likeness in zip(shot.matches, shot.likeness, strict=True)
        if likeness >= least
    ]


def _cropped(
    degraded: np.ndarray, clean: np.ndarray, shot: PairedShot
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns both frames where both reach, and their likeness."""
    left, top, right, bottom = shot.box
    first = degraded[top:bottom, left:right]
    second = registration.cut_out(clean, shot.lying, shot.box)
    same = registration.Geometry()
    return first, second, registration.likeness(first @ _LUMA, second @ _LUMA, same)


def _write(
    degraded: video.Film,
    clean: video.Film,
    chosen: Mapping[tuple[int, int], PairedShot],
    options: PairOptions,
) -> dict[int, Written]:
    """Writes the chosen pairs; returns what became of each worn frame."""
    written, shown = {}, _to_show(chosen)
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
        written[frame.number] = Written(likeness, name, pictures)
    return written


def _shrunk(picture: np.ndarray) -> np.ndarray:
    """Returns a picture of _PICTURE at most, since many are kept."""
    image = Image.fromarray(picture)
    image.thumbnail((_PICTURE, _PICTURE))
    return np.asarray(image)


def _to_show(chosen: Mapping[tuple[int, int], PairedShot]) -> set[int]:
    """Returns the worn frames to show: one of a shot, of some shots."""
    of_shot: dict[int, list[int]] = {}
    for (number, _), shot in chosen.items():
        of_shot.setdefault(shot.index, []).append(number)
    middles = [numbers[len(numbers) // 2] for numbers in of_shot.values()]
    return set(footage.chosen(middles, 1, _SHOWN)) if middles else set()


def write_pairs(
    degraded: video.Film, clean: video.Film, options: PairOptions
) -> Paired:
    """Writes the pairs of two films that show the same.

    Args:
      degraded: the film whose frames become `input/`.
      clean: the film whose frames become `output/`, resampled onto the others.
      options: where to, and which.

    Returns:
      What was found and written.

    Raises:
      InputError: when the films have nothing in common, or files exist already;
        nothing is written then.
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
    written = _write(degraded, clean, chosen, options)
    return Paired(seen, other, found, written)
