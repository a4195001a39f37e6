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

from collections.abc import Sequence

import numpy as np

from restoration.film import matching, registration, shots

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


# One picture on another, at the size of thumbnails.


# Time.


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
                matching.resampling_matrix(height, 1 / along, y)
                @ frame
                @ matching.resampling_matrix(width, 1 / across, x).T
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
    first: np.ndarray, second: np.ndarray, matched: matching.Match
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
) -> matching.Match:
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
    while max(len(first), len(second)) > matching.MOST_AT_ONCE * finest:
        finest *= matching.COARSER
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
            matching.match_lying(first, second, lying, least=least, finest=finest)
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
            tried = matching.match_lying(
                first, second, registration.median(found), least=least, finest=finest
            )
            better = max(better, tried, key=lambda matched: matched.score)
        if better is best:
            break
        best = better
    usual = float(np.median(1 - best.likeness))
    return matching.match_lying(
        first, second, best.geometry, least=least, usual=max(usual, 0.01)
    )
