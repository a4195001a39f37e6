"""Restoration networks. Only this package uses Flax.

A model is a Flax module. `init(key, images)` returns its parameters as a nested dict;
`apply(parameters, images)` maps float NHWC images in [0, 1] to restored images of the
same shape. Its class has what tiling needs: `stride`, the cell size in pixels of its
pooling grid, and `halo`, the radius in pixels of its receptive field. `layers` counts
convolutions and poolings, as the seed report does.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import extend

from restoration.base import errors
from restoration.models import autoencoder, dncnn, nafnet

MODELS = {
    "basic": autoencoder.Basic,
    "advanced": autoencoder.Advanced,
    "basic_residual": functools.partial(autoencoder.Basic, residual=True),
    "advanced_residual": functools.partial(autoencoder.Advanced, residual=True),
    "nafnet_s": functools.partial(nafnet.NAFNet, width=32),
    "nafnet_m": functools.partial(nafnet.NAFNet, width=80),
    "dncnn": dncnn.DnCNN,
}


def get_model(name: str, *, dtype: Any = None) -> nn.Module:
    """Returns a model by name.

    Args:
      name: one of `MODELS`.
      dtype: of the computation, for instance jnp.bfloat16; None for float32.

    Returns:
      The Flax module.

    Raises:
      InputError: if the name is unknown; the message lists the names.
    """
    if name not in MODELS:
        raise errors.InputError(
            f"unknown model {name!r}; choose one of {', '.join(sorted(MODELS))}"
        )
    return MODELS[name](dtype=dtype)


def abstract_parameters(model: nn.Module) -> Any:
    """Returns the shapes and dtypes of a model's parameters, computing nothing."""
    side = 4 * model.stride
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def count_parameters(parameters: Any) -> int:
    """Returns the number of scalars in a tree of parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameters))


def multiply_adds(model: nn.Module) -> float:
    """Returns the multiply-adds per pixel that the model's code performs.

    Counts convolutions, matrix products and the shifted products of
    `nafnet.depthwise`. A transposed convolution (`layers.upconv`) counts with all 2×2
    taps of its four phases, zero taps included.
    """
    side = 16 * model.stride
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(model.apply)(abstract_parameters(model), images)

    def count(jaxpr: Any, depthwise: bool = False) -> int:
        total = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "conv_general_dilated":
                kernel = equation.invars[1].aval.shape  # height, width, in, out
                total += math.prod(equation.outvars[0].aval.shape) * math.prod(
                    kernel[:3]
                )
            if equation.primitive.name == "dot_general":
                contracted = equation.params["dimension_numbers"][0][0]
                shape = equation.invars[0].aval.shape
                total += math.prod(equation.outvars[0].aval.shape) * math.prod(
                    shape[axis] for axis in contracted
                )
            if depthwise and equation.primitive.name == "mul":
                total += math.prod(equation.outvars[0].aval.shape)
            # `nafnet.depthwise` is the only part with products and a custom gradient.
            inside = depthwise or equation.primitive.name == "custom_vjp_call"
            for inner in extend.core.jaxprs_in_params(equation.params):
                total += count(inner, inside)
        return total

    return count(jaxpr.jaxpr) / side**2


def receptive_field(model: nn.Module) -> tuple[int, int]:
    """Measures the receptive field of a model.

    Weights are positive, so that every ReLU is open and no gradients cancel: the inputs
    with a nonzero gradient are exactly those that an output depends on. Weights differ,
    since normalization over equal channels would give zero. The image is constant, so
    that the gradient of a maximum is shared by all of its equal inputs; and narrow,
    since one dimension is enough.

    Args:
      model: a model without global pooling.

    Returns:
      The side in pixels of the square that the outputs of one cell of the pooling grid
      depend on together, and the largest distance (the halo) from such an output to an
      input that it depends on.
    """
    cell = model.stride
    centre = -(-2 * model.halo // cell) * cell + cell
    side = 2 * centre + cell
    generator = np.random.default_rng(0)
    parameters = jax.tree.map(
        lambda leaf: jnp.asarray(
            generator.uniform(0.5, 1.5, leaf.shape) / math.prod(leaf.shape[:-1]),
            jnp.float32,
        ),
        abstract_parameters(model),
    )

    @jax.jit
    @jax.grad
    def gradient(images: jnp.ndarray, row: int) -> jnp.ndarray:
        return model.apply(parameters, images)[0, row, 2 * cell].sum()

    images = jnp.ones((1, side, 4 * cell, 3))
    seen = [
        np.flatnonzero(np.abs(gradient(images, row)).sum(axis=(0, 2, 3)))
        for row in range(centre, centre + cell)
    ]
    halo = max(
        max(row - int(rows[0]), int(rows[-1]) - row)
        for row, rows in zip(range(centre, centre + cell), seen, strict=True)
    )
    return int(max(r[-1] for r in seen) - min(r[0] for r in seen)) + 1, halo
