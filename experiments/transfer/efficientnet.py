"""EfficientNetB0, layer for layer as Keras has it, and a restoration model on it.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", 2019 (arXiv 1905.11946). Layers have Keras' names, so that its weights are
found by name (`keras_weights`).

Batch normalisation is in its inference form throughout, in training too: its
statistics lie beside the parameters, in the collection "batch_stats", and no gradient
reaches them. That is how a pretrained encoder is usually fine-tuned on small batches;
stochastic depth is left out for the same reason. For random weights, which come with
no statistics, `calibrate` measures them once.

Squeeze-and-excitation averages over the whole picture. So the model has no halo, a
tile of a picture gives another result than the whole, and it is not among
`models.MODELS`.
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

# Squeeze-and-excitation has so many channels, of those that enter the block.
_SQUEEZE = 0.25

# Keras' defaults.
_BATCH_NORM_EPSILON = 1e-3
_NORMALIZATION_EPSILON = 1e-7

# Of ImageNet's colors, each in [0, 1]. Keras' network divides by the variance twice
# where its ImageNet weights are used, once in `Normalization` and once here.
_IMAGENET_STD = (0.229, 0.224, 0.225)

# Keras' initializer of all convolutions here.
_INITIAL = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")

# Decoder: from which stage the details come, and how many channels it has there.
_DECODER = (("stage_5", 64), ("stage_3", 48), ("stage_2", 32), ("stage_1", 24))
_DEEPEST, _FULL = 64, 16


class _Normalization(nn.Module):
    """Keras' layer of this name: colors less their mean, over their deviation.

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
    """Batch normalisation in inference form, its statistics not trained.

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
    """Returns a layer's mean and variance, without gradient; measured if asked."""
    shape = (x.shape[-1],)
    mean = module.variable("batch_stats", "mean", jnp.zeros, shape)
    variance = module.variable("batch_stats", "var", jnp.ones, shape)
    if module.calibrating:
        wide = x.astype(jnp.float32)
        mean.value = jnp.mean(wide, axis=(0, 1, 2))
        variance.value = jnp.var(wide, axis=(0, 1, 2))
    return lax.stop_gradient(mean.value), lax.stop_gradient(variance.value)


def _strided_padding(x: jnp.ndarray, side: int) -> list[tuple[int, int]]:
    """Returns Keras' zero padding before a convolution of stride 2."""
    return [(side // 2 - 1 + length % 2, side // 2) for length in x.shape[1:3]]


class Encoder(nn.Module):
    """EfficientNetB0 without its classifier; 4,007,548 parameters are trained.

    Attributes:
      imagenet: whether colors are divided by √σ once more, as Keras does for
        `weights="imagenet"` alone.
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
        """Inverted residual block: expand, look around, weigh channels, project."""
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
    """A light decoder on the encoder: what it gives is added to the picture.

    It begins at zero, so that without training nothing is changed.

    Attributes:
      imagenet: whether the encoder's weights are Keras' of ImageNet.
      frozen: whether the encoder is kept from training.
      calibrating: see `calibrate`.
      dtype: of the computation; parameters stay float32.
    """

    stride: ClassVar[int] = 32
    # No context can stand for the rest of the picture: only whole ones are restored.
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
    """Measures the statistics of batch normalisation layer by layer.

    With them every channel leaves its normalisation with mean 0 and variance 1 on
    these images, so that random weights neither blow up nor fade.

    Args:
      model: an `Encoder` or `EfficientNet`.
      parameters: of the model, with "params" and "batch_stats".
      images: float (batch, height, width, 3) in [0, 1], more than a few.

    Returns:
      The parameters with these statistics.
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
