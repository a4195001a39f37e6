"""The cascade of a coarse and a fine network: its parts, and in tiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import models, tiling
from restoration.models import cascade, nafnet


def random_parameters(model, seed=0):
    """Weights of which none is zero, so that every part has its effect."""
    generator = np.random.default_rng(seed)

    def drawn(path, leaf):
        name = path[-1].key
        noise = generator.standard_normal(leaf.shape).astype(np.float32)
        if name == "scale":
            return 1 + 0.1 * noise
        if name in ("beta", "gamma", "bias"):
            return 0.2 * noise
        return noise / np.sqrt(np.prod(leaf.shape[:-1]))

    like = models.abstract_parameters(model)
    return jax.tree_util.tree_map_with_path(drawn, like)


def test_shrunk_squares_are_means():
    images = np.random.default_rng(1).random((2, 8, 12, 3), np.float32)
    small = cascade.shrunk(images, 4)
    assert small.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(
        small[1, 0, 2], images[1, :4, 8:].mean((0, 1)), atol=1e-6
    )
    np.testing.assert_array_equal(cascade.shrunk(images, 1), images)


@pytest.mark.parametrize("side", [2, 4])
def test_enlarged_is_linear_between_the_middles(side):
    images = np.random.default_rng(2).random((2, 5, 7, 3), np.float32)
    size = (2, 5 * side, 7 * side, 3)
    expected = jax.image.resize(images, size, "linear")
    np.testing.assert_allclose(cascade.enlarged(images, side), expected, atol=1e-6)


@pytest.fixture(scope="module")
def networks():
    """A narrow cascade, its network alone, and weights of that network twice."""
    network = nafnet.NAFNet(width=4)
    parts = [random_parameters(network, seed) for seed in (1, 2)]
    return cascade.Cascade(width=4), network, parts


def test_joined_networks_give_what_the_fine_one_did(networks, photographs):
    model, network, (coarse, fine) = networks
    parameters = cascade.joined(coarse, fine)
    like = models.abstract_parameters(model)
    assert jax.tree.map(jnp.shape, parameters) == jax.tree.map(jnp.shape, like)
    image = photographs["coffee"][None, :40, :50]
    np.testing.assert_allclose(
        tiling.restore_whole(model, parameters, image),
        tiling.restore_whole(network, fine, image),
        atol=1e-5,
    )


def test_the_fine_network_takes_a_share_of_the_coarse_ones_change(
    networks, photographs
):
    """With the share at 1 and nothing else it is the coarse network's picture."""
    model, network, (coarse, fine) = networks
    fine = jax.tree.map(jnp.zeros_like, fine)
    parameters = cascade.joined(coarse, fine)
    outro = parameters["params"]["fine"]["outro"]
    outro["bias"] = outro["bias"].reshape(4, 10).at[:, -1].set(1.0).reshape(-1)
    image = photographs["chelsea"][None, :64, :96]
    small = image.reshape(1, 16, 4, 24, 4, 3).mean((2, 4))
    change = network.apply(coarse, small) - small
    assert np.abs(change).mean() > 0.01
    expected = image + jax.image.resize(change, image.shape, "linear")
    np.testing.assert_allclose(model.apply(parameters, image), expected, atol=1e-5)


def test_what_is_proposed_is_shown_to_the_fine_network(networks, photographs):
    model, _, _ = networks
    parameters = random_parameters(model)
    image = photographs["chelsea"][None, :64, :64]
    restored = model.apply(parameters, image)
    parameters["params"]["fine"]["outro"]["kernel"] *= 0
    parameters["params"]["coarse"]["outro"]["kernel"] *= 0
    assert np.abs(restored - model.apply(parameters, image)).mean() > 0.01


def test_trimmed_results_lack_what_only_the_coarse_network_looked_at(
    networks, photographs
):
    model, _, _ = networks
    trimmed, outer = tiling.trimmed(model)
    assert outer % model.multiple == 0
    assert tiling.trimmed(nafnet.NAFNet(width=4))[1] == 0
    parameters = random_parameters(model)
    side = 2 * outer + 256
    image = np.resize(photographs["astronaut"][:300, :300], (1, side, side, 3))
    whole = jax.jit(model.apply)(parameters, image)
    inner = jax.jit(trimmed.apply)(parameters, image)
    assert inner.shape == (1, 256, 256, 3)
    # The fine network has seen too little of the border of what is left.
    seen = slice(120, 136)
    middle = slice(outer + 120, outer + 136)
    np.testing.assert_allclose(
        inner[:, seen, seen], whole[:, middle, middle], atol=1e-5
    )


@pytest.mark.parametrize("keep_color", [False, True])
def test_tiles_equal_the_whole(keep_color, networks, photographs):
    model, _, _ = networks
    parameters = random_parameters(model)
    image = photographs["astronaut"][:190, :230]
    whole = jax.jit(functools.partial(tiling.restore_whole, model))
    whole = np.asarray(whole(parameters, image[None]))[0]
    if keep_color:
        whole = np.clip(tiling.keeping_color(image[None], whole[None])[0], 0, 1)
    assert np.abs(whole - image).max() > 0.05
    for tile in (1280, 1312):
        grid = tiling.make_grid(model, tile=(tile, tile), keep_color=keep_color)
        compute = tiling.make_compute(model, grid, keep_color=keep_color)
        rows = tiling.restore_strips(
            functools.partial(compute, parameters), [image], grid, image.shape[:2]
        )
        tiled = np.concatenate(list(rows))
        # Beyond a picture's border its tone is taken another way.
        inner = slice(64, -64) if keep_color else slice(None)
        assert np.abs(tiled - whole)[inner, inner].max() < 1e-4
