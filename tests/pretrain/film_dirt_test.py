"""Drawn clips: what is marked is what was changed, and the same key draws the same."""

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV (extra film)")

from experiments.pretrain import film_dirt


@pytest.fixture(scope="module")
def sources():
    rng = np.random.default_rng(0)
    scan = np.zeros((80, 80), np.uint8)
    scan[20:60, 20:60] = 255
    film = rng.integers(60, 180, (20, 120, 160), dtype=np.uint8)
    return film_dirt.Sources([film], [film[0]], {k: [scan] for k in film_dirt._RATES})


def test_what_is_not_marked_has_grain_alone(sources):
    marked = 0
    for seed in range(6):
        clip = film_dirt.draw(np.random.default_rng(seed), sources, 5, 96)
        assert clip.worn.shape == clip.opacity.shape == (5, 96, 96)
        apart = clip.worn.astype(float) - clip.clean
        assert np.abs(apart[clip.opacity == 0]).mean() < 8
        marked += (clip.opacity > 25).sum()
        if (clip.opacity > 200).any():
            assert np.abs(apart[clip.opacity > 200]).mean() > 15
    assert marked


def test_the_same_seed_draws_the_same(sources):
    one, other = (
        film_dirt.draw(np.random.default_rng(3), sources, 4, 64) for _ in range(2)
    )
    np.testing.assert_array_equal(one.worn, other.worn)
    np.testing.assert_array_equal(one.opacity, other.opacity)
