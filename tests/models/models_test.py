"""The networks against Keras models with the same weights, and their properties."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import models
from restoration.base import errors
from restoration.models import autoencoder, layers

PARAMETERS = {
    "basic": 29_507,
    "advanced": 374_406,
    "basic_residual": 29_507,
    "advanced_residual": 374_406,
    "nafnet_s": 670_404,
    "nafnet_m": 3_972_276,
    "dncnn": 668_227,
}
DEPTH = {"basic": 7, "advanced": 14, "basic_residual": 7, "advanced_residual": 14,
         "nafnet_s": 54, "nafnet_m": 54, "dncnn": 20}  # fmt: skip
WIDTHS = {
    "basic": [(32, 32, 32, 32)],
    "advanced": [(32, 64, 64, 32), (64, 128, 128, 64)],
}


def keras_reference(name):
    """Returns the network as the report describes it, and its convolutions."""
    import keras

    image = x = keras.Input((None, None, 3))
    convolutions = []

    def add(layer, x):
        convolutions.append(layer)
        return layer(x)

    for first, second, third, fourth in WIDTHS[name]:
        options = {"padding": "same", "activation": "relu"}
        x = add(keras.layers.Conv2D(first, 3, **options), x)
        x = keras.layers.MaxPooling2D(2)(x)
        x = add(keras.layers.Conv2D(second, 3, **options), x)
        x = keras.layers.MaxPooling2D(2)(x)
        for width in (third, fourth):
            up = keras.layers.Conv2DTranspose(width, 3, strides=2, **options)
            x = add(up, x)
        last = keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid")
        x = add(last, x)
    return keras.Model(image, x), convolutions


def to_keras(parameters, convolutions):
    """Copies our weights into the Keras layers, in order."""
    stages = parameters["params"]
    ours = [
        stages[stage][layer]
        for stage in sorted(stages)
        for layer in ("conv_1", "conv_2", "upconv_1", "upconv_2", "conv_3")
    ]
    for weights, layer in zip(ours, convolutions, strict=True):
        kernel = np.asarray(weights["kernel"])
        if "transpose" in layer.name:
            kernel = kernel.transpose(0, 1, 3, 2)
        layer.set_weights([kernel, np.asarray(weights["bias"])])


def random_parameters(model, seed=0):
    """Initial weights with biases other than zero."""
    parameters = model.init(jax.random.key(seed), jnp.zeros((1, 8, 8, 3)))
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + 0.05 * generator.standard_normal(leaf.shape, np.float32),
        parameters,
    )


@pytest.mark.parametrize("name", ["basic", "advanced"])
def test_equals_keras_forward_and_gradient(name, photographs):
    import tensorflow as tf

    model = models.get_model(name)
    parameters = random_parameters(model)
    reference, convolutions = keras_reference(name)
    to_keras(parameters, convolutions)
    # A larger image may contain near ties of a ReLU or maximum, where the frameworks'
    # rounding decides differently.
    images = photographs["coffee"][None, :32, 100:132]
    target = images[:, :, ::-1]

    ours = model.apply(parameters, images)
    theirs = reference(images)
    assert np.abs(ours - theirs.numpy()).max() < 1e-5

    def loss(parameters):
        return jnp.mean(jnp.square(model.apply(parameters, images) - target))

    gradients = jax.grad(loss)(parameters)["params"]
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(tf.square(reference(images) - target))
    expected = iter(tape.gradient(value, reference.trainable_variables))
    for stage in sorted(gradients):
        for layer in ("conv_1", "conv_2", "upconv_1", "upconv_2", "conv_3"):
            for part in ("kernel", "bias"):
                got, want = np.asarray(gradients[stage][layer][part]), next(expected)
                want = want.numpy()
                if layer.startswith("upconv") and part == "kernel":
                    want = want.transpose(0, 1, 3, 2)
                error = np.linalg.norm(got - want) / np.linalg.norm(want)
                assert error < 1e-4, (stage, layer, part)


def test_residual_basic_adds_the_stretched_output_of_basic():
    model = models.get_model("basic_residual")
    images = np.random.default_rng(6).random((1, 13, 18, 3), np.float32)
    parameters = random_parameters(model)
    output = models.get_model("basic").apply(parameters, images)
    restored = model.apply(parameters, images)
    assert np.abs(restored - images).max() > 0.01
    np.testing.assert_allclose(restored, images + (2 * output - 1), atol=1e-6)


def test_residual_advanced_is_two_residual_stages():
    """If the second stage changes nothing, the first stage's output is left."""
    model = models.get_model("advanced_residual")
    images = np.random.default_rng(7).random((1, 16, 16, 3), np.float32)
    parameters = random_parameters(model)
    stages = parameters["params"]
    last = stages["stage_2"]["conv_3"]
    stages["stage_2"]["conv_3"] = jax.tree.map(jnp.zeros_like, last)
    first = autoencoder.Autoencoder((32, 64, 64, 32))
    output = first.apply({"params": stages["stage_1"]}, images)
    restored = model.apply(parameters, images)
    np.testing.assert_allclose(restored, images + (2 * output - 1), atol=1e-6)


@pytest.mark.parametrize("name", ["basic_residual", "advanced_residual"])
def test_untrained_residual_models_change_nothing(name):
    model = models.get_model(name)
    images = np.random.default_rng(8).random((1, 16, 16, 3), np.float32)
    parameters = model.init(jax.random.key(0), images)
    np.testing.assert_array_equal(model.apply(parameters, images), images)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 6)])
def test_upconv_equals_keras_conv2d_transpose(size):
    import keras

    generator = np.random.default_rng(1)
    x = generator.standard_normal((2, *size, 5), np.float32)
    kernel = generator.standard_normal((3, 3, 5, 4), np.float32)
    layer = keras.layers.Conv2DTranspose(4, 3, strides=2, padding="same")
    layer.build(x.shape)
    layer.set_weights([kernel.transpose(0, 1, 3, 2), np.zeros(4, np.float32)])
    got = layers.upconv(x, kernel)
    assert got.shape == (2, 2 * size[0], 2 * size[1], 4)
    np.testing.assert_allclose(got, layer(x), atol=1e-5)


def test_max_pool_equals_keras():
    import keras

    x = np.random.default_rng(2).standard_normal((2, 8, 6, 3), np.float32)
    np.testing.assert_array_equal(layers.max_pool(x), keras.layers.MaxPooling2D(2)(x))


def test_every_model_has_its_expected_size():
    assert set(PARAMETERS) == set(models.MODELS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_and_depth(name):
    model = models.get_model(name)
    parameters = models.abstract_parameters(model)
    assert models.count_parameters(parameters) == PARAMETERS[name]
    assert model.layers == DEPTH[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {np.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_halo_is_the_radius_of_the_receptive_field(name):
    model = models.get_model(name)
    assert models.receptive_field(model)[1] == model.halo


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 30)])
def test_any_size_is_accepted(size):
    model = models.get_model("basic")
    parameters = random_parameters(model)
    images = np.random.default_rng(3).random((1, *size, 3), np.float32)
    restored = model.apply(parameters, images)
    assert restored.shape == images.shape
    assert np.isfinite(restored).all()


def test_odd_sizes_are_padded_by_reflection():
    model = models.get_model("basic")
    parameters = random_parameters(model)
    image = np.random.default_rng(4).random((1, 13, 18, 3), np.float32)
    padded = np.pad(image, ((0, 0), (0, 3), (0, 2), (0, 0)), mode="symmetric")
    np.testing.assert_allclose(
        model.apply(parameters, image),
        model.apply(parameters, padded)[:, :13, :18],
        atol=1e-6,
    )


@pytest.mark.slow
def test_bfloat16_computes_near_float32_with_float32_parameters():
    images = np.random.default_rng(5).random((1, 32, 32, 3), np.float32)
    model = models.get_model("basic", dtype=jnp.bfloat16)
    parameters = random_parameters(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {np.dtype("float32")}
    restored = model.apply(parameters, images)
    assert restored.dtype == jnp.float32
    exact = models.get_model("basic").apply(parameters, images)
    difference = np.abs(restored - exact).max()
    assert 0 < difference < 0.02


def test_multiply_adds_of_basic():
    # Sub-pixel up-convolutions have 2·2·4 taps where the plain form has 9.
    plain = 3 * 32 * 9 + 32 * 32 * 9 / 4 + 32 * 3 * 9
    up = 32 * 32 * 16 / 16 + 32 * 32 * 16 / 4
    assert models.multiply_adds(models.get_model("basic")) == plain + up


def test_unknown_model_is_refused():
    with pytest.raises(errors.InputError, match="advanced, advanced_residual, basic"):
        models.get_model("unet")
