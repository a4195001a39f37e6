"""Convolution with a kernel gradient that is fast on a CPU."""

import jax
import jax.numpy as jnp
from jax import lax

from restoration.devices import backend

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _columns(
    x: jnp.ndarray, sides: tuple[int, int], before: tuple[int, int]
) -> jnp.ndarray:
    """Returns the input values under the kernel at each pixel, with zero padding.

    Args:
      x: (batch, height, width, channels).
      sides: height and width of the kernel.
      before: number of rows above and columns left of the pixel that it covers.

    Returns:
      (batch · height · width, kernel height · kernel width · channels).
    """
    (rows, columns), (up, left) = sides, before
    height, width = x.shape[1:3]
    padded = jnp.pad(
        x, ((0, 0), (up, rows - 1 - up), (left, columns - 1 - left), (0, 0))
    )
    shifted = [
        padded[:, i : i + height, j : j + width]
        for i in range(rows)
        for j in range(columns)
    ]
    return jnp.concatenate(shifted, axis=-1).reshape(-1, rows * columns * x.shape[3])


def _over_pixels(a: jnp.ndarray, b: jnp.ndarray) -> jnp.ndarray:
    """Returns aᵀ·b of (pixels, n) and (pixels, m)."""
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())))


def kernel_gradient(
    x: jnp.ndarray, gradient: jnp.ndarray, sides: tuple[int, int]
) -> jnp.ndarray:
    """Returns the gradient of a convolution's kernel, as one matrix product.

    The columns are built from the input or from the gradient, whichever has fewer
    channels.

    Args:
      x: (batch, height, width, inputs), the input of the convolution, which has
        stride 1 and zero padding, and so keeps height and width.
      gradient: (batch, height, width, outputs), of the convolution's output.
      sides: height and width of the kernel; an even side extends up and to the left.

    Returns:
      (kernel height, kernel width, inputs, outputs).
    """
    inputs, outputs = x.shape[3], gradient.shape[3]
    before = (sides[0] // 2, sides[1] // 2)
    if inputs <= outputs:
        product = _over_pixels(
            _columns(x, sides, before), gradient.reshape(-1, outputs)
        )
        return product.reshape(*sides, inputs, outputs)
    # An input's outputs lie in the opposite direction to an output's inputs.
    after = (sides[0] - 1 - before[0], sides[1] - 1 - before[1])
    product = _over_pixels(x.reshape(-1, inputs), _columns(gradient, sides, after))
    product = product.reshape(inputs, *sides, outputs)[:, ::-1, ::-1]
    return product.transpose(1, 2, 0, 3)


def _plain(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    padding = [(side // 2, (side - 1) // 2) for side in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT
    )


@jax.custom_vjp
def _on_cpu(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    return _plain(x, kernel)


def _forward(x: jnp.ndarray, kernel: jnp.ndarray) -> tuple:
    return _plain(x, kernel), (x, kernel)


def _backward(kept: tuple, gradient: jnp.ndarray) -> tuple:
    x, kernel = kept
    of_input = jax.vjp(lambda x: _plain(x, kernel), x)[1](gradient)[0]
    return of_input, kernel_gradient(x, gradient, kernel.shape[:2])


_on_cpu.defvjp(_forward, _backward)


def convolve(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    """Convolves with stride 1 and zero padding, keeping height and width.

    On a CPU the kernel's gradient is computed as a matrix product, which is much
    faster than XLA's own.

    Args:
      x: (batch, height, width, inputs).
      kernel: (kernel height, kernel width, inputs, outputs); an even side extends up
        and to the left.

    Returns:
      (batch, height, width, outputs).
    """
    return _on_cpu(x, kernel) if backend.is_cpu() else _plain(x, kernel)
