"""Random scratches and creases."""

import math

import jax
import jax.numpy as jnp

from restoration.damage import drawing, fields, paint
from restoration.damage.fields import area, count, draw, limited, unit
from restoration.damage.paint import Painted


def random_running_scratches(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints running scratches: vertical lines over many frames of a film.

    They drift slowly, vary in strength and often come in bundles. They are black or
    white, or on color film also yellow, green or blue, depending on their depth.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The image and the mask.
    """
    height, columns, _ = image.shape
    severity, scale = limited(severity), unit((height, columns))
    breadth = columns / (384 * scale)
    slots = max(5, math.ceil(16 * breadth))
    one, each, knot, tone = draw(
        key,
        (
            (),
            drawing.COMMON
            | {"together": (0, 1), "middle": (0, 1), "spacing": (0.01, 0.2)},
        ),
        (
            (slots,),
            {
                "x": (0, 1),
                "near": (-0.5, 0.5),
                "width": (0, 1),
                "opacity": (0.2, 1),
                "bright": (0, 1),
                "wander": (0, 1),
                "style": (0, 1),
                "period": (2.5, 12),
                "phase": (0, 1),
            },
        ),
        ((2, slots, 14), {"chance": (0, 1)}),
        ((3,), drawing.TONE[1] | {"hue": (0, 1)}),
    )
    expected = 5.0 * drawing.density(severity) * fields.spread(one.amount, octaves=2.0)
    exists = count(one.rounding, expected * breadth, slots)
    # In half of the images, the scratches are in one bundle.
    bundle = one.middle + one.spacing * each.near
    x = jnp.where(one.together < 0.5, each.x, bundle) * columns
    drift, strength = fields.wave(knot.chance, height)
    x = x[:, None] + 4 * scale * one.zoom * each.wander[:, None] ** 3 * drift
    # Continuous, broken at random, or in regular steps, as left by gear teeth.
    rung = jnp.arange(height) / (scale * each.period[:, None]) + each.phase[:, None]
    ladder = jnp.clip(0.6 + 2 * jnp.sin(2 * math.pi * rung) + strength, 0.15, 1)
    broken = jnp.clip(0.5 + 3 * strength, 0, 1)
    steady = jnp.clip(0.8 + 0.8 * strength, 0.2, 1)
    style = each.style[:, None]
    along = jnp.where(style < 0.25, ladder, jnp.where(style < 0.55, broken, steady))
    color = drawing.tones(tone)
    # A cut through some of the dye layers shows the color of the others.
    dyes = jnp.array([[0.9, 0.85, 0.25], [0.3, 0.85, 0.35], [0.3, 0.45, 0.95]])
    dye = dyes[jnp.clip((tone.hue[0] * 3).astype(jnp.int32), 0, 2)]
    color = color.at[1].set(jnp.where(tone.hue[1] < 0.3, dye, color[1]))
    return paint.vertical_scratches(
        image,
        x=x,
        width=scale * one.zoom * (0.5 + 2.3 * each.width**2),
        opacity=along * (each.opacity * exists * one.strength)[:, None],
        layer=drawing.polarity(one.share, each.bright),
        color=color,
    )


def random_scratches(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints scratches: bundles of straight broken lines, and rubbed areas.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The image and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    margin, lines, length = 40, 16, 80
    extent = area(shape, margin=margin)
    groups = max(5, math.ceil(14 * extent))
    one, group, line, piece, tone = draw(
        key,
        ((), drawing.COMMON),
        (
            (groups,),
            drawing.POSITION
            | {
                "angle": (0, math.pi),
                "fan": (0, 1),
                "size": (12, 65),
                "short": (0, 1),
                "solid": (-1.0, 0.7),
                "number": (0.1, 1.1),
                "bright": (0, 1),
                "opacity": (0.5, 1),
            },
        ),
        (
            (groups, lines),
            {
                "row": (-1, 1),
                "column": (-1, 1),
                "turn": (-1, 1),
                "length": (0, 1),
                "bend": (-1, 1),
                "width": (0.6, 1.9),
                "opacity": (0.4, 1),
                "rank": (0, 1),
            },
        ),
        ((groups, lines, length), {"rough": (0, 1), "aside": (-1, 1)}),
        drawing.TONE,
    )
    expected = 7.0 * drawing.density(severity) * fields.spread(one.amount, octaves=2.0)
    exists = count(one.rounding, expected * extent, groups)
    zoom = one.zoom * scale
    offset = jnp.stack([line.row, line.column], axis=-1)
    start = drawing.positions(group, shape, margin)[:, None]
    start = start + zoom * group.size[:, None, None] * offset
    short = (group.short < 0.3)[:, None]
    half = zoom * jnp.where(short, 1.5 + 7 * line.length, 8 + 50 * line.length**2)
    fan = jnp.where(short, math.pi, 0.05 + 1.3 * group.fan[:, None] ** 2)
    angle = group.angle[:, None] + fan * line.turn**3
    steps = jnp.linspace(-1, 1, length)
    # A grain of dust that rolled along the line makes it uneven and broken.
    rolled = jnp.where(short, 0.0, 0.7 * zoom)[..., None] * piece.aside**3
    bend = jnp.where(short, 0.4, 0.06) * line.bend**3 * half
    across = bend[..., None] * jnp.square(steps) + rolled
    points = (
        start[:, :, None]
        + (half[..., None] * steps)[..., None] * drawing.heading(angle)[:, :, None]
        + across[..., None] * drawing.heading(angle + math.pi / 2)[:, :, None]
    )
    rough = 4.5 * (fields.smooth_line(piece.rough) - 0.5)
    solid = jnp.where(short, 2.0, group.solid[:, None])[..., None]
    taper = jnp.clip(2.5 * (1 - jnp.abs(steps)), 0, 1)
    exists = exists[:, None] * (line.rank < group.number[:, None])
    opacity = line.opacity * group.opacity[:, None] * exists * one.strength
    opacity = jnp.clip(rough + solid, 0, 1) * taper * opacity[..., None]
    width = jnp.where(short, 0.7, 1.0) * line.width * zoom
    width = width[..., None] * (1 + 0.3 * piece.aside)
    return paint.strokes(
        image,
        points=points.reshape(-1, length, 2),
        width=width.reshape(-1, length),
        opacity=opacity.reshape(-1, length),
        layer=jnp.repeat(drawing.polarity(one.share, group.bright), lines),
        color=drawing.tones(tone),
        reach=math.ceil(1.75 * scale),
    )


def random_creases(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints folds across the image, cracked in some parts.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 like a print that was kept in a drawer.

    Returns:
      The image and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots = 4
    keys = fields.split(key, 2)
    one, each, tone = draw(
        keys[0],
        ((), drawing.COMMON),
        (
            (slots, 1, 1),
            drawing.POSITION
            | {
                "angle": (-0.5 * math.pi, 1.5 * math.pi),
                "bend": (-1, 1),
                "width": (-1.2, 1.8),
                "opacity": (0.5, 1),
                "shadow": (-0.3, 0.4),
                "shadow_width": (1.5, 7),
                "extent": (0.1, 0.8),
                "jagged": (0.2, 1),
            },
        ),
        drawing.TONE,
    )
    expected = 0.9 * drawing.density(severity) * fields.spread(one.amount, octaves=1.0)
    exists = count(one.rounding, expected, slots)[:, None, None]
    coarse, middle, fine, open_, flake = fields.smooth_noise(
        keys[1],
        shape,
        cells=(24 * scale, 8 * scale, 2.5 * scale, 18 * scale, 3.5 * scale),
    )
    rows, columns = jnp.ogrid[: shape[0], : shape[1]]
    down, right = rows - each.row * shape[0], columns - each.column * shape[1]
    sin, cos = jnp.sin(each.angle), jnp.cos(each.angle)
    along = down * sin + right * cos
    reach = each.extent * max(shape) / 2
    distance = down * cos - right * sin
    distance = distance + 0.08 * each.bend**3 * jnp.square(along) / reach
    jagged = each.jagged * scale * (2.2 * coarse + 0.9 * middle + 0.4 * fine)
    ends = jnp.clip((reach - jnp.abs(along)) / (12 * scale), 0, 1)
    # The crack is open where the noise is high.
    width = scale * (each.width + 1.0 * open_ + 0.9 * flake) * ends
    return paint.creases(
        image,
        distance=distance + jagged,
        width=width,
        opacity=exists * one.strength**0.5 * each.opacity * jnp.clip(width, 0, 1),
        shadow=exists * jnp.maximum(each.shadow, 0) * ends,
        shadow_width=each.shadow_width[:, 0, 0] * scale,
        color=drawing.tones(tone),
    )
