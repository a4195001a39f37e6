"""The seed report's two convolutional autoencoders."""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from restoration.models import layers


class _Autoencoder(nn.Module):
    """conv · pool · conv · pool · upconv · upconv · conv 3, all 3×3.

    Attributes:
      widths: channels of the four hidden convolutions.
      dtype: of the computation; parameters stay float32.
    """

    widths: tuple[int, int, int, int]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        first, second, third, fourth = self.widths
        x = nn.relu(layers.Conv3x3(first, dtype=self.dtype, name="conv_1")(x))
        x = layers.max_pool(x)
        x = nn.relu(layers.Conv3x3(second, dtype=self.dtype, name="conv_2")(x))
        x = layers.max_pool(x)
        x = nn.relu(layers.UpConv(third, dtype=self.dtype, name="upconv_1")(x))
        x = nn.relu(layers.UpConv(fourth, dtype=self.dtype, name="upconv_2")(x))
        x = layers.Conv3x3(3, dtype=self.dtype, name="conv_3")(x)
        return nn.sigmoid(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class Basic(nn.Module):
    """The basic model: 7 layers, 29,507 parameters.

    Attributes:
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "seed report of 2022"
    multiple: ClassVar[int] = 4
    halo: ClassVar[int] = 10
    layers: ClassVar[int] = 7

    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images.

        Args:
          images: float (batch, height, width, 3) in [0, 1], any height and
            width (padded by reflection to multiples of 4 and cropped back).

        Returns:
          float32 of the same shape, in (0, 1).
        """
        x = layers.pad_to_multiple(images, self.multiple)
        x = _Autoencoder((32, 32, 32, 32), dtype=self.dtype, name="stage_1")(x)
        return x[:, : images.shape[1], : images.shape[2]]


class Advanced(nn.Module):
    """The advanced model: 14 layers, 374,406 parameters; a reconstruction.

    The report gives the depth and the count alone. Two autoencoders in a row,
    the second refining the first's three-channel result, with widths
    32·64·64·32 and 64·128·128·64, have 75,651 + 298,755 parameters, which is
    exactly the count.

    Attributes:
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "seed report of 2022, reconstructed"
    multiple: ClassVar[int] = 4
    halo: ClassVar[int] = 18
    layers: ClassVar[int] = 14

    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images; shapes and ranges as in `Basic`."""
        x = layers.pad_to_multiple(images, self.multiple)
        x = _Autoencoder((32, 64, 64, 32), dtype=self.dtype, name="stage_1")(x)
        x = _Autoencoder((64, 128, 128, 64), dtype=self.dtype, name="stage_2")(x)
        return x[:, : images.shape[1], : images.shape[2]]
