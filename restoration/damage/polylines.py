"""Lines that wander, branch and split, as chains of points for strokes.

Everything is in pixels, (row, column), and has a fixed number of points, so that
it can be jitted and vmapped: a line that is not there has opacity 0.
"""

import math
import typing

import jax
import jax.numpy as jnp

from restoration.damage import fields


class Strokes(typing.NamedTuple):
    """Discs along lines: centre (N, 2), width (N,) in pixels, opacity (N,)."""

    centre: jax.Array
    width: jax.Array
    opacity: jax.Array


def heading(angle: jax.Array) -> jax.Array:
    """Returns (..., 2) unit vectors (row, column)."""
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def strokes(points: jax.Array, width: jax.Array, opacity: jax.Array) -> Strokes:
    """Returns the strokes of lines.

    A line thinner than a pixel is drawn a pixel wide and paler, as a scanner sees it.

    Args:
      points: (N, P, 2) in pixels, about a pixel apart.
      width: (N, P) in pixels; 0 and less draw nothing.
      opacity: (N, P) or (N, 1) in [0, 1].
    """
    pale = jnp.clip(width, 0, 1)
    return Strokes(
        points.reshape(-1, 2),
        jnp.maximum(width, 0.8).reshape(-1),
        (jnp.broadcast_to(opacity, width.shape) * pale).reshape(-1),
    )


def joined(*several: Strokes) -> Strokes:
    """Returns all strokes as one."""
    return Strokes(*(jnp.concatenate(parts) for parts in zip(*several, strict=True)))


def moved(lines: Strokes, offset: jax.Array, *, widened: jax.typing.ArrayLike = 0):
    """Returns strokes moved by (2,) pixels, and wider by some pixels."""
    return Strokes(lines.centre + offset, lines.width + widened, lines.opacity)


def drawn(
    shape: fields.Shape, layers: typing.Sequence[Strokes], *, reach: int
) -> jax.Array:
    """Draws strokes, each of the sequence on a layer of its own.

    Args:
      shape: (H, W).
      layers: strokes of each layer.
      reach: static half of the greatest width, in pixels; wider ones are cut.

    Returns:
      (layers, H, W) opacity in [0, 1].
    """
    everything = joined(*layers)
    index = jnp.concatenate(
        [jnp.full(len(one.width), i, jnp.int32) for i, one in enumerate(layers)]
    )
    return fields.discs(
        shape,
        layer=index,
        centre=everything.centre,
        radius=jnp.minimum(everything.width / 2, reach - 0.5),
        opacity=everything.opacity,
        layers=len(layers),
        reach=reach,
    )


def _stairs(values: jax.Array, position: jax.Array) -> jax.Array:
    """Returns (N, K) values at (N, P) positions in [0, 1): constant in between."""
    index = jnp.clip(position * values.shape[1], 0, values.shape[1] - 1)
    return jnp.take_along_axis(values, index.astype(jnp.int32), axis=1)


def wandering(
    key: jax.Array,
    *,
    start: jax.Array,
    angle: jax.Array,
    length: jax.Array,
    points: int,
    kink: jax.typing.ArrayLike,
    drift: jax.typing.ArrayLike,
) -> jax.Array:
    """Draws lines that keep a direction, with kinks as a brittle layer breaks.

    Args:
      key: PRNG key.
      start: (N, 2) where each begins, in pixels.
      angle: (N,) its direction, in radians.
      length: (N,) in pixels.
      points: static number of points of each.
      kink: how far pieces of a tenth and of a thirtieth turn aside, radians.
      drift: how far the line turns slowly, in radians.

    Returns:
      (N, points, 2).
    """
    number, pieces = len(length), max(2, points // 9)
    long, middle, short, slow = fields.draw(
        key,
        ((number, pieces), {"turn": (-1, 1)}),
        ((number, 3 * pieces), {"turn": (-1, 1)}),
        ((number, 8), {"chance": (0, 1)}),
        ((number, 7), {"chance": (0, 1)}),
    )
    even = jnp.linspace(0, 1, points, endpoint=False)
    # Pieces of unequal length.
    position = even + 0.7 / pieces * fields.wave(short.chance, points)
    turns = (
        _stairs(long.turn, position)
        + 0.8 * _stairs(middle.turn, position + 0.013)
        + (drift / jnp.maximum(kink, 1e-3)) * fields.wave(slow.chance, points)
    )
    directions = heading(angle[:, None] + kink * turns)
    step = (length / points)[:, None, None]
    return start[:, None] + jnp.cumsum(step * directions, axis=1)


def bridging(
    key: jax.Array,
    *,
    start: jax.Array,
    end: jax.Array,
    points: int,
    aside: jax.typing.ArrayLike,
) -> jax.Array:
    """Draws lines from one point to another, (N, points, 2).

    Args:
      key: PRNG key.
      start: (N, 2) in pixels.
      end: (N, 2) in pixels.
      points: static number of points of each.
      aside: by how much of their length they wander from the straight line.
    """
    number = len(start)
    slow, fine = fields.draw(
        key,
        ((number, 7), {"chance": (0, 1)}),
        ((number, max(5, points // 4)), {"chance": (0, 1)}),
    )
    even = jnp.linspace(0, 1, points)
    across = fields.wave(slow.chance, points) + 0.35 * fields.wave(fine.chance, points)
    across = aside * across * jnp.sqrt(even * (1 - even))
    along = end - start
    normal = jnp.stack([along[:, 1], -along[:, 0]], axis=-1)
    return (
        start[:, None] + even[:, None] * along[:, None] + across[..., None] * normal[:, None]
    )


def at(points: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns where lines are at a share of their length, and their direction there.

    Args:
      points: (N, P, 2).
      share: (N, K) in [0, 1].

    Returns:
      (N, K, 2) points and (N, K) angles in radians.
    """
    last = points.shape[1] - 1
    index = jnp.clip((share * last).astype(jnp.int32), 0, last)
    ahead = jnp.minimum(index + 3, last)
    behind = jnp.maximum(index - 3, 0)

    def take(i):
        return jnp.take_along_axis(points, i[..., None], axis=1)

    along = take(ahead) - take(behind)
    return take(index), jnp.arctan2(along[..., 0], along[..., 1])


def beside(points: jax.Array, distance: jax.Array) -> jax.Array:
    """Returns lines moved sideways by (N, P) pixels."""
    before = jnp.concatenate([points[:, :1], points[:, :-1]], axis=1)
    after = jnp.concatenate([points[:, 1:], points[:, -1:]], axis=1)
    along = after - before
    size = jnp.sqrt(jnp.sum(jnp.square(along), axis=-1, keepdims=True))
    along = along / jnp.maximum(size, 1e-6)
    normal = jnp.stack([along[..., 1], -along[..., 0]], axis=-1)
    return points + distance[..., None] * normal


def _jagged(values: jax.Array, points: int) -> jax.Array:
    """Returns (N, points): straight lines between the (N, K) values."""
    knots = values.shape[1]
    position = jnp.linspace(0, knots - 1, points)
    weight = jnp.maximum(1 - jnp.abs(position[:, None] - jnp.arange(knots)), 0)
    return fields.product("nk,pk->np", values, weight)


def ragged(key: jax.Array, shape: tuple[int, int], *, rough: jax.typing.ArrayLike):
    """Draws (N, P) factors of mean about 1 by which a line's width varies along it.

    Args:
      key: PRNG key.
      shape: numbers of lines and of points of each.
      rough: 0 even, 1 from nothing to three times as wide.
    """
    number, points = shape
    slow, fine, grain = fields.draw(
        key,
        ((number, math.ceil(points / 17) + 2), {"one": (-1, 1)}),
        ((number, math.ceil(points / 5) + 2), {"one": (-1, 1)}),
        ((number, points), {"one": (-1, 1)}),
    )
    noise = 0.8 * _jagged(slow.one, points) + 0.6 * _jagged(fine.one, points)
    return jnp.exp(rough * (noise + 0.35 * grain.one))
