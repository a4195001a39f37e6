"""Scans of color negatives: found by their orange mask, and shown as positives.

A negative's grade is a printer's work and not what fading did, and dust is light on
its positive. So the networks are shown the positive, and what they change goes back
into the negative, which stays one.
"""

from typing import NamedTuple

import numpy as np

from restoration.images import color
from restoration.models.grader import Cells

# The orange mask multiplies all of a negative. So the lightest tenth, thin film, is of
# one orange: red so many times blue (as a logarithm), evenly, and red over green over
# blue; the whole is warm; and the film's base is light and orange. On 47 photographs
# and three kinds of negatives of each: 94 % of the negatives are found, and of the
# photographs one, of a retina, all orange.
_LIGHT, _RATIO, _VARIED, _ORDERED, _WARM, _BASE = 90, 0.5, 0.25, 0.97, 0.25, 0.45
_GREEN, _BLUE = 0.8, 0.85

# What a cell must hold, of 1, for its ratio to mean anything.
_SEEN = 0.02


class Range(NamedTuple):
    """Red, green and blue of the film's base, and where it is densest."""

    base: np.ndarray
    densest: np.ndarray


def find(cells: Cells) -> Range | None:
    """Returns the range of a color negative, None for other pictures.

    Args:
      cells: from `grade.look`.
    """
    colors, weights = cells
    seen = colors[(weights > 0) & (colors.min(1) > _SEEN)]
    if len(seen) < 64:
        return None
    base, densest = np.percentile(seen, 99.5, axis=0), np.percentile(seen, 0.5, axis=0)
    luma = seen @ color.LUMA
    thin = seen[luma >= np.percentile(luma, _LIGHT)]
    ratios = np.log(thin[:, 0] / thin[:, 2])
    ordered = ((thin[:, 0] > thin[:, 1]) & (thin[:, 1] > thin[:, 2])).mean()
    orange = (
        ratios.mean() > _RATIO
        and ratios.std() < _VARIED
        and ordered > _ORDERED
        and np.log(seen[:, 0] / seen[:, 2]).mean() > _WARM
        and base[0] > _BASE
        and base[1] < _GREEN * base[0]
        and base[2] < _BLUE * base[1]
    )
    return Range(base, densest) if orange and np.all(base - densest > 0.05) else None


def positive(
    found: Range, to_model: color.ToModel, change_of: color.Change
) -> tuple[color.ToModel, color.Change]:
    """Returns how a negative's values are shown to a model, and changed by it.

    Args:
      found: from `find`.
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
