"""Cells: a picture cut into angular pieces, as dried gelatin cracks."""

import typing

import jax
import jax.numpy as jnp
from jax import lax

from restoration.damage import fields


class Cells(typing.NamedTuple):
    """What each pixel knows of its cell.

    Attributes:
      distance: (H, W) to the cell's border, in pixels.
      chance: (H, W) in [0, 1), one number a cell.
      beyond: (H, W) that number of the nearest other cell.
      border: (H, W) in [0, 1), one number for each border between two cells.
      centre: (2, H, W) row and column of the cell's seed, in pixels.
    """

    distance: jax.Array
    chance: jax.Array
    beyond: jax.Array
    border: jax.Array
    centre: jax.Array


def _hash(row: jax.Array, column: jax.Array, seed: jax.Array) -> jax.Array:
    """Returns 32-bit words, a hash of two whole numbers and a seed."""
    word = row.astype(jnp.uint32) * jnp.uint32(0x9E3779B9) ^ seed
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = word ^ column.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    return word ^ (word >> 15)


def _unit(word: jax.Array) -> jax.Array:
    return (word >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def cells(
    key: jax.Array,
    shape: fields.Shape,
    *,
    size: jax.typing.ArrayLike,
    warp: jax.Array | None = None,
    stretch: jax.typing.ArrayLike = 1.0,
    angle: jax.typing.ArrayLike = 0.0,
) -> Cells:
    """Cuts a picture into the cells of seeds that lie about `size` pixels apart.

    Voronoi cells of a jittered grid (S. Worley, "A cellular texture basis
    function", SIGGRAPH 1996), the distance to the border exact between the two
    nearest seeds.

    Args:
      key: PRNG key.
      shape: (H, W).
      size: of the cells in pixels, may be traced.
      warp: (2, H, W) pixels by which borders are displaced, or None.
      stretch: how many times longer the cells are along `angle`, keeping their area.
      angle: in radians.

    Returns:
      The cells.
    """
    seed = fields.bits(key, (1,))[0]
    rows, columns = (x.astype(jnp.float32) for x in jnp.indices(shape))
    if warp is not None:
        rows, columns = rows + warp[0], columns + warp[1]
    sin, cos, long = jnp.sin(angle), jnp.cos(angle), jnp.sqrt(stretch)
    # Turned, so that the grid's directions differ from picture to picture.
    down = (rows * cos - columns * sin) * long / size
    right = (rows * sin + columns * cos) / (long * size)
    cell_row, cell_column = jnp.floor(down), jnp.floor(right)

    def seed_of(i: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the word and the position of the seed of the i-th of nine cells."""
        row, column = cell_row + (i // 3 - 1), cell_column + (i % 3 - 1)
        word = _hash(row.astype(jnp.int32), column.astype(jnp.int32), seed)
        y = row + 0.12 + 0.76 * _unit(word << 16)
        return word, y, column + 0.12 + 0.76 * _unit(word)

    # Only the distances and which of the nine: the rest is computed once, at the end.
    def look(i: jax.Array, nearest):
        first, second, one, two = nearest
        _, y, x = seed_of(i)
        square = jnp.square(y - down) + jnp.square(x - right)
        closest, closer = square < first, square < second
        return (
            jnp.where(closest, square, first),
            jnp.where(closest, first, jnp.where(closer, square, second)),
            jnp.where(closest, i, one),
            jnp.where(closest, one, jnp.where(closer, i, two)),
        )

    far, none = jnp.full(shape, 1e6, jnp.float32), jnp.zeros(shape, jnp.int32)
    first, second, one, two = lax.fori_loop(0, 9, look, (far, far, none, none))
    (word, y, x), (other, other_y, other_x) = seed_of(one), seed_of(two)
    apart = jnp.sqrt(jnp.square(y - other_y) + jnp.square(x - other_x))
    distance = size * (second - first) / (2 * jnp.maximum(apart, 1e-3))
    golden = jnp.uint32(0x9E3779B9)
    y, x = y * size / long, x * size * long
    return Cells(
        distance=distance,
        chance=_unit(word * golden),
        beyond=_unit(other * golden),
        border=_unit((word ^ other) * golden),
        centre=jnp.stack([y * cos + x * sin, x * cos - y * sin]),
    )
