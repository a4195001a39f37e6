"""NAFNet against a transcription of the paper's equations; DnCNN against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax import lax

from restoration import models
from restoration.inference import tiling
from restoration.models import apply, nafnet


def random_parameters(model, seed=0):
    """Returns weights without zeros, so that every part has an effect."""
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


def numpy_convolution(x, kernel, bias):
    """Convolves (h, w, in) with (3, 3, in, out), zero padding."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    height, width = x.shape[:2]
    return bias + sum(
        padded[i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


def numpy_block(x, weights):
    """Equations 4 to 6 and figure 3c in float64, for one image (h, w, c)."""

    def norm(x, part):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-6) * part["scale"] + part["bias"]

    def pointwise(x, part):
        return x @ part["kernel"] + part["bias"]

    def depthwise(x, part):
        seen = [
            scipy.ndimage.correlate(x[..., c], part["kernel"][..., c], mode="constant")
            for c in range(x.shape[-1])
        ]
        return np.stack(seen, -1) + part["bias"]

    y = norm(x, weights["norm_1"])
    first, second = (
        depthwise(
            pointwise(y, weights[f"expand_1{half}"]), weights[f"depthwise_1{half}"]
        )
        for half in "ab"
    )
    y = first * second
    pooled = scipy.ndimage.uniform_filter(y, (3, 3, 1), mode="constant")
    y = y * pointwise(pooled, weights["attention"])
    x = x + pointwise(y, weights["project_1"]) * weights["beta"]
    y = norm(x, weights["norm_2"])
    y = pointwise(y, weights["expand_2a"]) * pointwise(y, weights["expand_2b"])
    return x + pointwise(y, weights["project_2"]) * weights["gamma"]


def test_block_equals_the_papers_equations():
    block = nafnet.Block()
    x = np.random.default_rng(1).standard_normal((1, 9, 7, 6)).astype(np.float32)
    weights = block.init(jax.random.key(0), x)["params"]
    generator = np.random.default_rng(2)
    weights = jax.tree.map(
        lambda leaf: generator.normal(0, 0.5, leaf.shape).astype(np.float32), weights
    )
    ours = block.apply({"params": weights}, x)[0]
    theirs = numpy_block(x[0].astype(np.float64), jax.tree.map(np.float64, weights))
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def numpy_changes(image):
    """Openings and closings minus the image, for one image (h, w, c)."""
    changes = []
    for side in (3, 7, 15):
        size = (side, side, 1)
        least = scipy.ndimage.minimum_filter(image, size, mode="constant", cval=9)
        most = scipy.ndimage.maximum_filter(image, size, mode="constant", cval=-9)
        opened = scipy.ndimage.maximum_filter(least, size, mode="constant", cval=-9)
        closed = scipy.ndimage.minimum_filter(most, size, mode="constant", cval=9)
        changes += [opened - image, closed - image]
    return changes


@pytest.mark.slow
def test_openings_remove_narrow_lines():
    image = np.random.default_rng(5).random((2, 21, 34, 3)).astype(np.float32)
    found = nafnet.openings_and_closings(image)
    for n in range(2):
        expected = numpy_changes(image[n])
        np.testing.assert_array_equal([change[n] for change in found], expected)
    line = np.full((1, 40, 40, 3), 0.5, np.float32)
    line[:, :, 20:25] = 0.9  # wider than 3 pixels, narrower than 7
    small, _, middle, *_ = nafnet.openings_and_closings(line)
    assert not np.any(small)
    np.testing.assert_allclose(middle + line, 0.5, atol=1e-6)


def test_network_equals_its_parts():
    """Fold, down, middle, up and unfold, written again around the block."""
    model = nafnet.NAFNet(width=8)
    weights = random_parameters(model)["params"]
    image = np.random.default_rng(3).random((16, 24, 3))
    exact = jax.tree.map(np.float64, weights)

    def unfold(x):
        h, w, c = x.shape
        x = x.reshape(h, w, 2, 2, c // 4).transpose(0, 2, 1, 3, 4)
        return x.reshape(2 * h, 2 * w, c // 4)

    def down(x, part):
        h, w, c = x.shape
        x = x.reshape(h // 2, 2, w // 2, 2, c).transpose(0, 2, 1, 3, 4)
        flat = x.reshape(h // 2, w // 2, 4 * c)
        return flat @ part["kernel"] + part["bias"]

    changes = numpy_changes(image)
    x = np.concatenate([image, *changes], -1)
    x = x.reshape(8, 2, 12, 2, 21).transpose(0, 2, 1, 3, 4).reshape(8, 12, 84)
    x = numpy_convolution(x, **exact["intro"])
    first = numpy_block(x, exact["encoder_1_1"])
    second = numpy_block(down(first, exact["down_1"]), exact["encoder_2_1"])
    x = down(second, exact["down_2"])
    for number in range(1, 5):
        x = numpy_block(x, exact[f"middle_{number}"])
    x = numpy_block(unfold(x @ exact["up_2"]["kernel"]) + second, exact["decoder_2_1"])
    x = numpy_block(unfold(x @ exact["up_1"]["kernel"]) + first, exact["decoder_1_1"])
    given = unfold(numpy_convolution(x, **exact["outro"]))
    expected = image + given[..., :3]
    for number, change in enumerate(changes, 3):
        expected += given[..., number, None] * change

    got = jax.jit(model.apply)({"params": weights}, image[None].astype(np.float32))[0]
    assert np.abs(expected - image).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def grouped(x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def test_depthwise_equals_grouped_convolution_and_its_gradients():
    generator = np.random.default_rng(4)
    x = generator.standard_normal((2, 11, 13, 6)).astype(np.float32)
    kernel = generator.standard_normal((3, 3, 6)).astype(np.float32)
    weight = generator.standard_normal(x.shape).astype(np.float32)

    def value(function):
        return lambda x, kernel: jnp.sum(function(x, kernel) * weight)

    np.testing.assert_allclose(
        nafnet.depthwise(x, kernel), grouped(x, kernel), atol=1e-5
    )
    ours = jax.grad(value(nafnet.depthwise), (0, 1))(x, kernel)
    plain = jax.grad(value(grouped), (0, 1))(x, kernel)
    for got, expected in zip(ours, plain, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.slow
def test_untrained_network_changes_nothing(photographs):
    model = models.get_model("nafnet_s")
    image = photographs["chelsea"][None, :40, :56]
    parameters = jax.jit(model.init)(jax.random.key(0), image)
    np.testing.assert_array_equal(jax.jit(model.apply)(parameters, image), image)


@pytest.mark.slow
def test_tiles_equal_the_whole(photographs):
    model = nafnet.NAFNet(width=8)
    parameters = random_parameters(model)
    image = photographs["astronaut"][:190, :230]
    restore_whole = jax.jit(functools.partial(apply.restore_whole, model))
    whole = restore_whole(parameters, image[None])[0]
    assert np.abs(whole - image).max() > 0.05
    for tile in (264, 304):
        tiled = tiling.make_restore(model, tile=tile)(parameters, image)
        assert np.abs(tiled - whole).max() < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (9, 30)])
def test_any_size_is_accepted(size):
    model = nafnet.NAFNet(width=8)
    image = np.random.default_rng(5).random((1, *size, 3), np.float32)
    restored = jax.jit(model.apply)(random_parameters(model), image)
    assert restored.shape == image.shape
    assert np.isfinite(restored).all()


@pytest.mark.slow
def test_bfloat16_computes_near_float32(photographs):
    image = photographs["coffee"][None, :64, :64]
    parameters = random_parameters(nafnet.NAFNet(width=8))
    exact = jax.jit(nafnet.NAFNet(width=8).apply)(parameters, image)
    model = nafnet.NAFNet(width=8, dtype=jnp.bfloat16)
    half = jax.jit(model.apply)(parameters, image)
    assert half.dtype == jnp.float32
    change = np.abs(exact - image).mean()
    assert 0 < np.abs(half - exact).mean() < 0.05 * change


@pytest.mark.parametrize(("name", "width"), [("nafnet_s", 32), ("nafnet_m", 80)])
def test_parameters_and_multiply_adds(name, width):
    """Compared with the numbers that follow from the paper's layers."""

    def block(c):
        return 2 * c * c + 9 * 2 * c + c * c + c * c + 2 * c * c + c * c

    def extra(c):  # biases, norms, beta and gamma
        return 2 * c + 2 * c + c + c + 2 * c + c + 4 * c + 2 * c

    c, model = width, models.get_model(name)
    blocks = {c: 2, 2 * c: 2, 4 * c: 4}
    # Input: the image, 3 openings and 3 closings. Output: 3 channels and 6 factors.
    ends = 9 * (4 * 3 * 7 + 4 * (3 + 6)) * c
    between = {c: 4 * c * 2 * c * 2, 2 * c: 8 * c * 4 * c * 2}
    parameters = sum(n * (block(c) + extra(c)) for c, n in blocks.items())
    parameters += ends + c + 36 + sum(between.values()) + 2 * c + 4 * c
    found = models.count_parameters(models.abstract_parameters(model))
    assert found == parameters

    # Each level has a quarter of the pixels; the window's mean is nine taps more.
    area = {c: 1 / 4, 2 * c: 1 / 16, 4 * c: 1 / 64}
    work = sum(area[c] * n * (block(c) + 9 * c) for c, n in blocks.items())
    work += ends / 4 + between[c] / 16 + between[2 * c] / 64
    assert models.multiply_adds(model) == pytest.approx(work)


def test_dncnn_equals_its_layers():
    model = models.get_model("dncnn")
    parameters = random_parameters(model)
    image = np.random.default_rng(6).random((12, 10, 3))
    x = image
    for number in range(1, 21):
        layer = jax.tree.map(np.float64, parameters["params"][f"conv_{number}"])
        x = numpy_convolution(x, **layer)
        x = x if number == 20 else np.maximum(x, 0)
    got = jax.jit(model.apply)(parameters, image[None].astype(np.float32))[0]
    np.testing.assert_allclose(got, image - x, atol=1e-4 * np.abs(x).max())
