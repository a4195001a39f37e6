"""FFDNet, a denoiser that needs the noise level as input.

Zhang, Zuo and Zhang, "FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image
Denoising", 2018 (arXiv 1710.04026): 3×3 convolutions at half resolution, with the noise
level as a further channel. Batch normalization is folded into the convolutions, as in
the published weights.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from restoration.models import layers


def fold(x: jnp.ndarray) -> jnp.ndarray:
    """Rearranges (n, 2h, 2w, c) to (n, h, w, 4·c), color by color.

    The four pixels of a color are in column-major order, as in the published weights.
    """
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    x = x.transpose(0, 1, 3, 5, 4, 2)
    return x.reshape(n, height // 2, width // 2, 4 * channels)


def unfold(x: jnp.ndarray) -> jnp.ndarray:
    """Undoes `fold`."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height, width, channels // 4, 2, 2).transpose(0, 1, 5, 2, 4, 3)
    return x.reshape(n, 2 * height, 2 * width, channels // 4)


class FFDNet(nn.Module):
    """The color denoiser: 12 layers, 852,108 parameters.

    The layers are named `conv_1` to `conv_12`, each with kernel and bias.

    Attributes:
      sigma: standard deviation of the noise, in [0, 75 / 255].
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "Zhang et al. 2018, color"
    stride: ClassVar[int] = 2
    halo: ClassVar[int] = 25
    layers: ClassVar[int] = 12

    width: ClassVar[int] = 96

    sigma: float
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images.

        Args:
          images: float (batch, height, width, 3) near [0, 1], any height and width
            (padded by reflection to even sizes and cropped back).

        Returns:
          float32 of the same shape, near [0, 1] but not clipped.
        """
        x = fold(layers.pad_to_multiple(images, self.stride))
        channels = x.shape[-1]
        level = jnp.full((*x.shape[:3], 1), self.sigma, x.dtype)
        x = jnp.concatenate([x, level], axis=-1)
        for number in range(1, self.layers + 1):
            last = number == self.layers
            x = nn.Conv(
                channels if last else self.width,
                (3, 3),
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"conv_{number}",
            )(x)
            x = x if last else nn.relu(x)
        x = unfold(x).astype(jnp.promote_types(images.dtype, jnp.float32))
        return x[:, : images.shape[1], : images.shape[2]]
