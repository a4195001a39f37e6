"""Which frames of two films show the same instant."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from restoration.film import registration, shots

# What leaving frames out of one film or both costs, in well-matched frames.
_GAP = 2.0


# A frame is not quite like its counterpart, for wear. By this part of what is
# missing usually, the likeness with another frame may be less and still earn some.
_TOLERANCE = 0.25


# Films are matched at once up to this many frames; longer ones at every 4th frame
# first, then around what was found there.
MOST_AT_ONCE = 1200


COARSER = 4


_AROUND = 3


# Rows that are compared at once.
_CHUNK = 128


@dataclasses.dataclass(frozen=True)
class Match:
    """Frame numbers of two films that show the same.

    Attributes:
      first: frames of the first film, ascending.
      second: those of the second film, ascending.
      likeness: of the two thumbnails, -1 to 1.
      geometry: how the thumbnails lie on each other.
      score: how much of the films matches how well, for comparison.
    """

    first: np.ndarray
    second: np.ndarray
    likeness: np.ndarray
    geometry: registration.Geometry
    score: float


def resampling_matrix(length: int, scale: float, shift: float) -> np.ndarray:
    """Returns a matrix that samples a line at scale · place + shift, linearly."""
    place = np.clip(scale * (np.arange(length) + 0.5) + shift - 0.5, 0, length - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(length)), 0).astype(
        np.float32
    )


@dataclasses.dataclass(frozen=True)
class _Films:
    """Thumbnails of two films, and what it takes to compare them.

    Attributes:
      first: uint8 (n, height, width).
      second: uint8 (m, height, width).
      part: the rows and columns of the first that the second shows too.
      down: matrix that samples them down the second's thumbnails.
      across: matrix that samples them across.
    """

    first: np.ndarray
    second: np.ndarray
    part: tuple[slice, slice]
    down: np.ndarray
    across: np.ndarray


def _laid(
    first: np.ndarray, second: np.ndarray, found: registration.Geometry
) -> _Films:
    height, width = shots.SIZE
    left, top, right, bottom = registration.common_box(found, shots.SIZE, shots.SIZE)
    return _Films(
        first,
        second,
        (slice(top, bottom), slice(left, right)),
        resampling_matrix(height, found.scale_y, found.shift_y)[top:bottom],
        resampling_matrix(width, found.scale_x, found.shift_x)[left:right].T,
    )


def _of_first(films: _Films, numbers: np.ndarray) -> np.ndarray:
    """Returns the signatures of frames of the first film, (n, size)."""
    down, across = films.part
    frames = films.first[numbers][:, down, across]
    return shots.signatures(frames).reshape(len(numbers), -1)


def _of_second(films: _Films, numbers: np.ndarray) -> np.ndarray:
    """Returns the signatures of frames of the second, as they lie on the first."""
    frames = films.down @ films.second[numbers].astype(np.float32) @ films.across
    return shots.signatures(frames).reshape(len(numbers), -1)


@dataclasses.dataclass(frozen=True)
class _Corridor:
    """Where to look: frames of both films, and for each of the first, from-to."""

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
    """Returns a corridor around a path of frame numbers that was found coarsely."""
    kept, among = np.arange(0, rows, step), np.arange(0, columns, step)
    first, second = np.array(path).T
    before = np.clip(np.searchsorted(first, kept, "right") - 1, 0, None)
    after = np.clip(np.searchsorted(first, kept, "left"), None, len(first) - 1)
    reach = _AROUND * coarse
    # On the diagonal through the nearest matched frames on both sides.
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
    """Yields each row's likeness with the columns of its part of the corridor."""
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
    """Returns what matching a frame with each of some frames earns.

    Args:
      likeness: of their thumbnails.
      least: frames that are less alike are not matched.
      usual: 1 - likeness that frames which belong together usually have; None
        while that is not known. With it, what counts is how much liker the frame
        is to another one: its own dirt lowers them all.

    Returns:
      1 at best, above 0 for frames that are alike, -1 for others.
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
    """Matches in order: Needleman and Wunsch, with free ends and flat gaps.

    Returns:
      (row, column) of each match, and the sum of the rewards less the gaps.
    """
    count = len(corridor.columns)
    # The best sum that ends in each column, over the rows so far, and where.
    best, best_row = np.zeros(count), np.full(count, -1)
    last, last_low = np.zeros(0), 0
    behind, behind_at, cleared = 0.0, (-1, -1), 0
    origins, top, top_at = [], 0.0, (-1, -1)
    for row, likeness in enumerate(likenesses):
        low, high = int(corridor.low[row]), int(corridor.high[row])
        if low > cleared:  # columns that no later row reaches
            place = cleared + int(np.argmax(best[cleared:low]))
            if best[place] > behind:
                behind, behind_at = best[place], (int(best_row[place]), place)
            cleared = low
        # After a gap: from any earlier row and column.
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
        # Straight on: from the row and column before.
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
    path, place = [], top_at
    while place[0] >= 0:
        path.append(place)
        column = place[1] - int(corridor.low[place[0]])
        place = tuple(origins[place[0]][:, column].tolist())
    return path[::-1], top


def match_lying(
    first: np.ndarray,
    second: np.ndarray,
    found: registration.Geometry,
    *,
    least: float,
    finest: int = 1,
    usual: float | None = None,
) -> Match:
    """Matches two films whose pictures lie on each other as told.

    Args:
      first: thumbnails.
      second: thumbnails.
      found: how they lie on each other.
      least: see `match`.
      finest: every so many-th frame is matched.
      usual: see `_reward`.

    Returns:
      The match.
    """
    films = _laid(first, second, found)
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
    return Match(one, other, _pairwise(films, one, other), found, score)


def _pairwise(films: _Films, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the likeness of frames with those at the same place of the other."""
    parts = [
        np.einsum(
            "ij,ij->i",
            _of_first(films, first[start : start + _CHUNK]),
            _of_second(films, second[start : start + _CHUNK]),
        )
        for start in range(0, len(first), _CHUNK)
    ]
    return np.concatenate([np.zeros(0, np.float32), *parts])
