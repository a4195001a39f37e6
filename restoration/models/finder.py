"""Finds damage: a picture in, for each pixel the logit of its being damaged out.

The encoder is EfficientNet-Lite0 with ImageNet's weights: what a classifier learned
separates dirt from what belongs there. It sees the picture twice, with the same
weights: halved by 2×2 means, where wide damage is found, and at full size, where hairs
and fine cracks are not lost in the means. Each size has a decoder of its own, a feature
pyramid (Lin et al. 2017, arXiv 1612.03144); the one at full size corrects what the
other found. Both also see what morphological openings and closings of luma change, the
classical way to find specks and lines of some width.

The encoder is computed to its eleventh block, stride 32 of the full-size picture where
it is halved. Deeper blocks would see 1,700 pixels far, and no tile has so much context.

    logits = Finder().apply(parameters, images)
    damaged = jax.nn.sigmoid(logits) > 0.7
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from restoration.base.luma import BT601
from restoration.models import efficientnet_lite, layers, nafnet

# Weights are stored by this name.
NAME = "finder"

# Blocks of the encoder, and those of them whose features the decoders take, by the
# stride that they have in the full-size picture: of the halved one and of itself.
_BLOCKS = 11
_TAKEN = {4: 0, 8: 2, 16: 4, 32: 10}
_TAKEN_FULL = {2: 0, 4: 2, 8: 4, 16: 10}

# Channels of the decoder of the halved picture, and of that at full size, at strides 4
# and above and at stride 2.
_WIDE, _NEAR, _FINE = 48, 32, 24

# Convolutions at each stride of the decoders.
_CONVOLUTIONS = {32: 1, 16: 2, 8: 2, 4: 2}
_CONVOLUTIONS_FULL = {16: 1, 8: 1, 4: 1}

# Half widths of the squares that openings and closings are made with, in pixels of
# the halved and of the full-size picture.
_RADII = {"half": (1, 3, 7), "full": (1, 3)}

# What a luma is made of, as in Rec. 601.
_LUMA = BT601

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
    halo: ClassVar[int] = 480

    # Side of the crops that it learned from, which are the tiles that it is to see,
    # and pixels over which neighbors are blended. In larger tiles it sees farther than
    # ever in training, and marks twice as much of healthy pictures.
    tile: ClassVar[int] = 256
    overlap: ClassVar[int] = 64

    calibrating: bool = False
    random_encoder: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: jnp.ndarray, window: tuple[Any, Any, int] | None = None
    ) -> jnp.ndarray | tuple[jnp.ndarray, jnp.ndarray]:
        """Finds damage.

        Args:
          images: float (batch, height, width, 3) in [0, 1], any height and
            width (padded by reflection to multiples of 32 and cropped back).
          window: in training, (row, column, side) of the part that is computed at
            full size, multiples of 4, the side of 16; images' sides are multiples of
            32 then. Row and column may be traced. The encoder of the full size begins
            anew at the window's corner.

        Returns:
          float32 (batch, height, width, 1): logits, above 0 where damage is more
          likely than not. With a window: those of the window, (batch, side, side, 1),
          and coarse ones of the whole picture, (batch, height / 2, width / 2, 1).
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

        y = None
        for stride, count in _CONVOLUTIONS.items():
            seen = found[_TAKEN[stride]]
            if stride == 4:
                seen = jnp.concatenate([seen, self._details(half, "half", 24)], -1)
            z = self._scaled(_WIDE, f"lateral_{stride}")(seen)
            y = self._convolved(z if y is None else z + double(y), count, stride)
        coarse = nn.Dense(4, dtype=self.dtype, name="coarse_logits")(y)
        coarse = layers.depth_to_space(coarse) + _FIRST_BIAS

        here = coarse
        if window:
            full = _part(full, window, 1)
            y, here = _part(y, window, 4), _part(coarse, window, 2)
        z = double(self._scaled(_FINE, "narrow")(y))
        z += self._details(full, "full", _FINE) + self._near(encoder(full), y)
        fine = self._convolved(z, 2, 2)
        fine = layers.Conv3x3(4, dtype=self.dtype, name="fine_logits")(fine)
        logits = double(here) + layers.depth_to_space(fine)
        logits = logits.astype(jnp.float32)
        if window:
            return logits, coarse.astype(jnp.float32)
        return logits[:, : images.shape[1], : images.shape[2]]

    def _near(self, found: list[jnp.ndarray], y: jnp.ndarray) -> jnp.ndarray:
        """Decodes features of the full-size picture to stride 2.

        Args:
          found: what leaves the encoder's blocks.
          y: what the decoder of the halved picture ends with, at stride 4.

        Returns:
          (n, h / 2, w / 2, 24).
        """
        x = None
        for stride, count in _CONVOLUTIONS_FULL.items():
            seen = found[_TAKEN_FULL[stride]]
            if stride == 4:
                seen = jnp.concatenate([seen, y], axis=-1)
            z = self._scaled(_NEAR, f"full_lateral_{stride}")(seen)
            z = z if x is None else z + double(x)
            x = self._convolved(z, count, stride, "full_")
        z = self._scaled(_NEAR, "full_lateral_2")(found[_TAKEN_FULL[2]]) + double(x)
        z = self._convolved(z, 1, 2, "full_")
        return nn.Dense(_FINE, dtype=self.dtype, name="full_joined")(z)

    def _convolved(
        self, x: jnp.ndarray, count: int, stride: int, where: str = ""
    ) -> jnp.ndarray:
        """Separable convolutions 3×3."""
        features = x.shape[-1]
        for number in range(1, count + 1):
            name = f"{where}{number}_of_{stride}"
            around = self._scaled(
                features, f"depthwise_{name}", side=3, kind="depthwise"
            )
            x = nn.relu(self._scaled(features, f"pointwise_{name}")(around(x)))
        return x

    def _scaled(self, features: int, name: str, **how: Any) -> nn.Module:
        return efficientnet_lite.Scaled(
            features, calibrating=self.calibrating, dtype=self.dtype, name=name, **how
        )

    def _details(self, images: jnp.ndarray, name: str, features: int) -> jnp.ndarray:
        """Returns features of images, folded, and of what is small in their luma."""
        luma = images @ jnp.array(_LUMA, images.dtype)[:, None]
        changes = nafnet.openings_and_closings(luma, _RADII[name])
        shown = jnp.concatenate([images, *(_GAIN * x for x in changes)], axis=-1)
        x = nn.relu(self._scaled(features, f"{name}_mixed")(nafnet.fold(shown)))
        around = self._scaled(features, f"{name}_around", side=3, kind="depthwise")
        return nn.relu(self._scaled(features, f"{name}_details")(around(x)))


def _part(x: jnp.ndarray, window: tuple[Any, Any, int], stride: int) -> jnp.ndarray:
    """Cuts a window, given in pixels of the full size, out of features."""
    row, column, side = window
    start = (0, row // stride, column // stride, 0)
    sizes = (x.shape[0], side // stride, side // stride, x.shape[3])
    return jax.lax.dynamic_slice(x, start, sizes)


def abstract_parameters() -> Any:
    """Returns the shapes and types of the parameters without computing."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(Finder().init, jax.random.key(0), images)
