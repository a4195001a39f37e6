"""Night skies, snow, wires, branches and water: what is outdoors and looks like damage.

They return the image alone: see `lookalikes`.
"""

import math

import jax
import jax.numpy as jnp

from restoration.damage import fields, polylines, scene
from restoration.damage.drawing import density, heading
from restoration.damage.fields import count, draw, limited, unit


def random_stars(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws a night sky: stars of all brightnesses above a dark skyline.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a few hundred stars.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    extent = fields.area(shape)
    small, large = max(40, math.ceil(900 * extent)), 16
    keys = fields.split(key, 2)
    one, star, big = draw(
        keys[0],
        (
            (),
            scene.HUE
            | {
                "amount": (0, 1),
                "rounding": (0, 1),
                "whole": (0, 1),
                "size": (0.9, 1.8),
            }
            | {"horizon": (0.25, 1.5), "glow": (0, 0.16), "night": (0.05, 0.35)},
        ),
        ((small,), {"row": (0, 1), "column": (0, 1), "light": (0, 1), "size": (0, 1)}),
        (
            (large,),
            {"row": (0, 1), "column": (0, 1), "light": (0.4, 1), "size": (1.5, 4)},
        ),
    )
    slow, wide, fine, cloud = fields.smooth_noise(
        keys[1], shape, cells=(60 * scale, 18 * scale, 5 * scale, 45 * scale)
    )
    height = shape[0]
    rows = jnp.arange(height)[:, None] / height
    # The skyline: the first row of the noise, the same all the way down.
    line = one.horizon + 0.08 * slow[:1] + 0.03 * wide[:1] + 0.012 * fine[:1]
    above = jnp.clip((line - rows) * height + 0.5, 0, 1)
    glow = one.glow * jnp.exp(-4 * jnp.maximum(line - rows, 0))
    sky = 0.015 + 0.1 * one.tone**2 + glow + 0.012 * cloud * one.grey
    sky = sky[..., None] * scene.tinted(image, one, 1.0)
    dark = one.whole < 0.7
    there = (density(severity) > 0) * jnp.ones(shape)
    # Where the picture stays, stars shine where it is dark.
    night = jnp.clip(
        1.6 - 9 * scene.blurred(scene.luma(image), max(1, round(12 * scale))), 0, 1
    )
    visible = jnp.where(dark, above, night)
    expected = 350 * density(severity) * extent * fields.spread(one.amount, octaves=2.0)
    exists = count(one.rounding, expected, small)
    size = jnp.array(shape, jnp.float32)
    light = 0.15 + 0.85 * star.light**3
    stars = fields.discs(
        shape,
        layer=jnp.zeros(small, jnp.int32),
        centre=jnp.stack([star.row, star.column], -1) * size,
        radius=scale * one.size * (0.3 + 0.6 * star.size * light),
        opacity=exists * light,
        layers=1,
        reach=math.ceil(2.5 * scale),
    )[0]
    shine = count(one.rounding, 5 * density(severity), large)
    position = jnp.stack([big.row, big.column], -1) * size
    position = jnp.where(shine[:, None] > 0, position, fields.AWAY)
    glows = fields.glows(
        shape,
        centre=position,
        radius=scale * 0.6 * big.size,
        strength=1.4 * big.light,
    )
    halos = fields.glows(
        shape,
        centre=position,
        radius=scale * 2.6 * big.size,
        strength=0.2 * big.light,
    )
    bright = jnp.clip(jnp.maximum(stars, glows + halos), 0, 1) * visible * there
    ground = image * one.night
    return scene.lay(
        image,
        (there * dark, ground),
        (above * there * dark, jnp.clip(sky, 0, 1)),
        (bright, jnp.clip(0.9 + 0.2 * scene.tinted(image, one, 0.5), 0, 1)),
    )


def random_snow(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws falling snow: sharp flakes far away, large soft ones near the lens.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a snowfall.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    extent = fields.area(shape)
    small, steps, large = max(40, math.ceil(700 * extent)), 5, 40
    one, flake, near = draw(
        key,
        (
            (),
            {"amount": (0, 1), "rounding": (0, 1), "wind": (-1.2, 1.2), "fall": (0, 1)}
            | {"size": (0.8, 1.9), "soft": (0.4, 1), "haze": (0, 0.25)},
        ),
        (
            (small,),
            {"row": (-0.02, 1.02), "column": (-0.02, 1.02), "size": (0, 1)}
            | {"opacity": (0.2, 1), "turn": (-0.4, 0.4)},
        ),
        (
            (large,),
            {"row": (-0.05, 1.05), "column": (-0.05, 1.05), "size": (2, 9)}
            | {"opacity": (0.1, 0.7)},
        ),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=1.5)
    size = jnp.array(shape, jnp.float32)
    exists = count(one.rounding, 230 * amount * extent, small)
    width = scale * one.size * (0.8 + 2.2 * flake.size**2.5)
    streak = width * one.fall**2 * 2.0
    along = heading(math.pi / 2 + one.wind + flake.turn)
    step = jnp.linspace(-0.5, 0.5, steps)
    points = (jnp.stack([flake.row, flake.column], -1) * size)[:, None]
    points = points + (streak[:, None] * step)[..., None] * along[:, None]
    sharp = polylines.strokes(
        points,
        jnp.broadcast_to(width[:, None], (small, steps)),
        (exists * flake.opacity)[:, None],
    )
    sharp = polylines.drawn(shape, (sharp,), reach=math.ceil(3.2 * scale))[0]
    shown = count(one.rounding, 11 * amount * extent, large)
    position = jnp.stack([near.row, near.column], -1) * size
    soft = fields.glows(
        shape,
        centre=jnp.where(shown[:, None] > 0, position, fields.AWAY),
        radius=scale * near.size,
        strength=near.opacity,
    )
    return scene.lay(
        image,
        (one.haze * jnp.ones(shape) * jnp.minimum(amount, 1), jnp.full(3, 0.75)),
        (jnp.clip(1.3 * soft - 0.02, 0, 0.85), jnp.full(3, 0.97)),
        (one.soft * sharp, jnp.full(3, 0.98)),
    )


def random_wires(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws wires, ropes and masts: thin, even, straight or sagging, in parallel.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a line or two.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    groups, lines = 2, 4
    one, group, line = draw(
        key,
        ((), scene.HUE | {"amount": (0, 1), "rounding": (0, 1), "mast": (0, 1)}),
        (
            (groups, 1, 1, 1),
            {"row": (0.05, 0.95), "column": (0.05, 0.95), "angle": (-0.6, 0.6)}
            | {
                "sag": (-0.05, 0.25),
                "width": (0, 1),
                "gap": (3, 26),
                "number": (1, 4.9),
            }
            | {"upright": (0, 1), "end": (-1.2, 3), "opacity": (0.6, 1)}
            | {"bright": (0, 1)},
        ),
        ((groups, lines, 1, 1), {"gap": (-0.25, 0.25), "fan": (-0.06, 0.06)}),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=0.6)
    exists = count(one.rounding, 1.3 * amount, groups)[:, None, None, None]
    index = jnp.arange(lines)[:, None, None]
    exists = exists * (index < group.number)
    rows, columns = jnp.ogrid[: shape[0], : shape[1]]
    angle = group.angle + jnp.where(group.upright < 0.2, math.pi / 2, 0) + line.fan
    down = rows - group.row * shape[0]
    right = columns - group.column * shape[1]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    u, v = down * sin + right * cos, down * cos - right * sin
    reach = 0.5 * max(shape)
    sag = jnp.maximum(group.sag, 0) * reach * (jnp.square(u / reach) - 0.2)
    distance = v + sag - scale * group.gap * (index + line.gap)
    width = scale * (0.5 + 2.8 * group.width**3)
    drawn = jnp.clip(width / 2 + 0.5 - jnp.abs(distance), 0, 1) * jnp.minimum(width, 1)
    # Some end within the picture, on a mast.
    end = reach * group.end
    drawn = drawn * (u < end) * exists * group.opacity
    mast = jnp.clip(1.8 * scale + width - jnp.abs(u - end), 0, 1) * (v > -30 * scale)
    mast = mast * exists * (index == 0) * (one.mast < 0.6)
    opacity = jnp.maximum(drawn, mast)
    bright = group.bright < 0.3
    dark = jnp.max(jnp.where(bright, 0, opacity), axis=(0, 1))
    light = jnp.max(jnp.where(bright, opacity, 0), axis=(0, 1))
    return scene.lay(
        image,
        (dark, scene.tinted(image, one, 0.04 + 0.2 * one.tone)),
        (light, scene.tinted(image, one, 0.95 - 0.3 * one.tone)),
    )


def random_branches(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws bare twigs: lines that fork like cracks, smooth and thinning to their tips.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a bough or two.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots, branches, points, longest = 3, 8, 130, 80 * scale
    one, each, *grown = draw(
        key,
        (
            (),
            scene.HUE
            | {
                "amount": (0, 1),
                "rounding": (0, 1),
                "kink": (0.08, 0.3),
                "frost": (0, 1),
            }
            | {"rough": (0.03, 0.18)},
        ),
        (
            (slots,),
            {"row": (-0.05, 1.05), "column": (-0.05, 1.05), "angle": (0, 6.2832)}
            | {"length": (50, 230), "width": (1.2, 6)},
        ),
        *polylines.tree_requests(slots, branches, points, longest, scale),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=0.6)
    exists = count(one.rounding, 1.5 * amount, slots)
    size = jnp.array(shape, jnp.float32)
    lines = polylines.tree(
        grown,
        start=jnp.stack([each.row, each.column], -1) * size,
        angle=each.angle,
        length=scale * each.length,
        straight=0.8,
        width=scale * each.width,
        opacity=exists,
        profile=(1.05 - jnp.linspace(0, 1, points))[None],
        kink=one.kink,
        rough=one.rough,
        scale=scale,
        longest=longest,
        split=0.0,
        bridged=0.0,
    )
    lamp = polylines.moved(lines, jnp.array([-0.8, -0.5]) * scale)
    lit, wood = polylines.drawn(shape, (lamp, lines), reach=math.ceil(4 * scale))
    color = scene.tinted(image, one, 0.05 + 0.22 * one.tone)
    # Snow lies on them, or the sun shines from one side.
    frost = jnp.where(one.frost < 0.35, 0.9, 2.2 * color)
    return scene.lay(image, (0.8 * lit, jnp.clip(frost, 0, 1)), (wood, color))


def random_glints(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws glints of the sun on water and leaves: short bright dashes and dots.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a lake.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots, steps = max(40, math.ceil(500 * fields.area(shape))), 8
    keys = fields.split(key, 2)
    one, ball, each = draw(
        keys[0],
        (
            (),
            scene.HUE
            | scene.REGION
            | {"amount": (0, 1), "rounding": (0, 1), "size": (0.7, 1.6)}
            | {"long": (1, 6), "level": (0, 1), "angle": (0, 3.1416)}
            | {"ground": (0.45, 0.95)},
        ),
        scene.BALLS,
        (
            (slots,),
            {"row": (0, 1), "column": (0, 1), "size": (0, 1), "turn": (-1, 1)}
            | {"light": (0.3, 1)},
        ),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=1.2)
    exists = count(one.rounding, 260 * amount * fields.area(shape), slots)
    size = jnp.array(shape, jnp.float32)
    # On water all are level, and longer the nearer they are; on leaves any way.
    water = one.level < 0.6
    angle = jnp.where(water, 0.06 * each.turn, one.angle + 3 * each.turn)
    near = jnp.where(water, 0.4 + each.row, 1.0)
    width = scale * one.size * near * (0.7 + 1.8 * each.size**3)
    length = width * one.long * (0.3 + each.size)
    step = jnp.linspace(-0.5, 0.5, steps)
    points = (jnp.stack([each.row, each.column], -1) * size)[:, None] + (
        length[:, None] * step
    )[..., None] * heading(angle)[:, None]
    taper = 1 - 1.6 * jnp.square(step)
    dashes = polylines.strokes(
        points, width[:, None] * taper, (exists * each.light)[:, None]
    )
    bright = polylines.drawn(shape, (dashes,), reach=math.ceil(3.2 * scale))[0]
    # Ripples, drawn out along the level, or leaves: without them glints are scratches.
    zoom = jnp.where(water, jnp.array([1.0, 7.0]), jnp.array([1.6, 1.6]))
    wave, ripple = fields.smooth_noise(
        keys[1], shape, cells=(5 * scale, 2.2 * scale), zoom=zoom
    )
    tone = (0.08 + 0.35 * one.tone) * (1 + 0.28 * wave + 0.18 * ripple)
    ground = jnp.clip(tone[..., None] * scene.tinted(image, one, 1.0), 0, 1)
    region = scene.region_of(one, ball, shape, whole=0.3) * (exists.sum() > 0)
    color = jnp.clip(scene.tinted(image, one, 0.98), 0.8, 1)
    return scene.lay(image, (one.ground * region, ground), (bright * region, color))
