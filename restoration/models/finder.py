"""Finds damage: a picture in, for each pixel the logit of its being damaged out.

The encoder is EfficientNet-Lite0 with ImageNet's weights, of the picture halved by
2×2 means: what a classifier learned tells dirt from what belongs there. The decoder
is a feature pyramid (Lin et al. 2017, arXiv 1612.03144) that ends at full size, where
it sees the picture folded, 2×2 pixels into channels, so that hairs and fine cracks
are not lost in the means. At half and at full size it also sees what morphological
openings and closings of luma change there, the classical way to find specks and
lines of some width.

The encoder is computed to its eleventh block, stride 32 of the full-size picture.
Deeper blocks would see 1,700 pixels far, and no tile has so much context.

    logits = Finder().apply(parameters, images)
    damaged = jax.nn.sigmoid(logits) > 0.7
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from restoration.models import efficientnet_lite, layers, nafnet

# Weights are stored by this name.
NAME = "finder"

# Blocks of the encoder, and those of them whose features the decoder takes, with the
# stride that they have in the full-size picture.
_BLOCKS = 11
_TAKEN = {4: 0, 8: 2, 16: 4, 32: 10}

# Channels of the decoder at strides 4 and above, and at stride 2.
_WIDE, _FINE = 48, 32

# Convolutions at each stride of the decoder.
_CONVOLUTIONS = {32: 1, 16: 2, 8: 2, 4: 2, 2: 2}

# Channels made of the folded picture and its openings and closings.
_FOLDED = {4: 24, 2: 32}

# What a luma is made of, as in Rec. 601.
_LUMA = (0.299, 0.587, 0.114)

# Changes by openings and closings are small; so they are as large as the picture.
_GAIN = 4.0

# Most pixels are whole.
_FIRST_BIAS = -2.5


def halve(images: jnp.ndarray) -> jnp.ndarray:
    """Returns the means of 2×2 pixels, (n, h / 2, w / 2, c)."""
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // 2, 2, width // 2, 2, channels)
    return blocks.mean(axis=(2, 4))


def double(x: jnp.ndarray) -> jnp.ndarray:
    """Returns each pixel as 2×2 pixels, (n, 2h, 2w, c)."""
    n, height, width, channels = x.shape
    blocks = jnp.broadcast_to(
        x[:, :, None, :, None], (n, height, 2, width, 2, channels)
    )
    return blocks.reshape(n, 2 * height, 2 * width, channels)


class Finder(nn.Module):
    """Encoder and decoder.

    Attributes:
      calibrating: see `efficientnet_lite.Scaled`; of the decoder alone unless
        `random_encoder`.
      random_encoder: whether the encoder has no pretrained weights and is calibrated
        with the decoder.
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "EfficientNet-Lite0 to a mask"
    stride: ClassVar[int] = 32
    halo: ClassVar[int] = 448
    layers: ClassVar[int] = 52

    calibrating: bool = False
    random_encoder: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Finds damage.

        Args:
          images: float (batch, height, width, 3) in [0, 1], any height and
            width (padded by reflection to multiples of 32 and cropped back).

        Returns:
          float32 (batch, height, width, 1): logits, above 0 where damage is more
          likely than not.
        """
        padded = layers.pad_to_multiple(images, self.stride)
        full = padded.astype(self.dtype or padded.dtype)
        half = halve(full)
        encoder = efficientnet_lite.EfficientNetLite0(
            _BLOCKS,
            calibrating=self.calibrating and self.random_encoder,
            dtype=self.dtype,
            name="encoder",
        )
        found = encoder(half)
        details = {4: self._details(half, 4), 2: self._details(full, 2)}

        y = None
        for stride, count in _CONVOLUTIONS.items():
            seen = [found[_TAKEN[stride]]] if stride in _TAKEN else []
            seen += [details[stride]] if stride in details else []
            width = _WIDE if stride > 2 else _FINE
            z = self._scaled(width, f"lateral_{stride}")(jnp.concatenate(seen, -1))
            if y is not None:
                if width != y.shape[-1]:
                    y = self._scaled(width, f"narrow_{stride}")(y)
                z = z + double(y)
            y = z
            for number in range(1, count + 1):
                name = f"{number}_of_{stride}"
                y = self._scaled(width, f"depthwise_{name}", side=3, kind="depthwise")(
                    y
                )
                y = nn.relu(self._scaled(width, f"pointwise_{name}")(y))
        logits = layers.depth_to_space(
            layers.Conv3x3(4, dtype=self.dtype, name="logits")(y)
        ).astype(jnp.float32)
        logits = logits + _FIRST_BIAS
        return logits[:, : images.shape[1], : images.shape[2]]

    def _scaled(self, features: int, name: str, **how: Any) -> nn.Module:
        return efficientnet_lite.Scaled(
            features, calibrating=self.calibrating, dtype=self.dtype, name=name, **how
        )

    def _details(self, images: jnp.ndarray, stride: int) -> jnp.ndarray:
        """Returns features of images, folded, and of what is small in their luma."""
        luma = images @ jnp.array(_LUMA, images.dtype)[:, None]
        changes = nafnet.openings_and_closings(luma)
        shown = jnp.concatenate([images, *(_GAIN * x for x in changes)], axis=-1)
        name, features = f"details_{stride}", _FOLDED[stride]
        x = nn.relu(self._scaled(features, f"{name}_mixed")(nafnet.fold(shown)))
        around = self._scaled(features, f"{name}_around", side=3, kind="depthwise")
        return nn.relu(self._scaled(features, name)(around(x)))


def abstract_parameters() -> Any:
    """Returns the shapes and types of the parameters without computing."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(Finder().init, jax.random.key(0), images)
