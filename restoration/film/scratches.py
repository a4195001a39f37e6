"""Scratches that stand still: vertical lines that stay where they are for many frames.

The next frame does not show what lies under them, so they are found in space, by
their shape, and kept where they persist (after Kokaram 1996, "Detection and removal of
line scratches in degraded motion picture sequences": a narrow ridge in the mean of the
columns). They are filled from left and right.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from etils import epy

from restoration.film import stills

with epy.lazy_imports():
    import cv2

# Widest scratch, pixels in a frame of 720; narrower than half of what is looked past.
_WIDE = 5
_BASE = 720

# What lies left and right of it differs by less than this part of its strength on
# average: else it is what sharpening and coding leave beside an edge.
_STEP = 0.7

# The border of a picture on film is a line too: this part of the width is left.
_EDGE = 0.035

# How far a scratch may lean: pixels across for one down.
_SLOPES = np.linspace(-0.024, 0.024, 9)

# A scratch: how far it stands out on average, of 255; on what part of the rows it has
# the same sign; and how many times as far as other columns do.
_STRENGTH, _SHARE, _CLEAR = 3.0, 0.75, 6.0

# It runs over the whole height, where a door ends: of so many equal parts, so many
# must show it, by so much of its mean strength.
_PARTS, _SHOWN, _WEAKEST = 10, 9, 0.3

# It stands in so many of the frames around, at most so many pixels away.
_AROUND, _PERSISTS, _WANDERS = 4, 0.6, 3

_Line = tuple[float, float, int]


def _outstanding(grey: np.ndarray, wide: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns by how much pixels differ from both sides alike, and these two, float32.

    The first is positive for bright lines and negative for dark ones; edges, which
    differ from one side only, and wide things give nothing.
    """
    values = cv2.GaussianBlur(grey, (1, 9), 2).astype(np.float32)
    left = np.roll(values, wide + 1, 1)
    right = np.roll(values, -(wide + 1), 1)
    over = values - np.maximum(left, right)
    under = values - np.minimum(left, right)
    result = np.where(over > 0, over, np.where(under < 0, under, 0))
    edge = max(wide + 1, round(_EDGE * grey.shape[1]))
    result[:, :edge] = 0
    result[:, -edge:] = 0
    return np.clip(result, -40, 40), np.clip(left - right, -40, 40)


def lines(grey: np.ndarray) -> list[_Line]:
    """Finds what may be standing scratches in one frame.

    Args:
      grey: uint8 (height, width).

    Returns:
      (x at the top, slope, sign) of each: 1 is bright, -1 dark.
    """
    height, width = grey.shape
    if height < 48 or width < 48:
        return []
    wide = max(2, round(_WIDE * width / _BASE))
    standing, steps = _outstanding(grey, wide)
    signs = np.sign(standing)
    found: list[tuple[float, _Line]] = []
    for slope in _SLOPES:
        matrix = np.float32([[1, slope, 0], [0, 1, 0]])
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        upright = cv2.warpAffine(standing, matrix, (width, height), flags=flags)
        same = cv2.warpAffine(signs, matrix, (width, height), flags=flags)
        mean, share = upright.mean(0), same.mean(0)
        step = np.abs(
            cv2.warpAffine(steps, matrix, (width, height), flags=flags).mean(0)
        )
        usual = np.median(np.abs(mean)) / 0.6745 + 0.15
        for sign in (1, -1):
            strength = sign * mean
            sure = (
                (strength > _STRENGTH)
                & (sign * share > _SHARE)
                & (strength > _CLEAR * usual)
                & (step < _STEP * strength)
            )
            blocks = upright[: height // _PARTS * _PARTS].reshape(_PARTS, -1, width)
            shown = sign * blocks.mean(1) > np.maximum(_WEAKEST * strength, 1)
            for x in np.flatnonzero(sure & (shown.sum(0) >= _SHOWN)):
                found.append((float(strength[x]), (float(x), float(slope), sign)))
    kept: list[_Line] = []
    for _, line in sorted(found, reverse=True):
        middle = line[0] + line[1] * height / 2
        if all(abs(middle - other[0] - other[1] * height / 2) > wide for other in kept):
            kept.append(line)
    return kept


def mask_of(
    found: Sequence[_Line], shape: tuple[int, int], grey: np.ndarray
) -> np.ndarray:
    """Returns the pixels of lines, bool (height, width), as wide as they look."""
    height, width = shape
    mask = np.zeros(shape, bool)
    wide = max(2, round(_WIDE * width / _BASE))
    rows = np.arange(height)
    values = cv2.GaussianBlur(grey, (1, 9), 2).astype(np.float32)
    for x, slope, sign in found:
        centre = np.clip(np.rint(x + slope * rows).astype(int), 0, width - 1)
        # The mean profile across the line, over all rows.
        reach = np.arange(-wide - 2, wide + 3)
        columns = np.clip(centre[:, None] + reach, 0, width - 1)
        profile = sign * np.median(values[rows[:, None], columns], 0)
        base = max(profile[0], profile[-1])
        top = profile[wide : wide + 5].max() - base
        part = (profile - base) > 0.2 * top
        # Only what hangs together with the middle.
        middle = wide + 2
        left = right = middle
        while left > 0 and part[left - 1]:
            left -= 1
        while right < len(part) - 1 and part[right + 1]:
            right += 1
        for offset in range(reach[left] - 1, reach[right] + 2):
            mask[rows, np.clip(centre + offset, 0, width - 1)] = True
    return mask


def filled(
    planes: Sequence[np.ndarray], mask: np.ndarray, layout: stills.Layout, number: int
) -> tuple[np.ndarray, ...]:
    """Fills narrow masks from their surroundings (Navier-Stokes), with grain.

    Args:
      planes: of a frame.
      mask: bool (height, width).
      layout: how planes are to be read.
      number: of the frame; grain differs from frame to frame.

    Returns:
      The planes; pixels outside the mask, and opacity, as they were.
    """
    results = list(planes)
    for index in range(stills.colored(planes, layout)):
        plane = planes[index]
        here = stills.mask_at(mask, plane.shape)
        smooth = cv2.inpaint(plane, here.astype(np.uint8), 3, cv2.INPAINT_NS)
        values = smooth[here].astype(np.float32)
        if index == 0 or layout.colors == "rgb":
            values += _grain(plane, here, number)[here]
        result = plane.copy()
        result[here] = np.clip(values + 0.5, 0, layout.top)
        results[index] = result
    return tuple(results)


def _grain(plane: np.ndarray, here: np.ndarray, number: int) -> np.ndarray:
    """Returns what a plane's fine structure is elsewhere, for places in a mask."""
    values = plane.astype(np.float32)
    fine = values - cv2.GaussianBlur(values, (0, 0), 1.2)
    fine[here] = 0
    deviation = float(np.median(np.abs(fine[::2, ::2]))) / 0.6745
    fine = np.clip(fine, -2.5 * deviation, 2.5 * deviation)
    shift = np.random.default_rng(number).integers(24, 96, 2)
    return np.roll(fine, tuple(shift), (0, 1))


def removed(
    frames: Iterable[stills.Still], layout: stills.Layout
) -> Iterator[stills.Still]:
    """Fills standing scratches in the frames of a shot.

    Args:
      frames: of one shot, in order.
      layout: how planes are to be read.

    Yields:
      The frames; `scratched` is what was filled.
    """

    def looked(still: stills.Still) -> tuple[stills.Still, list[_Line]]:
        return still, lines(still.grey)

    for before, (still, found), after in stills.windows(map(looked, frames), _AROUND):
        others = [lines for _, lines in (*before, *after)]
        standing = [
            line
            for line in found
            if len(others) >= 2
            and sum(any(_same(line, o, still) for o in other) for other in others)
            >= _PERSISTS * len(others)
        ]
        if not standing:
            yield still
            continue
        mask = mask_of(standing, still.grey.shape, still.grey)
        planes = filled(still.planes, mask, layout, still.number)
        yield dataclasses.replace(
            still, planes=planes, grey=stills.to_grey(planes, layout), scratched=mask
        )


def _same(line: _Line, other: _Line, still: stills.Still) -> bool:
    half = still.grey.shape[0] / 2
    apart = line[0] + line[1] * half - other[0] - other[1] * half
    return line[2] == other[2] and abs(apart) <= _WANDERS
