"""Where a film is cut: shots, found in thumbnails of its frames.

A thumbnail is uint8 luma of `SIZE`, whatever the frame's shape. What is compared
is local contrast, so flicker, fading and stains do not count and dirt counts
little; and frames may move against each other, so that a pan is no cut.
"""

import dataclasses
import functools
import itertools

import numpy as np

# (height, width) of a thumbnail: 3 kB, 500 MB on disk for two hours of film.
SIZE = (48, 64)

# Local contrast: the neighbourhood, as a part of the picture's width, and the
# deviation in grey levels below which a neighbourhood counts as flat.
_NEIGHBOURHOOD = 0.1
_FLAT = 8.0

# A thumbnail that varies by less shows nothing: a blank or black frame.
_BLANK = 2.0

# Frames compared on both sides of a cut, so that a flash of two frames is none;
# shots are at least one longer.
_REACH = 3

# Likeness of neighbours above which no cut is looked for, and below which, for
# all frames of one side with all of the other, there is one: as such, and as a
# part of what is usual among the neighbours around, since in fast action no
# frame is like another.
_SAME = 0.7
_CUT = 0.5
_DROP = 0.6
_AROUND = 5

# How far frames may move against each other, as a part of the picture.
_MOTION = 0.3

_CHUNK = 512


@dataclasses.dataclass(frozen=True)
class Shot:
    """Frames from `start` to before `end`."""

    start: int
    end: int


@functools.lru_cache(maxsize=32)
def _blurring(length: int, sigma: float) -> np.ndarray:
    """Returns a Gaussian blur as a matrix; at the ends its weights still sum to 1."""
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    weights = np.exp(-((distance / sigma) ** 2) / 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def local_contrast(luma: np.ndarray) -> np.ndarray:
    """Returns luma with mean 0 and deviation 1 in each neighbourhood.

    Args:
      luma: (..., height, width), 0 to 255.

    Returns:
      float32 of the same shape, within ±3; close to 0 where the picture is flat.
    """
    luma = np.asarray(luma, np.float32)
    sigma = _NEIGHBOURHOOD * luma.shape[-1]
    down = _blurring(luma.shape[-2], sigma)
    across = _blurring(luma.shape[-1], sigma).T
    mean = down @ luma @ across
    spread = np.maximum(down @ (luma * luma) @ across - mean * mean, 0)
    return np.clip((luma - mean) / np.sqrt(spread + _FLAT**2), -3, 3)


def signatures(thumbnails: np.ndarray) -> np.ndarray:
    """Returns unit vectors whose products are the likeness of frames.

    Args:
      thumbnails: uint8 (n, height, width).

    Returns:
      float32 (n, height, width); zeros for a blank frame, which is like nothing.
    """
    flat = thumbnails.astype(np.float32).std(axis=(1, 2)) < _BLANK
    contrast = local_contrast(thumbnails)
    contrast -= contrast.mean(axis=(1, 2), keepdims=True)
    contrast[flat] = 0
    length = np.sqrt((contrast * contrast).sum(axis=(1, 2), keepdims=True))
    return contrast / np.maximum(length, 1e-6)


def _likeness_moving(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the likeness of two signatures, the second moved to where it fits."""
    if not first.any() and not second.any():  # both blank
        return 1.0
    height, width = first.shape
    surface = np.fft.irfft2(
        np.fft.rfft2(first) * np.conj(np.fft.rfft2(second)), s=first.shape
    )
    down, across = int(_MOTION * height), int(_MOTION * width)
    near = np.roll(surface, (down, across), (0, 1))[: 2 * down + 1, : 2 * across + 1]
    return float(near.max())


def _likeness_of_neighbours(thumbnails: np.ndarray) -> np.ndarray:
    """Returns the likeness of each frame with the one before; of the first, 1."""
    likeness = np.ones(len(thumbnails), np.float32)
    for start in range(0, len(thumbnails) - 1, _CHUNK):
        found = signatures(thumbnails[start : start + _CHUNK + 1])
        products = np.einsum("nij,nij->n", found[:-1], found[1:])
        blank = ~found.any(axis=(1, 2))
        products[blank[:-1] & blank[1:]] = 1
        likeness[start + 1 : start + 1 + len(products)] = products
    return likeness


def _is_cut(thumbnails: np.ndarray, place: int) -> bool:
    """Returns whether no frame shortly before `place` is like one shortly after."""
    start = max(0, place - _AROUND)
    found = signatures(thumbnails[start : place + _AROUND])
    before, after = found[: place - start], found[place - start :]
    usual = [
        _likeness_moving(one, other)
        for side in (before, after)
        for one, other in itertools.pairwise(side)
    ]
    limit = min(_CUT, _DROP * float(np.median(usual)))
    return all(
        _likeness_moving(one, other) < limit
        for one, other in itertools.product(before[-_REACH:], after[:_REACH])
    )


def find(thumbnails: np.ndarray) -> tuple[Shot, ...]:
    """Divides a film at its cuts.

    A dissolve or a fade is no cut: the shots on both sides stay together.

    Args:
      thumbnails: uint8 (n, height, width), all frames of the film in order.

    Returns:
      The shots, in order; together they hold every frame.
    """
    starts = [0]
    likeness = _likeness_of_neighbours(thumbnails)
    for place in np.flatnonzero(likeness < _SAME):
        long_enough = min(place - starts[-1], len(thumbnails) - place) > _REACH
        if long_enough and _is_cut(thumbnails, int(place)):
            starts.append(int(place))
    ends = [*starts[1:], len(thumbnails)]
    return tuple(Shot(a, b) for a, b in zip(starts, ends, strict=True) if b > a)
