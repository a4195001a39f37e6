"""Lookalikes: what looks like damage and belongs into the picture."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

from restoration.damage import lookalikes

SHAPE = (64, 80)
KEYS = jax.random.split(jax.random.key(5), 8)

random_kind = pytest.mark.parametrize("name", lookalikes.KINDS)


def _image(shape=SHAPE):
    image = data.astronaut()[20 : 20 + shape[0], 150 : 150 + shape[1]]
    return jnp.asarray(image, jnp.float32) / 255


@functools.cache
def _draw(name):
    kind = lookalikes.KINDS[name]
    return jax.jit(lambda key, image, severity: kind(key, image, severity=severity))


@random_kind
def test_signature_is_key_image_severity(name):
    parameters = inspect.signature(lookalikes.KINDS[name]).parameters
    assert list(parameters) == ["key", "image", "severity"]
    assert parameters["severity"].kind is inspect.Parameter.KEYWORD_ONLY
    assert lookalikes.KINDS[name].__name__ == f"random_{name}"


@random_kind
def test_severity_zero_and_below_change_no_bit(name):
    image = _image()
    for severity in (0.0, -1.0, float("nan")):
        for key in KEYS[:3]:
            np.testing.assert_array_equal(_draw(name)(key, image, severity), image)


@random_kind
def test_stays_finite_and_in_range(name):
    black = jnp.zeros((*SHAPE, 3))
    for image in (_image(), black, black + 1):
        for severity in (1.0, float("inf")):
            after = np.asarray(_draw(name)(KEYS[0], image, severity))
            assert after.shape == image.shape and after.dtype == np.float32
            assert np.isfinite(after).all()
            assert after.min() >= 0 and after.max() <= 1


@random_kind
def test_draws_something_else_for_another_key(name):
    image = jnp.full((*SHAPE, 3), 0.03, jnp.float32)
    drawn = [np.asarray(_draw(name)(key, image, 4.0)) for key in KEYS]
    changed = [bool((np.abs(one - image) > 0.02).any()) for one in drawn]
    assert sum(changed) >= len(KEYS) // 2
    assert len({one.tobytes() for one in drawn}) >= len(KEYS) // 2


@random_kind
def test_a_grey_picture_stays_grey(name):
    """Color on a grey picture would tell what was drawn from what was there."""
    grey = jnp.repeat(_image().mean(axis=-1, keepdims=True), 3, axis=-1)
    for key in KEYS:
        after = np.asarray(_draw(name)(key, grey, 2.0))
        assert np.ptp(after, axis=-1).max() < 1e-5


def test_shares_are_of_all_kinds():
    assert set(lookalikes.SHARE) == set(lookalikes.KINDS)
    np.testing.assert_allclose(sum(lookalikes.SHARE.values()), 1)


def test_stars_are_bright_points_on_a_dark_sky():
    image = jnp.full((*SHAPE, 3), 0.02, jnp.float32)
    for key in KEYS[:4]:
        after = np.asarray(_draw("stars")(key, image, 3.0)).mean(-1)
        if np.abs(after - 0.02).max() > 0.3:
            assert np.median(after) < 0.3
            assert (after > 0.3).mean() < 0.2


def test_dots_of_cloth_repeat():
    """The pattern's strongest frequency holds much of its energy."""
    image = jnp.full((*SHAPE, 3), 0.5, jnp.float32)
    found = 0
    for key in KEYS:
        after = np.asarray(_draw("lace")(key, image, 4.0)).mean(-1)
        spectrum = np.abs(np.fft.rfft2(after - after.mean())) ** 2
        found += spectrum.max() > 40 * spectrum.mean()
    assert found >= 3


@pytest.mark.slow
def test_some_kinds_are_drawn():
    kinds = ("wires", "buttons", "glints")
    draw = jax.jit(
        lambda key, image, severity: lookalikes.random_lookalikes(
            key, image, severity=severity, kinds=kinds
        )
    )
    image = _image()
    np.testing.assert_array_equal(draw(KEYS[0], image, 0.0), image)
    drawn = [np.asarray(draw(key, image, 3.0)) for key in KEYS]
    assert sum(bool((one != image).any()) for one in drawn) >= 4
    np.testing.assert_array_equal(drawn[0], draw(KEYS[0], image, 3.0))


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match="rain"):
        lookalikes.random_lookalikes(KEYS[0], _image(), severity=1.0, kinds=("rain",))
