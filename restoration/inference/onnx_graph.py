"""JAX functions of images as ONNX graphs, with any batch, height and width.

A function is traced at a few sizes. What differs between the traces shows how each
number of a shape depends on the batch, the height and the width; everything else, the
operations, has to be the same. Images have four axes, in JAX (batch, height, width,
channels) and in the graph (batch, channels, height, width), as other programs expect.
What depends on no input is computed here. A depthwise convolution, which this project
writes as shifted products for XLA's sake, becomes a grouped one.
"""

import dataclasses
import fractions
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epy
from jax import extend

from restoration.base import errors

with epy.lazy_imports():
    import onnx

OPSET = 18

# The axes of an image in the graph, by JAX' axes, and back.
_TO_GRAPH, _TO_JAX = (0, 3, 1, 2), (0, 2, 3, 1)

# Operations of one and two operands, value by value.
_PLAIN = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
    "neg": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs",
    "logistic": "Sigmoid", "tanh": "Tanh", "gt": "Greater", "lt": "Less",
    "ge": "GreaterOrEqual", "le": "LessOrEqual", "eq": "Equal", "and": "And",
    "or": "Or", "not": "Not", "pow": "Pow",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Input:
    """An image that the graph takes.

    Attributes:
      name: of the input.
      channels: how many it has.
    """

    name: str
    channels: int


@dataclasses.dataclass(frozen=True)
class _Length:
    """The length of an axis: constant + batch, height and width times factors."""

    constant: fractions.Fraction
    factors: tuple[fractions.Fraction, ...]

    @property
    def fixed(self) -> int | None:
        return None if any(self.factors) else int(self.constant)


_Shape = tuple[_Length, ...]


@dataclasses.dataclass(frozen=True)
class _Value:
    """What a variable of the traced function is in the graph.

    Attributes:
      name: in the graph, "" for a constant.
      shape: as in JAX.
      constant: its values as in JAX, or None.
      narrow: whether axes of length 1 stand for longer ones.
      pending: a reshape that waits for what follows: its kind and its operand.
    """

    name: str
    shape: _Shape
    constant: np.ndarray | None = None
    narrow: bool = False
    pending: tuple[str, "_Value"] | None = None


class _Lengths:
    """Reads how lengths depend on the sizes at which a function was traced."""

    def __init__(self, sizes: Sequence[tuple[int, int, int]]):
        """Takes the sizes: a first one, one larger in each axis, and a last one."""
        self._sizes = sizes

    def of(self, values: Sequence[int]) -> _Length | None:
        """Returns the length that is these values at the sizes, or None."""
        first = self._sizes[0]
        factors = []
        for axis in range(3):
            step = self._sizes[axis + 1][axis] - first[axis]
            factors.append(fractions.Fraction(values[axis + 1] - values[0], step))
        constant = values[0] - sum(f * s for f, s in zip(factors, first, strict=True))
        last = constant + sum(
            f * s for f, s in zip(factors, self._sizes[-1], strict=True)
        )
        if last != values[-1]:
            return None
        return _Length(fractions.Fraction(constant), tuple(factors))

    def shape(self, avals: Sequence[Any]) -> _Shape:
        """Returns the shape of a variable in all traces."""
        found = [
            self.of(lengths) for lengths in zip(*(a.shape for a in avals), strict=True)
        ]
        if None in found:
            raise errors.InputError(
                "this network cannot be exported: a length is a product of sizes"
            )
        return tuple(found)


def _axes(axis: int, rank: int) -> int:
    """Returns the index in the graph of an axis in JAX."""
    return _TO_GRAPH.index(axis) if rank == 4 else axis


def _laid(values: Sequence[Any], rank: int) -> list[Any]:
    """Returns what belongs to the axes of JAX in the order of the graph."""
    return [values[axis] for axis in _TO_GRAPH] if rank == 4 else list(values)


class _Builder:
    """A graph that grows."""

    def __init__(self, lengths: _Lengths):
        self.lengths = lengths
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._known: dict[Any, str] = {}
        self._sizes: list[str] = []
        self._count = 0

    # Nodes and constants

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node of one output; returns the output's name."""
        self._count += 1
        name = f"v{self._count}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def initializer(self, values: np.ndarray) -> str:
        """Returns the name of a constant; equal ones are stored once."""
        values = np.ascontiguousarray(values)
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._known:
            name = f"c{len(self.initializers)}"
            self.initializers.append(onnx.numpy_helper.from_array(values, name))
            self._known[key] = name
        return self._known[key]

    def integers(self, *values: int) -> str:
        """Returns the name of a constant list of integers."""
        return self.initializer(np.array(values, np.int64))

    def use_sizes(self, image: str) -> None:
        """Reads batch, height and width from an input."""
        shape = self.node("Shape", [image])
        self._sizes = [
            self.node("Gather", [shape, self.integers(axis)], axis=0)
            for axis in (0, 2, 3)
        ]

    def length(self, wanted: _Length) -> str:
        """Returns the name of a length, as a list of one integer."""
        if wanted.fixed is not None:
            return self.integers(wanted.fixed)
        if wanted not in self._known:
            divisor = math.lcm(
                wanted.constant.denominator, *(f.denominator for f in wanted.factors)
            )
            total = self.integers(int(wanted.constant * divisor))
            for size, factor in zip(self._sizes, wanted.factors, strict=True):
                if factor:
                    times = self.integers(int(factor * divisor))
                    part = self.node("Mul", [size, times])
                    total = self.node("Add", [total, part])
            if divisor > 1:
                total = self.node("Div", [total, self.integers(divisor)])
            self._known[wanted] = total
        return self._known[wanted]

    def shape(self, wanted: Sequence[_Length]) -> str:
        """Returns the name of a shape."""
        fixed = [length.fixed for length in wanted]
        if None not in fixed:
            return self.integers(*fixed)
        parts = [self.length(length) for length in wanted]
        return self.node("Concat", parts, axis=0)

    # Values

    def plain(self, value: _Value) -> str:
        """Returns the name of a value; its axes of length 1 may stand for longer."""
        value = self.settled(value)
        if value.constant is None:
            return value.name
        values = value.constant
        return self.initializer(
            values.transpose(_TO_GRAPH) if values.ndim == 4 else values
        )

    def whole(self, value: _Value) -> str:
        """Returns the name of a value that has its whole shape."""
        name = self.plain(value)
        if not value.narrow:
            return name
        shape = self.shape(_laid(value.shape, len(value.shape)))
        return self.node("Expand", [name, shape])

    def settled(self, value: _Value) -> _Value:
        """Returns a value whose reshape waits no longer."""
        if not value.pending:
            return value
        kind, operand = value.pending
        if kind.endswith("turned"):
            untwisted = _Value("", (), pending=(kind.removesuffix(" turned"), operand))
            shape = [value.shape[axis] for axis in (0, 1, 3, 2, 4, 5)]
            untwisted = dataclasses.replace(untwisted, shape=tuple(shape))
            name = self.plain(untwisted)
            name = self.node("Transpose", [name], perm=(0, 1, 3, 2, 4, 5))
            return _Value(name, value.shape)
        return self._reshaped(operand, value.shape)

    def in_jax(self, value: _Value) -> str:
        """Returns the name of a whole value with its axes in JAX' order."""
        name = self.whole(value)
        if len(value.shape) == 4:
            name = self.node("Transpose", [name], perm=_TO_JAX)
        return name

    def from_jax(self, name: str, shape: _Shape) -> _Value:
        """Returns the value of a name whose axes are in JAX' order."""
        if len(shape) == 4:
            name = self.node("Transpose", [name], perm=_TO_GRAPH)
        return _Value(name, shape)

    def _reshaped(self, operand: _Value, shape: _Shape) -> _Value:
        name = self.in_jax(operand)
        return self.from_jax(self.node("Reshape", [name, self.shape(shape)]), shape)


def _is(shape: _Shape, *lengths: _Length) -> bool:
    return shape == lengths


def _times(length: _Length, factor: fractions.Fraction | int) -> _Length:
    return _Length(
        length.constant * factor, tuple(part * factor for part in length.factors)
    )


_TWO = _Length(fractions.Fraction(2), (fractions.Fraction(0),) * 3)
_HALF = fractions.Fraction(1, 2)


def _reshape(build: _Builder, operand: _Value, shape: _Shape) -> _Value:
    """Returns a reshaped value; foldings of pixels into channels are found."""
    operand_shape = operand.shape
    if len(operand_shape) == 4 and len(shape) == 6 and not operand.narrow:
        n, height, width, channels = operand_shape
        halved = _times(height, _HALF), _times(width, _HALF)
        if _is(shape, n, halved[0], _TWO, halved[1], _TWO, channels):
            return _Value("", shape, pending=("fold", operand))
        fourth = _times(channels, fractions.Fraction(1, 4))
        if _is(shape, n, height, width, _TWO, _TWO, fourth):
            return _Value("", shape, pending=("unfold", operand))
    if operand.pending and len(shape) == 4:
        kind, image = operand.pending
        name = {"fold turned": "SpaceToDepth", "unfold turned": "DepthToSpace"}.get(
            kind
        )
        n, height, width, channels = image.shape
        expected = {
            "SpaceToDepth": (
                n, _times(height, _HALF), _times(width, _HALF), _times(channels, 4)
            ),
            "DepthToSpace": (
                n, _times(height, 2), _times(width, 2),
                _times(channels, fractions.Fraction(1, 4)),
            ),
        }  # fmt: skip
        if name and shape == expected[name]:
            return _Value(build.node(name, [build.whole(image)], blocksize=2), shape)
    return build._reshaped(build.settled(operand), shape)


def _broadcast(
    build: _Builder, operand: _Value, shape: _Shape, dimensions: Sequence[int]
) -> _Value:
    """Returns a value with more axes; where it is repeated it stays narrow."""
    rank, before = len(shape), operand.shape
    own = {to: before[axis] for axis, to in enumerate(dimensions)}
    one = _Length(fractions.Fraction(1), (fractions.Fraction(0),) * 3)
    kept = tuple(own.get(axis, one) for axis in range(rank))
    narrow = kept != shape or operand.narrow
    if operand.constant is not None:
        values = operand.constant.reshape(
            [operand.constant.shape[dimensions.index(axis)] if axis in own else 1
             for axis in range(rank)]
        )  # fmt: skip
        return _Value("", shape, values, narrow)
    if tuple(dimensions) == tuple(range(len(before))) and rank == len(before):
        return dataclasses.replace(build.settled(operand), shape=shape, narrow=narrow)
    operand = build.settled(operand)
    new = [axis for axis in range(rank) if axis not in own]
    name = operand.name
    if len(before) == 4:
        name = build.node("Transpose", [name], perm=_TO_JAX)
    if new:
        name = build.node("Unsqueeze", [name, build.integers(*new)])
    if rank == 4:
        name = build.node("Transpose", [name], perm=_TO_GRAPH)
    return _Value(name, shape, narrow=narrow)


def _depthwise(
    build: _Builder, image: _Value, kernel: np.ndarray, shape: _Shape
) -> _Value:
    """Returns a grouped convolution, zeros beyond the borders as in 'SAME'."""
    side, channels = kernel.shape[0], kernel.shape[2]
    (stride,) = {s for s in (1, 2) if _times(shape[1], s) == image.shape[1]}
    before = (side - stride) // 2
    after = side - stride - before
    weights = build.initializer(kernel.transpose(2, 0, 1)[:, None])
    name = build.node(
        "Conv", [build.whole(image), weights], group=channels,
        kernel_shape=[side, side], strides=[stride, stride],
        pads=[before, before, after, after],
    )  # fmt: skip
    return _Value(name, shape)


def _convolution(
    build: _Builder, image: _Value, kernel: np.ndarray, shape: _Shape, params: Any
) -> _Value:
    numbers = params["dimension_numbers"]
    if (
        numbers.lhs_spec != (0, 3, 1, 2)
        or numbers.rhs_spec != (3, 2, 0, 1)
        or numbers.out_spec != (0, 3, 1, 2)
        or set(params["lhs_dilation"]) != {1}
    ):
        raise errors.InputError("this network cannot be exported: a convolution's form")
    (top, bottom), (left, right) = params["padding"]
    name = build.node(
        "Conv", [build.whole(image), build.initializer(kernel.transpose(3, 2, 0, 1))],
        group=params["feature_group_count"], kernel_shape=list(kernel.shape[:2]),
        strides=list(params["window_strides"]), pads=[top, left, bottom, right],
        dilations=list(params["rhs_dilation"]),
    )  # fmt: skip
    return _Value(name, shape)


def _product(
    build: _Builder, image: _Value, kernel: np.ndarray, shape: _Shape, params: Any
) -> _Value:
    """Returns a matrix product over channels as a convolution of one pixel."""
    (own, others), batch = params["dimension_numbers"]
    rank = len(image.shape)
    if batch != ((), ()) or kernel.ndim != 2 or tuple(own) != (rank - 1,):
        raise errors.InputError("this network cannot be exported: a product's form")
    kernel = kernel if tuple(others) == (0,) else kernel.T
    if rank != 4:
        name = build.node("MatMul", [build.whole(image), build.initializer(kernel)])
        return _Value(name, shape)
    weights = build.initializer(kernel.T[:, :, None, None])
    name = build.node("Conv", [build.whole(image), weights], kernel_shape=[1, 1])
    return _Value(name, shape)


def _slice(
    build: _Builder, operand: _Value, shape: _Shape, all_params: Sequence[Any]
) -> _Value:
    """Returns a part of a value; what is taken to the end is taken so at any size."""
    rank, axes, starts, ends, steps = len(shape), [], [], [], []
    for axis in range(rank):
        first, last = (
            build.lengths.of([params[name][axis] for params in all_params])
            for name in ("start_indices", "limit_indices")
        )
        strides = all_params[0]["strides"]
        step = strides[axis] if strides else 1
        if first.fixed == 0 and last == operand.shape[axis] and step == 1:
            continue
        axes.append(_axes(axis, rank))
        starts.append(build.length(first))
        ends.append(build.length(last))
        steps.append(step)
    if not axes:
        return operand
    joined = [
        parts[0] if len(parts) == 1 else build.node("Concat", parts, axis=0)
        for parts in (starts, ends)
    ]
    name = build.node(
        "Slice",
        [build.whole(operand), *joined, build.integers(*axes), build.integers(*steps)],
    )
    return _Value(name, shape)


def _pad(
    build: _Builder, operand: _Value, value: _Value, shape: _Shape, config: Any
) -> _Value:
    if any(low < 0 or high < 0 or inner for low, high, inner in config):
        raise errors.InputError("this network cannot be exported: a padding's form")
    laid = _laid(config, len(shape))
    edges = [low for low, _, _ in laid] + [high for _, high, _ in laid]
    inputs = [build.whole(operand), build.integers(*edges), build.plain(value)]
    return _Value(build.node("Pad", inputs), shape)


def _sum(
    build: _Builder, operand: _Value, shape: _Shape, axes: Sequence[int]
) -> _Value:
    rank = len(operand.shape)
    if operand.pending and operand.pending[0] == "fold" and tuple(axes) == (2, 4):
        image = build.whole(operand.pending[1])
        mean = build.node("AveragePool", [image], kernel_shape=[2, 2], strides=[2, 2])
        four = build.initializer(np.float32(4))
        return _Value(build.node("Mul", [mean, four]), shape)
    name = build.whole(operand)
    if rank == 4 and tuple(axes) != (3,):
        name = build.node("Transpose", [name], perm=_TO_JAX)
        laid = list(axes)
    else:
        laid = [_axes(axis, rank) for axis in axes]
    name = build.node("ReduceSum", [name, build.integers(*laid)], keepdims=0)
    # Of an image (batch, height, width) is left in JAX' order either way.
    return build.from_jax(name, shape) if len(shape) == 4 else _Value(name, shape)


def _joined(
    build: _Builder, operands: Sequence[_Value], shape: _Shape, axis: int
) -> _Value:
    some = [operand for operand in operands if operand.shape[axis].fixed != 0]
    if len(some) == 1:
        return some[0]
    names = [build.whole(operand) for operand in some]
    return _Value(build.node("Concat", names, axis=_axes(axis, len(shape))), shape)


def _evaluated(equation: Any, values: Sequence[_Value]) -> list[np.ndarray]:
    """Computes an equation that depends on no input."""
    arrays = [np.asarray(value.constant) for value in values]
    outputs = equation.primitive.bind(*arrays, **equation.params)
    several = equation.primitive.multiple_results
    return [np.asarray(x) for x in (outputs if several else [outputs])]


def _inner(equation: Any) -> Any:
    for name in ("jaxpr", "call_jaxpr"):
        if name in equation.params:
            return equation.params[name]
    return None


def _operation(
    build: _Builder, equations: Sequence[Any], operands: Sequence[_Value], shape: _Shape
) -> _Value:
    """Adds one operation, which is the same in all traces."""
    kind, params = equations[0].primitive.name, equations[0].params
    first = operands[0]
    if kind in _PLAIN or kind in ("square", "integer_pow", "rsqrt", "select_n"):
        names = [build.plain(operand) for operand in operands]
        # Of two narrow operands the result may still be narrow.
        narrow = all(o.narrow or not o.shape for o in operands)
        if kind == "square":
            name = build.node("Mul", names * 2)
        elif kind == "integer_pow":
            power = build.initializer(np.float32(params["y"]))
            name = build.node("Pow", [*names, power])
        elif kind == "rsqrt":
            name = build.node("Reciprocal", [build.node("Sqrt", names)])
        elif kind == "select_n":
            name = build.node("Where", [names[0], names[2], names[1]])
        else:
            name = build.node(_PLAIN[kind], names)
        return _Value(name, shape, narrow=narrow)
    if kind == "convert_element_type":
        to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(params["new_dtype"]))
        name = build.node("Cast", [build.plain(first)], to=to)
        return _Value(name, shape, narrow=first.narrow)
    if kind in ("stop_gradient", "copy", "copy_p", "optimization_barrier"):
        return first
    if kind == "reshape":
        return _reshape(build, first, shape)
    if kind == "squeeze":
        return build._reshaped(build.settled(first), shape)
    if kind == "transpose":
        turn = tuple(params["permutation"])
        if first.pending and turn == (0, 1, 3, 2, 4, 5):
            pending = (f"{first.pending[0]} turned", first.pending[1])
            return _Value("", shape, pending=pending)
        name = build.node("Transpose", [build.in_jax(build.settled(first))], perm=turn)
        return build.from_jax(name, shape)
    if kind == "broadcast_in_dim":
        dimensions = tuple(params["broadcast_dimensions"])
        return _broadcast(build, first, shape, dimensions)
    if kind == "slice":
        all_params = [equation.params for equation in equations]
        return _slice(build, build.settled(first), shape, all_params)
    if kind == "pad":
        return _pad(build, first, operands[1], shape, params["padding_config"])
    if kind == "concatenate":
        return _joined(build, operands, shape, params["dimension"])
    if kind == "stack":
        axis = params["axis"]
        names = [build.in_jax(build.settled(operand)) for operand in operands]
        parts = [
            build.node("Unsqueeze", [name, build.integers(axis)]) for name in names
        ]
        return build.from_jax(build.node("Concat", parts, axis=axis), shape)
    if kind == "reduce_sum":
        return _sum(build, first, shape, params["axes"])
    if kind == "cumsum":
        axis = build.initializer(np.int64(_axes(params["axis"], len(shape))))
        name = build.node(
            "CumSum", [build.whole(first), axis], reverse=int(params["reverse"])
        )
        return _Value(name, shape)
    if kind in ("conv_general_dilated", "dot_general") and len(operands) == 2:
        kernel = operands[1].constant
        if kernel is not None:
            add = _convolution if kind.startswith("conv") else _product
            return add(build, first, kernel, shape, params)
    raise errors.InputError(f"this network cannot be exported: {kind}")


def _convert(
    build: _Builder, jaxprs: Sequence[Any], inputs: Sequence[_Value]
) -> list[_Value]:
    """Adds all operations of a function; returns its results."""
    known: dict[Any, _Value] = dict(zip(jaxprs[0].invars, inputs, strict=True))

    def read(variable: Any) -> _Value:
        if isinstance(variable, extend.core.Literal):
            values = np.asarray(variable.val, variable.aval.dtype)
            return _Value("", (), values)
        return known[variable]

    for equations in zip(*(jaxpr.eqns for jaxpr in jaxprs), strict=True):
        first = equations[0]
        if len({equation.primitive.name for equation in equations}) > 1:
            raise errors.InputError("this network cannot be exported: it branches")
        operands = [read(variable) for variable in first.invars]
        inner = [_inner(equation) for equation in equations]
        shapes = [
            build.lengths.shape([e.outvars[n].aval for e in equations])
            for n in range(len(first.outvars))
        ]
        if any(length.fixed == 0 for shape in shapes for length in shape):
            results = [_Value("", shape) for shape in shapes]  # joined to nothing
        elif all(o.constant is not None and not o.narrow for o in operands) and all(
            length.fixed is not None for shape in shapes for length in shape
        ):
            results = [
                _Value("", shape, values)
                for shape, values in zip(
                    shapes, _evaluated(first, operands), strict=True
                )
            ]
        elif (
            first.primitive.name.startswith("custom_vjp")
            and [len(o.shape) for o in operands] == [4, 3]
            and operands[1].constant is not None
        ):
            results = [_depthwise(build, operands[0], operands[1].constant, shapes[0])]
        elif inner[0] is not None:
            closed = [getattr(one, "jaxpr", one) for one in inner]
            constants = [
                _Value("", build.lengths.shape([np.asarray(c)] * len(jaxprs)), c)
                for c in map(np.asarray, getattr(inner[0], "consts", ()))
            ]
            held = dict(zip(closed[0].constvars, constants, strict=True))
            known.update(held)
            results = _convert_inner(build, closed, operands, held)
        else:
            results = [_operation(build, equations, operands, shapes[0])]
        known.update(zip(first.outvars, results, strict=True))
    return [read(variable) for variable in jaxprs[0].outvars]


def _convert_inner(
    build: _Builder,
    jaxprs: Sequence[Any],
    operands: Sequence[_Value],
    held: Mapping[Any, _Value],
) -> list[_Value]:
    if held:
        raise errors.InputError("this network cannot be exported: hidden constants")
    return _convert(build, jaxprs, operands)


def build(
    function: Callable[..., Any],
    inputs: Sequence[Input],
    output: str,
    *,
    stride: int,
    metadata: Mapping[str, str],
) -> bytes:
    """Returns a function of images as an ONNX model.

    Args:
      function: of float32 images (batch, height, width, channels), one for each
        input, all of the same batch, height and width; gives one such image.
      inputs: what the model takes, as (batch, channels, height, width).
      output: name of what it gives, in the same order of axes.
      stride: height and width have to be multiples of it.
      metadata: texts that are stored in the model.

    Returns:
      The bytes of the model's file, checked by ONNX.

    Raises:
      InputError: for a function that cannot be exported.
    """
    # Far from any padding that a network may do; all different.
    first = (2, 12 * stride, 16 * stride)
    sizes = [first]
    for axis, step in enumerate((1, stride, stride)):
        sizes.append(tuple(s + step * (a == axis) for a, s in enumerate(first)))
    sizes.append((5, 15 * stride, 22 * stride))

    def traced(size: tuple[int, int, int]) -> Any:
        images = [
            jax.ShapeDtypeStruct((*size, one.channels), np.float32) for one in inputs
        ]
        return jax.make_jaxpr(function)(*images)

    closed = [traced(size) for size in sizes]
    lengths = _Lengths(sizes)
    grown = _Builder(lengths)
    given = [
        _Value(one.name, lengths.shape([c.in_avals[n] for c in closed]))
        for n, one in enumerate(inputs)
    ]
    grown.use_sizes(inputs[0].name)
    jaxprs = [c.jaxpr for c in closed]
    constants = [
        _Value("", lengths.shape([np.asarray(value)] * len(sizes)), np.asarray(value))
        for value in closed[0].consts
    ]
    bound = dict(zip(jaxprs[0].constvars, constants, strict=True))
    (result,) = _with_constants(grown, jaxprs, given, bound)
    last = onnx.helper.make_node("Identity", [grown.whole(result)], [output])
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT

    def described(name: str, channels: int) -> Any:
        return helper.make_tensor_value_info(
            name, kind, ["batch", channels, "height", "width"]
        )

    graph = helper.make_graph(
        [*grown.nodes, last],
        "restoration",
        [described(one.name, one.channels) for one in inputs],
        [described(output, result.shape[3].fixed)],
        grown.initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
        producer_name="film-restoration",
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _with_constants(
    grown: _Builder,
    jaxprs: Sequence[Any],
    given: Sequence[_Value],
    bound: Mapping[Any, _Value],
) -> list[_Value]:
    """Converts a function whose parameters are constants of its trace."""
    opened = [
        jaxpr.replace(invars=[*jaxpr.constvars, *jaxpr.invars], constvars=[])
        for jaxpr in jaxprs
    ]
    return _convert(grown, opened, [*bound.values(), *given])
