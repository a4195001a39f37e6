"""EfficientNet-Lite0 as an encoder: features at strides 2 to 32, tile by tile.

TensorFlow's EfficientNet-Lite (Renjie Liu 2020, tensorflow/tpu, Apache-2.0), after
Tan and Le, arXiv 1905.11946: no squeeze-and-excitation and ReLU6 in place of swish,
so that nothing averages over the whole picture and a tile with enough context gives
what the whole picture gives.

Batch normalisation is folded into a scale and a bias for each channel. They are
parameters like the others; its statistics are gone. Depthwise convolutions are sums
of shifted pictures and 1×1 convolutions matrix products, which a CPU computes several
times faster than XLA's grouped convolutions, in training too.

The padding is TensorFlow's 'SAME' for even sides. So the picture's sides must be
multiples of the greatest stride that is asked for.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Weights are stored by this name.
NAME = "efficientnet_lite0"

# (kernel side, stride, expansion, channels) of the sixteen blocks.
BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (3, 1, 6, 24),
    (5, 2, 6, 40),
    (5, 1, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 80),
    (3, 1, 6, 80),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (5, 1, 6, 192),
    (5, 1, 6, 192),
    (5, 1, 6, 192),
    (3, 1, 6, 320),
)

# The last block of each stride, 2 to 32.
LAST_OF_STRIDE = (0, 2, 4, 10, 15)

_STEM = 32

# What ImageNet's weights were trained with: (255 x - 127) / 128, and epsilon.
_MEAN, _DEVIATION = 127 / 255, 128 / 255
_EPSILON = 1e-3

_INITIAL = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


def _edges(side: int, stride: int) -> tuple[int, int]:
    """Returns TensorFlow's 'SAME' padding, before and after, of an even length."""
    total = side - stride
    return total // 2, total - total // 2


def _taps(x: jnp.ndarray, side: int, stride: int) -> list[jnp.ndarray]:
    """Returns what each tap of a kernel sees, row by row."""
    edges = _edges(side, stride)
    height, width = (length // stride for length in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), edges, edges, (0, 0)))
    return [
        padded[
            :,
            row : row + stride * (height - 1) + 1 : stride,
            column : column + stride * (width - 1) + 1 : stride,
        ]
        for row in range(side)
        for column in range(side)
    ]


def _shifted_sum(x: jnp.ndarray, kernel: jnp.ndarray, stride: int) -> jnp.ndarray:
    side, channels = kernel.shape[0], kernel.shape[2]
    flat = kernel.reshape(side * side, channels)
    return sum(
        tap * weights for tap, weights in zip(_taps(x, side, stride), flat, strict=True)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: jnp.ndarray, kernel: jnp.ndarray, stride: int = 1) -> jnp.ndarray:
    """Convolves each channel with its own kernel, as a sum of shifted pictures.

    Args:
      x: (batch, height, width, channels), sides multiples of the stride.
      kernel: (side, side, channels), the side odd.
      stride: 1 or 2.

    Returns:
      (batch, height / stride, width / stride, channels), zeros beyond the borders as
      TensorFlow's 'SAME' has them.
    """
    return _shifted_sum(x, kernel, stride)


def _forward(x: jnp.ndarray, kernel: jnp.ndarray, stride: int) -> tuple:
    return _shifted_sum(x, kernel, stride), (x, kernel)


def _backward(stride: int, kept: tuple, gradient: jnp.ndarray) -> tuple:
    # Derived by JAX, the shifts would become as many padded arrays.
    x, kernel = kept
    side = kernel.shape[0]
    of_kernel = jnp.stack(
        [jnp.einsum("nhwc,nhwc->c", tap, gradient) for tap in _taps(x, side, stride)]
    ).reshape(kernel.shape)
    if stride == 1:
        return _shifted_sum(gradient, kernel[::-1, ::-1], 1), of_kernel
    return _of_strided_input(gradient, kernel, stride), of_kernel


def _of_strided_input(
    gradient: jnp.ndarray, kernel: jnp.ndarray, stride: int
) -> jnp.ndarray:
    """Returns the gradient of a strided convolution's input, phase by phase.

    Input row r reaches the outputs o with r = stride · o + tap - before.
    """
    side = kernel.shape[0]
    before, _ = _edges(side, stride)
    count, height, width, channels = gradient.shape
    reach = side // stride + 1
    padded = jnp.pad(gradient, ((0, 0), (reach, reach), (reach, reach), (0, 0)))

    def reached(phase: int) -> list[tuple[int, int]]:
        # (tap, shift of the output) for the rows, or columns, of a phase.
        return [
            (tap, (phase + before - tap) // stride)
            for tap in range(side)
            if (phase + before - tap) % stride == 0
        ]

    def of_phase(down: int, across: int) -> jnp.ndarray:
        return sum(
            padded[
                :,
                reach + up : reach + up + height,
                reach + left : reach + left + width,
            ]
            * kernel[row, column]
            for row, up in reached(down)
            for column, left in reached(across)
        )

    rows = [
        jnp.stack([of_phase(down, across) for across in range(stride)], axis=3)
        for down in range(stride)
    ]
    shape = (count, stride * height, stride * width, channels)
    return jnp.stack(rows, axis=2).reshape(shape)


depthwise.defvjp(_forward, _backward)


class Scaled(nn.Module):
    """A convolution without bias, then a scale and a bias for each channel.

    The scale and bias are those of a batch normalisation in inference form. Weights
    that were not pretrained get them from `calibrating`, once.

    Attributes:
      features: output channels; of a depthwise convolution those of the input.
      side: of the kernel.
      stride: 1 or 2; 2 not with side 1.
      kind: "full", "pointwise" or "depthwise".
      calibrating: whether scale and bias are set so that each channel has mean 0
        and variance 1 on this batch; the new ones are in the collection "params".
      dtype: of the computation; parameters stay float32.
    """

    features: int
    side: int = 1
    stride: int = 1
    kind: str = "pointwise"
    calibrating: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        """Maps (n, h, w, c) to (n, h / stride, w / stride, features)."""
        side, entering = self.side, x.shape[-1]
        if self.kind == "depthwise":
            initial = nn.initializers.variance_scaling(
                2.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2
            )
            shape = (side, side, entering)
        else:
            initial, shape = _INITIAL, (side, side, entering, self.features)
        kernel = self.param("kernel", initial, shape)
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.calibrating:
            found = self._convolved(x, kernel)
            scale = 1 / jnp.sqrt(jnp.var(found, axis=(0, 1, 2)) + _EPSILON)
            bias = -jnp.mean(found, axis=(0, 1, 2)) * scale
            self.put_variable("params", "scale", scale)
            self.put_variable("params", "bias", bias)
        x, kernel, bias = nn.dtypes.promote_dtype(
            x, kernel * scale, bias, dtype=self.dtype
        )
        return self._convolved(x, kernel) + bias

    def _convolved(self, x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
        if self.kind == "depthwise":
            return depthwise(x, kernel, self.stride)
        seen = x
        if self.kind == "full":
            seen = jnp.concatenate(_taps(x, self.side, self.stride), axis=-1)
        return seen @ kernel.reshape(-1, self.features)


class EfficientNetLite0(nn.Module):
    """The encoder without its classifier.

    Attributes:
      blocks: how many of the sixteen blocks are computed. 11 end at stride 16 with
        112 channels.
      calibrating: see `Scaled`.
      dtype: of the computation; parameters stay float32.
    """

    blocks: int = len(BLOCKS)
    calibrating: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> list[jnp.ndarray]:
        """Computes the features of each block.

        Args:
          images: float (batch, height, width, 3) in [0, 1], sides multiples of the
            greatest stride.

        Returns:
          What leaves each block, (batch, height / s, width / s, channels).
        """

        def scaled(x: jnp.ndarray, features: int, name: str, **how: Any) -> jnp.ndarray:
            return Scaled(
                features,
                calibrating=self.calibrating,
                dtype=self.dtype,
                name=name,
                **how,
            )(x)

        x = (images - _MEAN) / _DEVIATION
        x = nn.relu6(scaled(x, _STEM, "stem", side=3, stride=2, kind="full"))
        found = []
        for number, (side, stride, expansion, channels) in enumerate(
            BLOCKS[: self.blocks]
        ):
            name, inputs = f"block_{number}", x
            if expansion > 1:
                wide = expansion * x.shape[-1]
                x = nn.relu6(scaled(x, wide, f"{name}_expand"))
            kind = {"side": side, "stride": stride, "kind": "depthwise"}
            x = nn.relu6(scaled(x, x.shape[-1], f"{name}_depthwise", **kind))
            x = scaled(x, channels, f"{name}_project")
            if inputs.shape == x.shape:
                x = x + inputs
            found.append(x)
        return found


def from_pytorch(weights: Mapping[str, np.ndarray], blocks: int = len(BLOCKS)) -> dict:
    """Converts the weights of `efficientnet_lite_pytorch`.

    Args:
      weights: arrays by PyTorch's names, of `efficientnet-lite0`; those of the
        classifier are not used.
      blocks: how many blocks are wanted.

    Returns:
      Parameters of `EfficientNetLite0`, {"params": ...}, float32.
    """

    def folded(convolution: str, norm: str) -> dict[str, np.ndarray]:
        kernel = np.asarray(weights[f"{convolution}.weight"], np.float32)
        kernel = kernel.transpose(2, 3, 1, 0)
        if kernel.shape[2] == 1:  # depthwise: (side, side, 1, channels)
            kernel = kernel[:, :, 0]
        mean, variance, gain, bias = (
            np.asarray(weights[f"{norm}.{name}"], np.float64)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        scale = gain / np.sqrt(variance + _EPSILON)
        return {
            "kernel": kernel,
            "scale": scale.astype(np.float32),
            "bias": (bias - mean * scale).astype(np.float32),
        }

    params = {"stem": folded("_conv_stem", "_bn0")}
    for number, (_, _, expansion, _) in enumerate(BLOCKS[:blocks]):
        theirs, ours = f"_blocks.{number}", f"block_{number}"
        if expansion > 1:
            params[f"{ours}_expand"] = folded(
                f"{theirs}._expand_conv", f"{theirs}._bn0"
            )
        params[f"{ours}_depthwise"] = folded(
            f"{theirs}._depthwise_conv", f"{theirs}._bn1"
        )
        params[f"{ours}_project"] = folded(f"{theirs}._project_conv", f"{theirs}._bn2")
    return {"params": params}


def abstract_parameters() -> Any:
    """Returns the shapes and types of all blocks' parameters without computing."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), images)
