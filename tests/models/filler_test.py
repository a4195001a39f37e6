"""The filler: exact outside the mask, smooth inside, the same in tiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import models
from restoration.models import filler


@functools.cache
def random_parameters():
    """Weights of which none is zero, so that every part has its effect."""
    generator = np.random.default_rng(0)

    def drawn(path, leaf):
        noise = generator.standard_normal(leaf.shape).astype(np.float32)
        name = path[-1].key
        if name == "scale":
            return 1 + 0.1 * noise
        if name in ("beta", "gamma", "bias"):
            return 0.2 * noise
        return noise / np.sqrt(np.prod(leaf.shape[:-1]))

    return jax.tree_util.tree_map_with_path(drawn, filler.abstract_parameters())


def picture(height, width, seed=0):
    generator = np.random.default_rng(seed)
    image = generator.uniform(size=(1, height, width, 3)).astype(np.float32)
    mask = (generator.uniform(size=(1, height, width, 1)) < 0.2).astype(np.float32)
    mask[:, 10:30, 12:40] = 1
    return image, mask * generator.uniform(0.3, 1, mask.shape).astype(np.float32)


apply = jax.jit(filler.Filler().apply)


def test_parameters_are_pinned():
    assert models.count_parameters(filler.abstract_parameters()) == 203_108


def test_outside_the_mask_the_bits_stay():
    image, mask = picture(64, 96)
    filled = np.asarray(apply(random_parameters(), image, mask))
    outside = (mask == 0)[..., 0]
    np.testing.assert_array_equal(filled[outside], image[outside])
    assert np.abs(filled - image)[~outside].max() > 0.01


@pytest.mark.slow
def test_sides_need_not_be_multiples():
    image, mask = picture(53, 41)
    filled = np.asarray(apply(random_parameters(), image, mask))
    assert filled.shape == image.shape
    outside = (mask == 0)[..., 0]
    np.testing.assert_array_equal(filled[outside], image[outside])


def test_the_first_guess_fills_a_plain_picture_with_its_color():
    color = np.float32([0.2, 0.5, 0.8])
    image = np.broadcast_to(color, (1, 64, 64, 3)).copy()
    mask = np.zeros((1, 64, 64, 1), np.float32)
    mask[:, 20:44, 20:44] = 1
    dirty = np.where(mask > 0, 1.0, image)
    guess = np.asarray(filler.first_guess(jnp.asarray(dirty), jnp.asarray(mask)))
    np.testing.assert_allclose(guess, image, atol=2e-3)


@pytest.mark.slow
def test_the_first_guess_continues_a_slope_and_stays_within_what_is_around():
    ramp = np.linspace(0, 1, 96, dtype=np.float32)
    image = np.broadcast_to(ramp[None, None, :, None], (1, 96, 96, 3)).copy()
    mask = np.zeros((1, 96, 96, 1), np.float32)
    mask[:, 40:56, 40:56] = 1
    guess = np.asarray(filler.first_guess(jnp.where(mask > 0, 0, image), mask))
    assert np.abs(guess - image).max() < 0.12
    hidden = guess[mask[..., 0] > 0]
    assert hidden.min() >= 0.3 and hidden.max() <= 0.7


@pytest.mark.slow
def test_all_hidden_stays_finite():
    image, _ = picture(64, 64)
    mask = np.ones((1, 64, 64, 1), np.float32)
    assert np.isfinite(apply(random_parameters(), image, mask)).all()


@pytest.mark.slow
@pytest.mark.parametrize("axis", [1, 2])
def test_a_tile_with_its_halo_equals_the_whole(axis):
    halo, stride = filler.Filler.halo, filler.Filler.stride
    assert halo % stride == 0
    shape = [64, 64]
    shape[axis - 1] = 2 * halo + 128
    image, mask = picture(*shape)
    whole = np.asarray(apply(random_parameters(), image, mask))
    first = halo // stride * stride
    cut = [slice(None)] * 4
    cut[axis] = slice(shape[axis - 1] - halo - 64, None)
    tile = np.asarray(apply(random_parameters(), image[tuple(cut)], mask[tuple(cut)]))
    inner = [slice(None)] * 4
    inner[axis] = slice(halo, None)
    expected = whole[tuple(cut)][tuple(inner)]
    assert first and expected.size
    np.testing.assert_allclose(tile[tuple(inner)], expected, atol=1e-5)


@pytest.mark.slow
def test_it_sees_no_farther_than_its_halo():
    halo = filler.Filler.halo
    side = 2 * halo + 64
    image, mask = picture(64, side)
    changed = image.copy()
    changed[:, :, : side - 32 - halo - 1] = 0.5
    before = np.asarray(apply(random_parameters(), image, mask))
    after = np.asarray(apply(random_parameters(), changed, mask))
    np.testing.assert_allclose(
        after[:, :, side - 32 :], before[:, :, side - 32 :], atol=1e-6
    )


@pytest.mark.slow
def test_without_training_it_gives_the_first_guess():
    image, mask = picture(64, 64)
    parameters = filler.Filler().init(jax.random.key(0), image, mask)
    guess = filler.first_guess(jnp.asarray(image), jnp.asarray(mask))
    expected = jnp.where(mask > 0, guess, image)
    np.testing.assert_allclose(apply(parameters, image, mask), expected, atol=1e-6)
