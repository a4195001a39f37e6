"""The grade of a whole picture: undoes fading and color casts, one change for all.

A print that faded did so everywhere alike, and a network that sees a tile cannot tell
a dull corner from a faded picture. So the whole picture is looked at once, small: its
colors are averaged over 64×64 cells, a small network reads their histograms, and
gives for each of red, green and blue a polynomial of the three. It is applied to what
the restoring network is shown. Since histograms know no positions, neither what a
picture shows nor how it is cut into tiles matters.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from restoration.base.luma import BT601
from restoration.models import grader
from restoration.models.grader import CELLS, Cells

# Of pictures larger than this only every second, third, ... pixel is looked at.
_LOOKED_AT = 1024

# A grade that moves colors by less than the first, as root mean square of 1, is
# none: what is healthy stays exactly as it is, and what was graded is not graded
# again. From the second on all of it is applied, and in between a part.
_LEAST, _SURE = 6 / 255, 12 / 255

# A monochrome print's colors follow its lightness this closely, as root mean square of
# 1; and are toned from this on.
_EVEN, _TONED = 0.008, 0.02

# What a grey value is made of, as in Rec. 601.
_LUMA = np.array(BT601, np.float32)

# Cells whose colors differ by less, of 1, are grey.
_GREY = 2 / 255


def look(
    blocks: Iterable[tuple[np.ndarray, np.ndarray | None]], size: tuple[int, int]
) -> Cells:
    """Averages a picture over its cells; nothing but sums is kept in memory.

    Args:
      blocks: rows from the top: RGB in [0, 1], (rows, width, 3), and how much each
        pixel counts, (rows, width, 1), or None where all do.
      size: the picture's height and width.

    Returns:
      Its cells; those of a picture of which nothing counts weigh nothing.
    """
    height, width = size
    sums = np.zeros((CELLS, CELLS, 4), np.float64)
    top, across = 0, np.arange(width) * CELLS // width
    # A narrow picture leaves cells empty; the others have a start.
    columns, first_columns = np.unique(across, return_index=True)
    for colors, counts in blocks:
        if counts is None:
            counts = np.ones((*colors.shape[:2], 1), np.float32)
        values = np.concatenate([colors * counts, counts], -1, dtype=np.float64)
        down = np.arange(top, top + len(values)) * CELLS // height
        rows, first_rows = np.unique(down, return_index=True)
        by_row = np.add.reduceat(values, first_rows, axis=0)
        sums[rows[:, None], columns] += np.add.reduceat(by_row, first_columns, axis=1)
        top += len(values)
    weights = sums[..., 3].ravel()
    colors = sums[..., :3].reshape(-1, 3) / np.maximum(weights, 1e-9)[:, None]
    share = weights / max(weights.sum(), 1e-9)
    return Cells(colors.astype(np.float32), share.astype(np.float32))


def is_grey(cells: Cells) -> bool:
    """Returns whether a picture has no color, such as a grey one stored as RGB."""
    colors, weights = cells
    seen = colors[weights > 0]
    return bool(len(seen)) and float(np.ptp(seen, axis=1).max()) < _GREY


def is_toned(cells: Cells) -> bool:
    """Returns whether a picture is a monochrome print of an even tone, such as sepia.

    Its color then follows from its lightness: a curve (a cubic polynomial) gives both
    differences of colors, and hardly any cell is off it. In a color picture, faded or
    not, things of one lightness have several colors.

    Args:
      cells: from `look`.
    """
    colors, weights = cells
    luma = colors @ _LUMA
    differences = np.stack(
        [colors[:, 0] - colors[:, 1], colors[:, 2] - colors[:, 1]], -1
    )
    if np.count_nonzero(weights) < 16 or np.ptp(luma[weights > 0]) < 0.05:
        return False
    root = np.sqrt(weights)[:, None]
    powers = np.stack([luma**power for power in range(4)], -1)
    solution = np.linalg.lstsq(root * powers, root * differences, rcond=None)[0]
    off = np.square(differences - powers @ solution).sum(-1)
    tone = np.square(differences).sum(-1)
    total = weights.sum()
    even = np.sqrt((weights * off).sum() / total) < _EVEN
    return bool(even and np.sqrt((weights * tone).sum() / total) > _TONED)


def stride(size: tuple[int, int]) -> int:
    """Returns of how many pixels, along each side, one is enough to look at."""
    return max(1, min(size) // _LOOKED_AT)


def apply(colors: Any, polynomials: Any) -> Any:
    """Changes colors by a polynomial, NumPy's arrays or JAX'.

    Args:
      colors: (..., 3) in [0, 1].
      polynomials: (..., 7, 3), what is added of each color, of its square, and of 1.

    Returns:
      Colors, not clipped.
    """
    linear, squared, constant = (
        polynomials[..., rows, :] for rows in (slice(3), slice(3, 6), slice(6, 7))
    )
    return colors + colors @ linear + colors * colors @ squared + constant


_estimate = jax.jit(grader.Grader().apply)


def estimate(parameters: Any, cells: Cells) -> np.ndarray | None:
    """Estimates the grade of one picture.

    Grey pictures stay grey, whatever the network says of their colors, and toned
    ones keep their tone: of these, contrast and lightness alone are mended.

    Args:
      parameters: of `grader.Grader`.
      cells: from `look`.

    Returns:
      float32 (7, 3) for `apply`; None where the picture needs none.
    """
    colors, weights = cells
    if not weights.any():
        return None
    batch = jax.tree.map(lambda x: x[None], cells)
    polynomials = np.array(_estimate(parameters, batch)[0])
    if is_grey(cells):
        polynomials[:] = polynomials.mean(1, keepdims=True)
    elif is_toned(cells):  # the same is added to red, green and blue
        polynomials[:] = (polynomials @ _LUMA)[:, None]
    moved = np.clip(apply(colors, polynomials), 0, 1) - colors
    change = np.sqrt((weights[:, None] * np.square(moved)).sum() / 3)
    if change <= _LEAST:
        return None
    part = min(1.0, (change - _LEAST) / (_SURE - _LEAST))
    return np.float32(part) * polynomials


def make_prepare(
    prepare: Callable[[np.ndarray], np.ndarray], polynomials: np.ndarray | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what shows a model a picture graded.

    Args:
      prepare: makes of stored values RGB in [0, 1].
      polynomials: from `estimate`.

    Returns:
      A function like `prepare`; the same for a picture that needs no grade.
    """
    if polynomials is None:
        return prepare

    def graded(values: np.ndarray) -> np.ndarray:
        colors = np.asarray(prepare(values), np.float32)
        return np.clip(apply(colors, polynomials), 0, 1)

    return graded
