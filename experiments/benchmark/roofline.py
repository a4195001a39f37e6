"""Least operations and memory traffic of a network, and those of a compiled program.

The least ("floor") counts only convolutions and matrix products, each reading its input
and weights once and writing its output once. Elementwise operations and depthwise
convolutions count as free. A program needs at least this much, unless it keeps results
between layers out of memory.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import extend

from restoration import models

# Adam reads a parameter, its gradient and two moments, and writes three of these.
_OPTIMIZER_BYTES = 7 * 4


class Layer(NamedTuple):
    """The forward pass of one convolution or matrix product.

    Attributes:
      operations: multiplications and additions, including those with padding.
      input: bytes.
      weights: bytes.
      output: bytes.
    """

    operations: float
    input: float
    weights: float
    output: float


class Cost(NamedTuple):
    """The cost of a call.

    Attributes:
      operations: multiplications and additions.
      bytes: read and written.
    """

    operations: float
    bytes: float


def _bytes(value: Any) -> int:
    return math.prod(value.aval.shape) * value.aval.dtype.itemsize


def _kernel(equation: Any) -> tuple[int, ...]:
    """Returns (inputs, rows, columns) of a convolution's kernel."""
    spec = equation.params["dimension_numbers"].rhs_spec
    return tuple(equation.invars[1].aval.shape[axis] for axis in spec[1:])


def _used_taps(equation: Any) -> float:
    """Returns the share of weights that are not zero by construction.

    The only 2×2 convolution is that of `layers.upconv`, which has nine of sixteen taps.
    """
    convolves = equation.primitive.name == "conv_general_dilated"
    return 9 / 16 if convolves and _kernel(equation)[1:] == (2, 2) else 1.0


def _multiply_adds(equation: Any) -> int:
    """Returns the multiply-adds of a convolution or matrix product, otherwise 0."""
    results = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "conv_general_dilated":
        if equation.params["feature_group_count"] > 1:
            return 0
        return results * math.prod(_kernel(equation))
    if equation.primitive.name == "dot_general":
        contracted = equation.params["dimension_numbers"][0][0]
        shape = equation.invars[0].aval.shape
        return results * math.prod(shape[axis] for axis in contracted)
    return 0


def _layers(jaxpr: Any) -> Iterator[Layer]:
    for equation in jaxpr.eqns:
        if count := _multiply_adds(equation):
            images, weights = equation.invars[:2]
            share = _used_taps(equation)
            yield Layer(
                2 * count * share,
                _bytes(images),
                _bytes(weights) * share,
                _bytes(equation.outvars[0]),
            )
        for inner in extend.core.jaxprs_in_params(equation.params):
            yield from _layers(inner)


def layers(model: Any, batch: int, side: int) -> list[Layer]:
    """Returns a network's layers in order, computing nothing.

    Args:
      model: Flax module; bytes are those of its computation's dtype.
      batch: number of images.
      side: of the square images, pixels.
    """
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    parameters = models.abstract_parameters(model)
    return list(_layers(jax.make_jaxpr(model.apply)(parameters, images).jaxpr))


def inference(model: Any, batch: int, side: int) -> Cost:
    """Returns the least cost of restoring a batch; arguments as for `layers`."""
    found = layers(model, batch, side)
    return Cost(
        sum(layer.operations for layer in found),
        sum(layer.input + layer.weights + layer.output for layer in found),
    )


def training(model: Any, batch: int, side: int) -> Cost:
    """Returns the least cost of a training step; arguments as for `layers`.

    In the backward pass, a layer reads its input, its weights and the gradient of its
    output, and writes the gradients of input and weights; the first layer needs no
    input gradient. Then Adam updates all parameters.
    """
    found = layers(model, batch, side)
    forwards = inference(model, batch, side)
    backwards = sum(
        2 * layer.input + 2 * layer.weights + layer.output for layer in found
    )
    parameters = models.count_parameters(models.abstract_parameters(model))
    return Cost(
        3 * forwards.operations - found[0].operations,
        forwards.bytes
        + backwards
        - (found[0].input + found[0].weights)
        + _OPTIMIZER_BYTES * parameters,
    )


def of_program(compiled: Any) -> Cost | None:
    """Returns the cost of a compiled program as XLA counts it; None if it does not.

    Args:
      compiled: from `jax.jit(...).lower(...).compile()`.
    """
    found = compiled.cost_analysis() or {}
    if "flops" not in found or "bytes accessed" not in found:
        return None
    return Cost(float(found["flops"]), float(found["bytes accessed"]))
