"""An unsteady gate and flicker, measured over a shot and taken out.

Between neighbouring frames the shift and the gain in brightness that most of the
picture shares are measured. Added up they are a path; what is left of it after
smoothing is the camera's and the scene's, what is not, is the machine's.
"""

import dataclasses
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

# Luma that varies less in a pixel's surroundings says nothing about motion.
_TEXTURE = 12


@dataclasses.dataclass(frozen=True)
class Step:
    """How a frame differs from the one before.

    Attributes:
      right: by how much the picture lies further right, in parts of the width.
      down: further down, in parts of the width.
      gain: by how much it is brighter, as a factor.
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


def measure(before: np.ndarray, after: np.ndarray, black: int) -> Step:
    """Measures a step between two frames as `small` gives them.

    Args:
      before: uint8 (height, width).
      after: the next frame.
      black: the level of black, of 255.
    """
    field = motion.flow(before, after)
    square = np.ones((5, 5), np.uint8)
    textured = cv2.morphologyEx(before, cv2.MORPH_GRADIENT, square) > _TEXTURE
    if textured.mean() < 0.02:
        textured[:] = True
    right, down = np.median(field[textured], 0)
    width = before.shape[1]
    seen = motion.warped(after, field).astype(np.float32) - black
    held = before.astype(np.float32) - black
    ratio = seen / np.maximum(held, 1)
    bright = (held > 16) & (seen > 8) & (seen < 235 - black)
    gain = float(np.median(ratio[bright])) if bright.mean() > 0.02 else 1.0
    return Step(float(right) / width, float(down) / width, gain)


def _smoothed(path: np.ndarray) -> np.ndarray:
    """Smooths a path over time; near its ends over what is there."""
    reach = np.arange(len(path))
    weights = np.exp(-0.5 * (np.subtract.outer(reach, reach) / _SIGMA) ** 2)
    # A line through the neighbours, not their mean, which would hold back a pan at
    # the ends of a shot.
    apart = np.subtract.outer(reach, reach).T.astype(np.float64)
    total, first = weights.sum(1), (weights * apart).sum(1)
    second = (weights * apart**2).sum(1)
    level, slope = weights @ path, (weights * apart) @ path
    scale = np.maximum(total * second - first**2, 1e-12)
    return np.where(
        second > 1e-9, (second * level - first * slope) / scale, level / total
    )


def corrections(steps: Sequence[Step]) -> list[Step]:
    """Returns what takes weave and flicker out of a shot.

    Args:
      steps: of all frames of the shot; the first frame's is not used.

    Returns:
      For each frame how far it must be moved and what it must be multiplied with.
    """
    if not steps:
        return []
    right, down, gain = (
        np.cumsum([0.0, *(f(step) for step in steps[1:])])
        for f in (
            lambda step: step.right,
            lambda step: step.down,
            lambda step: np.log(np.clip(step.gain, 0.2, 5.0)),
        )
    )
    moves = [np.clip(_smoothed(x) - x, -_FAR, _FAR) for x in (right, down)]
    gains = np.clip(np.exp(_smoothed(gain) - gain), 1 / _MUCH, _MUCH)
    return [
        Step(float(x), float(y), float(g))
        for x, y, g in zip(*moves, gains, strict=True)
    ]


def applied(
    planes: Sequence[np.ndarray],
    correction: Step,
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


def masked(mask: np.ndarray, correction: Step) -> np.ndarray:
    """Returns a mask moved like its frame, bool (height, width)."""
    height, width = mask.shape
    matrix = np.float32(
        [[1, 0, correction.right * width], [0, 1, correction.down * width]]
    )
    moved = cv2.warpAffine(
        mask.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST
    )
    return moved > 0
