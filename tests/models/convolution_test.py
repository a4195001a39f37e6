"""The kernel gradient of `convolve` against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration.models import convolution, layers

# (inputs, outputs, side of the kernel): fewer, as many and more outputs.
SHAPES = [(3, 32, 3), (32, 3, 3), (8, 8, 3), (8, 32, 2), (16, 4, 2), (5, 7, 1)]


def plain(x, kernel):
    side = kernel.shape[0]
    padding = [(side // 2, (side - 1) // 2)] * 2
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(("inputs", "outputs", "side"), SHAPES)
def test_gradients_equal_those_of_xla(inputs, outputs, side, monkeypatch):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((2, 9, 14, inputs), np.float32))
    kernel = random.standard_normal((side, side, inputs, outputs), np.float32)
    weight = random.standard_normal((2, 9, 14, outputs), np.float32)

    def both(convolve):
        def value(x, kernel):
            return jnp.sum(convolve(x, kernel) * weight)

        return convolve(x, kernel), *jax.grad(value, argnums=(0, 1))(x, kernel)

    monkeypatch.setattr(convolution.backend, "is_cpu", lambda: True)
    for ours, theirs in zip(both(convolution.convolve), both(plain), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-5)
    product = convolution.kernel_gradient(x, jnp.asarray(weight), (side, side))
    assert product.shape == kernel.shape


def test_accelerators_use_the_gradient_of_xla(monkeypatch):
    def products(x):
        def value(kernel):
            return jnp.sum(layers.upconv(x, kernel) ** 2)

        return str(jax.make_jaxpr(jax.grad(value))(jnp.ones((3, 3, 3, 8))))

    x = jnp.ones((1, 8, 8, 3))
    assert "dot_general" in products(x)
    monkeypatch.setattr(convolution.backend, "is_cpu", lambda: False)
    assert "dot_general" not in products(x)
