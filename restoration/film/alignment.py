"""Aligns two films: which of their frames show the same, and how these overlap.

The films are compared as thumbnails (see `shots`). First, some frames of the first film
are searched in the second at several scales and shifts, which gives hypotheses for the
geometry. For each of them, frames are matched in order by dynamic programming; both
films may have frames that the other lacks. The hypothesis with the best match wins.
Geometry and match are then refined in turns, since in a pan an error in space looks
like an error in time. If the whole film is one steady pan, the two cannot be kept
apart; a cut, a zoom or a change of speed decides.
"""

from collections.abc import Sequence

import numpy as np

from restoration.film import matching, registration, shots

# The first search: frames of the first film, frames of the second among which they are
# searched, the scales, and the largest shift as a share of the image.
_QUERIES = 16
_CANDIDATES = 1500
_SCALES = (0.75, 0.82, 0.9, 1.0, 1.1, 1.22, 1.33)
_REACH = 0.3

# Hypotheses that are matched, rounds of refinement, and frames registered in each.
_HYPOTHESES = 8
_ROUNDS = 4
_REGISTERED = 32

# Two cuts may be the same if they are at most this many frames apart.
_NEAR = 24


def _spread(count: int, most: int) -> np.ndarray:
    """Returns at most `most` numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _halved(thumbnails: np.ndarray) -> np.ndarray:
    """Returns descriptors at half the size, (n, height / 2, width / 2)."""
    count, height, width = thumbnails.shape
    blocks = thumbnails.reshape(count, height // 2, 2, width // 2, 2)
    return shots.descriptors(blocks.astype(np.float32).mean(axis=(2, 4)))


def _scales(
    first_shape: tuple[int, int], second_shape: tuple[int, int]
) -> list[tuple[float, float]]:
    """Returns the scales (across, down) of thumbnails to try.

    If the shapes differ, frames were cropped, so that their widths or their heights
    correspond; or pixels are not square, and both correspond.
    """
    wider = (second_shape[1] / second_shape[0]) / (first_shape[1] / first_shape[0])
    bases = [(1.0, 1.0)]
    if abs(wider - 1) > 0.02:
        bases += [(1.0, wider), (1 / wider, 1.0)]
    return [(s * across, s * down) for across, down in bases for s in _SCALES]


def _search(
    first: np.ndarray, second: np.ndarray, scales: list[tuple[float, float]]
) -> list[tuple[float, int, int, registration.Geometry]]:
    """Searches some frames of the first film among those of the second.

    Returns:
      The best match of each frame as (likeness, frame, frame of the second film,
      geometry), by descending likeness.
    """
    height, width = shots.SIZE[0] // 2, shots.SIZE[1] // 2
    among = _spread(len(second), _CANDIDATES)
    spectra = np.conj(np.fft.rfft2(_halved(second[among])))
    down, right = int(_REACH * height), int(_REACH * width)
    found = []
    for number in _spread(len(first), _QUERIES):
        (frame,) = _halved(first[number : number + 1])
        best = (0.0, 0, 0, registration.Geometry())
        for across, along in scales:
            # The frame scaled, in the middle of the second film's frame.
            x, y = (1 - 1 / across) * width / 2, (1 - 1 / along) * height / 2
            placed = (
                matching.resampling_matrix(height, 1 / along, y)
                @ frame
                @ matching.resampling_matrix(width, 1 / across, x).T
            )
            placed *= _covered(height, along)[:, None] * _covered(width, across)
            length = np.linalg.norm(placed)
            if length < 1e-6:
                continue
            # A smaller frame is compared only with the part that it covers.
            length *= np.sqrt(min(1, across) * min(1, along))
            surfaces = np.fft.irfft2(np.fft.rfft2(placed) * spectra, s=placed.shape)
            near = np.roll(surfaces, (down, right), (1, 2))
            near = near[:, : 2 * down + 1, : 2 * right + 1]
            peak = np.unravel_index(np.argmax(near), near.shape)
            likeness = float(near[peak]) / length
            if likeness > best[0]:
                # The shift, at the full size of thumbnails.
                moved_y, moved_x = 2 * (peak[1] - down), 2 * (peak[2] - right)
                geometry = registration.Geometry(
                    across,
                    along,
                    (1 - across) * width - moved_x,
                    (1 - along) * height - moved_y,
                )
                best = (likeness, int(number), int(among[peak[0]]), geometry)
        found.append(best)
    return sorted(found, key=lambda item: -item[0])


def _covered(length: int, scale: float) -> np.ndarray:
    """Returns 1 where a line scaled about its middle covers the line, else 0."""
    position = np.arange(length) + 0.5 - length / 2
    return (np.abs(position) < scale * length / 2).astype(np.float32)


def _registered(
    first: np.ndarray,
    second: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    start: registration.Geometry,
    least: float,
) -> list[registration.Geometry]:
    """Returns the geometry of each pair whose thumbnails can be registered."""
    found = []
    for one, other in pairs:
        geometry, likeness = registration.refine(
            shots.local_contrast(first[one]), shots.local_contrast(second[other]), start
        )
        if likeness > least:
            found.append(geometry)
    return found


def _at_cuts(
    first: np.ndarray, second: np.ndarray, matched: matching.Match
) -> list[tuple[int, int]]:
    """Returns the frames on both sides of cuts that both films have.

    These frames show the same instant, whatever the geometry.
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
) -> matching.Match:
    """Matches the frames of two films in time, and their thumbnails in space.

    Args:
      first: uint8 (n, height, width), thumbnails of all frames of a film.
      second: those of the other film, (m, height, width).
      first_shape: (height, width) of the first film's frames.
      second_shape: (height, width) of the second film's frames.
      least: lowest likeness of frames that are matched. It is around 0 for frames of
        different films, and between 0 and 1 for one scene at different times.

    Returns:
      The match. It is empty if the films have nothing in common.
    """
    finest = 1
    while max(len(first), len(second)) > matching.MOST_AT_ONCE * finest:
        finest *= matching.COARSER
    hypotheses = []

    def propose(found: Sequence[registration.Geometry]) -> None:
        for new in found:
            if all(
                registration.distance(new, old, shots.SIZE) > 0.7 for old in hypotheses
            ):
                hypotheses.append(new)

    for likeness, one, other, geometry in _search(
        first, second, _scales(first_shape, second_shape)
    ):
        if likeness > 0.3:
            propose(_registered(first, second, [(one, other)], geometry, least))
    propose([registration.Geometry()])
    best = max(
        (
            matching.match_with_geometry(
                first, second, geometry, least=least, finest=finest
            )
            for geometry in hypotheses[:_HYPOTHESES]
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
            tried = matching.match_with_geometry(
                first, second, registration.median(found), least=least, finest=finest
            )
            better = max(better, tried, key=lambda matched: matched.score)
        if better is best:
            break
        best = better
    usual = float(np.median(1 - best.likeness))
    return matching.match_with_geometry(
        first, second, best.geometry, least=least, usual=max(usual, 0.01)
    )
