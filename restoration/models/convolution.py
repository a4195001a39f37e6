"""Forms of a convolution: XLA's own, and one that a CPU computes faster."""

import jax
import jax.numpy as jnp
from jax import lax

from restoration.devices import backend

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _columns(
    x: jnp.ndarray, sides: tuple[int, int], before: tuple[int, int]
) -> jnp.ndarray:
    """Returns what a kernel sees at each pixel, zeros beyond the borders.

    Args:
      x: (batch, height, width, channels).
      sides: of the kernel.
      before: rows and columns that the kernel reaches up and to the left.

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
    """Returns the gradient of a convolution's kernel as one matrix product.

    The columns are made of whichever of the two has fewer channels.

    Args:
      x: (batch, height, width, inputs), what was convolved, with stride 1 and
        zeros beyond the borders, so that the size stayed.
      gradient: (batch, height, width, outputs), of the result.
      sides: of the kernel; an even one reaches up and to the left.

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
    # Seen from an input, the outputs that it reaches lie the other way round.
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
    """Convolves with stride 1 and zeros beyond the borders; the size stays.

    On a CPU XLA takes two to thirty times as long for a kernel's gradient as for
    the matrix product that it equals (docs/performance.md).

    Args:
      x: (batch, height, width, inputs).
      kernel: (kernel height, kernel width, inputs, outputs); an even side reaches
        up and to the left.

    Returns:
      (batch, height, width, outputs).
    """
    return _on_cpu(x, kernel) if backend.is_cpu() else _plain(x, kernel)
