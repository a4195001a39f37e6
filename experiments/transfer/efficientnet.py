"""EfficientNetB0 with the layers of Keras's, and a restoration model based on it.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", 2019 (arXiv 1905.11946). Layers have Keras's names, so that its weights are
found by name (`keras_weights`).

Batch normalization always uses stored statistics, in training too: they are in the
collection "batch_stats" and get no gradient. This is the usual way to fine-tune a
pretrained encoder on small batches; stochastic depth is left out for the same reason.
Random weights have no statistics; `calibrate` measures them once.

Squeeze-and-excitation averages over the whole image. So the model has no halo, a tile
gives another result than the whole image, and the model is not in `models.MODELS`.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from restoration.models import layers

# (kernel side, stride, expansion, channels, repeats) of the seven stages.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM, _TOP = 32, 1280

# Channels of squeeze-and-excitation, as a share of the block's input channels.
_SQUEEZE = 0.25

# Keras's defaults.
_BATCH_NORM_EPSILON = 1e-3
_NORMALIZATION_EPSILON = 1e-7

# Standard deviation of ImageNet's colors in [0, 1]. With its ImageNet weights, Keras
# normalizes colors twice: in `Normalization`, and by the root of these.
_IMAGENET_STD = (0.229, 0.224, 0.225)

# Keras's initializer of all convolutions in the network.
_INITIAL = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")

# Decoder: the stage of each skip connection, and the number of channels there.
_DECODER = (("stage_5", 64), ("stage_3", 48), ("stage_2", 32), ("stage_1", 24))
_DEEPEST, _FULL = 64, 16


class _Normalization(nn.Module):
    """Keras's layer of this name: (colors - mean) / standard deviation.

    Attributes:
      calibrating: whether mean and variance are measured on the batch.
    """

    calibrating: bool

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        mean, variance = _statistics(self, x)
        deviation = jnp.maximum(jnp.sqrt(variance), _NORMALIZATION_EPSILON)
        return (x - mean.astype(x.dtype)) / deviation.astype(x.dtype)


class _BatchNorm(nn.Module):
    """Batch normalization with stored statistics.

    Attributes:
      calibrating: whether mean and variance are measured on the batch.
    """

    calibrating: bool

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean, variance = _statistics(self, x)
        factor = scale * lax.rsqrt(variance + _BATCH_NORM_EPSILON)
        return x * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)


def _statistics(module: Any, x: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Returns a layer's mean and variance without gradient, measured if calibrating."""
    shape = (x.shape[-1],)
    mean = module.variable("batch_stats", "mean", jnp.zeros, shape)
    variance = module.variable("batch_stats", "var", jnp.ones, shape)
    if module.calibrating:
        wide = x.astype(jnp.float32)
        mean.value = jnp.mean(wide, axis=(0, 1, 2))
        variance.value = jnp.var(wide, axis=(0, 1, 2))
    return lax.stop_gradient(mean.value), lax.stop_gradient(variance.value)


def _strided_padding(x: jnp.ndarray, side: int) -> list[tuple[int, int]]:
    """Returns Keras's zero padding before a convolution of stride 2."""
    return [(side // 2 - 1 + length % 2, side // 2) for length in x.shape[1:3]]


class Encoder(nn.Module):
    """EfficientNetB0 without its classifier; 4,007,548 trained parameters.

    Attributes:
      imagenet: whether colors are also divided by √σ, as Keras does only for
        `weights="imagenet"`.
      calibrating: see `calibrate`.
      dtype: of the computation; parameters stay float32.
    """

    imagenet: bool = False
    calibrating: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> dict[str, jnp.ndarray]:
        """Computes the features of all stages.

        Args:
          images: float (batch, height, width, 3) in [0, 1] (Keras: 0 to 255).

        Returns:
          "stem", "stage_1" to "stage_7" and "top": (batch, height / s, width / s,
          channels), s being 2, 2, 4, 8, 16, 16, 32, 32 and 32; rounded up.
        """
        x = _Normalization(self.calibrating, name="normalization")(images)
        if self.imagenet:
            x = x / jnp.sqrt(jnp.array(_IMAGENET_STD, x.dtype))
        padding = _strided_padding(x, 3)
        x = self._convolved(x, _STEM, "stem_conv", side=3, stride=2, padding=padding)
        x = nn.swish(self._normalized(x, "stem_bn"))
        found = {"stem": x}
        for stage, (side, stride, expansion, channels, repeats) in enumerate(_STAGES):
            for repeat in range(repeats):
                x = self._block(
                    x,
                    f"block{stage + 1}{chr(ord('a') + repeat)}_",
                    side=side,
                    stride=stride if repeat == 0 else 1,
                    expansion=expansion,
                    channels=channels,
                )
            found[f"stage_{stage + 1}"] = x
        x = self._convolved(x, _TOP, "top_conv")
        return found | {"top": nn.swish(self._normalized(x, "top_bn"))}

    def _convolved(
        self,
        x: jnp.ndarray,
        features: int,
        name: str,
        *,
        side: int = 1,
        stride: int = 1,
        padding: Any = "SAME",
        groups: int = 1,
        use_bias: bool = False,
    ) -> jnp.ndarray:
        return nn.Conv(
            features,
            (side, side),
            (stride, stride),
            padding=padding,
            feature_group_count=groups,
            use_bias=use_bias,
            kernel_init=_INITIAL,
            dtype=self.dtype,
            name=name,
        )(x)

    def _normalized(self, x: jnp.ndarray, name: str) -> jnp.ndarray:
        return _BatchNorm(self.calibrating, name=name)(x)

    def _block(
        self,
        inputs: jnp.ndarray,
        name: str,
        *,
        side: int,
        stride: int,
        expansion: int,
        channels: int,
    ) -> jnp.ndarray:
        """Inverted residual block: expand, depthwise, squeeze-and-excite, project."""
        entering = inputs.shape[-1]
        x, wide = inputs, entering * expansion
        if expansion > 1:
            x = self._convolved(x, wide, f"{name}expand_conv")
            x = nn.swish(self._normalized(x, f"{name}expand_bn"))
        padding = _strided_padding(x, side) if stride == 2 else "SAME"
        x = self._convolved(
            x,
            wide,
            f"{name}dwconv",
            side=side,
            stride=stride,
            padding=padding,
            groups=wide,
        )
        x = nn.swish(self._normalized(x, f"{name}bn"))

        squeezed = max(1, int(entering * _SQUEEZE))
        weight = jnp.mean(x, axis=(1, 2), keepdims=True)
        weight = self._convolved(weight, squeezed, f"{name}se_reduce", use_bias=True)
        weight = nn.swish(weight)
        weight = self._convolved(weight, wide, f"{name}se_expand", use_bias=True)
        x = x * nn.sigmoid(weight)

        x = self._convolved(x, channels, f"{name}project_conv")
        x = self._normalized(x, f"{name}project_bn")
        return x + inputs if stride == 1 and entering == channels else x


class EfficientNet(nn.Module):
    """The encoder with a light decoder, whose output is added to the image.

    The output starts at zero: an untrained model changes nothing.

    Attributes:
      imagenet: whether the encoder has Keras's ImageNet weights.
      frozen: whether the encoder is not trained.
      calibrating: see `calibrate`.
      dtype: of the computation; parameters stay float32.
    """

    stride: ClassVar[int] = 32
    # The output depends on the whole image, so images cannot be tiled.
    halo: ClassVar[int] = 0

    imagenet: bool = False
    frozen: bool = False
    calibrating: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images.

        Args:
          images: float (batch, height, width, 3) in [0, 1], any height and
            width (padded by reflection to multiples of 32 and cropped back).

        Returns:
          float32 of the same shape, near [0, 1] but not clipped.
        """
        padded = layers.pad_to_multiple(images, self.stride)
        x = padded.astype(self.dtype or padded.dtype)
        encoder = Encoder(self.imagenet, self.calibrating, self.dtype, name="encoder")
        found = encoder(x)
        if self.frozen:
            found = lax.stop_gradient(found)

        y = self._pointwise(_DEEPEST, "deepest")(found["top"])
        for stage, width in _DECODER:
            y = nn.relu(layers.UpConv(width, dtype=self.dtype, name=f"up_{stage}")(y))
            y = y + self._pointwise(width, f"skip_{stage}")(found[stage])
            y = nn.relu(layers.Conv3x3(width, dtype=self.dtype, name=stage)(y))
        y = nn.relu(layers.UpConv(_FULL, dtype=self.dtype, name="up_full")(y))
        y = jnp.concatenate([y, x], axis=-1)
        y = nn.relu(layers.Conv3x3(_FULL, dtype=self.dtype, name="full")(y))
        change = nn.Conv(
            3,
            (3, 3),
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="change",
        )(y)
        restored = padded + change.astype(jnp.promote_types(padded.dtype, jnp.float32))
        return restored[:, : images.shape[1], : images.shape[2]]

    def _pointwise(self, features: int, name: str) -> nn.Module:
        # A 1×1 convolution, as a matrix product.
        return nn.Dense(features, dtype=self.dtype, name=name)


def calibrate(model: nn.Module, parameters: Any, images: jnp.ndarray) -> Any:
    """Measures the statistics of batch normalization, layer by layer.

    With them, every normalized channel has mean 0 and variance 1 on these images, so
    that activations of random weights neither explode nor vanish.

    Args:
      model: an `Encoder` or `EfficientNet`.
      parameters: of the model, with "params" and "batch_stats".
      images: float (batch, height, width, 3) in [0, 1], more than a few.

    Returns:
      The parameters with the measured statistics.
    """
    measuring = model.clone(calibrating=True)
    _, found = jax.jit(lambda p, x: measuring.apply(p, x, mutable=["batch_stats"]))(
        parameters, images
    )
    return {**parameters, "batch_stats": found["batch_stats"]}


def with_encoder(parameters: Any, encoder: Any) -> Any:
    """Puts an encoder's weights into a model.

    Args:
      parameters: of an `EfficientNet`.
      encoder: of an `Encoder`, for instance from `keras_weights.load_efficientnet`.

    Returns:
      The model's parameters with this encoder.
    """
    weights = {**parameters["params"], "encoder": encoder["params"]}
    return {"params": weights, "batch_stats": {"encoder": encoder["batch_stats"]}}
