"""The seed report's two convolutional autoencoders, and residual versions of them.

The report's networks compute the image anew, through a bottleneck of a sixteenth of
its pixels, so that even a clean image loses detail. In the residual version the same
layers, with the same parameters, compute a change to the image, as DnCNN does (Zhang
et al. 2017, arXiv 1608.03981, section III): the sigmoid, stretched to (-1, 1), is added
to the image. Its last weights start at zero: an untrained network changes nothing.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from restoration.models import layers


class Autoencoder(nn.Module):
    """conv · pool · conv · pool · upconv · upconv · conv to 3 channels, all 3×3.

    Attributes:
      widths: channels of the four hidden convolutions.
      residual: whether the output is added to the input.
      dtype: of the computation; parameters stay float32.
    """

    widths: tuple[int, int, int, int]
    residual: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images whose sides are multiples of 4; ranges as in `Basic`."""
        first, second, third, fourth = self.widths
        x = nn.relu(layers.Conv3x3(first, dtype=self.dtype, name="conv_1")(images))
        x = layers.max_pool(x)
        x = nn.relu(layers.Conv3x3(second, dtype=self.dtype, name="conv_2")(x))
        x = layers.max_pool(x)
        x = nn.relu(layers.UpConv(third, dtype=self.dtype, name="upconv_1")(x))
        x = nn.relu(layers.UpConv(fourth, dtype=self.dtype, name="upconv_2")(x))
        start = nn.initializers.zeros if self.residual else layers.KERAS_KERNEL
        last = layers.Conv3x3(3, kernel_init=start, dtype=self.dtype, name="conv_3")
        x = last(x)
        x = nn.sigmoid(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
        return images + (2 * x - 1) if self.residual else x


class Basic(nn.Module):
    """The basic model: 7 layers, 29,507 parameters.

    Attributes:
      residual: whether the output is added to the input.
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "seed report of 2022"
    stride: ClassVar[int] = 4
    halo: ClassVar[int] = 10
    layers: ClassVar[int] = 7

    residual: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images.

        Args:
          images: float (batch, height, width, 3) in [0, 1], any height and
            width (padded by reflection to multiples of 4 and cropped back).

        Returns:
          float32 of the same shape, in (0, 1); with residual in (-1, 2).
        """
        x = layers.pad_to_multiple(images, self.stride)
        residual, dtype = self.residual, self.dtype
        x = Autoencoder((32, 32, 32, 32), residual, dtype, name="stage_1")(x)
        return x[:, : images.shape[1], : images.shape[2]]


class Advanced(nn.Module):
    """The advanced model: 14 layers, 374,406 parameters; a reconstruction.

    The report gives only the depth and the number of parameters. Two autoencoders in a
    row, the second refining the first's three-channel output, with widths
    32·64·64·32 and 64·128·128·64, have 75,651 + 298,755 parameters, exactly the
    report's number.

    Attributes:
      residual: whether the output of each autoencoder is added to its input.
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "seed report of 2022, reconstructed"
    stride: ClassVar[int] = 4
    halo: ClassVar[int] = 18
    layers: ClassVar[int] = 14

    residual: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images; shapes and ranges as in `Basic`."""
        x = layers.pad_to_multiple(images, self.stride)
        residual, dtype = self.residual, self.dtype
        x = Autoencoder((32, 64, 64, 32), residual, dtype, name="stage_1")(x)
        x = Autoencoder((64, 128, 128, 64), residual, dtype, name="stage_2")(x)
        return x[:, : images.shape[1], : images.shape[2]]
