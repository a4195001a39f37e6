"""Lines that wander, branch and split, as chains of points for strokes.

Everything is in pixels, (row, column), and has a fixed number of points, so that
it can be jitted and vmapped: a line that is not there has opacity 0.
"""

import math
import typing

import jax
import jax.numpy as jnp

from restoration.damage import fields
from restoration.damage.drawing import heading


class Strokes(typing.NamedTuple):
    """Discs along lines: centre (N, 2), width (N,) in pixels, opacity (N,)."""

    centre: jax.Array
    width: jax.Array
    opacity: jax.Array


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
    chance: jax.Array,
    *,
    start: jax.Array,
    angle: jax.Array,
    length: jax.Array,
    kink: jax.typing.ArrayLike,
    drift: jax.typing.ArrayLike,
) -> jax.Array:
    """Returns lines that keep a direction, with kinks as a brittle layer breaks.

    Args:
      chance: (N, P) in [0, 1), random; P points of each line, 18 at least.
      start: (N, 2) where each begins, in pixels.
      angle: (N,) its direction, in radians.
      length: (N,) in pixels.
      kink: how far pieces of a ninth and of a twentieth turn aside, radians.
      drift: how far the line turns slowly, in radians.

    Returns:
      (N, P, 2).
    """
    points = chance.shape[1]
    pieces = points // 9
    long, middle, uneven, slow, _ = jnp.split(
        chance, [pieces, 3 * pieces, 3 * pieces + 6, 3 * pieces + 12], axis=1
    )
    even = jnp.linspace(0, 1, points, endpoint=False)
    # Pieces of unequal length.
    position = even + 0.7 / pieces * fields.wave(uneven, points)
    turns = _stairs(2 * long - 1, position) + 0.8 * _stairs(
        2 * middle - 1, position + 0.013
    )
    turns = kink * turns + drift * fields.wave(slow, points)
    step = (length / points)[:, None, None]
    return start[:, None] + jnp.cumsum(step * heading(angle[:, None] + turns), axis=1)


def bridging(
    chance: jax.Array,
    *,
    start: jax.Array,
    end: jax.Array,
    aside: jax.typing.ArrayLike,
) -> jax.Array:
    """Returns lines from one point to another, (N, P, 2).

    Args:
      chance: (N, P) in [0, 1), random; P points of each line, 15 at least.
      start: (N, 2) in pixels.
      end: (N, 2) in pixels.
      aside: by how much of their length they wander from the straight line.
    """
    points = chance.shape[1]
    even = jnp.linspace(0, 1, points)
    across = fields.wave(chance[:, :7], points)
    across = across + 0.35 * fields.wave(chance[:, 7 : 7 + points // 3 + 3], points)
    across = aside * across * jnp.sqrt(even * (1 - even))
    along = end - start
    normal = jnp.stack([along[:, 1], -along[:, 0]], axis=-1)
    straight = start[:, None] + even[:, None] * along[:, None]
    return straight + across[..., None] * normal[:, None]


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


def ragged(chance: jax.Array, *, rough: jax.typing.ArrayLike) -> jax.Array:
    """Returns (N, P) factors of mean about 1 by which a line's width varies along it.

    Args:
      chance: (2, N, P) in [0, 1), random.
      rough: 0 even, 1 from nothing to three times as wide.
    """
    grain, knots = 2 * chance - 1
    points = grain.shape[1]
    slow = math.ceil(points / 17) + 2
    fine = math.ceil(points / 5) + 2
    noise = 0.8 * _jagged(knots[:, :slow], points)
    noise = noise + 0.6 * _jagged(knots[:, slow : slow + fine], points)
    return jnp.exp(rough * (noise + 0.35 * grain))


def _points(length: float, scale: float) -> int:
    """Returns how many points a line needs: they are a pixel and a half apart."""
    return max(18, math.ceil(length / (1.5 * scale)))


# Twigs of each branch, and how much shorter than branches they are at most.
_TWIGS, _SHORTER = 2, 0.3


def tree_requests(
    trunks: int, branches: int, points: int, longest: float, scale: float
):
    """Returns what `fields.draw` is asked for, to grow trees: see `tree`."""
    long, short = _points(longest, scale), _points(_SHORTER * longest, scale)
    chance = {"chance": (0, 1)}
    grown = {"share": (-0.06, 1.06), "turn": (0.35, 1.5), "side": (0, 1)} | {
        "length": (0, 1), "width": (0.35, 0.95), "there": (0, 1), "bridge": (0, 1)
    }  # fmt: skip
    return (
        (
            (trunks, 1),
            {"apart": (-5, 5), "begin": (-0.2, 0.8), "reach": (0.15, 0.7)}
            | {"split": (0, 1)},
        ),
        ((trunks, branches), grown),
        ((trunks * branches, _TWIGS), grown),
        ((3, trunks, points), chance),
        ((3, trunks * branches, long), chance),
        ((3, trunks * branches * _TWIGS, short), chance),
        ((3, trunks * (branches - 1), long), chance),
    )


def tree(
    chances,
    *,
    start: jax.Array,
    angle: jax.Array,
    length: jax.Array,
    straight: jax.typing.ArrayLike,
    width: jax.Array,
    opacity: jax.Array,
    profile: jax.Array,
    kink: jax.typing.ArrayLike,
    rough: jax.typing.ArrayLike,
    scale: float,
    longest: float,
    split: float = 0.45,
    bridged: float = 0.5,
) -> Strokes:
    """Grows trunks with branches, twigs and bridges, some trunks split in two.

    Args:
      chances: what `tree_requests` asked for.
      start: (N, 2) where trunks begin, in pixels.
      angle: (N,) their direction in radians.
      length: (N,) in pixels.
      straight: by how much less trunks kink than branches.
      width: (N,) of the trunks in pixels.
      opacity: (N,) in [0, 1].
      profile: (N, P) factors of the trunks' width along them.
      kink: see `wandering`.
      rough: see `ragged`.
      scale: pixels of a unit.
      longest: of the branches, in pixels.
      split: share of the trunks with a second line beside them for a while.
      bridged: share of neighbouring branches with a line from one to the other.

    Returns:
      The strokes of all.
    """
    trunks, many, few, trunk_chance, branch_chance, twig_chance, bridge_chance = chances
    number, branches = many.share.shape
    trunk = wandering(
        trunk_chance.chance[2],
        start=start,
        angle=angle,
        length=length,
        kink=straight * kink,
        drift=0.6 * straight,
    )
    even = jnp.linspace(0, 1, trunk.shape[1])
    uneven = ragged(trunk_chance.chance[:2], rough=rough)
    trunk_width = width[:, None] * profile * uneven
    lines = [strokes(trunk, trunk_width, opacity[:, None])]

    # The edge that lifted on the other side: it leaves the trunk and comes back.
    inside = jnp.clip((even - trunks.begin) / trunks.reach, 0, 1)
    apart = scale * trunks.apart * jnp.sin(math.pi * inside)
    split = (trunks.split < split) * jnp.clip(jnp.abs(apart) / scale, 0, 1)
    lines.append(
        strokes(
            beside(trunk, apart),
            jnp.minimum(0.6 * trunk_width, 1.6 * scale),
            0.9 * opacity[:, None] * split,
        )
    )

    def grown(chance, parents, each, *, shortest, longest, width, opacity):
        """Grows lines that begin on others: strokes and points."""
        start, angle = at(parents, jnp.clip(each.share, 0, 1))
        turn = jnp.where(each.side < 0.5, -each.turn, each.turn)
        # Few are long.
        length = shortest + (longest - shortest) * each.length.reshape(-1) ** 2.5
        line = wandering(
            chance[2],
            start=start.reshape(-1, 2),
            angle=(angle + turn).reshape(-1),
            length=length,
            kink=1.1 * kink,
            drift=0.7,
        )
        thin = jnp.sqrt(1.03 - jnp.linspace(0, 1, line.shape[1]))
        wide = (width * each.width.reshape(-1))[:, None] * thin
        wide = wide * ragged(chance[:2], rough=rough)
        return strokes(line, wide, opacity[:, None]), line

    # The wider a trunk, the more branches.
    lush = jnp.clip(0.25 + 0.25 * width / scale, 0.3, 0.8)[:, None]
    there = (opacity[:, None] * (many.there < lush)).reshape(-1)
    stems, branch = grown(
        branch_chance.chance,
        trunk,
        many,
        shortest=5 * scale,
        longest=longest,
        width=jnp.repeat(width, branches),
        opacity=there,
    )
    twigs, _ = grown(
        twig_chance.chance,
        branch,
        few,
        shortest=2 * scale,
        longest=_SHORTER * longest,
        width=jnp.repeat(0.7 * width, branches * _TWIGS),
        opacity=(there[:, None] * (few.there < 0.45)).reshape(-1),
    )

    # From one branch to the next of the same trunk, if near: a cell closes.
    points = branch.shape[1]
    several = branch.reshape(number, branches, points, 2)
    start, end = several[:, :-1, 4 * points // 5], several[:, 1:, points // 2]
    far = jnp.sqrt(jnp.sum(jnp.square(start - end), axis=-1))
    both = there.reshape(number, branches)
    closed = jnp.minimum(both[:, :-1], both[:, 1:])
    closed = closed * (many.bridge[:, :-1] < bridged) * (far < 40 * scale)
    bridge = bridging(
        bridge_chance.chance[2],
        start=start.reshape(-1, 2),
        end=end.reshape(-1, 2),
        aside=0.35,
    )
    bridge_width = 0.5 * jnp.repeat(width, branches - 1)[:, None]
    bridge_width = bridge_width * ragged(bridge_chance.chance[:2], rough=rough)
    lines.append(strokes(bridge, bridge_width, closed.reshape(-1, 1)))
    return joined(*lines, stems, twigs)
