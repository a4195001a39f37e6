"""Building blocks shared by the model families. Arrays are NHWC."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from restoration.models import convolution

# Keras's default initializer of a convolution's kernel.
KERAS_KERNEL = nn.initializers.glorot_uniform()


def pad_to_multiple(x: jnp.ndarray, multiple: int) -> jnp.ndarray:
    """Pads height and width by reflection, below and on the right.

    Args:
      x: (batch, height, width, channels).
      multiple: height and width of the result are multiples of it.

    Returns:
      The padded array; x itself if both sides are multiples already.
    """
    below, right = -x.shape[1] % multiple, -x.shape[2] % multiple
    if not (below or right):
        return x
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="symmetric")


def max_pool(x: jnp.ndarray) -> jnp.ndarray:
    """Returns the maximum of each 2×2 block. Height and width must be even.

    Equals `nn.max_pool`. As the maximum of strided slices, its gradient needs no
    select-and-scatter, which is slow on a CPU.
    """
    rows = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, 0::2], rows[:, :, 1::2])


def depth_to_space(x: jnp.ndarray) -> jnp.ndarray:
    """Rearranges (n, h, w, 2·2·c) to (n, 2h, 2w, c), row phase first."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


def upconv(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    """Transposed convolution 3×3 with stride 2, computed as a sub-pixel convolution.

    Equals Keras's `Conv2DTranspose(padding="same")`. Input i contributes to the
    outputs 2i, 2i+1 and 2i+2, so an even output is x[i]·k[0] + x[i-1]·k[2] and an odd
    one is x[i]·k[1]: a 2×2 convolution to four phases, interleaved by depth-to-space.
    Its kernel gradient is faster on a CPU than that of a transposed convolution.

    Args:
      x: (batch, height, width, inputs).
      kernel: (3, 3, inputs, outputs).

    Returns:
      (batch, 2·height, 2·width, outputs).
    """
    inputs, outputs = kernel.shape[2:]
    # Row k[3] is zero; tap a, phase p takes k[2], k[3], k[0], k[1].
    taps = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    taps = jnp.roll(taps, (2, 2), axis=(0, 1))
    taps = taps.reshape(2, 2, 2, 2, inputs, outputs).transpose(0, 2, 4, 1, 3, 5)
    phases = convolution.convolve(x, taps.reshape(2, 2, inputs, 4 * outputs))
    return depth_to_space(phases)


def _weights(
    module: nn.Module, x: jnp.ndarray, start: nn.initializers.Initializer
) -> tuple[jnp.ndarray, ...]:
    """Returns x, kernel and bias in the module's dtype."""
    kernel = module.param("kernel", start, (3, 3, x.shape[-1], module.features))
    bias = module.param("bias", nn.initializers.zeros, (module.features,))
    return nn.dtypes.promote_dtype(x, kernel, bias, dtype=module.dtype)


class Conv3x3(nn.Module):
    """Convolution 3×3 with stride 1 and bias.

    Attributes:
      features: number of output channels.
      kernel_init: initializer of the kernel; biases start at zero.
      dtype: of the computation; parameters stay float32.
    """

    features: int
    kernel_init: nn.initializers.Initializer = KERAS_KERNEL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        """Maps (n, h, w, c) to (n, h, w, features)."""
        x, kernel, bias = _weights(self, x, self.kernel_init)
        return convolution.convolve(x, kernel) + bias


class UpConv(nn.Module):
    """Transposed convolution 3×3 with stride 2 and bias, see `upconv`.

    Attributes:
      features: number of output channels.
      dtype: of the computation; parameters stay float32.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        """Maps (n, h, w, c) to (n, 2h, 2w, features)."""
        x, kernel, bias = _weights(self, x, KERAS_KERNEL)
        return upconv(x, kernel) + bias
