"""EfficientNetB0 against Keras' own, with weights that Keras wrote."""

import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.transfer import efficientnet, keras_weights
from restoration import models
from restoration.base import errors

# Nothing outside this experiment uses it.
pytestmark = pytest.mark.slow

# The layers of Keras with which our stages end.
ENDS = {
    "stem": "stem_activation",
    "stage_1": "block1a_project_bn",
    "stage_2": "block2b_add",
    "stage_3": "block3b_add",
    "stage_4": "block4c_add",
    "stage_5": "block5c_add",
    "stage_6": "block6d_add",
    "stage_7": "block7a_project_bn",
    "top": "top_activation",
}

# An even and an odd side: Keras pads them differently.
HEIGHT, WIDTH = 96, 65


# These programs run once: not to optimise them saves most of the time.
compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def randomize(model, images, seed=0):
    """Gives the normalisations statistics near those of pictures, and weights.

    Statistics of nothing would let the features grow to 1e20 through the network.
    """
    generator = np.random.default_rng(seed)
    norms = [layer for layer in model.layers if layer.name.endswith("bn")]
    for layer in norms:
        layer.momentum = 0.0
    for layer in model.layers:
        if layer.name.startswith("normalization"):
            mean, variance, count = layer.get_weights()
            mean[:], variance[:] = (0.45, 0.42, 0.4), (0.05, 0.058, 0.06)
            layer.set_weights([mean, variance, count])
            layer.finalize_state()
    model(255 * images, training=True)
    for layer in norms:
        gamma, beta, mean, variance = layer.get_weights()
        gamma = generator.uniform(0.9, 1.1, gamma.shape)
        beta = generator.normal(0, 0.2, beta.shape)
        mean = mean + 0.1 * np.sqrt(variance) * generator.normal(0, 1, mean.shape)
        variance = variance * generator.uniform(0.8, 1.2, variance.shape)
        layer.set_weights([gamma, beta, mean, variance])


def cut(picture, top=100, left=200):
    """A batch of two pictures."""
    rows, columns = slice(top, top + HEIGHT), slice(left, left + WIDTH)
    return np.stack([picture[rows, columns], picture[rows, columns][::-1]])


@pytest.fixture(scope="module")
def saved(tmp_path_factory, photographs):
    """Keras' network with random weights, and the file that it wrote."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(HEIGHT, WIDTH, 3)
    )
    names = ("coffee", "rocket", "chelsea")
    randomize(model, np.concatenate([cut(photographs[name]) for name in names]))
    path = tmp_path_factory.mktemp("keras") / "efficientnet.h5"
    model.save(path)
    return model, path


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of the file, to be spoilt."""
    path = tmp_path / "copy.h5"
    path.write_bytes(saved[1].read_bytes())
    return path


def stages_of_keras(model, images):
    import keras

    ends = [model.get_layer(name).output for name in ENDS.values()]
    found = keras.Model(model.inputs, ends)(255 * images, training=False)
    return dict(zip(ENDS, (np.asarray(one) for one in found), strict=True))


def check_stages(encoder, parameters, model, images):
    ours = compiled(encoder.apply)(parameters, images)
    theirs = stages_of_keras(model, images)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape
        scale = np.abs(expected).max()
        assert scale > 0.1, f"{name} says nothing"
        apart = np.abs(np.asarray(ours[name]) - expected).max() / scale
        assert apart < 1e-4, f"{name}: {apart}"


def test_every_stage_equals_keras(saved, photographs):
    model, path = saved
    images = cut(photographs["rocket"])
    parameters = keras_weights.load_efficientnet(path)
    check_stages(efficientnet.Encoder(), parameters, model, images)


@pytest.mark.slow
def test_every_stage_equals_keras_with_the_rescaling_of_imagenet(
    saved, photographs, monkeypatch, tmp_path
):
    import keras
    from keras.src.applications import efficientnet as theirs

    # Keras would fetch its file; it is given ours.
    monkeypatch.setattr(theirs.file_utils, "get_file", lambda *_, **__: str(saved[1]))
    model = keras.applications.EfficientNetB0(
        weights="imagenet", include_top=False, input_shape=(HEIGHT, WIDTH, 3)
    )
    images = cut(photographs["chelsea"])
    randomize(model, images)
    model.save(tmp_path / "imagenet.h5")
    parameters = keras_weights.load_efficientnet(tmp_path / "imagenet.h5")
    encoder = efficientnet.Encoder(imagenet=True)
    check_stages(encoder, parameters, model, images)


def test_number_of_parameters_is_that_of_keras(saved):
    model, path = saved
    parameters = keras_weights.load_efficientnet(path)
    assert models.count_parameters(parameters["params"]) == 4_007_548
    # Keras counts the pictures its colors' statistics are of, too.
    assert models.count_parameters(parameters) == model.count_params() - 1 == 4_049_570


def test_the_layout_of_save_weights_is_read(saved, tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(saved[1]) as file, h5py.File(path, "w") as flat:
        group = file["model_weights"]
        for name in group:
            file.copy(group[name], flat, name)
        flat.attrs["layer_names"] = group.attrs["layer_names"]
    expected = keras_weights.load_efficientnet(saved[1])
    jax.tree.map(
        np.testing.assert_array_equal, keras_weights.load_efficientnet(path), expected
    )


def test_old_names_and_a_classifier_are_accepted(copied, saved):
    """TensorFlow 2 wrote `kernel:0`, and depthwise kernels under a name of theirs."""
    with h5py.File(copied, "r+") as file:
        layers = file["model_weights"]
        layers["stem_conv/stem_conv"].move("kernel", "kernel:0")
        inner = layers["block1a_dwconv/block1a_dwconv"]
        inner.move("kernel", "depthwise_kernel:0")
        layers.create_dataset("predictions/predictions/kernel:0", data=np.ones((2, 2)))
    jax.tree.map(
        np.testing.assert_array_equal,
        keras_weights.load_efficientnet(copied),
        keras_weights.load_efficientnet(saved[1]),
    )


def spoil(path, change):
    with h5py.File(path, "r+") as file:
        change(file["model_weights/stem_conv/stem_conv"])


def replace(group, values):
    del group["kernel"]
    group.create_dataset("kernel", data=values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.__delitem__("kernel"), "params/stem_conv/kernel missing"),
        (
            lambda g: replace(g, np.zeros((3, 3, 4, 32), np.float32)),
            r"\(3, 3, 4, 32\) for \(3, 3, 3, 32\)",
        ),
        (lambda g: replace(g, np.full((3, 3, 3, 32), np.nan, "f4")), "not finite"),
        (lambda g: replace(g, np.zeros((3, 3, 3, 32), np.int32)), "int32"),
        (
            lambda g: g.create_dataset("bias", data=np.zeros(32, np.float32)),
            r"stem_conv/bias \(32,\) for nothing",
        ),
        (
            lambda g: g.create_dataset("extra", data=np.zeros(32, np.float32)),
            "stem_conv/extra is unknown",
        ),
    ],
)
def test_a_file_that_differs_is_refused(copied, change, message):
    spoil(copied, change)
    with pytest.raises(errors.InputError, match=message):
        keras_weights.load_efficientnet(copied)


def test_links_to_other_files_are_not_followed(copied, saved):
    def link(group):
        name = group.name
        del group["kernel"]
        group["kernel"] = h5py.ExternalLink(str(saved[1]), f"{name}/kernel")

    spoil(copied, link)
    with pytest.raises(errors.InputError, match="stem_conv/kernel missing"):
        keras_weights.load_efficientnet(copied)


def test_other_files_are_refused(tmp_path):
    import keras

    with pytest.raises(errors.InputError, match="no such file"):
        keras_weights.load_efficientnet(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(errors.InputError, match="not an HDF5 file"):
        keras_weights.load_efficientnet(tmp_path / "text.h5")
    image = keras.Input((8, 8, 3))
    small = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    small.save(tmp_path / "small.h5")
    with pytest.raises(errors.InputError, match="not weights of EfficientNetB0"):
        keras_weights.load_efficientnet(tmp_path / "small.h5")
    small.save_weights(tmp_path / "small.weights.h5")
    with pytest.raises(errors.InputError, match=r"model\.save"):
        keras_weights.load_efficientnet(tmp_path / "small.weights.h5")


@pytest.fixture(scope="module")
def fresh():
    """Weights of the restoration model; to draw them its own way compiles long."""
    model, generator = efficientnet.EfficientNet(), np.random.default_rng(0)

    def drawn(path, leaf):
        name = path[-1].key
        if name != "kernel":
            return np.full(leaf.shape, name in ("scale", "var"), np.float32)
        inputs = np.prod(leaf.shape[:-1]) * (path[-2].key != "change")
        noise = generator.standard_normal(leaf.shape, np.float32)
        return noise * np.float32((2 / inputs) ** 0.5) if inputs else 0 * noise

    return jax.tree_util.tree_map_with_path(drawn, models.abstract_parameters(model))


def test_the_untrained_model_is_the_identity_at_any_size(fresh, photographs):
    images = photographs["astronaut"][None, :41, :50]
    restored = compiled(efficientnet.EfficientNet().apply)(fresh, images)
    np.testing.assert_array_equal(restored, images)


def test_calibrated_features_are_normalized(fresh, photographs):
    images = np.stack([p[40:104, 40:104] for p in photographs.values()])
    encoder = efficientnet.Encoder()
    parameters = {
        "params": fresh["params"]["encoder"],
        "batch_stats": fresh["batch_stats"]["encoder"],
    }
    measured = efficientnet.calibrate(encoder, parameters, images)
    assert jax.tree.structure(measured) == jax.tree.structure(parameters)
    found = compiled(encoder.apply)(measured, images)
    # These stages end with a normalisation; ε takes a little off the variance.
    for name in ("stage_1", "stage_7"):
        features = np.asarray(found[name])
        np.testing.assert_allclose(features.mean((0, 1, 2)), 0, atol=1e-3)
        np.testing.assert_allclose(features.std((0, 1, 2)), 1, atol=0.05)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_reach_only_trained_weights(frozen, fresh, photographs):
    """Of the encoder its last layer is looked at, which all others go through."""
    images = photographs["rocket"][None, 100:132, 200:232]
    model = efficientnet.EfficientNet(frozen=frozen)
    # The last layer is zero at first, and would stop all gradients.
    parameters = jax.tree.map(np.copy, fresh)
    parameters["params"]["change"]["kernel"] += 0.1

    def loss(norm, statistics, deepest):
        changed = jax.tree.map(lambda leaf: leaf, parameters)
        changed["params"]["encoder"]["top_bn"] = norm
        changed["batch_stats"]["encoder"]["top_bn"] = statistics
        changed["params"]["deepest"] = deepest
        return jnp.sum(model.apply(changed, images) ** 2)

    gradients = compiled(jax.grad(loss, argnums=(0, 1, 2)))(
        parameters["params"]["encoder"]["top_bn"],
        parameters["batch_stats"]["encoder"]["top_bn"],
        parameters["params"]["deepest"],
    )
    norm, statistics, deepest = (
        max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(part))
        for part in gradients
    )
    assert (norm == 0) == frozen
    assert statistics == 0
    assert deepest > 0


def test_with_encoder_replaces_the_encoder(fresh, saved):
    encoder = keras_weights.load_efficientnet(saved[1])
    found = efficientnet.with_encoder(fresh, encoder)
    assert jax.tree.structure(found) == jax.tree.structure(fresh)
    kernel = found["params"]["encoder"]["top_conv"]["kernel"]
    np.testing.assert_array_equal(kernel, encoder["params"]["top_conv"]["kernel"])
    mean = found["batch_stats"]["encoder"]["top_bn"]["mean"]
    np.testing.assert_array_equal(mean, encoder["batch_stats"]["top_bn"]["mean"])
    np.testing.assert_array_equal(
        found["params"]["full"]["kernel"], fresh["params"]["full"]["kernel"]
    )
