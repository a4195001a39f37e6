"""The shipped finder finds a drawn scratch and nothing else; the filler fills it."""

import functools

import jax
import numpy as np
import pytest

from restoration.models import filler, finder, pretrained

# Two networks are compiled, which takes a minute or two.
pytestmark = pytest.mark.slow

SIDE = 192


def load(name):
    found, parameters = pretrained.load(pretrained.FOLDER / f"{name}.safetensors")
    assert found == name
    return parameters


def photograph():
    """A soft scene: a sky, hills with texture and grain."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:SIDE, :SIDE] / SIDE
    sky = np.stack([0.55 + 0.2 * row, 0.62 + 0.16 * row, 0.75 + 0.05 * row], -1)
    hills = 0.55 + 0.08 * np.sin(9 * column) + 0.05 * np.sin(23 * column + 1)
    land = 0.3 + 0.08 * np.sin(40 * row + 11 * column)[..., None] * [1, 0.9, 0.6]
    edge = np.clip((row - hills)[..., None] * 60 + 0.5, 0, 1)
    image = sky * (1 - edge) + land * edge
    return np.float32(np.clip(image + 0.008 * rng.normal(size=(SIDE, SIDE, 1)), 0, 1))


def scratched(image):
    """A bright running scratch two pixels wide, and a dark blot."""
    row, column = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    line = np.clip(1.5 - np.abs(column - 60 - 0.05 * row), 0, 1)
    blot = np.clip(7.5 - np.hypot(row - 60, column - 130), 0, 1)
    damaged = image + (0.97 - image) * line[..., None]
    damaged = damaged + (0.05 - damaged) * blot[..., None]
    return np.float32(damaged), np.maximum(line, blot)


@functools.cache
def compiled():
    return jax.jit(finder.Finder().apply)


def find(image):
    logits = compiled()(load(finder.NAME), image[None])
    return np.asarray(jax.nn.sigmoid(logits))[0, ..., 0]


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_the_finder_finds_a_scratch_on_a_photograph(name, photographs):
    """The photographs are among those it learned from, the scratch is not."""
    clean = photographs[name][100 : 100 + SIDE, 100 : 100 + SIDE]
    damaged, mask = scratched(clean)
    scratch = mask > 0.9
    scratch[:, 120:] = False  # the blot
    found = find(damaged)
    assert found[scratch].mean() > 0.5
    assert found[scratch].mean() > 10 * found[mask == 0].mean()


def test_the_finder_finds_a_scratch_and_a_blot():
    damaged, mask = scratched(photograph())
    found = find(damaged)
    assert found[mask > 0.9].mean() > 0.5
    assert found[mask > 0.9].mean() > 10 * found[mask == 0].mean()
    assert (found[mask == 0] > 0.7).mean() < 0.02


def test_the_finder_finds_nothing_where_nothing_is():
    assert (find(photograph()) > 0.7).mean() < 0.001


def test_the_filler_restores_what_is_hidden():
    image = photograph()
    damaged, mask = scratched(image)
    hidden = np.float32(mask > 0)
    filled = jax.jit(filler.Filler().apply)(
        load(filler.NAME), damaged[None], hidden[None, ..., None]
    )
    filled = np.asarray(filled)[0]
    inside = hidden > 0
    np.testing.assert_array_equal(filled[~inside], damaged[~inside])
    before = np.abs(damaged - image)[inside].mean()
    assert np.abs(filled - image)[inside].mean() < 0.1 * before
