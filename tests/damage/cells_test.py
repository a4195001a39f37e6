"""Cells and polylines: geometry against references."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import spatial

from restoration.damage import cells, fields, polylines

KEY = jax.random.key(2)


def test_cells_are_those_of_their_seeds():
    shape = (90, 110)
    cut = cells.cells(KEY, shape, size=11.0, angle=0.4)
    centre = np.stack([np.asarray(x).ravel() for x in cut.centre], -1)
    seeds = np.unique(centre.round(3), axis=0)
    pixels = np.stack(np.indices(shape), -1).reshape(-1, 2)
    far, index = spatial.cKDTree(seeds).query(pixels, 2)
    same = np.abs(seeds[index[:, 0]] - centre).max(-1) < 0.01
    assert same.mean() > 0.995
    # Seeds of cells beyond the border are not known here: only pixels inside.
    inside = np.zeros(shape, bool)
    inside[25:-25, 25:-25] = True
    apart = np.linalg.norm(seeds[index[:, 0]] - seeds[index[:, 1]], axis=-1)
    expected = (far[:, 1] ** 2 - far[:, 0] ** 2) / (2 * apart)
    close = np.abs(expected - np.asarray(cut.distance).ravel()) < 0.02
    assert close[inside.ravel()].mean() > 0.99
    assert cut.distance.min() >= 0


def test_cells_numbers_go_with_cells_and_borders():
    cut = cells.cells(KEY, (60, 60), size=15.0)
    centre = np.asarray(cut.centre).reshape(2, -1).T.round(2)
    _, which = np.unique(centre, axis=0, return_inverse=True)
    which = which.ravel()
    chance = np.asarray(cut.chance).ravel()
    for cell in range(which.max() + 1):
        assert np.ptp(chance[which == cell]) == 0
    # Across a border the two numbers change places, and the border's stays.
    left, right = (np.asarray(cut.chance)[:, a] for a in (slice(0, -1), slice(1, None)))
    over = (left != right) & (np.asarray(cut.distance)[:, 1:] < 0.5)
    swapped = np.asarray(cut.beyond)[:, :-1] == right
    assert swapped[over].mean() > 0.8
    kept = np.asarray(cut.border)[:, :-1] == np.asarray(cut.border)[:, 1:]
    assert kept[over].mean() > 0.8


def _chance(*shape):
    return fields.uniform(KEY, shape)


def test_wandering_lines_have_their_length_and_direction():
    start = jnp.array([[3.0, 4.0], [50.0, 60.0]])
    given = {
        "start": start,
        "angle": jnp.array([0.0, np.pi / 2]),
        "length": jnp.array([36.0, 20.0]),
    }
    straight = polylines.wandering(_chance(2, 40), **given, kink=0.0, drift=0.0)
    np.testing.assert_allclose(straight[0, -1], [3, 40], atol=1e-3)
    np.testing.assert_allclose(straight[1, -1], [70, 60], atol=1e-3)
    crooked = polylines.wandering(_chance(2, 40), **given, kink=0.5, drift=0.5)
    steps = np.linalg.norm(np.diff(crooked, axis=1), axis=-1)
    np.testing.assert_allclose(steps.sum(1), [36 * 39 / 40, 20 * 39 / 40], rtol=1e-3)
    assert np.abs(crooked - straight).max() > 1


def test_bridges_reach_both_ends():
    start, end = _chance(5, 2) * 40, 60 + _chance(5, 2) * 40
    bridge = polylines.bridging(_chance(5, 30), start=start, end=end, aside=0.4)
    np.testing.assert_allclose(bridge[:, 0], start, atol=1e-4)
    np.testing.assert_allclose(bridge[:, -1], end, atol=1e-4)


def test_lines_are_met_and_accompanied():
    column = jnp.arange(50.0)
    line = jnp.stack([0 * column + 7, column], -1)[None]
    place, angle = polylines.at(line, jnp.array([[0.0, 0.5, 1.0]]))
    np.testing.assert_allclose(place[0, :, 1], [0, 24, 49])
    np.testing.assert_allclose(angle, 0, atol=1e-6)
    beside = polylines.beside(line, jnp.full((1, 50), 2.0))
    np.testing.assert_allclose(np.abs(beside - line)[0], [[2, 0]] * 50, atol=1e-6)


def test_thin_lines_are_pale():
    points = jnp.stack([jnp.full(30, 10.0), 5 + jnp.arange(30.0)], -1)[None]
    for width in (0.3, 0.6, 2.0):
        one = polylines.strokes(points, jnp.full((1, 30), width), jnp.ones((1, 1)))
        layer = polylines.drawn((20, 40), (one,), reach=3)[0]
        covered = np.asarray(layer)[:, 20].sum()
        np.testing.assert_allclose(covered, max(width, 0.35), rtol=0.35)
