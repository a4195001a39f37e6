"""Finds a film's cuts, and so its shots, in thumbnails of its frames.

A thumbnail is uint8 luma of `SIZE`, whatever the frame's shape. Frames are compared by
local contrast, so that flicker, fading and stains have no influence and dirt has
little. Frames may move against each other, so that a pan is no cut.
"""

import dataclasses
import functools
import itertools

import numpy as np

# (height, width) of a thumbnail. Two hours of film take 500 MB on disk.
SIZE = (48, 64)

# Local contrast: size of the neighborhood as a share of the image's width, and the
# standard deviation in grey levels below which a neighborhood counts as flat.
_NEIGHBORHOOD = 0.1
_FLAT = 8.0

# A thumbnail with a smaller standard deviation is blank.
_BLANK = 2.0

# Frames compared on both sides of a cut, so that a flash of two frames is no cut. A
# shot has at least one frame more.
_REACH = 3

# No cut is searched between neighbors whose likeness is above _SAME. There is a cut if
# the likeness of every frame before it with every frame after it is below _CUT, and
# below _DROP times the median likeness of the _AROUND neighbors on either side: in fast
# action, consecutive frames differ much too.
_SAME = 0.7
_CUT = 0.5
_DROP = 0.6
_AROUND = 5

# Largest motion between frames, as a share of the image.
_MOTION = 0.3

# Frames compared at once.
_CHUNK = 512


@dataclasses.dataclass(frozen=True)
class Shot:
    """The frames from `start` up to, not including, `end`."""

    start: int
    end: int


@functools.lru_cache(maxsize=32)
def _blurring(length: int, sigma: float) -> np.ndarray:
    """Returns a Gaussian blur as a matrix; its weights sum to 1 at the ends too."""
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    weights = np.exp(-((distance / sigma) ** 2) / 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def local_contrast(luma: np.ndarray) -> np.ndarray:
    """Returns luma with mean 0 and standard deviation 1 in each neighborhood.

    Args:
      luma: (..., height, width), 0 to 255.

    Returns:
      float32 of the same shape, within ±3; close to 0 where the image is flat.
    """
    luma = np.asarray(luma, np.float32)
    sigma = _NEIGHBORHOOD * luma.shape[-1]
    down = _blurring(luma.shape[-2], sigma)
    across = _blurring(luma.shape[-1], sigma).T
    mean = down @ luma @ across
    spread = np.maximum(down @ (luma * luma) @ across - mean * mean, 0)
    return np.clip((luma - mean) / np.sqrt(spread + _FLAT**2), -3, 3)


def descriptors(thumbnails: np.ndarray) -> np.ndarray:
    """Returns a unit vector for each frame; a dot product is the frames' likeness.

    Args:
      thumbnails: uint8 (n, height, width).

    Returns:
      float32 (n, height, width); zeros for a blank frame, whose likeness is always 0.
    """
    flat = thumbnails.astype(np.float32).std(axis=(1, 2)) < _BLANK
    contrast = local_contrast(thumbnails)
    contrast -= contrast.mean(axis=(1, 2), keepdims=True)
    contrast[flat] = 0
    length = np.sqrt((contrast * contrast).sum(axis=(1, 2), keepdims=True))
    return contrast / np.maximum(length, 1e-6)


def _likeness_moving(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the likeness of two descriptors, the second moved to where it fits."""
    if not first.any() and not second.any():  # both blank
        return 1.0
    height, width = first.shape
    surface = np.fft.irfft2(
        np.fft.rfft2(first) * np.conj(np.fft.rfft2(second)), s=first.shape
    )
    down, across = int(_MOTION * height), int(_MOTION * width)
    near = np.roll(surface, (down, across), (0, 1))[: 2 * down + 1, : 2 * across + 1]
    return float(near.max())


def _likeness_of_neighbors(thumbnails: np.ndarray) -> np.ndarray:
    """Returns the likeness of each frame with the one before; 1 for the first."""
    likeness = np.ones(len(thumbnails), np.float32)
    for start in range(0, len(thumbnails) - 1, _CHUNK):
        found = descriptors(thumbnails[start : start + _CHUNK + 1])
        products = np.einsum("nij,nij->n", found[:-1], found[1:])
        blank = ~found.any(axis=(1, 2))
        products[blank[:-1] & blank[1:]] = 1
        likeness[start + 1 : start + 1 + len(products)] = products
    return likeness


def _is_cut(thumbnails: np.ndarray, frame: int) -> bool:
    """Returns whether the frames just before `frame` are unlike those from it on."""
    start = max(0, frame - _AROUND)
    found = descriptors(thumbnails[start : frame + _AROUND])
    before, after = found[: frame - start], found[frame - start :]
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
    """Divides a film into shots at its cuts.

    A dissolve or fade is no cut: the shots on both sides stay together.

    Args:
      thumbnails: uint8 (n, height, width), all frames of the film in order.

    Returns:
      The shots in order. Together they contain every frame.
    """
    starts = [0]
    likeness = _likeness_of_neighbors(thumbnails)
    for frame in np.flatnonzero(likeness < _SAME):
        long_enough = min(frame - starts[-1], len(thumbnails) - frame) > _REACH
        if long_enough and _is_cut(thumbnails, int(frame)):
            starts.append(int(frame))
    ends = [*starts[1:], len(thumbnails)]
    return tuple(Shot(a, b) for a, b in zip(starts, ends, strict=True) if b > a)
