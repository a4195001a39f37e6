"""Cracks of the emulsion: they return (image, mask).

Paper shows in a crack, white to cream, and its lifted edge throws a thin shadow, on
the same side of every crack of a picture, away from the scanner's lamp.
"""

import math

import jax
import jax.numpy as jnp

from restoration.damage import cells, fields, polylines
from restoration.damage.drawing import density, heading
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
    "kink": (0.12, 0.7),
}


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
    coarse, fine = fields.smooth_noise(key, shape, cells=(9 * scale, 1.5 * scale))
    light = tone * (1 + texture * (0.4 * coarse + fine))
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
    away = heading(one.lamp) * scale * 0.9
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
        color=jnp.stack([0.04 * jnp.ones_like(white), white]),
    )


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
    margin, points, branches, longest = 40, 96, 3, 60 * scale
    extent = area(shape, margin=margin)
    slots = max(5, math.ceil(13 * extent))
    keys = fields.split(key, 2)
    one, each, *grown = draw(
        keys[0],
        ((), _LOOK | {"row": (0, 1), "column": (0, 1), "together": (0, 1)}),
        (
            (slots,),
            {"row": (0, 1), "column": (0, 1), "near": (0, 1)}
            | {"angle": (0, 2 * math.pi), "length": (0, 1), "width": (0, 1)}
            | {"opacity": (0.55, 1)},
        ),
        *polylines.tree_requests(slots, branches, points, longest, scale),
    )
    expected = 6.0 * density(severity) * fields.spread(one.amount, octaves=1.5)
    exists = count(one.rounding, expected * extent, slots)
    size = jnp.array(shape, jnp.float32)
    position = jnp.stack([each.row, each.column], axis=-1)
    middle = jnp.stack([one.row, one.column])
    # In half of the pictures most are in one region, as where a print was bent.
    pulled = middle + 0.35 * (position - 0.5)
    gathered = (one.together < 0.5) & (each.near < 0.75)
    position = jnp.where(gathered[:, None], pulled, position)
    position = position * (size + 2 * margin * scale) - margin * scale
    zoom = 0.7 + 0.6 * one.zoom
    profile = jnp.clip(3.5 * (1.02 - jnp.abs(jnp.linspace(-1, 1, points))), 0.25, 1)
    lines = polylines.tree(
        grown,
        start=position,
        angle=each.angle,
        length=scale * zoom * (10 + 95 * each.length**2),
        straight=0.75,
        width=_widths(each.width, one, scale),
        opacity=exists * each.opacity * (0.65 + 0.35 * one.strength),
        profile=profile[None],
        kink=one.kink,
        rough=one.rough,
        scale=scale,
        longest=longest,
    )
    return _paint(keys[1], image, lines, one, reach=math.ceil(4 * scale))


def random_scuffs(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints scuffs: many short slivers and hooks where the surface was rubbed.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print without a sleeve.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots, points, clusters = max(60, math.ceil(420 * area(shape))), 18, 5
    keys = fields.split(key, 2)
    one, each, way, cluster = draw(
        keys[0],
        ((), _LOOK | {"together": (0, 0.8), "length": (0.6, 1.6), "aligned": (0, 1)}),
        (
            (slots,),
            {"row": (0, 1), "column": (0, 1), "near": (0, 1), "which": (0, clusters)}
            | {"angle": (0, 2 * math.pi), "length": (0, 1), "width": (0, 1)}
            | {"opacity": (0, 1), "bend": (-1, 1)},
        ),
        ((slots, points), {"chance": (0, 1)}),
        ((clusters,), {"row": (0, 1), "column": (0, 1), "spread": (0.1, 0.5)}),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=2.0)
    exists = count(one.rounding, 170 * amount * area(shape), slots)
    position = jnp.stack([each.row, each.column], -1)
    index = jnp.clip(each.which.astype(jnp.int32), 0, clusters - 1)
    middle = jnp.stack([cluster.row, cluster.column], -1)[index]
    pulled = middle + cluster.spread[index, None] * (position - 0.5)
    position = jnp.where((each.near < one.together)[:, None], pulled, position)
    # Rubbed in one direction in some pictures, knocked about in others.
    angle = jnp.where(one.aligned < 0.4, 0.3 * each.bend + one.lamp, each.angle)
    lines = polylines.wandering(
        way.chance,
        start=position * jnp.array(shape, jnp.float32),
        angle=angle,
        length=scale * one.length * (1.5 + 16 * each.length**3),
        kink=one.kink,
        drift=(1.5 * each.bend**3)[:, None],
    )
    taper = jnp.sqrt(1.02 - jnp.square(jnp.linspace(-1, 1, points)))
    width = scale * (0.55 + 1.5 * each.width**3)
    opacity = exists * (0.15 + 0.85 * each.opacity**1.5) * (0.55 + 0.45 * one.strength)
    marks = polylines.strokes(lines, width[:, None] * taper, opacity[:, None])
    return _paint(keys[1], image, marks, one, reach=math.ceil(2 * scale))


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
    slots, branches, longest = 3, 7, 90 * scale
    diagonal = math.hypot(*shape)
    points = max(18, math.ceil(1.3 * diagonal / scale))
    keys = fields.split(key, 2)
    one, each, along, *grown = draw(
        keys[0],
        ((), _LOOK),
        (
            (slots,),
            {"row": (0.1, 0.9), "column": (0.1, 0.9), "angle": (0, 2 * math.pi)}
            | {"length": (0.3, 1.3), "width": (0, 1), "opacity": (0.6, 1)},
        ),
        ((slots, 12), {"chance": (0, 1)}),
        *polylines.tree_requests(slots, branches, points, longest, scale),
    )
    expected = 1.5 * density(severity) * fields.spread(one.amount, octaves=1.0)
    exists = count(one.rounding, expected, slots)
    length = diagonal * each.length
    middle = jnp.stack([each.row, each.column], -1) * jnp.array(shape, jnp.float32)
    # It opens and closes along the way, and thins out at its ends.
    slow = fields.wave(along.chance, points)
    ends = jnp.clip(6 * (1.01 - jnp.abs(jnp.linspace(-1, 1, points))), 0, 1)
    lines = polylines.tree(
        grown,
        start=middle - 0.5 * length[:, None] * heading(each.angle),
        angle=each.angle,
        length=length,
        straight=0.5,
        width=1.15 * _widths(each.width, one, scale),
        opacity=exists * each.opacity * (0.6 + 0.4 * one.strength),
        profile=jnp.clip(0.95 + 0.9 * slow, 0.1, 1.7) * ends,
        kink=one.kink,
        rough=one.rough,
        scale=scale,
        longest=longest,
    )
    return _paint(keys[1], image, lines, one, reach=math.ceil(4 * scale))


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
            | {"size": (0, 1), "width": (0.5, 1.5), "whole": (0.6, 1.1)}
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
    region = (
        slow + 0.35 * wide + near - 1.3 + 1.2 * jnp.minimum(amount, 1.6) * one.level
    )
    region = jnp.clip(1.4 * region, 0, 1) * (amount > 0)
    # Not every border broke: those that did grow with the region.
    broken = cut.border < one.whole * region**0.35
    width = (
        scale * one.width * (0.45 + 0.55 * region) * jnp.exp(0.35 * thick + 0.2 * fine)
    )
    width = width * broken
    line = jnp.clip(width / 2 + 0.5 - cut.distance, 0, 1) * jnp.clip(width, 0, 1)
    line = line * (0.5 + 0.5 * one.strength) * jnp.clip(2.5 * region, 0, 1)
    tone = jnp.where(one.filled < 0.45, 0.05 + 0.3 * one.tone, 1.0 - 0.5 * one.tone**2)
    white = paper(keys[4], shape, tone=tone, warm=one.warm**2)
    # Cells curl up: a faint shade along one side of each.
    light = heading(one.lamp)
    towards = (
        (rows - cut.centre[0]) * light[0] + (columns - cut.centre[1]) * light[1]
    ) / size
    shade = jnp.maximum(one.shadow, 0) * 0.5 * jnp.clip(towards, 0, 1)
    shade = shade * jnp.exp(-cut.distance / (1.5 * scale)) * broken * region
    return paint(
        image,
        opacity=jnp.stack([shade, line]),
        color=jnp.stack([0.05 * jnp.ones_like(white), white]),
    )
