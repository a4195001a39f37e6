"""Matches the frames of two films that show the same instant."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from restoration.film import registration, shots

# Cost of a gap in one film or both, in perfectly matched frames.
_GAP = 2.0

# Damage lowers the likeness of matching frames. A frame earns a reward if its likeness
# is below the row's highest by less than this share of the usual loss.
_TOLERANCE = 0.25

# Films up to this many frames are matched at once. Longer films are matched at every
# 4th frame first (or every 16th, ...), then again near that result.
MOST_AT_ONCE = 1200
COARSER = 4

# Half-width of the corridor around a coarse result, in frames of the coarse match.
_AROUND = 3

# Rows compared at once.
_CHUNK = 128


@dataclasses.dataclass(frozen=True)
class Match:
    """Frames of two films that show the same.

    Attributes:
      first: frame numbers of the first film, ascending.
      second: the frame numbers of the second film that match them, ascending.
      likeness: of the two thumbnails, -1 to 1.
      geometry: where thumbnails of the first film lie in those of the second.
      score: sum of rewards minus gaps, to compare matches of the same films.
    """

    first: np.ndarray
    second: np.ndarray
    likeness: np.ndarray
    geometry: registration.Geometry
    score: float


def resampling_matrix(length: int, scale: float, shift: float) -> np.ndarray:
    """Returns a matrix that samples a line at scale · x + shift, linearly."""
    position = np.clip(scale * (np.arange(length) + 0.5) + shift - 0.5, 0, length - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(length)), 0).astype(
        np.float32
    )


@dataclasses.dataclass(frozen=True)
class _Films:
    """Thumbnails of two films, and how to resample them for comparison.

    Attributes:
      first: uint8 (n, height, width).
      second: uint8 (m, height, width).
      part: the rows and columns of the first film that the second shows too.
      down: matrix that samples those rows from the second film's thumbnails.
      across: matrix that samples those columns.
    """

    first: np.ndarray
    second: np.ndarray
    part: tuple[slice, slice]
    down: np.ndarray
    across: np.ndarray


def _overlaid(
    first: np.ndarray, second: np.ndarray, geometry: registration.Geometry
) -> _Films:
    height, width = shots.SIZE
    left, top, right, bottom = registration.common_box(geometry, shots.SIZE, shots.SIZE)
    return _Films(
        first,
        second,
        (slice(top, bottom), slice(left, right)),
        resampling_matrix(height, geometry.scale_y, geometry.shift_y)[top:bottom],
        resampling_matrix(width, geometry.scale_x, geometry.shift_x)[left:right].T,
    )


def _of_first(films: _Films, numbers: np.ndarray) -> np.ndarray:
    """Returns the descriptors of frames of the first film, (n, size)."""
    down, across = films.part
    frames = films.first[numbers][:, down, across]
    return shots.descriptors(frames).reshape(len(numbers), -1)


def _of_second(films: _Films, numbers: np.ndarray) -> np.ndarray:
    """Returns the descriptors of frames of the second, resampled onto the first."""
    frames = films.down @ films.second[numbers].astype(np.float32) @ films.across
    return shots.descriptors(frames).reshape(len(numbers), -1)


@dataclasses.dataclass(frozen=True)
class _Corridor:
    """The frames to compare.

    Attributes:
      rows: frame numbers of the first film.
      columns: frame numbers of the second film.
      low: for each row the first column to compare it with.
      high: for each row the column after the last.
    """

    rows: np.ndarray
    columns: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _whole(rows: int, columns: int, step: int) -> _Corridor:
    kept, among = np.arange(0, rows, step), np.arange(0, columns, step)
    return _Corridor(
        kept, among, np.zeros(len(kept), int), np.full(len(kept), len(among))
    )


def _around(
    path: Sequence[tuple[int, int]], rows: int, columns: int, coarse: int, step: int
) -> _Corridor:
    """Returns a corridor around a coarse path of frame numbers."""
    kept, among = np.arange(0, rows, step), np.arange(0, columns, step)
    first, second = np.array(path).T
    before = np.clip(np.searchsorted(first, kept, "right") - 1, 0, None)
    after = np.clip(np.searchsorted(first, kept, "left"), None, len(first) - 1)
    reach = _AROUND * coarse
    # Along the diagonals through the nearest matched frames on both sides.
    one = second[before] + np.maximum(kept - first[before], 0) * (after == before)
    one = np.minimum(second[before], one) - reach
    other = second[after] + reach
    one = np.where(kept < first[0], second[0] - (first[0] - kept) - reach, one)
    beyond = kept > first[-1]
    one = np.where(beyond, second[-1] + kept - first[-1] - reach, one)
    other = np.where(beyond, second[-1] + kept - first[-1] + reach, other)
    low = np.clip(one // step, 0, len(among) - 1)
    high = np.clip(other // step + 1, low + 1, len(among))
    return _Corridor(
        kept, among, np.maximum.accumulate(low), np.maximum.accumulate(high)
    )


def _likenesses(films: _Films, corridor: _Corridor) -> Iterator[np.ndarray]:
    """Yields each row's likeness with the columns of its corridor."""
    for start in range(0, len(corridor.rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        low, high = corridor.low[part], corridor.high[part]
        left = int(low.min())
        table = (
            _of_first(films, corridor.rows[part])
            @ _of_second(films, corridor.columns[left : high.max()]).T
        )
        for row, a, b in zip(table, low, high, strict=True):
            yield row[a - left : b - left]


def _reward(likeness: np.ndarray, least: float, usual: float | None) -> np.ndarray:
    """Returns the reward for matching one frame with each of several.

    Args:
      likeness: of their thumbnails.
      least: lowest likeness of frames that are matched.
      usual: the usual 1 - likeness of matching frames; None if not known yet. If
        known, the reward compares the candidates with the best one, since the frame's
        own dirt lowers the likeness with all of them.

    Returns:
      At most 1, above 0 for frames that may match, -1 for others.
    """
    alike = likeness > least
    if usual is None:
        return np.where(alike, (likeness - least) / (1 - least), -1)
    short = (likeness.max() - likeness) / (_TOLERANCE * usual)
    return np.where(alike, np.maximum(1 - short, 0.05), -1)


def _best_path(
    likenesses: Iterator[np.ndarray],
    corridor: _Corridor,
    least: float,
    usual: float | None,
) -> tuple[list[tuple[int, int]], float]:
    """Finds the best match in order (Needleman and Wunsch 1970).

    Ends are free, and a gap costs the same at any length.

    Returns:
      (row, column) of each match, and the sum of the rewards minus the gaps.
    """
    count = len(corridor.columns)
    # The best sum that ends in each column over the rows so far, and its row.
    best, best_row = np.zeros(count), np.full(count, -1)
    last, last_low = np.zeros(0), 0
    behind, behind_at, cleared = 0.0, (-1, -1), 0
    origins, top, top_at = [], 0.0, (-1, -1)
    for row, likeness in enumerate(likenesses):
        low, high = int(corridor.low[row]), int(corridor.high[row])
        if low > cleared:  # columns that no later row reaches
            peak = cleared + int(np.argmax(best[cleared:low]))
            if best[peak] > behind:
                behind, behind_at = best[peak], (int(best_row[peak]), peak)
            cleared = low
        # With a gap: from any earlier row and column.
        sums = np.concatenate([[behind], best[low : high - 1]])
        running = np.maximum.accumulate(sums)
        source = np.maximum.accumulate(
            np.where(sums == running, np.arange(len(sums)), 0)
        )
        value = np.maximum(running - _GAP, 0)
        jumped = running - _GAP > 0
        rows = np.where(source == 0, behind_at[0], best_row[low + source - 1])
        columns = np.where(source == 0, behind_at[1], low + source - 1)
        jumps = np.where(jumped, [rows, columns], -1)
        # Without a gap: from the previous row and column.
        straight = np.full(high - low, -np.inf)
        a, b = max(low, last_low + 1), min(high, last_low + len(last) + 1)
        if b > a:
            straight[a - low : b - low] = last[a - 1 - last_low : b - 1 - last_low]
        on = straight >= value
        before = np.full(high - low, row - 1), np.arange(low, high) - 1
        origins.append(np.where(on, before, jumps).astype(np.int32))
        last = np.where(on, straight, value) + _reward(likeness, least, usual)
        last_low = low
        better = last > best[low:high]
        best[low:high][better] = last[better]
        best_row[low:high][better] = row
        if last.max() > top:
            top, top_at = float(last.max()), (row, low + int(np.argmax(last)))
    path, cell = [], top_at
    while cell[0] >= 0:
        path.append(cell)
        column = cell[1] - int(corridor.low[cell[0]])
        cell = tuple(origins[cell[0]][:, column].tolist())
    return path[::-1], top


def match_with_geometry(
    first: np.ndarray,
    second: np.ndarray,
    geometry: registration.Geometry,
    *,
    least: float,
    finest: int = 1,
    usual: float | None = None,
) -> Match:
    """Matches the frames of two films under a given geometry.

    Args:
      first: uint8 (n, height, width), thumbnails of the first film.
      second: uint8 (m, height, width), those of the second.
      geometry: where the first film's thumbnails lie in the second's.
      least: lowest likeness of frames that are matched.
      finest: match every `finest`-th frame.
      usual: the usual 1 - likeness of matching frames; None if not known.

    Returns:
      The match.
    """
    films = _overlaid(first, second, geometry)
    step = finest
    while max(len(first), len(second)) > MOST_AT_ONCE * step:
        step *= COARSER
    corridor = _whole(len(first), len(second), step)
    while True:
        path, score = _best_path(_likenesses(films, corridor), corridor, least, usual)
        numbers = [(corridor.rows[i], corridor.columns[j]) for i, j in path]
        if step <= finest or not path:
            break
        coarse, step = step, max(finest, step // COARSER)
        corridor = _around(numbers, len(first), len(second), coarse, step)
    one, other = np.array(numbers, int).reshape(-1, 2).T
    return Match(one, other, _pairwise(films, one, other), geometry, score)


def _pairwise(films: _Films, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the likeness of first[i] with second[i] for each i."""
    parts = [
        np.einsum(
            "ij,ij->i",
            _of_first(films, first[start : start + _CHUNK]),
            _of_second(films, second[start : start + _CHUNK]),
        )
        for start in range(0, len(first), _CHUNK)
    ]
    return np.concatenate([np.zeros(0, np.float32), *parts])
