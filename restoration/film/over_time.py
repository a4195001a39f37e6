"""Dirt found and filled with what the neighbouring frames show.

Dirt on a film lasts for one frame. Three passes go over each shot. The first finds
spikes (`motion.spikes`) with motion measured on the film as it is, and fills them. The
second measures motion again, on that cleaner film, as far as two frames away, finds
damage anew, by spikes or by a learned finder, and fills it from whichever frames agree.
The third does the same once more: the dirt that the spikes left has misled the motion.
Only what is found is changed. Everything is a stream: a frame needs five before and
five after it, whatever the length of the film.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from etils import epy

from restoration.film import motion, scratches, stills

with epy.lazy_imports():
    import cv2

# Frames on each side that the restored frame depends on: one in the first pass, two in
# each of the others.
REACH = 5

# The four frames that a frame is compared with are called references: the nearest
# before and after it, then the next ones.
REFERENCES = 4

# Brightness of references is matched on pixels that differ by less, of 255.
_MATCHED = 40

# What the first pass takes for a spike; see `motion.spikes`.
_HIGH, _LOW = 12.0, 5.0

# How fast a reference loses weight in a fill: levels of 255.
_TRUST = 4.0


@dataclasses.dataclass(frozen=True)
class Passed:
    """A frame after the first pass.

    Attributes:
      still: the frame as it is on the film.
      planes: with what was found filled.
      grey: their luma.
      smooth: luma on which motion is measured.
      mask: what was found, bool (height, width).
    """

    still: stills.Still
    planes: tuple[np.ndarray, ...]
    grey: np.ndarray
    smooth: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Reference:
    """Another frame, seen from this one.

    Attributes:
      frame: the frame.
      offset: how many frames later it is shown.
      field: the motion to it.
      gain: what its brightness is multiplied with to be like this frame's.
      grey: its luma as it looks from this frame, at this frame's brightness.
    """

    frame: Passed
    offset: int
    field: np.ndarray
    gain: float
    grey: np.ndarray


@dataclasses.dataclass(frozen=True)
class Found:
    """What the second pass found in a frame.

    Attributes:
      mask: bool (height, width).
      weights: float32 (height, width, references), how much of each reference fills a
        pixel; they add to 1.
      share: float32 (height, width) in [0, 1], how much of a masked pixel is filled;
        None for all of it.
    """

    mask: np.ndarray
    weights: np.ndarray
    share: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Done:
    """A restored frame.

    Attributes:
      still: the frame as it was.
      planes: as it is now.
      mask: what was changed, bool (height, width).
      references: what it was compared with.
    """

    still: stills.Still
    planes: tuple[np.ndarray, ...]
    mask: np.ndarray
    references: tuple[Reference, ...] = ()


# What finds damage in a frame, given its references.
Finder = Callable[[stills.Still, Sequence[Reference]], Found]


def offsets(before: int, after: int) -> tuple[int, ...]:
    """Returns which frames are a frame's references.

    Args:
      before: how many frames the shot has before this one.
      after: how many after it.

    Returns:
      Four offsets in frames, the nearest two first, some twice near the ends of a
      shot, where one side must do; none in a shot of one or two frames, which does
      not show what belongs to it.
    """
    earlier = [-step for step in (1, 2) if step <= before]
    later = [step for step in (1, 2) if step <= after]
    if earlier and later:
        far = [earlier[-1], later[-1]]
        if len(earlier) < 2:
            far[0] = later[-1]
        if len(later) < 2:
            far[1] = earlier[-1]
        return (-1, 1, *far)
    one_side = earlier or later
    return (*one_side, *one_side) if len(one_side) == 2 else ()


def _gain(grey: np.ndarray, other: np.ndarray) -> float:
    """Returns what `other` is multiplied with to be as bright as `grey`."""
    one, two = (x[::4, ::4].astype(np.float32) for x in (grey, other))
    near = np.abs(one - two) < _MATCHED
    if near.mean() < 0.25:
        return 1.0
    total = float((two[near] ** 2).sum())
    return float((one[near] * two[near]).sum() / total) if total else 1.0


def _seen(
    current: Passed, others: Sequence[tuple[int, Passed]], *, fine: bool = False
) -> tuple[Reference, ...]:
    """Measures motion from a frame to others, and looks along it; a frame once."""
    found: dict[int, Reference] = {}
    corrected = motion.filled_from_around(current.mask)
    for offset, other in others:
        if offset in found:
            continue
        field = corrected(motion.flow(current.smooth, other.smooth, fine=fine))
        looked = motion.warped(other.grey, field)
        gain = _gain(current.grey, looked)
        if abs(gain - 1) > 2e-3:
            looked = cv2.convertScaleAbs(looked, alpha=gain)
        found[offset] = Reference(other, offset, field, gain, looked)
    return tuple(found[offset] for offset, _ in others)


def spike_finder(high: float = _HIGH, low: float = _LOW) -> Finder:
    """Returns the finder without learning: spikes, widened by a pixel.

    Args:
      high: see `motion.spikes`.
      low: the same.
    """

    def find(still: stills.Still, references: Sequence[Reference]) -> Found:
        mask = _spikes(still.grey, references, high, low)
        return Found(mask, cv2.merge(trust(still.grey, references, mask)))

    return find


def _spikes(
    grey: np.ndarray,
    references: Sequence[Reference],
    high: float = _HIGH,
    low: float = _LOW,
) -> np.ndarray:
    """Returns the spikes of a frame beside its nearest references, widened by one."""
    near = [reference.grey for reference in references[:2]]
    mask = motion.spikes(grey, near, high=high, low=low)
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def shares(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns weights, float32 (height, width) each, as shares of their sum."""
    total = sum(weights[1:], start=weights[0])
    return [weight / total for weight in weights]


def trust(
    grey: np.ndarray, references: Sequence[Reference], mask: np.ndarray
) -> list[np.ndarray]:
    """Returns how much of each reference to fill with, without learning.

    A reference counts as far as it agrees with this frame around the mask, and with
    the other references inside.

    Args:
      grey: uint8 (height, width).
      references: four.
      mask: bool (height, width), where this frame cannot be asked.

    Returns:
      For each reference float32 (height, width); they add to 1 at each pixel.
    """
    sound = cv2.blur((~mask).astype(np.float32), (9, 9)) + 1e-3
    median = _median([reference.grey for reference in references])
    weights = []
    for reference in references:
        apart = cv2.absdiff(reference.grey, grey)
        apart[mask] = 0
        around = cv2.blur(apart.astype(np.float32), (9, 9)) / sound
        alone = cv2.blur(cv2.absdiff(reference.grey, median).astype(np.float32), (3, 3))
        distance = np.float32(_TRUST**2) + around * around + alone * alone
        weights.append(1 / (distance * distance))
    return shares(weights)


def _median(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the mean of the middle two of four images, uint8."""
    one, two, three, four = images
    low = np.maximum(np.minimum(one, two), np.minimum(three, four))
    high = np.minimum(np.maximum(one, two), np.maximum(three, four))
    return cv2.addWeighted(low, 0.5, high, 0.5, 0)


def filled(
    planes: Sequence[np.ndarray],
    found: Found,
    references: Sequence[Reference],
    layout: stills.Layout,
    grain: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Returns planes whose masked pixels show what the references show there.

    Args:
      planes: of the frame.
      found: what to fill, and from where.
      references: the frames to fill from, which have been cleaned once.
      layout: how planes are to be read.
      grain: float32 (height, width) in samples, what is added to the filled pixels of
        luma, green, blue and red; None for none.

    Returns:
      The planes; pixels outside the mask, and opacity, as they were.
    """
    if not found.mask.any():
        return tuple(planes)
    height, width = found.mask.shape
    results = []
    for index, plane in enumerate(planes):
        if index >= stills.colored(planes, layout):
            results.append(plane)
            continue
        rows, columns = np.nonzero(stills.mask_at(found.mask, plane.shape))
        # The pixel of luma in the middle of each pixel of this plane.
        high, wide = height / plane.shape[0], width / plane.shape[1]
        down = np.minimum(((rows + 0.5) * high).astype(np.intp), height - 1)
        across = np.minimum(((columns + 0.5) * wide).astype(np.intp), width - 1)
        weights = found.weights[down, across]
        base = stills.zero(index, layout)
        total = np.zeros(len(rows), np.float32)
        shares: dict[int, np.ndarray] = {}
        for number, reference in enumerate(references):
            position = reference.field[down, across] / np.float32([wide, high])
            position += np.stack([columns, rows], -1).astype(np.float32)
            values = motion.sampled(reference.frame.planes[index], position)
            values = (values - base) * np.float32(reference.gain) + base
            total += weights[:, number] * values
            # A frame may be a reference twice.
            so_far = shares.get(reference.offset, np.float32(0))
            shares[reference.offset] = so_far + weights[:, number]
        if grain is not None and (index == 0 or layout.colors == "rgb"):
            # References that are averaged have less grain than one.
            left = sum(share**2 for share in shares.values())
            lost = np.sqrt(np.maximum(1 - left, 0))
            total += grain[rows, columns] * lost
        if found.share is not None:
            own = plane[rows, columns].astype(np.float32)
            total = own + (total - own) * found.share[down, across]
        result = plane.copy()
        result[rows, columns] = np.clip(total + 0.5, 0, layout.top)
        results.append(result)
    return tuple(results)


def grain_of(
    still: stills.Still,
    references: Sequence[Reference],
    mask: np.ndarray,
    layout: stills.Layout,
) -> np.ndarray:
    """Returns grain like this frame's own, for places that are filled.

    It is the frame's own, what sets it apart from its references, moved so that what
    is masked takes that of another position.

    Returns:
      float32 (height, width) in samples, of about the deviation of the grain.
    """
    near = [reference.grey for reference in references[:2]]
    mean = cv2.addWeighted(near[0], 0.5, near[1], 0.5, 0).astype(np.float32)
    apart = still.grey.astype(np.float32) - mean
    apart[mask] = 0
    # Half of the pixels lie within 0.674 deviations; edges that were not met, beyond.
    deviation = float(np.median(np.abs(apart[::2, ::2]))) / 0.6745
    apart = np.clip(apart, -2.5 * deviation, 2.5 * deviation)
    shift = np.random.default_rng(still.number).integers(16, 64, 2)
    apart = np.roll(apart, tuple(shift), (0, 1))
    # The mean of two references has half of the grain's variance itself.
    return apart * np.float32((1 << (layout.bits - 8)) / np.sqrt(1.5))


def with_given(found: Found, given: np.ndarray) -> Found:
    """Returns what was found and what the user marked, the latter filled wholly."""
    share = found.share
    if share is not None:
        share = np.where(given, np.float32(1), share)
    return dataclasses.replace(found, mask=found.mask | given, share=share)


def first_pass(
    frames: Iterable[stills.Still], layout: stills.Layout, *, blind: bool = True
) -> Iterator[Passed]:
    """Finds spikes in the frames of a shot and fills them.

    Args:
      frames: of one shot, in order.
      layout: how planes are to be read.
      blind: whether spikes are looked for; else only what is marked is filled.
    """

    def unchanged(still: stills.Still) -> Passed:
        return Passed(
            still,
            still.planes,
            still.grey,
            motion.smoothed(still.grey),
            np.zeros(still.grey.shape, bool),
        )

    for before, current, after in stills.windows(map(unchanged, frames), 2):
        wanted = offsets(len(before), len(after))[:2]
        if not wanted:
            yield current
        else:
            others = _others(before, after, wanted)
            yield _passed_once(current, others, layout, blind=blind)


# What a pass computes for a frame, fields of motion above all, is large: functions of
# their own free it before the next frame.


def _passed_once(
    current: Passed,
    others: Sequence[tuple[int, Passed]],
    layout: stills.Layout,
    *,
    blind: bool,
) -> Passed:
    """Returns a frame whose spikes, and what is marked, are filled from two others."""
    mask = current.still.given
    if not blind and (mask is None or not mask.any()):
        return current
    references = list(_seen(current, others))
    if blind:
        spikes = _spikes(current.grey, references)
        mask = spikes if mask is None else mask | spikes
    if not mask.any():
        return current
    _correct_fields(references, mask)
    half = np.broadcast_to(np.float32(0.5), (*mask.shape, 2))
    planes = filled(current.planes, Found(mask, half), references, layout)
    grey = stills.to_grey(planes, layout)
    return Passed(current.still, planes, grey, motion.smoothed(grey), mask)


def _correct_fields(references: list[Reference], mask: np.ndarray) -> None:
    """Replaces motion under a mask, a reference at a time: fields are large."""
    corrected = motion.filled_from_around(mask)
    for index, reference in enumerate(references):
        field = corrected(reference.field)
        references[index] = dataclasses.replace(reference, field=field)


def _others(
    before: Sequence[Passed], after: Sequence[Passed], wanted: Sequence[int]
) -> list[tuple[int, Passed]]:
    return [
        (offset, before[offset] if offset < 0 else after[offset - 1])
        for offset in wanted
    ]


def second_pass(
    frames: Iterable[Passed],
    layout: stills.Layout,
    find: Finder,
    *,
    grain: bool = True,
    fine: bool = False,
) -> Iterator[Done]:
    """Finds damage in frames that were passed before, and fills it.

    Args:
      frames: of one shot.
      layout: how planes are to be read.
      find: what finds.
      grain: whether filled places get grain.
      fine: see `motion.flow`.

    Yields:
      The restored frames, in order.
    """
    for before, current, after in stills.windows(frames, 2):
        wanted = offsets(len(before), len(after))
        still = current.still
        if not wanted:
            mask, planes = still.given, still.planes
            if mask is None:
                mask = np.zeros(still.grey.shape, bool)
            elif mask.any():
                planes = scratches.filled(planes, mask, layout, still.number)
            yield Done(still, planes, mask)
            continue
        others = _others(before, after, wanted)
        yield _restored(current, others, layout, find, grain=grain, fine=fine)


def _restored(
    current: Passed,
    others: Sequence[tuple[int, Passed]],
    layout: stills.Layout,
    find: Finder,
    *,
    grain: bool,
    fine: bool,
) -> Done:
    """Returns a frame whose damage, and what is marked, is filled from four others."""
    still = current.still
    references = list(_seen(current, others, fine=fine))
    found = find(still, references)
    if still.given is not None:
        found = with_given(found, still.given)
    added = grain_of(still, references, found.mask, layout) if grain else None
    _correct_fields(references, found.mask)
    planes = filled(still.planes, found, references, layout, added)
    return Done(still, planes, found.mask, tuple(references))


def as_passed(done: Done, layout: stills.Layout) -> Passed:
    """Returns a restored frame as one that goes through `second_pass` once more.

    Finer motion, which would follow dirt, is better there: little of it is left.

    Args:
      done: the frame, filled without grain.
      layout: how planes are to be read.
    """
    grey = stills.to_grey(done.planes, layout)
    return Passed(done.still, done.planes, grey, motion.smoothed(grey), done.mask)


def denoised(done: Done, layout: stills.Layout) -> tuple[np.ndarray, ...]:
    """Averages a restored frame with its references where they show the same.

    Args:
      done: the frame.
      layout: how planes are to be read.

    Returns:
      Its planes with less grain; opacity as it was.
    """
    if not done.references:
        return done.planes
    grey = stills.to_grey(done.planes, layout)
    apart, seen = [], {reference.offset: reference for reference in done.references}
    for reference in seen.values():
        difference = cv2.absdiff(reference.grey, grey)
        apart.append(cv2.blur(difference.astype(np.float32), (5, 5)))
    # What most of the picture differs by is grain: 1.13 deviations on average.
    usual = float(np.median(np.stack([x[::4, ::4] for x in apart])))

    weights = apart
    for number, difference in enumerate(apart):  # in place: at 4K each is large
        more = np.maximum(difference - 1.1 * usual, 0) / (0.5 * usual + 0.5)
        weights[number] = np.exp(-np.square(more))
    results = []
    for index, plane in enumerate(done.planes):
        if index >= stills.colored(done.planes, layout):
            results.append(plane)
            continue
        size = plane.shape[::-1]
        base = stills.zero(index, layout)
        total, count = plane.astype(np.float32), np.ones(plane.shape, np.float32)
        for reference, weight in zip(seen.values(), weights, strict=True):
            field = reference.field
            if plane.shape != grey.shape:
                factor = np.float32([size[0] / grey.shape[1], size[1] / grey.shape[0]])
                field = cv2.resize(field, size, interpolation=cv2.INTER_AREA) * factor
                weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
            other = motion.warped(reference.frame.planes[index], field)
            other = other.astype(np.float32) - base
            total += weight * (other * np.float32(reference.gain) + base)
            count += weight
        results.append(np.clip(total / count + 0.5, 0, layout.top).astype(plane.dtype))
    return tuple(results)


def finder_input(still: stills.Still, references: Sequence[Reference]) -> np.ndarray:
    """Returns what a learned finder looks at.

    Args:
      still: the frame.
      references: four.

    Returns:
      float32 (height, width, `film_finder.CHANNELS`): luma; what the references have
      more; by how much it is brighter or darker than both near ones around; how far
      these differ; what the median of all five has more; its bright and its dark
      specks (openings and closings of 7×7 pixels); and how far motion is from steady.
    """
    grey = still.grey
    square = np.ones((3, 3), np.uint8)
    one, other = references[0].grey, references[1].grey
    low = np.minimum(cv2.erode(one, square), cv2.erode(other, square))
    high = np.maximum(cv2.dilate(one, square), cv2.dilate(other, square))
    middle = _median([reference.grey for reference in references])
    wide = np.ones((7, 7), np.uint8)
    unsteady = (
        references[0].field / references[0].offset
        - references[1].field / references[1].offset
    )
    own = grey.astype(np.float32)
    channels = [
        own / 255,
        *((reference.grey - own) / 64 for reference in references),
        (cv2.subtract(grey, high) - cv2.subtract(low, grey).astype(np.float32)) / 64,
        cv2.absdiff(one, other) / np.float32(64),
        (middle - own) / 64,
        cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, wide) / np.float32(64),
        cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, wide) / np.float32(64),
        np.minimum(np.hypot(unsteady[..., 0], unsteady[..., 1]) / 4, 4),
    ]
    return np.stack(channels, -1).astype(np.float32, copy=False)
