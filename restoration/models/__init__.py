"""Restoration networks. Flax is used here and nowhere else.

A model is a Flax module whose `init(key, images)` gives a plain nested dict of
parameters and whose `apply(parameters, images)` maps float NHWC images in
[0, 1] to restored ones of the same shape. Its class says what tiling needs:
`stride`, the grid its pooling keeps to, and `halo`, how far a pixel sees.
Its `layers` are counted as the report does: convolutions and poolings.
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
      dtype: of the computation, for instance jnp.bfloat16; None is float32.

    Returns:
      The Flax module.

    Raises:
      InputError: for an unknown name, listing those that exist.
    """
    if name not in MODELS:
        raise errors.InputError(
            f"unknown model {name!r}; choose one of {', '.join(sorted(MODELS))}"
        )
    return MODELS[name](dtype=dtype)


def abstract_parameters(model: nn.Module) -> Any:
    """Returns the shapes and types of a model's parameters without computing."""
    side = 4 * model.stride
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def count_parameters(parameters: Any) -> int:
    """Returns the number of scalars in a tree of parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameters))


def multiply_adds(model: nn.Module) -> float:
    """Returns the multiply-adds for each pixel, as computed.

    Those of convolutions and matrix products count, those of a depthwise convolution
    too, which `nafnet.depthwise` computes as products. The sub-pixel form of an
    up-convolution counts with its 2×2 taps and four phases, zero taps included, since
    that is the work done.
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
            # Nothing else has a gradient of its own.
            inside = depthwise or equation.primitive.name == "custom_vjp_call"
            for inner in extend.core.jaxprs_in_params(equation.params):
                total += count(inner, inside)
        return total

    return count(jaxpr.jaxpr) / side**2


def receptive_field(model: nn.Module) -> tuple[int, int]:
    """Measures how far a model sees.

    Positive weights keep every ReLU open, and no gradient cancels, so that the inputs
    with a gradient other than zero are exactly those that an output depends on. They
    differ, since what normalises over channels would take equal ones for nothing.
    Pictures are constant, which halves the gradient between equal pixels where the
    largest is chosen; and narrow, since a row tells as much as a square.

    Args:
      model: a model without global pooling.

    Returns:
      The side, in pixels, of the square that the outputs of one cell of the
      pooling grid depend on together, and the farthest distance (the halo)
      from such an output to an input it depends on.
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
