"""DnCNN, a plain convolutional denoiser.

Zhang, Zuo, Chen, Meng and Zhang, "Beyond a Gaussian Denoiser: Residual Learning of
Deep CNN for Image Denoising", 2017 (arXiv 1608.03981): 3×3 convolutions of 64
channels that predict the noise. The paper trains with batch normalization. In the
published weights, and so in this network, it is folded into the convolutions.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp


class DnCNN(nn.Module):
    """The blind color denoiser: 20 layers, 668,227 parameters.

    The layers are named `conv_1` to `conv_20`, each with kernel and bias.

    Attributes:
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "Zhang et al. 2017, CDnCNN-B"
    stride: ClassVar[int] = 1
    halo: ClassVar[int] = 20
    layers: ClassVar[int] = 20

    width: ClassVar[int] = 64

    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images.

        Args:
          images: float (batch, height, width, 3) in [0, 1], any height and width.

        Returns:
          float32 of the same shape: the images minus the predicted noise, near [0, 1]
          but not clipped.
        """
        x = images
        for number in range(1, self.layers + 1):
            last = number == self.layers
            x = nn.Conv(
                images.shape[-1] if last else self.width,
                (3, 3),
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"conv_{number}",
            )(x)
            x = x if last else nn.relu(x)
        noise = x.astype(jnp.promote_types(images.dtype, jnp.float32))
        return images - noise
