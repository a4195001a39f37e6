"""An unsteady gate and flicker, measured over a shot and taken out.

Between neighbouring frames the shift of each of some blocks is measured, and the gain
in brightness that most of the picture shares. Added up they are paths. What smoothing
leaves of a path is the camera's and the scene's. What it takes away, where most blocks
have it in common, is the machine's: so a steady hand, a car that fills the frame or a
pan is told from an unsteady gate, which moves everything alike.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from etils import epy

from restoration.film import motion, stills

with epy.lazy_imports():
    import cv2

# Frames are measured at this width at most, pixels.
_WIDTH = 480

# Deviation of the smoothing over time, frames: weave and flicker are faster.
_SIGMA = 6.0

# The largest corrections: of the frame's width, and of brightness.
_FAR, _MUCH = 0.03, 1.35

# Blocks of a frame, down and across.
_BLOCKS = (6, 8)

# The shift of a block is found in so many steps of Lucas and Kanade's method (1981),
# each of a pixel at most, from optical flow on.
_REFINED, _FURTHEST = 4, 1.0

# Blocks whose mean squared derivative of luma is smaller say nothing about motion.
_TEXTURE = 4.0

# A block that says nothing in more of the frames is not asked.
_SILENT = 0.5


@dataclasses.dataclass(frozen=True)
class Step:
    """How a frame differs from the one before.

    Attributes:
      right: by how much each block lies further right, in parts of the frame's width;
        NaN where there is nothing to measure it on.
      down: further down, in parts of the width.
      gain: by how much the picture is brighter, as a factor.
    """

    right: tuple[float, ...]
    down: tuple[float, ...]
    gain: float = 1.0


# Of the first frame.
STILL = Step(*[(0.0,) * math.prod(_BLOCKS)] * 2)


@dataclasses.dataclass(frozen=True)
class Correction:
    """What takes weave and flicker out of a frame.

    Attributes:
      right: how far it must be moved to the right, in parts of its width.
      down: how far down, in parts of the width.
      gain: what its brightness must be multiplied with.
    """

    right: float = 0.0
    down: float = 0.0
    gain: float = 1.0


def small(grey: np.ndarray) -> np.ndarray:
    """Returns luma at the size at which frames are measured."""
    height, width = grey.shape
    if width > _WIDTH:
        size = (_WIDTH, max(1, round(height * _WIDTH / width)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return motion.smoothed(grey)


def _means(plane: np.ndarray) -> np.ndarray:
    """Returns the means of the blocks, (down, across)."""
    return cv2.resize(plane, _BLOCKS[::-1], interpolation=cv2.INTER_AREA)


def measure(before: np.ndarray, after: np.ndarray, black: int) -> Step:
    """Measures a step between two frames as `small` gives them.

    Args:
      before: uint8 (height, width).
      after: the next frame.
      black: the level of black, of 255.

    Returns:
      The step; `STILL` for frames too small to be measured.
    """
    width = before.shape[1]
    if min(before.shape) < motion.LEAST_SIDE:
        return STILL
    held = before.astype(np.float32) - black
    arrived = after.astype(np.float32) - black
    across, down = (
        cv2.Scharr(held, cv2.CV_32F, *axis, scale=1 / 32) for axis in ((1, 0), (0, 1))
    )
    shift = np.dstack(
        [_block_medians(part) for part in cv2.split(motion.flow(before, after))]
    )
    for _ in range(_REFINED):
        size = before.shape[::-1]
        field = cv2.resize(shift, size, interpolation=cv2.INTER_NEAREST)
        seen = motion.warped(arrived, field)
        gain = _gain(held, seen, 235 - black)
        apart = held - seen / np.float32(gain)
        # Dirt, and what moves in a block, are left out.
        usual = float(np.median(np.abs(apart[::2, ::2]))) / 0.6745
        sound = np.abs(apart) < 3 * usual + 1
        x, y, apart = across * sound, down * sound, apart * sound
        xx, xy, yy = _means(x * x), _means(x * y), _means(y * y)
        xt, yt = _means(x * apart), _means(y * apart)
        # A little weight on staying: along an edge nothing is known.
        a, c = xx + 1, yy + 1
        scale = a * c - xy * xy
        more = np.dstack([(c * xt - xy * yt) / scale, (a * yt - xy * xt) / scale])
        shift = shift + np.clip(more, -_FURTHEST, _FURTHEST)
    right = np.where(xx > _TEXTURE, shift[..., 0] / width, np.nan)
    down = np.where(yy > _TEXTURE, shift[..., 1] / width, np.nan)
    return Step(*(tuple(map(float, x.ravel())) for x in (right, down)), gain)


def _block_medians(plane: np.ndarray) -> np.ndarray:
    """Returns the medians of the blocks, (down, across)."""
    return np.float32(
        [
            [np.median(part) for part in np.array_split(rows, _BLOCKS[1], axis=1)]
            for rows in np.array_split(plane[::2, ::2], _BLOCKS[0])
        ]
    )


def _gain(held: np.ndarray, seen: np.ndarray, white: int) -> float:
    """Returns by how much the second of two pictures is brighter."""
    bright = (held > 16) & (seen > 8) & (seen < white)
    if bright.mean() <= 0.02:
        return 1.0
    return float(np.median(seen[bright] / held[bright]))


def _unsteady(paths: np.ndarray) -> np.ndarray:
    """Returns by how much smoothing over time changes paths, (frames, paths).

    Near the ends of a shot a path is smoothed over what is there, by a line and not
    by a mean, which would hold back a pan.
    """
    count, reach = len(paths), math.ceil(4 * _SIGMA)
    total, first, second = (np.zeros((count, 1)) for _ in range(3))
    level, slope = np.zeros_like(paths), np.zeros_like(paths)
    for apart in range(-min(reach, count - 1), min(reach, count - 1) + 1):
        weight = math.exp(-0.5 * (apart / _SIGMA) ** 2)
        here = slice(max(0, -apart), count - max(0, apart))
        there = slice(max(0, apart), count - max(0, -apart))
        total[here] += weight
        first[here] += weight * apart
        second[here] += weight * apart**2
        level[here] += weight * paths[there]
        slope[here] += weight * apart * paths[there]
    scale = np.maximum(total * second - first**2, 1e-12)
    smooth = np.where(
        second > 1e-9, (second * level - first * slope) / scale, level / total
    )
    return smooth - paths


def _shared(steps: np.ndarray) -> np.ndarray:
    """Returns how far each frame must be moved, from the blocks' steps.

    Args:
      steps: (frames, blocks), NaN where nothing is known.

    Returns:
      (frames,).
    """
    known = np.isfinite(steps)
    asked = known.mean(0) >= _SILENT
    if not asked.any():
        return np.zeros(len(steps))
    steps, known = steps[:, asked], known[:, asked]
    # Where a block says nothing it goes with the others.
    usual = np.ma.median(np.ma.masked_array(steps, ~known), axis=1).filled(0)
    paths = np.cumsum(np.where(known, steps, usual[:, None]), axis=0)
    found = np.sort(_unsteady(paths), axis=1)
    # The mean of the shortest half (Andrews et al. 1972): of the blocks that agree
    # best, which those that people and cars fill do not.
    count = -(-found.shape[1] // 2)
    widths = found[:, count - 1 :] - found[:, : found.shape[1] - count + 1]
    chosen = widths.argmin(1)[:, None] + np.arange(count)
    return np.take_along_axis(found, chosen, axis=1).mean(1)


def corrections(steps: Sequence[Step]) -> list[Correction]:
    """Returns what takes weave and flicker out of a shot.

    Args:
      steps: of all frames of the shot; the first frame's is not used.

    Returns:
      What each frame needs.
    """
    if not steps:
        return []
    steps = [STILL, *steps[1:]]
    moves = [
        np.clip(_shared(np.array(found)), -_FAR, _FAR)
        for found in ([s.right for s in steps], [s.down for s in steps])
    ]
    gains = np.cumsum(np.log(np.clip([s.gain for s in steps], 0.2, 5.0)))
    gains = np.exp(_unsteady(gains[:, None])[:, 0])
    gains = np.clip(gains, 1 / _MUCH, _MUCH)
    return [
        Correction(float(x), float(y), float(g))
        for x, y, g in zip(*moves, gains, strict=True)
    ]


def applied(
    planes: Sequence[np.ndarray],
    correction: Correction,
    layout: stills.Layout,
    *,
    move: bool,
    brighten: bool,
) -> tuple[np.ndarray, ...]:
    """Returns planes moved and multiplied as a correction says.

    Args:
      planes: of the frame; opacity is moved only.
      correction: from `corrections`.
      layout: how planes are to be read.
      move: whether the frame is moved.
      brighten: whether its brightness is corrected.
    """
    width = planes[0].shape[1]
    results = []
    for index, plane in enumerate(planes):
        values = plane.astype(np.float32)
        if move:
            high = plane.shape[0] / planes[0].shape[0]
            wide = plane.shape[1] / width
            matrix = np.float32(
                [
                    [1, 0, correction.right * width * wide],
                    [0, 1, correction.down * width * high],
                ]
            )
            values = cv2.warpAffine(
                values,
                matrix,
                plane.shape[::-1],
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            )
        if brighten and index < stills.colored(planes, layout):
            zero = stills.zero(index, layout)
            values = (values - zero) * np.float32(correction.gain) + zero
        results.append(np.clip(values + 0.5, 0, layout.top).astype(plane.dtype))
    return tuple(results)


def masked(mask: np.ndarray, correction: Correction) -> np.ndarray:
    """Returns a mask moved like its frame, bool (height, width)."""
    height, width = mask.shape
    matrix = np.float32(
        [[1, 0, correction.right * width], [0, 1, correction.down * width]]
    )
    moved = cv2.warpAffine(
        mask.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST
    )
    return moved > 0
