"""The finder: its size, what it sees, and that tiles equal the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from restoration import models
from restoration.models import efficientnet_lite, finder, nafnet


@functools.cache
def random_parameters():
    """Weights of which none is zero, so that every part has its effect."""
    generator = np.random.default_rng(0)

    def drawn(path, leaf):
        noise = generator.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "scale":
            return 1 + 0.1 * noise
        if path[-1].key == "bias":
            return 0.2 * noise
        return noise / np.sqrt(np.prod(leaf.shape[:-1]))

    return jax.tree_util.tree_map_with_path(drawn, finder.abstract_parameters())


apply = jax.jit(finder.Finder().apply)


def test_parameters_are_pinned():
    assert models.count_parameters(finder.abstract_parameters()) == 753_952


def test_the_encoder_is_efficientnet_lite0s_first_blocks():
    mine = finder.abstract_parameters()["params"]["encoder"]
    theirs = efficientnet_lite.abstract_parameters()["params"]
    for name, layer in mine.items():
        shapes = jax.tree.map(lambda leaf: leaf.shape, layer)
        assert shapes == jax.tree.map(lambda leaf: leaf.shape, theirs[name])


def test_the_halo_is_what_a_pixel_sees():
    # Followed back from a row of the logits, of all rows of the coarsest grid's cell.
    up = down = 0
    for row in range(finder.Finder.stride):
        low, high = row // 2 - 3, row // 2 + 3  # fine: three 3×3 convolutions
        for stride, count in ((4, 2), (8, 2), (16, 2), (32, 1)):
            low, high = low // 2 - count, high // 2 + count
            assert stride
        blocks = ((3, 2, 0, 0), *efficientnet_lite.BLOCKS[:11])
        for side, stride, _, _ in reversed(blocks):
            before = (side - stride) // 2
            low, high = low * stride - before, high * stride + side - 1 - before
        up, down = max(up, row - 2 * low), max(down, 2 * high + 1 - row)
    assert (up, down) == (433, 463)
    assert finder.Finder.halo >= max(up, down)
    assert finder.Finder.halo % finder.Finder.stride == 0


def test_a_pixel_with_its_halo_is_found_as_in_the_whole():
    halo, shift = finder.Finder.halo, 64
    width = 2 * halo + 2 * shift
    generator = np.random.default_rng(1)
    image = generator.uniform(size=(1, 32, width, 3)).astype(np.float32)
    other = generator.uniform(size=image.shape).astype(np.float32)
    other[:, :, : width - shift] = image[:, :, shift:]
    whole, moved = (np.asarray(apply(random_parameters(), x)) for x in (image, other))
    inner = whole[:, :, halo + shift : halo + 2 * shift]
    np.testing.assert_allclose(moved[:, :, halo : halo + shift], inner, atol=1e-4)
    assert inner.std() > 0.1


def test_halve_and_double():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(
        finder.halve(x)[0, ..., 0], [[2.5, 4.5], [10.5, 12.5]]
    )
    np.testing.assert_array_equal(finder.double(x)[0, :2, :2, 0], np.zeros((2, 2)))
    np.testing.assert_array_equal(finder.halve(finder.double(x)), x)


def test_openings_and_closings_of_given_squares():
    image = np.zeros((1, 9, 9, 1), np.float32)
    image[0, 4, 4] = 1
    opened, closed = nafnet.openings_and_closings(jnp.asarray(image), (1,))
    np.testing.assert_array_equal(opened, -image)
    np.testing.assert_array_equal(closed, np.zeros_like(image))
