"""NAFNet, a U-shaped network without activation functions.

Chen, Chu, Zhang and Sun, "Simple Baselines for Image Restoration", 2022
(arXiv 2204.04676). The block is that of the paper's figure 3c and equations 4 to 6.
The network differs in four ways, the first three for tiled restoration and for CPUs:

* The paper's attention averages over the whole image, so that a tile would give
  another result than the whole. Here it averages over a window of 3×3 cells, in
  training too; at the deepest level these are 24×24 pixels. (Chu et al. 2022,
  arXiv 2112.04491, use a window only at inference.)
* The image is folded first, 2×2 pixels into 12 channels, and unfolded last. At full
  resolution a CPU would be limited by memory bandwidth.
* Most blocks are at the deepest level. With the channels doubled at each level, a block
  costs the same everywhere, but has the largest receptive field there.
* Besides the image, the network gets its morphological openings and closings, in which
  bright or dark specks and lines up to some width are gone: the classical way to find
  dirt and scratches. For each pixel it computes how much of each of them to use, and a
  further change. It then learns from far fewer images.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from restoration.models import layers

# The attention window reaches this many cells in each direction.
_WINDOW_RADIUS = 1

# Radii in pixels of the squares of openings and closings.
_RADII = (1, 3, 7)


def _shifted(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    """Sums shifted copies of x, each times its tap, in float32 for any dtype of x."""
    height, width = x.shape[1:3]
    rows, columns = kernel.shape[:2]
    edges = ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0))
    padded = jnp.pad(x, edges)
    kernel = kernel.astype(jnp.float32)
    total = sum(
        padded[:, row : row + height, column : column + width] * kernel[row, column]
        for row in range(rows)
        for column in range(columns)
    )
    return total.astype(x.dtype)


def _tap_gradients(x: jnp.ndarray, gradient: jnp.ndarray) -> jnp.ndarray:
    """Returns the gradient of the 3×3 taps: shifted x times the outputs' gradient."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.stack(
        [
            jnp.stack(
                [
                    jnp.einsum(
                        "nhwc,nhwc->c",
                        padded[:, row : row + height, column : column + width],
                        gradient,
                        preferred_element_type=jnp.float32,
                    )
                    for column in range(3)
                ]
            )
            for row in range(3)
        ]
    )


@jax.custom_vjp
def depthwise(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    """Convolves each channel with its own 3×3 kernel, with zero padding.

    Computed as nine shifted products. XLA's grouped convolution is many times slower on
    a CPU, and on a GPU cuDNN takes minutes to choose its algorithms.

    Args:
      x: (batch, height, width, channels).
      kernel: (3, 3, channels).

    Returns:
      (batch, height, width, channels).
    """
    return _shifted(x, kernel)


def _depthwise_forward(x: jnp.ndarray, kernel: jnp.ndarray) -> tuple:
    return _shifted(x, kernel), (x, kernel)


def _depthwise_backward(kept: tuple, gradient: jnp.ndarray) -> tuple:
    # JAX's own gradient would make a padded array for each shift.
    x, kernel = kept
    taps = _tap_gradients(x, gradient).astype(kernel.dtype)
    return _shifted(gradient, kernel[::-1, ::-1]), taps


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def window_mean(x: jnp.ndarray) -> jnp.ndarray:
    """Returns the mean over the 3×3 window around each cell, with zero padding."""
    side = 2 * _WINDOW_RADIUS + 1
    return depthwise(x, jnp.full((side, side, x.shape[-1]), 1 / side**2, x.dtype))


def fold(x: jnp.ndarray) -> jnp.ndarray:
    """Rearranges (n, 2h, 2w, c) to (n, h, w, 2·2·c); `depth_to_space` inverts it."""
    n, height, width, c = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, height // 2, width // 2, 4 * c)


def over_square(x: jnp.ndarray, radius: int, pick: Any, none: float) -> jnp.ndarray:
    """Returns the maximum or minimum (`pick`) over a square around each pixel."""
    for axis in (1, 2):
        width, edges = 1, [(0, 0)] * 4
        edges[axis] = (radius, radius)
        x = jnp.pad(x, edges, constant_values=none)
        # Each step doubles the number of pixels compared.
        while width <= 2 * radius:
            shift = min(width, 2 * radius + 1 - width)
            count = x.shape[axis] - shift
            first = lax.slice_in_dim(x, 0, count, axis=axis)
            second = lax.slice_in_dim(x, shift, shift + count, axis=axis)
            x, width = pick(first, second), width + shift
    return x


def openings_and_closings(
    images: jnp.ndarray, radii: tuple[int, ...] = _RADII
) -> list[jnp.ndarray]:
    """Returns the changes that openings and closings make to images.

    An opening is the maximum over a square of the minimum over that square; a closing
    is the minimum of the maximum (Serra 1982). Pixels beyond the borders are ignored.

    Args:
      images: (batch, height, width, channels).
      radii: of the squares in pixels; by default squares of 3, 7 and 15 pixels.

    Returns:
      For each square: opening minus images, never positive, and closing minus images,
      never negative.
    """
    largest = jnp.finfo(images.dtype).max
    changes = []
    for radius in radii:
        least = over_square(images, radius, jnp.minimum, largest)
        greatest = over_square(images, radius, jnp.maximum, -largest)
        changes.append(over_square(least, radius, jnp.maximum, -largest) - images)
        changes.append(over_square(greatest, radius, jnp.minimum, largest) - images)
    return changes


class _Depthwise(nn.Module):
    """Depthwise 3×3 convolution with bias."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        channels = x.shape[-1]
        # An output has nine inputs, which the initializer cannot infer from the shape.
        initial = nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2
        )
        kernel = self.param("kernel", initial, (3, 3, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return depthwise(x, kernel) + bias


class Block(nn.Module):
    """NAFNet's block: two residual parts, the first with a 3×3 convolution.

    The two factors of a gate (equation 4) are halves of one array in the paper. Here
    each is computed with its own weights. This is the same function, but needs no
    splitting, whose gradient would have to be concatenated.

    Attributes:
      dtype: of the computation; parameters stay float32.
    """

    dtype: Any = None

    def _pointwise(self, features: int, name: str) -> nn.Module:
        # A 1×1 convolution as a matrix product.
        return nn.Dense(features, dtype=self.dtype, name=name)

    def _scaled(self, x: jnp.ndarray, name: str) -> jnp.ndarray:
        # Starts at zero, so that an untrained block is the identity.
        scale = self.param(name, nn.initializers.zeros, (x.shape[-1],))
        return x * scale.astype(x.dtype)

    @nn.compact
    def __call__(self, inputs: jnp.ndarray) -> jnp.ndarray:
        """Maps (n, h, w, c) to the same shape."""
        channels = inputs.shape[-1]

        x = nn.LayerNorm(dtype=self.dtype, name="norm_1")(inputs)
        first, second = (
            _Depthwise(dtype=self.dtype, name=f"depthwise_1{half}")(
                self._pointwise(channels, f"expand_1{half}")(x)
            )
            for half in "ab"
        )
        x = first * second
        # Simplified channel attention, equation 6.
        x = x * self._pointwise(channels, "attention")(window_mean(x))
        x = self._pointwise(channels, "project_1")(x)
        inputs = inputs + self._scaled(x, "beta")

        x = nn.LayerNorm(dtype=self.dtype, name="norm_2")(inputs)
        first, second = (
            self._pointwise(channels, f"expand_2{half}")(x) for half in "ab"
        )
        x = first * second
        x = self._pointwise(channels, "project_2")(x)
        return inputs + self._scaled(x, "gamma")


class NAFNet(nn.Module):
    """The whole network: fold, two levels down, the middle, two levels up, unfold.

    Its output is a change to the image in three channels, and a factor for each opening
    and closing. All start at zero: an untrained network changes nothing.

    Attributes:
      width: channels at half resolution; they double with each level.
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "Chen et al. 2022, windowed"
    stride: ClassVar[int] = 8
    halo: ClassVar[int] = 99 + 2 * max(_RADII)
    layers: ClassVar[int] = 54

    # Number of blocks at 1/2 and 1/4 of the resolution, at 1/8, and at 1/4 and 1/2.
    encoder: ClassVar[tuple[int, ...]] = (1, 1)
    middle: ClassVar[int] = 4
    decoder: ClassVar[tuple[int, ...]] = (1, 1)

    width: int = 32
    dtype: Any = None

    def _blocks(self, x: jnp.ndarray, count: int, name: str) -> jnp.ndarray:
        for number in range(1, count + 1):
            x = Block(dtype=self.dtype, name=f"{name}_{number}")(x)
        return x

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images.

        Args:
          images: float (batch, height, width, 3) in [0, 1], any height and
            width (padded by reflection to multiples of 8 and cropped back).

        Returns:
          float32 of the same shape, near [0, 1] but not clipped.
        """
        padded = layers.pad_to_multiple(images, self.stride)
        changes = openings_and_closings(padded)
        features = jnp.concatenate([padded, *changes], axis=-1)
        x = fold(features.astype(self.dtype or padded.dtype))
        x = layers.Conv3x3(self.width, dtype=self.dtype, name="intro")(x)

        kept = []
        for level, count in enumerate(self.encoder, 1):
            x = self._blocks(x, count, f"encoder_{level}")
            kept.append(x)
            # A 2×2 convolution with stride 2 as a matrix product.
            down = nn.Dense(2 * x.shape[-1], dtype=self.dtype, name=f"down_{level}")
            x = down(fold(x))
        x = self._blocks(x, self.middle, "middle")
        for level, count in reversed(list(enumerate(self.decoder, 1))):
            up = nn.Dense(
                2 * x.shape[-1], use_bias=False, dtype=self.dtype, name=f"up_{level}"
            )
            x = layers.depth_to_space(up(x)) + kept.pop()
            x = self._blocks(x, count, f"decoder_{level}")

        outputs = nn.Conv(
            4 * (3 + len(changes)),
            (3, 3),
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="outro",
        )(x)
        outputs = layers.depth_to_space(outputs).astype(
            jnp.promote_types(images.dtype, jnp.float32)
        )
        restored = padded + outputs[..., :3]
        for number, change in enumerate(changes, 3):
            restored += outputs[..., number : number + 1] * change
        return restored[:, : images.shape[1], : images.shape[2]]
