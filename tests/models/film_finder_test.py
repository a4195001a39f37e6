"""The film finder: its size, what it begins as, how far a pixel sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import models
from restoration.models import film_finder


def test_it_is_small():
    assert models.count_parameters(film_finder.abstract_parameters()) == 107_604


@pytest.mark.slow
def test_it_begins_undecided():
    model = film_finder.FilmFinder()
    inputs = jax.random.normal(jax.random.key(1), (1, 32, 40, film_finder.CHANNELS))
    outputs = model.apply(model.init(jax.random.key(0), inputs), inputs)
    assert outputs.shape == (1, 32, 40, 1 + film_finder.REFERENCES)
    np.testing.assert_array_equal(outputs, 0)


@pytest.mark.slow
def test_all_channels_count_once_it_is_trained():
    model = film_finder.FilmFinder()
    shapes = film_finder.abstract_parameters()
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(shapes))))
    parameters = jax.tree.map(
        lambda leaf: 0.2 * jax.random.normal(next(keys), leaf.shape), shapes
    )

    def middle(inputs):
        return model.apply(parameters, inputs)[0, 16, 16].sum()

    inputs = jnp.ones((1, 32, 32, film_finder.CHANNELS)) * jnp.linspace(
        0.1, 1, film_finder.CHANNELS
    )
    seen = jnp.abs(jax.grad(middle)(inputs)).sum((0, 1, 2))
    assert (seen > 0).all()
