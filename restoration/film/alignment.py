"""Which frame of one film shows what a frame of another shows.

Both films are looked at as thumbnails (see `shots`). First some frames of the
first are looked for in the second at several scales and places; what they agree
on gives hypotheses of how the pictures lie on each other. Under each, frames are
matched in order by dynamic programming, where both films may have frames that the
other lacks; the hypothesis under which most frames match well wins. The two steps
then take turns, since in a pan a wrong place looks like a wrong time. A film that is
nothing but one steady pan leaves both open; a cut, a zoom or a change of pace in it
decides.
"""

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
_AT_ONCE = 1200
_STEP = 4
_AROUND = 3

# Frames of the first and of the second film among which the first look is taken,
# and the scales that are tried.
_LOOKED_FOR = 16
_LOOKED_AMONG = 1500
_SCALES = (0.75, 0.82, 0.9, 1.0, 1.1, 1.22, 1.33)
_REACH = 0.3

_HYPOTHESES = 8
_ROUNDS = 4
_REGISTERED = 32

# Cuts of the two films that may be the same, in frames from where one is expected.
_NEAR = 24

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


# One picture on another, at the size of thumbnails.


def _sampling(length: int, scale: float, shift: float) -> np.ndarray:
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
        _sampling(height, found.scale_y, found.shift_y)[top:bottom],
        _sampling(width, found.scale_x, found.shift_x)[left:right].T,
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


# Time.


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


def _match(
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
    while max(len(first), len(second)) > _AT_ONCE * step:
        step *= _STEP
    corridor = _whole(len(first), len(second), step)
    while True:
        path, score = _best_path(_likenesses(films, corridor), corridor, least, usual)
        numbers = [(corridor.rows[i], corridor.columns[j]) for i, j in path]
        if step <= finest or not path:
            break
        coarse, step = step, max(finest, step // _STEP)
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


# Space, at the size of thumbnails.


def _spread(count: int, most: int) -> np.ndarray:
    """Returns at most so many numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _halved(pictures: np.ndarray) -> np.ndarray:
    """Returns signatures at half the size, (n, height / 2, width / 2)."""
    count, height, width = pictures.shape
    blocks = pictures.reshape(count, height // 2, 2, width // 2, 2)
    return shots.signatures(blocks.astype(np.float32).mean(axis=(2, 4)))


def _scales(
    first_shape: tuple[int, int], second_shape: tuple[int, int]
) -> list[tuple[float, float]]:
    """Returns scales (across, down) of thumbnails that are worth trying.

    Pictures of different shape were cropped, so either their widths or their
    heights correspond; or else pixels are not square, and both do.
    """
    wider = (second_shape[1] / second_shape[0]) / (first_shape[1] / first_shape[0])
    bases = [(1.0, 1.0)]
    if abs(wider - 1) > 0.02:
        bases += [(1.0, wider), (1 / wider, 1.0)]
    return [(s * across, s * down) for across, down in bases for s in _SCALES]


def _looked_for(
    first: np.ndarray, second: np.ndarray, scales: list[tuple[float, float]]
) -> list[tuple[float, int, int, registration.Geometry]]:
    """Looks for some frames of the first film among those of the second.

    Returns:
      For each frame the best: (likeness, frame, frame of the second, geometry),
      the likest first.
    """
    height, width = shots.SIZE[0] // 2, shots.SIZE[1] // 2
    among = _spread(len(second), _LOOKED_AMONG)
    spectra = np.conj(np.fft.rfft2(_halved(second[among])))
    down, right = int(_REACH * height), int(_REACH * width)
    found = []
    for number in _spread(len(first), _LOOKED_FOR):
        (frame,) = _halved(first[number : number + 1])
        best = (0.0, 0, 0, registration.Geometry())
        for across, along in scales:
            # The frame as it would lie in the middle of the second film's.
            x, y = (1 - 1 / across) * width / 2, (1 - 1 / along) * height / 2
            placed = (
                _sampling(height, 1 / along, y)
                @ frame
                @ _sampling(width, 1 / across, x).T
            )
            placed *= _covered(height, along)[:, None] * _covered(width, across)
            length = np.linalg.norm(placed)
            if length < 1e-6:
                continue
            # A smaller frame can only be like the part of the other that it covers.
            length *= np.sqrt(min(1, across) * min(1, along))
            surfaces = np.fft.irfft2(np.fft.rfft2(placed) * spectra, s=placed.shape)
            near = np.roll(surfaces, (down, right), (1, 2))
            near = near[:, : 2 * down + 1, : 2 * right + 1]
            place = np.unravel_index(np.argmax(near), near.shape)
            likeness = float(near[place]) / length
            if likeness > best[0]:
                # The frame moved by so much lies on the second: at twice the size.
                moved_y, moved_x = 2 * (place[1] - down), 2 * (place[2] - right)
                lying = registration.Geometry(
                    across,
                    along,
                    (1 - across) * width - moved_x,
                    (1 - along) * height - moved_y,
                )
                best = (likeness, int(number), int(among[place[0]]), lying)
        found.append(best)
    return sorted(found, key=lambda item: -item[0])


def _covered(length: int, scale: float) -> np.ndarray:
    """Returns 1 where a line scaled about its middle reaches, 0 beyond."""
    place = np.arange(length) + 0.5 - length / 2
    return (np.abs(place) < scale * length / 2).astype(np.float32)


def _registered(
    first: np.ndarray,
    second: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    start: registration.Geometry,
    least: float,
) -> list[registration.Geometry]:
    """Returns how the thumbnails of each pair lie on each other, if that shows."""
    found = []
    for one, other in pairs:
        lying, likeness = registration.refine(
            shots.local_contrast(first[one]), shots.local_contrast(second[other]), start
        )
        if likeness > least:
            found.append(lying)
    return found


def _at_cuts(
    first: np.ndarray, second: np.ndarray, matched: Match
) -> list[tuple[int, int]]:
    """Returns the frames at both sides of cuts that both films have.

    Such frames show the same instant, whatever the geometry.
    """
    cuts, others = (
        np.array([shot.start for shot in shots.find(film)][1:], int)
        for film in (first, second)
    )
    pairs = []
    for cut in cuts if len(others) else ():
        at = np.argmin(np.abs(matched.first - cut))
        expected = matched.second[at] + cut - matched.first[at]
        other = others[np.argmin(np.abs(others - expected))]
        if abs(other - expected) <= _NEAR:
            pairs += [(cut, other), (cut - 1, other - 1)]
    return pairs


def match(
    first: np.ndarray,
    second: np.ndarray,
    first_shape: tuple[int, int],
    second_shape: tuple[int, int],
    *,
    least: float = 0.5,
) -> Match:
    """Matches the frames of two films in time, and their thumbnails in space.

    Args:
      first: uint8 (n, height, width), thumbnails of all frames of a film.
      second: those of the other film, (m, height, width).
      first_shape: (height, width) of the first film's frames.
      second_shape: those of the second.
      least: frames that are less alike are not matched. Frames of different films
        lie around 0, those of one scene at different times between 0 and 1.

    Returns:
      The match; without frames where the films have nothing in common.
    """
    finest = 1
    while max(len(first), len(second)) > _AT_ONCE * finest:
        finest *= _STEP
    hypotheses = []

    def propose(found: Sequence[registration.Geometry]) -> None:
        for new in found:
            if all(
                registration.distance(new, old, shots.SIZE) > 0.7 for old in hypotheses
            ):
                hypotheses.append(new)

    for likeness, one, other, lying in _looked_for(
        first, second, _scales(first_shape, second_shape)
    ):
        if likeness > 0.3:
            propose(_registered(first, second, [(one, other)], lying, least))
    propose([registration.Geometry()])
    best = max(
        (
            _match(first, second, lying, least=least, finest=finest)
            for lying in hypotheses[:_HYPOTHESES]
        ),
        key=lambda matched: matched.score,
    )
    if not len(best.first):
        return best
    for round_ in range(_ROUNDS):
        sources = [
            [
                (best.first[i], best.second[i])
                for i in _spread(len(best.first), _REGISTERED)
            ]
        ]
        if round_ == 0:
            sources.append(_at_cuts(first, second, best))
        better = best
        for pairs in sources:
            found = _registered(first, second, pairs, best.geometry, least)
            if len(found) < 2:
                continue
            tried = _match(
                first, second, registration.median(found), least=least, finest=finest
            )
            better = max(better, tried, key=lambda matched: matched.score)
        if better is best:
            break
        best = better
    usual = float(np.median(1 - best.likeness))
    return _match(first, second, best.geometry, least=least, usual=max(usual, 0.01))
