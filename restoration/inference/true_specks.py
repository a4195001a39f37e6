"""Small bright things that a picture shows: stars, snow, rain, polka dots.

To a network they are dust, and it would take them all. Dust lies here and there; what
lies dense over a whole picture, or in a lattice, belongs to it and is left alone. Only
things that stand clear of smooth surroundings count, so that grain, foliage and gravel
do not.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage, spatial

from restoration.images import color
from restoration.inference import rows

# The size of what is small, pixels, and the height of the bands that are looked at.
_SIDE, _AREA, _OPENING, _BAND, _MARGIN = 14, 150, 15, 512, 32

# How much lighter than its surroundings, of 1, a candidate is; one that counts; and by
# how many of their standard deviations.
_CANDIDATE, _CLEAR, _DEVIATIONS = 0.06, 0.1, 5.0

# Surroundings: a square of 2 radius + 1, of which half must be free of candidates.
_RADIUS, _FREE = 12, 0.5

# Dense: so many in a picture, and a megapixel, and two or more in nearly as many of an
# 8×8 grid's cells as if they lay at random. In large pictures it is enough that they
# are many, and half of all that is small.
_LEAST, _PER_MEGAPIXEL, _SPREAD, _CELLS = 100, 400, 0.7, 8
_MANY, _MANY_SHARE = 600, 0.5

# Regular: so many whose four nearest neighbours are about equally far (of things at
# random a tenth are).
_LATTICE, _LATTICE_SHARE, _EQUAL = 40, 0.5, 0.12

# Among bright texture things touch it. What is so much lighter than its surroundings is
# left alone too, unless it is longer than so many pixels, as scratches are.
_STRONG, _LONG = 0.2, 40

# Around each thing so many pixels are left alone too.
_AROUND = 3

# Of larger pictures only every second, third, ... band is looked at for the decision.
_PIXELS = 6_000_000


@dataclasses.dataclass(frozen=True)
class _Things:
    """Candidates in a band: their labels, which are small, and which count.

    `above` is how much lighter than its surroundings each pixel is.
    """

    above: np.ndarray
    labels: np.ndarray
    small: np.ndarray
    clear: np.ndarray
    centers: np.ndarray


def _mean(values: np.ndarray) -> np.ndarray:
    return ndimage.uniform_filter(values, 2 * _RADIUS + 1, mode="reflect")


def _things(luma: np.ndarray) -> _Things:
    """Finds small bright things in lightness, float (height, width)."""
    above = luma - ndimage.grey_opening(luma, (_OPENING, _OPENING))
    candidates = above > _CANDIDATE
    labels, count = ndimage.label(candidates, np.ones((3, 3)))
    if not count:
        none = np.zeros(0, bool)
        return _Things(above, labels, none, none, np.zeros((0, 2)))
    boxes, numbers = ndimage.find_objects(labels), np.arange(1, count + 1)
    high, wide = (
        np.array([box[axis].stop - box[axis].start for box in boxes]) for axis in (0, 1)
    )
    area = np.bincount(labels.ravel())[1:]
    longer, shorter = np.maximum(high, wide), np.minimum(high, wide)
    small = (area >= 2) & (area <= _AREA) & (longer <= _SIDE)
    compact = (longer <= 2 * shorter) & (area >= 0.5 * high * wide)
    # What streaks, as rain does, fills little of its square, but is thin.
    streak = (longer > 2 * shorter) & (area >= longer)
    free = (~ndimage.binary_dilation(candidates)).astype(np.float32)
    share = _mean(free)
    mean = _mean(luma * free) / np.maximum(share, 1e-6)
    square = _mean(luma * luma * free) / np.maximum(share, 1e-6)
    deviation = np.sqrt(np.maximum(square - mean * mean, 1e-6))
    peak = ndimage.maximum(above, labels, numbers)
    rough = ndimage.maximum(deviation, labels, numbers)
    alone = ndimage.minimum(share, labels, numbers) > _FREE
    clear = peak > np.maximum(_CLEAR, _DEVIATIONS * rough)
    centers = np.array(
        [[(p[0].start + p[0].stop) / 2, (p[1].start + p[1].stop) / 2] for p in boxes]
    )
    small &= compact | streak
    return _Things(above, labels, small, small & clear & alone, centers)


def _strong(above: np.ndarray) -> np.ndarray:
    """Returns where something short is much lighter than its surroundings."""
    labels, _ = ndimage.label(above > _STRONG, np.ones((3, 3)))
    sides = [
        max(box[0].stop - box[0].start, box[1].stop - box[1].start)
        for box in ndimage.find_objects(labels)
    ]
    short = np.array([False, *(side <= _LONG for side in sides)])
    return short[labels]


def _bands(
    read: rows.Read, luma_of: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields the first row of a band, its own rows, and lightness with a margin."""
    kept, top, first = None, 0, 0
    for values in read():
        luma = luma_of(values)
        kept = luma if kept is None else np.concatenate([kept, luma])
        # `kept` begins a margin above the band, but for the first.
        while len(kept) - (first - top) >= _BAND + _MARGIN:
            yield first, _BAND, kept[: first - top + _BAND + _MARGIN]
            first += _BAND
            cut = max(0, first - _MARGIN - top)
            kept, top = kept[cut:], top + cut
    if kept is not None and len(kept) > first - top:
        yield first, len(kept) - (first - top), kept


def _margin(first: int) -> int:
    return min(first, _MARGIN)


def _is_lattice(centers: np.ndarray) -> bool:
    """Returns whether most things have four neighbours about equally far."""
    if len(centers) < _LATTICE:
        return False
    distances = spatial.cKDTree(centers).query(centers, k=5)[0][:, 1:]
    varied = distances.std(1) / np.maximum(distances.mean(1), 1e-6)
    # At the edges some neighbours are missing.
    return bool((varied < _EQUAL).mean() > _LATTICE_SHARE)


def _is_dense(
    centers: np.ndarray, candidates: int, looked: int, size: tuple[int, int]
) -> bool:
    cells, count = np.zeros((_CELLS, _CELLS)), len(centers)
    at = (centers * _CELLS / np.array(size)).astype(int).clip(0, _CELLS - 1)
    np.add.at(cells, (at[:, 0], at[:, 1]), 1)
    mean = cells.mean()
    at_random = 1 - np.exp(-mean) * (1 + mean)  # of two or more, as Poisson says
    dense = count >= _LEAST and count / looked * 1e6 >= _PER_MEGAPIXEL
    many = count >= _MANY and count >= _MANY_SHARE * candidates
    return bool((dense or many) and (cells >= 2).mean() >= _SPREAD * at_random)


def find(
    read: rows.Read,
    to_model: color.ToModel,
    size: tuple[int, int],
) -> rows.Read | None:
    """Finds the small bright things that a picture shows.

    Args:
      read: gives the stored values' rows from the top; more than once.
      to_model: makes RGB of them.
      size: the picture's height and width.

    Returns:
      What reads rows (rows, width, 1), uint8, 0 where a thing is and 255 elsewhere;
      None where there are none, or so few that they are dust.
    """

    def luma_of(values: np.ndarray) -> np.ndarray:
        return np.asarray(to_model(values), np.float32) @ color.LUMA

    every = 1 + size[0] * size[1] // _PIXELS
    found, candidates, looked = [], 0, 0
    for number, (first, own, luma) in enumerate(_bands(read, luma_of)):
        if number % every:
            continue
        things, margin = _things(luma), _margin(first)
        rows_of = things.centers[:, 0] - margin
        inside = (rows_of >= 0) & (rows_of < own)
        chosen = things.centers[things.clear & inside]
        offset = np.array([first - margin, 0])
        found.append(chosen + offset)
        candidates += int(inside.sum())
        looked += own * size[1]
    centers = np.concatenate(found) if found else np.zeros((0, 2))
    if not (_is_dense(centers, candidates, looked, size) or _is_lattice(centers)):
        return None

    def blocks() -> Iterator[np.ndarray]:
        for first, own, luma in _bands(read, luma_of):
            things, margin = _things(luma), _margin(first)
            kept = np.concatenate([[False], things.small])[things.labels]
            kept |= _strong(things.above)
            around = np.ones((2 * _AROUND + 1, 2 * _AROUND + 1))
            kept = ndimage.binary_dilation(kept, around)[margin : margin + own]
            yield np.where(kept, np.uint8(0), np.uint8(255))[..., None]

    return blocks
