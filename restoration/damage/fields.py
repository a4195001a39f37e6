"""Building blocks of damage: noise, discs, strokes and blobs as arrays.

Functions return float32 arrays of the image's size, with pixel centers at whole
coordinates (row, column). They are fast enough for a training step: many small objects
are drawn by one scatter of small windows, large soft ones by one matrix product.
"""

import functools
import itertools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# A higher severity has the same effect as this one.
SEVERITY_LIMIT = 8.0

Shape = tuple[int, int]


def limited(severity: jax.typing.ArrayLike) -> jax.Array:
    """Returns severity in [0, SEVERITY_LIMIT]; negative and NaN become 0."""
    severity = jnp.asarray(severity, jnp.float32)
    return jnp.where(severity > 0, jnp.minimum(severity, SEVERITY_LIMIT), 0.0)


def unit(shape: Shape) -> float:
    """Returns the size in pixels of one unit of length.

    For images up to 512 pixels it is one pixel, so that a training crop is damaged like
    a part of an image. Larger scans get the same damage at a higher resolution.
    """
    return max(1.0, min(shape) / 512)


def area(shape: Shape, *, margin: float = 0.0) -> float:
    """Returns an image's area in squares of 384 units, with a margin in units."""
    size = 384 * unit(shape)
    margin = 2 * margin * unit(shape)
    return (shape[0] + margin) * (shape[1] + margin) / size**2


def _mixed(word: jax.Array) -> jax.Array:
    """Scrambles 32-bit words, one to one (the "lowbias32" hash of C. Wellons)."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)


def bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns random 32-bit words, each a hash of the key and of its index.

    Damage needs about a hundred calls. Those of jax.random take long to compile on a
    CPU; this function is a few multiplications.

    Args:
      key: PRNG key, or uint32 words as `split` returns them.
      shape: shape of the words.
    """
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    parts = _mixed(key.reshape(-1) + jnp.uint32(0x85EBCA6B))
    # 2**32 divided by the golden ratio, made odd: spreads consecutive counters.
    counters = lax.iota(jnp.uint32, math.prod(shape)) * jnp.uint32(0x9E3779B9)
    # On a CPU, a rolled loop: XLA would copy unrolled integer arithmetic into every use
    # of the numbers, which compiles and runs many times slower.
    words = lax.platform_dependent(
        counters,
        parts,
        cpu=lambda counters, parts: lax.fori_loop(
            0, parts.size, lambda i, word: _mixed(word ^ parts[i]), counters
        ),
        default=lambda counters, parts: functools.reduce(
            lambda word, part: _mixed(word ^ part), parts, counters
        ),
    )
    return words.reshape(shape)


def split(key: jax.Array, number: int) -> jax.Array:
    """Returns (number, 2) uint32, independent keys for `bits`."""
    return bits(key, (number, 2))


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns float32 numbers in [0, 1)."""
    return (bits(key, shape) >> 8).astype(jnp.float32) * jnp.float32(2**-24)


Ranges = dict[str, tuple[float, float]]


def draw(
    key: jax.Array, *requests: tuple[tuple[int, ...], Ranges]
) -> list[types.SimpleNamespace]:
    """Draws named uniform numbers, all in one call of `uniform`.

    Args:
      key: PRNG key.
      *requests: pairs of a shape and of {name: (low, high)}.

    Returns:
      For each request a namespace with an array of the shape for each name.
    """
    sizes = [math.prod(shape) * len(ranges) for shape, ranges in requests]
    numbers = uniform(key, (sum(sizes),))
    drawn = []
    for (shape, ranges), size, end in zip(
        requests, sizes, itertools.accumulate(sizes), strict=True
    ):
        values = numbers[end - size : end].reshape(len(ranges), *shape)
        scaled = {
            name: low + (high - low) * value
            for (name, (low, high)), value in zip(ranges.items(), values, strict=True)
        }
        drawn.append(types.SimpleNamespace(**scaled))
    return drawn


def count(chance: jax.Array, expected: jax.Array, maximum: int) -> jax.Array:
    """Returns which of `maximum` objects exist, on average `expected` of them.

    The number of objects is `expected`, rounded up or down at random. It does not
    decrease with `expected`, so that a higher severity only adds objects.

    Args:
      chance: one number in [0, 1) that determines the rounding.
      expected: expected number of objects, >= 0.
      maximum: static largest number of objects.

    Returns:
      (maximum,) float32, 1 for the objects that exist.
    """
    return (jnp.arange(maximum) < jnp.floor(expected + chance)).astype(jnp.float32)


def spread(chance: jax.Array, *, octaves: float) -> jax.Array:
    """Returns a factor from 2**-octaves to 2**octaves with mean 1.

    The amount of damage varies more between real images than independent objects
    would; this is the factor of one image.
    """
    factor = jnp.exp2(octaves * (2 * chance - 1))
    mean = (2**octaves - 2**-octaves) / (2 * octaves * math.log(2))
    return factor / mean


def white_noise(key: jax.Array, shape: Shape) -> jax.Array:
    """Draws (H, W) white noise of mean 0 and variance 1.

    Each value is the sum of two random bytes, which is much faster than a normal
    distribution and equivalent after the blur that always follows.
    """
    size = math.prod(shape)
    words = bits(key, (-(-size // 2),))
    halves = jnp.concatenate([words & 0xFFFF, words >> 16])[:size].reshape(shape)
    total = (halves & 0xFF).astype(jnp.int32) + (halves >> 8).astype(jnp.int32)
    return (total - 255).astype(jnp.float32) / math.sqrt((256**2 - 1) / 6)


def gaussian(sigma: jax.typing.ArrayLike, radius: int) -> jax.Array:
    """Returns the (2 * radius + 1,) taps of a Gaussian, of sum 1.

    Args:
      sigma: in pixels; 0 changes nothing.
      radius: static reach in pixels, about 3 sigma.
    """
    offset = jnp.arange(-radius, radius + 1)
    taps = jnp.exp(-0.5 * jnp.square(offset / jnp.maximum(sigma, 1e-3)))
    return taps / taps.sum()


def filtered(x: jax.Array, taps: jax.Array, axis: int) -> jax.Array:
    """Returns the weighted sum of an array's shifts along one axis.

    Computed in a rolled loop, since XLA would fuse two unrolled filters so that the
    first is computed again for each tap of the second.

    Args:
      x: along the axis, as long as the result plus the number of taps minus 1.
      taps: the weight of each shift, or weights that broadcast with the result.
      axis: the axis.

    Returns:
      The sum over i of taps[i] times x from i on.
    """
    size = x.shape[axis] - len(taps) + 1

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + taps[i] * lax.dynamic_slice_in_dim(x, i, size, axis)

    first = taps[0] * lax.slice_in_dim(x, 0, size, axis=axis)
    return lax.fori_loop(1, len(taps), add, first)


def product(subscripts: str, *operands: jax.Array) -> jax.Array:
    """Returns an einsum in full float32; accelerators use less by default."""
    return jnp.einsum(subscripts, *operands, precision=lax.Precision.HIGHEST)


def fine_noise(
    key: jax.Array,
    shape: Shape,
    *,
    sigma: jax.typing.ArrayLike,
    radius: int,
    planes: int = 1,
) -> jax.Array:
    """Draws (planes, H, W) noise of variance 1, correlated like a Gaussian blur.

    Args:
      key: PRNG key.
      shape: (H, W).
      sigma: of the blur, in pixels, one number or one for (rows, columns).
      radius: static reach of the blur in pixels, about 3 sigma.
      planes: how many independent planes.

    Returns:
      Noise whose autocorrelation at lag k is about exp(-k**2 / (4 sigma**2)).
    """
    sigma = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), (2,))
    height, width = shape[0] + 2 * radius, shape[1] + 2 * radius
    noise = white_noise(key, (planes * height, width)).reshape(planes, height, width)
    rows, columns = gaussian(sigma[0], radius), gaussian(sigma[1], radius)
    deviation = jnp.sqrt(jnp.sum(rows**2) * jnp.sum(columns**2))
    return filtered(filtered(noise, rows, 1), columns / deviation, 2)


def smooth_line(x: jax.Array) -> jax.Array:
    """Smooths the last axis a little: 0.3, 0.4, 0.3."""
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)], mode="edge")
    return 0.3 * (padded[..., :-2] + padded[..., 2:]) + 0.4 * x


def _spline(distance, xp):
    """Returns the cubic B-spline of a distance >= 0, in numpy or in jax.numpy."""
    return xp.where(
        distance < 1,
        2 / 3 - distance**2 + distance**3 / 2,
        xp.maximum(2 - distance, 0) ** 3 / 6,
    )


def _spline_matrix(size: int, knots: int, cell: float) -> np.ndarray:
    """Returns the constant (size, knots) weights of knots `cell` pixels apart."""
    distance = np.abs(1.5 + np.arange(size)[:, None] / cell - np.arange(knots))
    return _spline(distance, np).astype(np.float32)


def smooth_noise(
    key: jax.Array,
    shape: Shape,
    *,
    cells: tuple[float, ...],
    zoom: jax.Array | None = None,
) -> jax.Array:
    """Draws smooth noise of mean 0 and variance about 1.

    Args:
      key: PRNG key.
      shape: (H, W).
      cells: static size in pixels of the bumps of each plane.
      zoom: (2,) factors >= 1 by which the bumps are taller and wider. Without
        it all matrices are constants, which compiles and runs faster.

    Returns:
      (len(cells), H, W) cubic B-spline noise, the planes independent.
    """
    knots = [tuple(math.ceil(size / cell) + 4 for size in shape) for cell in cells]
    sizes = [rows * columns for rows, columns in knots]
    numbers = uniform(key, (sum(sizes),))
    planes = []
    for cell, grid, size, end in zip(
        cells, knots, sizes, itertools.accumulate(sizes), strict=True
    ):
        # A uniform number has variance 1/12; a cubic spline keeps 0.23 of it.
        values = (numbers[end - size : end] - 0.5) * math.sqrt(12 / 0.23)
        if zoom is None:
            rows, columns = map(_spline_matrix, shape, grid, (cell, cell))
        else:
            rows, columns = (
                _spline(
                    jnp.abs(
                        1.5
                        + jnp.arange(shape[axis])[:, None] / (cell * zoom[axis])
                        - jnp.arange(grid[axis])
                    ),
                    jnp,
                )
                for axis in (0, 1)
            )
        half = product("kl,wl->kw", values.reshape(grid), columns)
        planes.append(product("hk,kw->hw", rows, half))
    return jnp.stack(planes)


def wave(chance: jax.Array, length: int) -> jax.Array:
    """Maps (..., K) numbers in [0, 1) to (..., length) smooth lines in [-1, 1]."""
    knots = chance.shape[-1]
    matrix = _spline_matrix(length, knots, length / (knots - 4))
    return product("...k,lk->...l", 2 * chance - 1, matrix)


def discs(
    shape: Shape,
    *,
    layer: jax.Array,
    centre: jax.Array,
    radius: jax.Array,
    opacity: jax.Array,
    layers: int,
    reach: int,
) -> jax.Array:
    """Draws discs with edges one pixel wide; overlapping discs give the maximum.

    Each disc is a small window, and one scatter draws all of them. A maximum does not
    depend on the order, so that every device draws the same image.

    Args:
      shape: (H, W).
      layer: (N,) int, the layer of each disc.
      centre: (N, 2) row and column in pixels; may be outside.
      radius: (N,) in pixels, at most reach.
      opacity: (N,) in [0, 1]; 0 draws nothing.
      layers: static number of layers.
      reach: static half-width of the window in pixels.

    Returns:
      (layers, H, W) opacity.
    """
    margin = 2 * reach
    nearest = jnp.round(centre)
    fraction = centre - nearest
    offset = jnp.arange(-reach, reach + 1)
    # Not hypot: its guard against overflow costs ten times the root.
    square = jnp.square(offset - fraction[..., None])
    distance = jnp.sqrt(square[:, 0, :, None] + square[:, 1, None, :])
    values = opacity[:, None, None] * jnp.clip(
        radius[:, None, None] + 0.5 - distance, 0, 1
    )
    # The canvas has a margin for windows at the edge; those beyond it are dropped.
    corner = nearest.astype(jnp.int32) + reach
    canvas = lax.scatter_max(
        jnp.zeros((layers, shape[0] + 2 * margin, shape[1] + 2 * margin)),
        jnp.concatenate([layer[:, None].astype(jnp.int32), corner], axis=1),
        values,
        lax.ScatterDimensionNumbers(
            update_window_dims=(1, 2),
            inserted_window_dims=(0,),
            scatter_dims_to_operand_dims=(0, 1, 2),
        ),
        mode=lax.GatherScatterMode.FILL_OR_DROP,
    )
    return canvas[:, margin : margin + shape[0], margin : margin + shape[1]]


def blobs(
    shape: Shape, *, centre: jax.Array, radius: jax.Array, values: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the distance to the edge of a union of soft balls.

    A ball is 2**-(d/r)**2, the product of a row and a column vector, so that all balls
    together are one matrix product. Overlapping balls merge.

    Args:
      shape: (H, W).
      centre: (N, 2) row and column in pixels.
      radius: (N,) in pixels, > 0.
      values: (V, N) numbers of the balls, interpolated at each pixel.

    Returns:
      The distance to the edge in pixels, (H, W), positive inside and exact for a single
      ball; and the values, (V, H, W).
    """
    rows = jnp.exp2(
        -jnp.square((jnp.arange(shape[0])[:, None] - centre[:, 0]) / radius)
    )
    columns = jnp.exp2(
        -jnp.square((jnp.arange(shape[1])[:, None] - centre[:, 1]) / radius)
    )
    spread_over = jnp.concatenate([jnp.ones_like(radius)[None], radius[None], values])
    sums = product("hn,vn,wn->vhw", rows, spread_over, columns)
    total = jnp.maximum(sums[0], 1e-30)
    mean = sums[1:] / total
    depth = jnp.sqrt(-jnp.log2(jnp.minimum(total, 1.0)))
    # Far from all balls the sums underflow; such pixels are outside.
    distance = jnp.where(total > 1e-20, mean[0] * (1 - depth), -8 * jnp.max(radius))
    return distance, mean[1:]


# Objects that do not exist lie here, in pixels: far from every picture.
AWAY = -1e4


def glows(
    shape: Shape, *, centre: jax.Array, radius: jax.Array, strength: jax.Array
) -> jax.Array:
    """Returns (H, W): the sum of Gaussian spots, in one matrix product.

    Args:
      shape: (H, W).
      centre: (N, 2) row and column, in pixels.
      radius: (N,) where half of the strength is left, in pixels, > 0.
      strength: (N,).
    """
    rows = (jnp.arange(shape[0])[:, None] - centre[:, 0]) / radius
    columns = (jnp.arange(shape[1])[:, None] - centre[:, 1]) / radius
    return product(
        "hn,wn->hw",
        strength * jnp.exp2(-jnp.square(rows)),
        jnp.exp2(-jnp.square(columns)),
    )
