"""Scans of negatives: color ones found by their orange mask; shown as positives.

Nothing that was tried tells a black-and-white negative from a photograph surely enough:
its owner says so. A negative's grade is a printer's work and not what fading did, and
dust is light on its positive. So the networks are shown the positive, and what they
change goes back into the negative, which stays one.
"""

from typing import NamedTuple

import numpy as np

from restoration.images import color
from restoration.inference import grade
from restoration.models.grader import CELLS, Cells

# The orange mask is the least density that a color negative has anywhere, so nothing is
# lighter than the film's base in red, green or blue, and the base is light and orange:
# by its layers' densities red over green is more than green over blue (as logarithms).
_BASE, _RED_GREEN, _GREEN_BLUE, _ABOVE = 0.45, 0.26, 0.1, 1.08

# Thin film, the lightest part, holds the shadows of the scene, all of the mask's color.
# As logarithms of red over blue: the least (prints that faded or were lit by a lamp are
# less orange in their lightest parts), and the largest deviation of the colors.
_LIGHT, _ORANGE, _VARIED = 95, 0.55, 0.1

# Film is never black in red, and dense film is still warm nearly everywhere. A print of
# orange things has shadows and highlights of another color.
_DARKEST, _WARM, _WARM_SHARE = 0.2, 0.3, 0.9

# The range of red from the base to the densest film.
_LEAST_RANGE, _MOST_RANGE = 0.3, 0.75

# What a cell must hold, of 1, for its ratio to mean anything; and the largest share of
# cells that hold less.
_SEEN, _UNSEEN = 0.02, 0.005

# Film beside the frame is not exposed: so large a share of the outermost cells is of
# one color within so much of 1, and nothing is lighter by more. Then less will do.
_RIM_SHARE, _RIM_VARIED = 0.8, 0.03
_RIM_RED_GREEN, _RIM_ORANGE, _RIM_DARKEST = 0.2, 0.36, 0.1

# Rows and columns of cells that show the holder, or the light beside the film.
_HOLDER, _LAMP, _MOST_TRIMMED = 0.06, 0.96, 16


# The least range of a picture that is said to be a negative, of 1.
_LEAST_SPAN = 0.05


class Range(NamedTuple):
    """Red, green and blue of the film's base, and where it is densest."""

    base: np.ndarray
    densest: np.ndarray


def _trimmed(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Returns cells as (rows, columns, 3) without the holder, and which weigh."""
    grid = cells.colors.astype(np.float64).reshape(CELLS, CELLS, 3)
    weighs = (cells.weights > 0).reshape(CELLS, CELLS)
    rows, columns = weighs.any(1), weighs.any(0)  # narrow pictures leave gaps
    grid, weighs = grid[rows][:, columns], weighs[rows][:, columns]
    if not weighs.any():
        return grid, weighs
    for _ in range(4):  # the sides, one after the other
        trimmed = 0
        while trimmed < min(_MOST_TRIMMED, len(grid) - 16):
            edge = grid[trimmed][weighs[trimmed]]
            outside = (edge.max(-1) < _HOLDER) | (edge.min(-1) > _LAMP)
            if not outside.all():
                break
            trimmed += 1
        trimmed += trimmed > 0  # the next is holder and film
        grid, weighs = np.rot90(grid[trimmed:]), np.rot90(weighs[trimmed:])
    return grid, weighs


def _has_rim(grid: np.ndarray, weighs: np.ndarray) -> bool:
    """Returns whether a strip of film that was not exposed lies around a picture."""
    edge = np.zeros_like(weighs)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    rim = grid[edge & weighs]
    base = np.median(rim, axis=0)
    like = np.abs(rim - base).max(-1) < _RIM_VARIED
    lighter = (grid[weighs] > base + 2 * _RIM_VARIED).any(-1)
    return bool(like.mean() > _RIM_SHARE and lighter.mean() < _UNSEEN)


def find(cells: Cells) -> Range | None:
    """Returns the range of a color negative, None for other pictures.

    Args:
      cells: from `grade.look`.
    """
    grid, weighs = _trimmed(cells)
    every = grid[weighs]
    seen = every[every.min(1) > _SEEN] if len(every) else every
    if len(seen) < 64 or len(seen) < (1 - _UNSEEN) * len(every):
        return None
    rim = _has_rim(grid, weighs)
    if not rim and grade.is_toned(cells):  # as a print of one tone is
        return None
    base, densest = np.percentile(seen, 99.5, axis=0), np.percentile(seen, 0.5, axis=0)
    luma = seen @ color.LUMA
    ratios = np.log(seen[:, :2] / seen[:, 1:])
    red_blue, thin = ratios.sum(1), luma >= np.percentile(luma, _LIGHT)
    red_green, green_blue = np.log(base[:2] / base[1:])
    span = base - densest
    mask = (
        base[0] > _BASE
        and green_blue > _GREEN_BLUE
        and red_green > (_RIM_RED_GREEN if rim else max(_RED_GREEN, green_blue))
        and red_blue[thin].mean() > (_RIM_ORANGE if rim else _ORANGE)
        and np.hypot(*ratios[thin].std(0)) < _VARIED
    )
    dense = (
        np.percentile(every[:, 0], 1) > (_RIM_DARKEST if rim else _DARKEST)
        and (rim or red_blue.mean() > _WARM)
        and (rim or (red_blue > 0).mean() > _WARM_SHARE)
        and (rim or (seen.max(0) < _ABOVE * base).all())
        and (rim or _LEAST_RANGE < span[0] < _MOST_RANGE)
    )
    whole = np.all(span > _LEAST_SPAN)
    return Range(base, densest) if mask and dense and whole else None


def stated(cells: Cells) -> Range | None:
    """Returns the range of a picture whose owner says that it is a negative.

    Args:
      cells: from `grade.look`.

    Returns:
      The range; None where nothing of the picture is visible.
    """
    grid, weighs = _trimmed(cells)
    if not weighs.any():
        return None
    densest, base = np.percentile(grid[weighs], (0.5, 99.5), axis=0)
    return Range(base, np.minimum(densest, base - _LEAST_SPAN))


def positive(
    found: Range, to_model: color.ToModel, change_of: color.Change
) -> tuple[color.ToModel, color.Change]:
    """Returns how a negative's values are shown to a model, and changed by it.

    Args:
      found: from `find` or `stated`.
      to_model: shows the negative.
      change_of: changes the negative; see `color.make_color`.
    """
    base = found.base.astype(np.float32)
    span = (found.base - found.densest).astype(np.float32)

    def shown(values: np.ndarray) -> np.ndarray:
        return np.clip((base - to_model(values)) / span, 0, 1)

    def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return change_of(base - before * span, base - after * span)

    return shown, change
