"""Cracks of the emulsion: they return (image, mask).

Paper shows in a crack, white to cream, and its lifted edge throws a thin shadow, on
the same side of every crack of a picture, away from the scanner's lamp.
"""

import math

import jax
import jax.numpy as jnp

from restoration.damage import cells, fields, polylines
from restoration.damage.fields import area, count, draw, limited, unit
from restoration.damage.paint import Painted, paint

# What the cracks of one picture have in common.
_LOOK = {
    "rounding": (0, 1),
    "amount": (0, 1),
    "zoom": (0, 1),
    "strength": (0, 1),
    "lamp": (0, 2 * math.pi),
    "shadow": (-0.35, 0.9),
    "tone": (0, 1),
    "warm": (0, 1),
    "filled": (0, 1),
    "rough": (0.2, 0.8),
    "kink": (0.25, 0.75),
}


def density(severity: jax.Array) -> jax.Array:
    """Returns how much damage there is: growing ever more slowly, 1 at severity 1."""
    return 1.18 * severity / (0.22 + severity) + 0.04 * severity


def paper(
    key: jax.Array,
    shape: fields.Shape,
    *,
    tone: jax.typing.ArrayLike,
    warm: jax.typing.ArrayLike,
    texture: jax.typing.ArrayLike = 0.06,
) -> jax.Array:
    """Draws the paper that shows where the emulsion is gone, (H, W, 3).

    Args:
      key: PRNG key.
      shape: (H, W).
      tone: its brightness in [0, 1].
      warm: 0 grey, 1 yellowed.
      texture: by how much fibres and dirt vary it.
    """
    scale = unit(shape)
    coarse, fine = fields.smooth_noise(key, shape, cells=(9 * scale, 2 * scale))
    light = tone * (1 + texture * (0.6 * coarse + fine))
    tint = 1 - warm * jnp.array([0.0, 0.05, 0.17])
    return jnp.clip(light[..., None] * tint, 0, 1)


def _paper_tone(one) -> jax.Array:
    """Returns the brightness of what shows: paper, greyer, or dirt in one of eight."""
    bright = 1.0 - 0.45 * one.tone**2
    return jnp.where(one.filled < 0.12, 0.05 + 0.25 * one.tone, bright)


def _paint(key, image, lines, one, *, reach) -> Painted:
    """Paints strokes as cracks: a shadow, moved away from the lamp, and the paper."""
    shape = image.shape[:2]
    scale = unit(shape)
    away = polylines.heading(one.lamp) * scale * 0.9
    shadow = polylines.moved(lines, away, widened=0.5 * scale)
    opacity = polylines.drawn(shape, (shadow, lines), reach=reach)
    dark = jnp.maximum(one.shadow, 0) * opacity[0]
    tone = _paper_tone(one)
    white = paper(key, shape, tone=tone, warm=one.warm**2)
    # Where dirt fills the cracks no paper shines, and no shadow shows.
    dark = jnp.where(tone < 0.4, 0.0, dark)
    return paint(
        image,
        opacity=jnp.stack([dark, opacity[1]]),
        colour=jnp.stack([0.04 * jnp.ones_like(white), white]),
    )


def _tree(
    key: jax.Array,
    trunk: jax.Array,
    *,
    width: jax.Array,
    opacity: jax.Array,
    one,
    scale: float,
    branches: int,
    branch_length: tuple[float, float],
    profile: jax.Array,
) -> polylines.Strokes:
    """Grows branches, twigs and bridges on trunks, and splits some of these in two.

    Args:
      key: PRNG key.
      trunk: (N, P, 2) points.
      width: (N,) of the trunks in pixels.
      opacity: (N,) in [0, 1].
      one: what the cracks of the picture have in common.
      scale: pixels of a unit.
      branches: static number of branches of each trunk.
      branch_length: of the shortest and the longest branch, pixels.
      profile: (N, P) factors of the trunks' width along them.

    Returns:
      The strokes of all.
    """
    number, points, _ = trunk.shape
    keys = fields.split(key, 8)
    low, high = branch_length
    # Points are about a pixel and a half apart on the longest.
    long, twigs = math.ceil(high / (1.5 * scale)), 2
    short = math.ceil(0.3 * long)
    trunks, many, few = draw(
        keys[0],
        (
            (number, 1),
            {"apart": (-5, 5), "from": (-0.2, 0.8), "reach": (0.15, 0.7)}
            | {"split": (0, 1)},
        ),
        (
            (number, branches),
            {"share": (-0.06, 1.06), "turn": (0.35, 1.5), "side": (0, 1)}
            | {"length": (0, 1), "width": (0.35, 0.95), "there": (0, 1)}
            | {"bridge": (0, 1)},
        ),
        (
            (number * branches, twigs),
            {"share": (0.15, 1), "turn": (0.4, 1.5), "side": (0, 1)}
            | {"length": (0, 1), "width": (0.3, 0.9), "there": (0, 1)},
        ),
    )
    even = jnp.linspace(0, 1, points)
    ragged = polylines.ragged(keys[1], (number, points), rough=one.rough)
    trunk_width = width[:, None] * profile * ragged
    lines = [polylines.strokes(trunk, trunk_width, opacity[:, None])]

    # The edge that lifted on the other side: it leaves the trunk and comes back.
    inside = jnp.clip((even - getattr(trunks, "from")) / trunks.reach, 0, 1)
    apart = scale * trunks.apart * jnp.sin(math.pi * inside)
    split = (trunks.split < 0.45) * jnp.clip(jnp.abs(apart) / scale, 0, 1)
    lines.append(
        polylines.strokes(
            polylines.beside(trunk, apart),
            jnp.minimum(0.6 * trunk_width, 1.6 * scale),
            0.9 * opacity[:, None] * split,
        )
    )

    def side(each):
        return jnp.where(each.side < 0.5, -1.0, 1.0)

    def grown(key, parents, each, *, points, shortest, longest, width, opacity):
        """Grows lines that begin on others: strokes, points and opacity."""
        start, angle = polylines.at(parents, jnp.clip(each.share, 0, 1))
        angle = (angle + side(each) * each.turn).reshape(-1)
        # Few are long.
        length = shortest + (longest - shortest) * each.length.reshape(-1) ** 2.5
        line = polylines.wandering(
            key,
            start=start.reshape(-1, 2),
            angle=angle,
            length=length,
            points=points,
            kink=1.1 * one.kink,
            drift=0.7,
        )
        thin = jnp.sqrt(1.03 - jnp.linspace(0, 1, points))
        wide = (width * each.width.reshape(-1))[:, None] * thin
        wide = wide * polylines.ragged(key, wide.shape, rough=one.rough)
        return polylines.strokes(line, wide, opacity[:, None]), line

    # As many branches as trunks have width for.
    lush = jnp.clip(0.25 + 0.25 * width / scale, 0.3, 0.8)[:, None]
    there = (opacity[:, None] * (many.there < lush)).reshape(-1)
    stems, branch = grown(
        keys[2],
        trunk,
        many,
        points=long,
        shortest=low,
        longest=high,
        width=jnp.repeat(width, branches),
        opacity=there,
    )
    lines.append(stems)
    leaves, _ = grown(
        keys[3],
        branch,
        few,
        points=short,
        shortest=2 * scale,
        longest=0.3 * high,
        width=jnp.repeat(jnp.repeat(0.7 * width, branches), twigs),
        opacity=(there[:, None] * (few.there < 0.45)).reshape(-1),
    )
    lines.append(leaves)

    # From the end of one branch to the next of the same trunk: a cell closes.
    ends = branch.reshape(number, branches, long, 2)
    start, end = ends[:, :-1, 4 * long // 5], ends[:, 1:, long // 2]
    both = there.reshape(number, branches)
    far = jnp.sqrt(jnp.sum(jnp.square(start - end), axis=-1))
    closed = jnp.minimum(both[:, :-1], both[:, 1:])
    closed = closed * (many.bridge[:, :-1] < 0.5) * (far < 40 * scale)
    bridge = polylines.bridging(
        keys[4],
        start=start.reshape(-1, 2),
        end=end.reshape(-1, 2),
        points=long,
        aside=0.35,
    )
    bridge_width = jnp.broadcast_to(
        0.5 * jnp.repeat(width, branches - 1)[:, None], bridge.shape[:2]
    ) * polylines.ragged(keys[5], bridge.shape[:2], rough=one.rough)
    lines.append(polylines.strokes(bridge, bridge_width, closed.reshape(-1, 1)))
    return polylines.joined(*lines)


def _widths(chance: jax.Array, one, scale: float) -> jax.Array:
    """Returns widths of 0.7 to 4 units, most of them thin."""
    return scale * (0.7 + 0.5 * one.zoom) * (0.8 + 3.2 * chance**3.5)


def random_cracks(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints cracks: nets of short ones that wander, branch, split and meet.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that was bent.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    margin, points, branches = 40, 96, 3
    extent = area(shape, margin=margin)
    slots = max(5, math.ceil(13 * extent))
    keys = fields.split(key, 5)
    one, each = draw(
        keys[0],
        ((), _LOOK | {"row": (0, 1), "column": (0, 1), "together": (0, 1)}),
        (
            (slots,),
            {"row": (0, 1), "column": (0, 1), "near": (0, 1)}
            | {"angle": (0, 2 * math.pi), "length": (0, 1), "width": (0, 1)}
            | {"opacity": (0.45, 1)},
        ),
    )
    expected = 6.0 * density(severity) * fields.spread(one.amount, octaves=1.5)
    exists = count(one.rounding, expected * extent, slots)
    size = jnp.array(shape, jnp.float32)
    place = jnp.stack([each.row, each.column], axis=-1)
    middle = jnp.stack([one.row, one.column])
    # In half of the pictures most are in one region, as where a print was bent.
    pulled = middle + 0.35 * (place - 0.5)
    gathered = (one.together < 0.5) & (each.near < 0.75)
    place = jnp.where(gathered[:, None], pulled, place)
    place = place * (size + 2 * margin * scale) - margin * scale
    zoom = 0.7 + 0.6 * one.zoom
    trunk = polylines.wandering(
        keys[1],
        start=place,
        angle=each.angle,
        length=scale * zoom * (10 + 95 * each.length**2),
        points=points,
        kink=one.kink,
        drift=0.6,
    )
    even = jnp.linspace(-1, 1, points)
    profile = jnp.clip(3.5 * (1.02 - jnp.abs(even)), 0.25, 1)
    lines = _tree(
        keys[2],
        trunk,
        width=_widths(each.width, one, scale),
        opacity=exists * each.opacity * (0.55 + 0.45 * one.strength),
        one=one,
        scale=scale,
        branches=branches,
        branch_length=(4 * scale, 60 * scale),
        profile=jnp.broadcast_to(profile, (slots, points)),
    )
    return _paint(keys[3], image, lines, one, reach=math.ceil(4 * scale))


def random_long_cracks(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints one to three cracks that run through the whole picture, with branches.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that was broken.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots, branches = 3, 7
    diagonal = math.hypot(*shape)
    points = max(16, math.ceil(1.3 * diagonal / scale))
    keys = fields.split(key, 5)
    one, each, along = draw(
        keys[0],
        ((), _LOOK),
        (
            (slots,),
            {"row": (0.1, 0.9), "column": (0.1, 0.9), "angle": (0, 2 * math.pi)}
            | {"length": (0.3, 1.3), "width": (0, 1), "opacity": (0.6, 1)},
        ),
        ((slots, 12), {"chance": (0, 1)}),
    )
    expected = 1.5 * density(severity) * fields.spread(one.amount, octaves=1.0)
    exists = count(one.rounding, expected, slots)
    length = diagonal * each.length
    middle = jnp.stack([each.row, each.column], -1) * jnp.array(shape, jnp.float32)
    trunk = polylines.wandering(
        keys[1],
        start=middle - 0.5 * length[:, None] * polylines.heading(each.angle),
        angle=each.angle,
        length=length,
        points=points,
        kink=0.8 * one.kink,
        drift=0.35,
    )
    # It opens and closes along the way, and thins out at its ends.
    slow = fields.wave(along.chance, points)
    ends = jnp.clip(6 * (1.01 - jnp.abs(jnp.linspace(-1, 1, points))), 0, 1)
    lines = _tree(
        keys[2],
        trunk,
        width=1.15 * _widths(each.width, one, scale),
        opacity=exists * each.opacity * (0.6 + 0.4 * one.strength),
        one=one,
        scale=scale,
        branches=branches,
        branch_length=(6 * scale, 90 * scale),
        profile=jnp.clip(0.95 + 0.9 * slow, 0.1, 1.7) * ends,
    )
    return _paint(keys[3], image, lines, one, reach=math.ceil(4 * scale))


def random_craquelure(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints craquelure: regions where the emulsion cracked into small cells.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that dried out.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 5)
    (one,) = draw(
        keys[0],
        (
            (),
            _LOOK
            | {"size": (0, 1), "width": (0.5, 1.5), "whole": (0.35, 1.0)}
            | {"stretch": (0, 1), "angle": (0, math.pi), "level": (0, 1)}
            | {"border": (0, 1)},
        ),
    )
    slow, wide, middle, fine, thick = fields.smooth_noise(
        keys[1],
        shape,
        cells=(70 * scale, 25 * scale, 7 * scale, 2.5 * scale, 11 * scale),
    )
    other, tiny = fields.smooth_noise(keys[2], shape, cells=(7 * scale, 2.5 * scale))
    size = scale * (9 + 34 * one.size**1.5)
    warp = size * 0.06 * jnp.stack([middle, other]) + 0.4 * scale * jnp.stack(
        [fine, tiny]
    )
    cut = cells.cells(
        keys[3],
        shape,
        size=size,
        warp=warp,
        stretch=1 + 1.6 * one.stretch**2,
        angle=one.angle,
    )
    # Denser towards one corner of the noise, and, in some pictures, at the borders.
    rows, columns = jnp.indices(shape)
    edge = jnp.minimum(
        jnp.minimum(rows, shape[0] - 1 - rows),
        jnp.minimum(columns, shape[1] - 1 - columns),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=1.0)
    near = 1.6 * jnp.exp(-edge / (30 * scale)) * (one.border < 0.4)
    region = slow + 0.35 * wide + near - 1.3 + 1.2 * jnp.minimum(amount, 1.6) * one.level
    region = jnp.clip(1.4 * region, 0, 1) * (amount > 0)
    # Not every border broke: those that did grow with the region.
    broken = cut.border < one.whole * jnp.sqrt(region)
    width = scale * one.width * (0.45 + 0.55 * region) * jnp.exp(0.45 * thick + 0.25 * fine)
    width = width * broken
    line = jnp.clip(width / 2 + 0.5 - cut.distance, 0, 1) * jnp.clip(width, 0, 1)
    line = line * (0.5 + 0.5 * one.strength) * jnp.clip(2.5 * region, 0, 1)
    tone = jnp.where(one.filled < 0.45, 0.05 + 0.3 * one.tone, 1.0 - 0.5 * one.tone**2)
    white = paper(keys[4], shape, tone=tone, warm=one.warm**2)
    # Cells curl up: a faint shade along one side of each.
    light = polylines.heading(one.lamp)
    towards = (
        (rows - cut.centre[0]) * light[0] + (columns - cut.centre[1]) * light[1]
    ) / size
    shade = jnp.maximum(one.shadow, 0) * 0.5 * jnp.clip(towards, 0, 1)
    shade = shade * jnp.exp(-cut.distance / (1.5 * scale)) * broken * region
    return paint(
        image,
        opacity=jnp.stack([shade, line]),
        colour=jnp.stack([0.05 * jnp.ones_like(white), white]),
    )
