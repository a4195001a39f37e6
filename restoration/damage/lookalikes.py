"""What belongs into a picture and looks like damage: stars, wires, lettering, lace.

A network that learns to find damage has to see these on spotless pictures too, or it
takes them away. The convention is that of `restoration.damage`: key first, image
second, severity 0 changes no bit. All return the image alone: they are no damage, so
that the mask stays 0, and the picture with them on is what a network is to leave as it
is. On a grey picture they are grey.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from restoration.damage import ageing, cells, fields, polylines
from restoration.damage.drawing import density, heading
from restoration.damage.fields import count, draw, limited, unit
from restoration.damage.paint import paint

_AWAY = -1e4

# What is drawn for the color of a thing: any hue, mostly pale, and how bright it is.
_HUE = {"red": (0, 1), "green": (0, 1), "blue": (0, 1), "grey": (0, 1), "tone": (0, 1)}


def _tinted(image: jax.Array, one, light: jax.typing.ArrayLike) -> jax.Array:
    """Returns (3,) a color as bright as `light`: grey in half of color pictures."""
    colorful = jnp.mean(jnp.abs(image - image.mean(axis=-1, keepdims=True)))
    hue = jnp.stack([one.red, one.green, one.blue], -1)
    hue = hue / jnp.maximum(hue.mean(-1, keepdims=True), 0.1)
    share = jnp.maximum(one.grey - 0.5, 0) * jnp.clip(40 * colorful, 0, 1)
    return jnp.clip(light * (1 - share + share * hue), 0, 1)


def _lay(image: jax.Array, *layers: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Lays pairs of an opacity (H, W) and a color, (3,) or (H, W, 3), over."""
    opacity = jnp.stack([one for one, _ in layers])
    colors = jnp.stack([jnp.broadcast_to(c, image.shape) for _, c in layers])
    return paint(image, opacity=opacity, color=colors)[0]


def _luma(image: jax.Array) -> jax.Array:
    return image @ jnp.array([0.299, 0.587, 0.114])


def _blurred(plane: jax.Array, size: int) -> jax.Array:
    """Returns (H, W): means of squares of `size` pixels, blended into each other."""
    height, width = plane.shape
    rows, columns = max(1, height // size), max(1, width // size)
    small = jax.image.resize(plane, (rows, columns), "linear")
    return jax.image.resize(small, (height, width), "linear")


# What a region of cloth draws.
_REGION = {"row": (0, 1), "column": (0, 1), "extent": (0.12, 0.5), "whole": (0, 1)}
_BALLS = ((5,), {"down": (-1, 1), "right": (-1, 1), "size": (0.35, 1)})


def _region(one, ball, shape: fields.Shape, *, whole: float) -> jax.Array:
    """Returns (H, W) in [0, 1]: a piece of the picture with sharp edges, or all of it.

    Args:
      one: numbers of `_REGION`.
      ball: numbers of `_BALLS`.
      shape: (H, W).
      whole: how often it is all of the picture.
    """
    size = jnp.array(shape, jnp.float32)
    extent = one.extent * max(shape)
    offset = jnp.stack([ball.down, ball.right], -1)
    distance, _ = fields.blobs(
        shape,
        centre=jnp.stack([one.row, one.column]) * size + 0.7 * extent * offset,
        radius=0.8 * extent * ball.size,
        values=jnp.zeros((0, len(ball.size))),
    )
    return jnp.where(one.whole < whole, 1.0, jnp.clip(distance + 0.5, 0, 1))


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
            _HUE
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
    sky = sky[..., None] * _tinted(image, one, 1.0)
    dark = one.whole < 0.7
    there = (density(severity) > 0) * jnp.ones(shape)
    # Where the picture stays, stars shine where it is dark.
    night = jnp.clip(1.6 - 9 * _blurred(_luma(image), max(1, round(12 * scale))), 0, 1)
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
    place = jnp.stack([big.row, big.column], -1) * size
    place = jnp.where(shine[:, None] > 0, place, _AWAY)
    glows = ageing.glows(
        shape,
        centre=place,
        radius=scale * 0.6 * big.size,
        strength=1.4 * big.light,
    )
    halos = ageing.glows(
        shape,
        centre=place,
        radius=scale * 2.6 * big.size,
        strength=0.2 * big.light,
    )
    bright = jnp.clip(jnp.maximum(stars, glows + halos), 0, 1) * visible * there
    ground = image * one.night
    return _lay(
        image,
        (there * dark, ground),
        (above * there * dark, jnp.clip(sky, 0, 1)),
        (bright, jnp.clip(0.9 + 0.2 * _tinted(image, one, 0.5), 0, 1)),
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
    place = jnp.stack([near.row, near.column], -1) * size
    soft = ageing.glows(
        shape,
        centre=jnp.where(shown[:, None] > 0, place, _AWAY),
        radius=scale * near.size,
        strength=near.opacity,
    )
    return _lay(
        image,
        (one.haze * jnp.ones(shape) * jnp.minimum(amount, 1), jnp.full(3, 0.75)),
        (jnp.clip(1.3 * soft - 0.02, 0, 0.85), jnp.full(3, 0.97)),
        (one.soft * sharp, jnp.full(3, 0.98)),
    )


def random_sequins(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws cloth with sequins or glitter: small scales, a few of them dazzling.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a dress.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 3)
    one, ball = draw(
        keys[0],
        (
            (),
            _HUE
            | _REGION
            | {"size": (1.8, 5), "sparkle": (0.02, 0.2), "ground": (0.2, 0.95)}
            | {"happens": (0, 1), "angle": (0, 3.1416)},
        ),
        _BALLS,
    )
    slow, wide = fields.smooth_noise(keys[1], shape, cells=(50 * scale, 20 * scale))
    cut = cells.cells(keys[2], shape, size=scale * one.size, angle=one.angle)
    round_ = jnp.clip(cut.distance / (0.25 * scale * one.size), 0, 1)
    # Folds of the cloth turn some regions towards the light.
    facing = jnp.clip(0.5 + 0.4 * slow + 0.25 * wide, 0.05, 1.2)
    share = one.sparkle * facing
    dazzling = jnp.clip((share - cut.chance) / (0.3 * one.sparkle), 0, 1)
    light = (0.08 + 0.3 * one.tone) * (0.5 + cut.border) * facing
    color = (
        light[..., None] * _tinted(image, one, 1.0) * (0.55 + 0.45 * round_[..., None])
    )
    region = _region(one, ball, shape, whole=0.25)
    region = region * (one.happens < 2 * density(severity))
    return _lay(
        image,
        (region * one.ground, jnp.clip(color, 0, 1)),
        (
            region * dazzling * round_,
            jnp.clip(0.75 + 0.5 * _tinted(image, one, 0.5), 0, 1),
        ),
    )


def random_polka_dots(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws cloth with dots in a regular pattern, shaded by its folds.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a piece of the picture.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 2)
    one, ball = draw(
        keys[0],
        (
            (),
            _HUE
            | _REGION
            | {
                "period": (0, 1),
                "dot": (0.12, 0.4),
                "angle": (0, 3.1416),
                "warp": (0, 1),
            }
            | {
                "ground": (-0.5, 1),
                "dark": (0, 1),
                "stagger": (0, 1),
                "happens": (0, 1),
            }
            | {"shading": (0.05, 0.3), "opacity": (0.6, 1)},
        ),
        _BALLS,
    )
    slow, other, fold = fields.smooth_noise(
        keys[1], shape, cells=(50 * scale, 50 * scale, 18 * scale)
    )
    rows, columns = jnp.indices(shape).astype(jnp.float32)
    period = scale * (4.5 + 36 * one.period**2)
    warp = 0.35 * period * one.warp + 4 * scale * one.warp**2
    down, right = rows + warp * slow, columns + warp * other
    sin, cos = jnp.sin(one.angle), jnp.cos(one.angle)
    u, v = (down * cos - right * sin) / period, (down * sin + right * cos) / period
    v = v + jnp.where(one.stagger < 0.6, 0.5 * jnp.mod(jnp.floor(u + 0.5), 2), 0)
    away = jnp.sqrt(
        jnp.square(jnp.mod(u + 0.5, 1) - 0.5) + jnp.square(jnp.mod(v + 0.5, 1) - 0.5)
    )
    dot = jnp.clip((one.dot - away) * period + 0.5, 0, 1)
    region = _region(one, ball, shape, whole=0.2)
    region = region * (one.happens < 2 * density(severity))
    shading = 1 + one.shading * (fold + 0.6 * slow)
    bright = 0.95 - 0.25 * one.tone
    dark = 0.05 + 0.25 * one.tone
    light, ground = (
        jnp.where(one.dark < 0.6, a, b) for a, b in ((bright, dark), (dark, bright))
    )
    # On cloth of its own, or on what the picture shows.
    light = jnp.clip(light * shading[..., None] * jnp.ones(3), 0, 1)
    cloth = jnp.clip(_tinted(image, one, 1.0) * ground * shading[..., None], 0, 1)
    return _lay(
        image,
        (region * jnp.maximum(one.ground, 0) ** 0.3, cloth),
        (region * dot * one.opacity, light),
    )


def random_buttons(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws rows of buttons and strings of pearls: round, shaded, evenly spaced.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a row or two.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    rows, each = 3, 14
    one, row = draw(
        key,
        ((), _HUE | {"amount": (0, 1), "rounding": (0, 1), "lamp": (0, 6.2832)}),
        (
            (rows, 1),
            {"row": (0, 1), "column": (0, 1), "angle": (0, 6.2832), "bend": (-1, 1)}
            | {"radius": (0, 1), "gap": (0, 1), "number": (3, 14.9), "holes": (0, 1)}
            | {"tone": (0, 1), "upright": (0, 1)},
        ),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=0.6)
    exists = count(one.rounding, 1.3 * amount, rows)[:, None]
    radius = scale * (1.2 + 6.5 * row.radius**2)
    # Pearls touch; buttons are far apart.
    pearls = row.gap < 0.35
    step = radius * jnp.where(pearls, 2.1, 3.5 + 9 * row.gap)
    index = jnp.arange(each)
    angle = jnp.where(row.upright < 0.5, math.pi / 2 + 0.1 * row.bend, row.angle)
    bend = jnp.where(pearls, 2.4, 0.5) * row.bend / each
    headings = heading(angle + bend * (index - each / 2))
    size = jnp.array(shape, jnp.float32)
    start = jnp.stack([row.row, row.column], -1) * size
    centre = start + jnp.cumsum(step[..., None] * headings, axis=1)
    shown = exists * (index < row.number)
    radius = jnp.broadcast_to(radius, shown.shape)
    light = heading(one.lamp)

    def discs(move, part, opacity):
        return polylines.Strokes(
            (centre + (move * radius)[..., None] * light).reshape(-1, 2),
            (2 * part * radius).reshape(-1),
            (shown * opacity).reshape(-1),
        )

    wide = radius > 3.2 * scale
    holed = (row.holes < 0.6) & ~pearls & wide
    side = jnp.stack([-light[1], light[0]])
    holes = [
        polylines.Strokes(
            (centre + (sign * 0.28 * radius)[..., None] * side).reshape(-1, 2),
            (0.36 * radius).reshape(-1),
            (shown * holed).reshape(-1),
        )
        for sign in (-1, 1)
    ]
    layers = polylines.drawn(
        shape,
        (
            discs(0.25, 1.12, 0.5),
            discs(0.0, 1.0, 1.0),
            discs(0.06, 0.8, 0.6),
            polylines.joined(*holes),
            discs(-0.4, 0.25, jnp.where(pearls, 0.9, 0.35)),
        ),
        reach=math.ceil(9.5 * scale),
    )
    body = jnp.where(one.grey < 0.7, 0.95 - 0.4 * one.tone**2, 0.08 + 0.3 * one.tone)
    color = _tinted(image, one, body)
    tones = (jnp.zeros(3), 0.8 * color, color, 0.25 * color, jnp.ones(3))
    return _lay(image, *zip(layers, tones, strict=True))


def random_eyes(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws eyes: dark discs between lids, with the small bright glints of a lamp.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a pair or two.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    pairs = 4
    one, pair = draw(
        key,
        ((), _HUE | {"amount": (0, 1), "rounding": (0, 1), "down": (-0.5, 0.1)}
         | {"right": (-0.5, 0.5), "second": (0, 1)}),
        (
            (pairs, 1, 1, 1),
            {"row": (0, 1), "column": (0, 1), "angle": (-0.4, 0.4), "size": (0, 1)}
            | {"apart": (5.5, 8), "one": (0, 1)},
        ),
    )  # fmt: skip
    amount = density(severity) * fields.spread(one.amount, octaves=0.6)
    exists = count(one.rounding, 1.5 * amount, pairs)[:, None, None, None]
    radius = scale * (1.6 + 6 * pair.size**2)
    rows, columns = jnp.ogrid[: shape[0], : shape[1]]
    side = jnp.array([-1.0, 1.0])[:, None, None]
    across = 0.5 * side * pair.apart * radius
    down = rows - pair.row * shape[0] - across * jnp.sin(pair.angle)
    right = columns - pair.column * shape[1] - across * jnp.cos(pair.angle)
    # In one of four one eye is alone.
    exists = exists * jnp.where(pair.one < 0.25, side > 0, True)
    v = down * jnp.cos(pair.angle) - right * jnp.sin(pair.angle)
    u = down * jnp.sin(pair.angle) + right * jnp.cos(pair.angle)
    lid = 1.05 - 0.42 * jnp.square(u / (1.3 * radius))
    opening = jnp.clip(
        (lid * radius * 0.8 - jnp.abs(v + 0.1 * radius)) / scale + 0.5, 0, 1
    )
    opening = opening * (jnp.abs(u) < 2.2 * radius)
    lashes = (
        jnp.clip(
            1.4
            - jnp.abs(lid * radius * 0.8 + v + 0.1 * radius) / (0.22 * radius + 0.5),
            0,
            1,
        )
        * (jnp.abs(u) < 2.0 * radius)
        * (v < 0.2 * radius)
    )
    away = jnp.sqrt(jnp.square(u) + jnp.square(v))
    iris = jnp.clip((radius - away) / scale + 0.5, 0, 1) * opening
    pupil = jnp.clip((0.45 * radius - away) / scale + 0.5, 0, 1) * opening

    def glint(down, right, part):
        offset = jnp.sqrt(
            jnp.square(v - down * radius) + jnp.square(u - right * radius)
        )
        bright = jnp.clip((part * radius - offset) / scale + 0.7, 0, 1)
        return bright * (offset < radius)

    first = glint(one.down, one.right, 0.2)
    second = 0.6 * glint(-0.6 * one.down, -one.right, 0.12) * (one.second < 0.4)

    def most(opacity):
        return jnp.max(opacity * exists, axis=(0, 1))

    color = _tinted(image, one, 0.18 + 0.3 * one.tone)
    return _lay(
        image,
        (most(0.85 * opening), jnp.full(3, 0.82) * (0.7 + 0.3 * one.tone)),
        (most(0.8 * lashes), jnp.full(3, 0.07)),
        (most(iris), color),
        (most(0.9 * pupil), jnp.full(3, 0.03)),
        (most(jnp.maximum(first, second)), jnp.full(3, 0.98)),
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
        ((), _HUE | {"amount": (0, 1), "rounding": (0, 1), "mast": (0, 1)}),
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
    return _lay(
        image,
        (dark, _tinted(image, one, 0.04 + 0.2 * one.tone)),
        (light, _tinted(image, one, 0.95 - 0.3 * one.tone)),
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
            _HUE
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
    color = _tinted(image, one, 0.05 + 0.22 * one.tone)
    # Snow lies on them, or the sun shines from one side.
    frost = jnp.where(one.frost < 0.35, 0.9, 2.2 * color)
    return _lay(image, (0.8 * lit, jnp.clip(frost, 0, 1)), (wood, color))


def random_lettering(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws lines of signs like letters, and of handwriting, on the picture or a label.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a caption.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    rows, glyphs, parts, steps, pen = 3, 16, 4, 12, 600
    one, glyph, part, hand = draw(
        key,
        (
            (),
            _HUE
            | {"row": (0.02, 0.95), "column": (-0.2, 0.6), "angle": (-0.1, 0.1)}
            | {
                "height": (0, 1),
                "weight": (0.08, 0.22),
                "dark": (0, 1),
                "label": (0, 1),
            }
            | {"rows": (1, 3.99), "written": (0, 1), "slant": (-0.1, 0.5)}
            | {"happens": (0, 1), "letters": (3, 16.9), "upright": (0, 1)},
        ),
        ((rows, glyphs), {"space": (0, 1), "wide": (0.75, 1.2), "capital": (0, 1)}),
        (
            (rows, glyphs, parts),
            {"from": (0, 6), "to": (0, 6), "bulge": (-1, 1), "there": (0, 1)},
        ),
        ((rows, 2, 60), {"chance": (0, 1)}),
    )
    there = (one.happens < 1.5 * density(severity)) * 1.0
    height = scale * (6 + 38 * one.height**2)
    line = jnp.arange(rows)[:, None]
    # Signs: strokes between six corners, straight or bowed.
    corner = jnp.array(
        [[0.0, 0.0], [0.0, 1.0], [0.5, 0.0], [0.5, 1.0], [1.0, 0.0], [1.0, 1.0]]
    )
    begin = corner[jnp.clip(getattr(part, "from").astype(jnp.int32), 0, 5)]
    end = corner[jnp.clip(part.to.astype(jnp.int32), 0, 5)]
    share = jnp.linspace(0, 1, steps)[:, None]
    straight = begin[..., None, :] + share * (end - begin)[..., None, :]
    bow = jnp.where(jnp.abs(part.bulge) > 0.45, part.bulge, 0.0)
    across = jnp.stack([end[..., 1] - begin[..., 1], begin[..., 0] - end[..., 0]], -1)
    curve = straight + (bow[..., None] * across)[..., None, :] * (
        1.6 * share * (1 - share)
    )
    width = 0.55 * height * glyph.wide
    left = jnp.cumsum(width + 0.28 * height, axis=1) - width
    tall = jnp.where(glyph.capital < 0.25, 1.0, 0.72)
    y = height * (tall[..., None, None] * (curve[..., 0] - 1) + 1)
    x = left[..., None, None] + width[..., None, None] * curve[..., 1]
    y = y + (1.7 * height * line)[..., None, None]
    in_word = (glyph.space > 0.16) & (jnp.arange(glyphs) < one.letters)
    in_row = line < jnp.floor(one.rows)
    present = (in_word & in_row)[..., None] & (
        (part.there < 0.75) | (jnp.arange(parts) < 2)
    )
    present = present & (getattr(part, "from").astype(int) != part.to.astype(int))
    printed = (one.written >= 0.35) * present * there
    # Handwriting: the pen goes round and round on its way to the right.
    waves = fields.wave(hand.chance, pen)
    turn = jnp.linspace(0, 2 * math.pi * 17, pen) + 2.5 * waves[:, 0]
    loops = jnp.clip(0.45 + 0.8 * waves[:, 1], 0.1, 1)
    pen_y = height * (0.65 - 0.45 * loops * jnp.cos(turn)) + 1.7 * height * line
    pen_x = height * (jnp.linspace(0, 11, pen) + 0.25 * loops * jnp.sin(turn))
    inked = (one.written < 0.35) * (jnp.abs(waves[:, 0]) > 0.06) * in_row * there
    written = jnp.broadcast_to(inked, pen_y.shape)

    def placed(y, x):
        """Slants, turns and puts in place."""
        x = x + one.slant * (one.written < 0.35) * (height - y)
        angle = one.angle + jnp.where(one.upright < 0.12, math.pi / 2, 0)
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        down, right = y * cos + x * sin, x * cos - y * sin
        return jnp.stack(
            [down + one.row * shape[0], right + one.column * shape[1]], axis=-1
        )

    weight = height * one.weight
    letters = polylines.strokes(
        placed(y, x).reshape(-1, steps, 2),
        jnp.broadcast_to(weight, (rows * glyphs * parts, steps)),
        printed.reshape(-1, 1).astype(jnp.float32),
    )
    script = polylines.strokes(
        placed(pen_y, pen_x),
        jnp.maximum(0.45 * weight, 0.9) * (0.8 + 0.35 * jnp.sin(turn + 0.8)),
        written.astype(jnp.float32),
    )
    ink = polylines.drawn(
        shape, (polylines.joined(letters, script),), reach=math.ceil(5.5 * scale)
    )[0]
    dark = one.dark < 0.55
    tone = jnp.where(dark, 0.03 + 0.25 * one.tone, 0.97 - 0.25 * one.tone)
    ground = jnp.where(dark, 0.95 - 0.25 * one.tone, 0.05 + 0.25 * one.tone)
    # A label or a plate of its own, in a third.
    rows_, columns_ = jnp.indices(shape).astype(jnp.float32)
    down, right = rows_ - one.row * shape[0], columns_ - one.column * shape[1]
    sin, cos = jnp.sin(one.angle), jnp.cos(one.angle)
    v, u = down * cos - right * sin, down * sin + right * cos
    inside = jnp.minimum(
        jnp.minimum(
            v + 0.6 * height, 1.7 * height * jnp.floor(one.rows) + 0.1 * height - v
        ),
        jnp.minimum(u + 0.6 * height, height * (one.letters * 0.85 + 1) - u),
    )
    label = jnp.clip(inside + 0.5, 0, 1) * there
    label = label * ((one.label < 0.33) & (one.upright >= 0.12))
    return _lay(
        image,
        (label, _tinted(image, one, ground)),
        (ink, tone * jnp.ones(3)),
    )


def random_hair(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws locks of hair, fur and dry grass: bundles of fine strands, light and dark.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a lock or two.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    locks, strands, points = 3, 34, 100
    one, lock, way, strand, bend = draw(
        key,
        (
            (),
            _HUE
            | {
                "amount": (0, 1),
                "rounding": (0, 1),
                "shine": (0.1, 0.6),
                "stray": (0, 1),
            },
        ),
        (
            (locks,),
            {"row": (-0.1, 1.1), "column": (-0.1, 1.1), "angle": (0, 6.2832)}
            | {"length": (50, 220), "spread": (0, 1), "drift": (0.2, 1.4)},
        ),
        ((locks, points), {"chance": (0, 1)}),
        (
            (locks, strands, 1),
            {"aside": (-1, 1), "fan": (-1, 1), "width": (0.5, 1.3), "light": (0, 1)}
            | {"opacity": (0.25, 0.95), "begin": (-0.3, 0.4), "end": (0.5, 1.4)},
        ),
        ((locks, strands, 8), {"chance": (0, 1)}),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=0.6)
    exists = count(one.rounding, 1.5 * amount, locks)[:, None, None]
    size = jnp.array(shape, jnp.float32)
    middle = polylines.wandering(
        way.chance,
        start=jnp.stack([lock.row, lock.column], -1) * size,
        angle=lock.angle,
        length=scale * lock.length,
        kink=0.0,
        drift=lock.drift[:, None],
    )
    even = jnp.linspace(0, 1, points)
    spread = (scale * (3 + 20 * lock.spread**2))[:, None, None]
    aside = spread * (strand.aside + one.stray * strand.fan**3 * even)
    aside = aside + 0.3 * spread * fields.wave(bend.chance, points)
    line = polylines.beside(
        jnp.repeat(middle, strands, axis=0), aside.reshape(-1, points)
    )
    shown = (even > strand.begin) & (even < strand.end)
    opacity = (exists * strand.opacity * shown).reshape(-1, points)
    width = jnp.broadcast_to(scale * strand.width, shown.shape).reshape(-1, points)
    light = strand.light.reshape(-1, 1) < one.shine
    layers = polylines.drawn(
        shape,
        (
            polylines.strokes(line, width, jnp.where(light, 0.0, opacity)),
            polylines.strokes(line, width, jnp.where(light, opacity, 0.0)),
        ),
        reach=math.ceil(1.5 * scale),
    )
    dark = _tinted(image, one, 0.05 + 0.35 * one.tone**2)
    bright = jnp.clip(0.25 + 0.6 * one.tone + 1.2 * dark, 0, 1)
    return _lay(image, (layers[0], dark), (layers[1], bright))


def random_lace(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws lace, tulle, checks and stripes: fine patterns that repeat.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a piece of the picture.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 2)
    one, ball = draw(
        keys[0],
        (
            (),
            _HUE
            | _REGION
            | {"period": (0, 1), "angle": (0, 3.1416), "warp": (0, 1), "kind": (0, 5)}
            | {"thick": (0.08, 0.3), "opacity": (0.35, 1), "dark": (0, 1)}
            | {"ground": (-0.3, 0.8), "happens": (0, 1), "shading": (0.03, 0.25)},
        ),
        _BALLS,
    )
    slow, other, fold = fields.smooth_noise(
        keys[1], shape, cells=(55 * scale, 55 * scale, 16 * scale)
    )
    rows, columns = jnp.indices(shape).astype(jnp.float32)
    period = scale * (4 + 22 * one.period**2)
    warp = 0.4 * period * one.warp + 5 * scale * one.warp**2
    down, right = rows + warp * slow, columns + warp * other
    sin, cos = jnp.sin(one.angle), jnp.cos(one.angle)
    u, v = (down * cos - right * sin) / period, (down * sin + right * cos) / period

    def near(x):
        """Returns the distance to the nearest whole number."""
        return jnp.abs(jnp.mod(x + 0.5, 1) - 0.5)

    def line(distance):
        return jnp.clip((one.thick - distance) * period + 0.5, 0, 1)

    mesh = jnp.maximum(line(near(u)), line(near(v)))
    diamonds = jnp.maximum(line(near(u + v)), line(near(u - v)))
    rings = line(jnp.abs(jnp.hypot(near(u), near(v)) - 0.33))
    flowers = jnp.hypot(near(u / 3), near(v / 3)) * 3
    around = jnp.arctan2(jnp.mod(u / 3 + 0.5, 1) - 0.5, jnp.mod(v / 3 + 0.5, 1) - 0.5)
    petals = 0.75 + 0.3 * jnp.cos(5 * around)
    blossom = jnp.clip((petals - flowers) * period / 3 + 0.5, 0, 1)
    stripes = line(near(u) - one.thick * 0.5)
    checks = 0.5 * (near(u) < 0.25) + 0.5 * (near(v) < 0.25)
    patterns = (
        mesh,
        diamonds,
        rings,
        jnp.maximum(0.6 * diamonds, blossom),
        stripes,
        checks,
    )
    which = jnp.clip((one.kind * 1.2).astype(jnp.int32), 0, 5)
    pattern = jnp.stack(patterns)[which]
    region = _region(one, ball, shape, whole=0.15)
    region = region * (one.happens < 2 * density(severity))
    shading = 1 + one.shading * (fold + 0.5 * slow)
    bright, dark = 0.96 - 0.2 * one.tone, 0.04 + 0.25 * one.tone
    thread = jnp.where(one.dark < 0.7, bright, dark) * shading
    ground = jnp.where(one.dark < 0.7, dark, bright) * shading
    return _lay(
        image,
        (
            region * jnp.maximum(one.ground, 0),
            jnp.clip(ground[..., None] * _tinted(image, one, 1.0), 0, 1),
        ),
        (region * pattern * one.opacity, jnp.clip(thread, 0, 1)[..., None]),
    )


def random_spectacles(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws spectacles: thin rims of metal or horn that shine in places.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a pair.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    pairs = 2
    one, pair = draw(
        key,
        ((), _HUE | {"amount": (0, 1), "rounding": (0, 1)}),
        (
            (pairs, 1, 1, 1),
            {"row": (0.05, 0.95), "column": (0.05, 0.95), "angle": (-0.35, 0.35)}
            | {"size": (9, 36), "flat": (0.65, 1.0), "power": (2, 4), "width": (0, 1)}
            | {
                "lamp": (0, 6.2832),
                "horn": (0, 1),
                "temple": (-0.3, 0.5),
                "glass": (0, 1),
            },
        ),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=0.5)
    exists = count(one.rounding, 1.1 * amount, pairs)[:, None, None, None]
    size = scale * pair.size
    rows, columns = jnp.ogrid[: shape[0], : shape[1]]
    down = rows - pair.row * shape[0]
    right = columns - pair.column * shape[1]
    v = down * jnp.cos(pair.angle) - right * jnp.sin(pair.angle)
    u = down * jnp.sin(pair.angle) + right * jnp.cos(pair.angle)
    side = jnp.array([-1.0, 1.0])[:, None, None]
    x, y = (u - 1.25 * side * size) / size, v / (pair.flat * size)
    power = pair.power
    radius = (jnp.abs(x) ** power + jnp.abs(y) ** power + 1e-6) ** (1 / power)
    # Distance to the rim: the radial excess, in pixels, nearly.
    away = jnp.abs(radius - 1) * size * jnp.sqrt(pair.flat)
    width = scale * (0.7 + 2.3 * pair.width**2)
    rim = jnp.clip(width / 2 + 0.5 - away, 0, 1)
    bow = -0.25 * size * (1 - jnp.square(u / (0.3 * size)))
    bridge = jnp.clip(width / 2 + 0.5 - jnp.abs(v - bow), 0, 1) * (
        jnp.abs(u) < 0.28 * size
    )
    outer = side * u - 2.2 * size
    temple = jnp.clip(
        width / 2 + 0.5 - jnp.abs(v + 0.2 * size - pair.temple * outer), 0, 1
    )
    temple = temple * (outer > 0) * (outer < 1.1 * size)
    frame = jnp.maximum(jnp.maximum(rim, temple), bridge) * exists
    # Metal shines where it faces the lamp.
    turned = jnp.cos(jnp.arctan2(y, x) - pair.lamp)
    shine = jnp.clip(2.5 * turned - 1.2, 0, 1) * frame * (pair.horn < 0.6)
    streak = jnp.clip(1 - jnp.abs(x + y - 0.2) * 5, 0, 1) * (radius < 0.95)
    streak = 0.45 * streak * exists * (pair.glass < 0.35)
    metal = jnp.where(pair.horn < 0.6, 1.0, 0.0)

    def most(opacity):
        return jnp.max(opacity, axis=(0, 1))

    return _lay(
        image,
        (most(streak), jnp.full(3, 0.95)),
        (most(frame * (1 - metal)), _tinted(image, one, 0.04 + 0.12 * one.tone)),
        (most(0.9 * frame * metal), _tinted(image, one, 0.2 + 0.45 * one.tone)),
        (most(shine), jnp.full(3, 0.97)),
    )


def random_bright_shapes(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> jax.Array:
    """Draws sleeves, collars and bows: wide white shapes, softly shaded by their folds.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 one or two.

    Returns:
      The picture.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots, sides = 3, 4
    keys = fields.split(key, 2)
    one, each, edge = draw(
        keys[0],
        ((), _HUE | {"amount": (0, 1), "rounding": (0, 1), "fray": (-2, 1)}),
        (
            (slots, 1, 1),
            {"row": (0, 1), "column": (0, 1), "size": (0, 1), "long": (1, 2.5)}
            | {"angle": (0, 6.2832), "light": (0.6, 1), "folds": (0.02, 0.16)}
            | {"fold_angle": (0, 3.1416), "soft": (0.7, 2.2), "slope": (-0.25, 0.25)},
        ),
        (
            (slots, sides, 1, 1),
            {"turn": (-0.5, 0.5), "away": (0.45, 1.1), "bow": (-1, 1)},
        ),
    )
    slow, wide, coarse, fine = fields.smooth_noise(
        keys[1], shape, cells=(45 * scale, 18 * scale, 7 * scale, 2 * scale)
    )
    amount = density(severity) * fields.spread(one.amount, octaves=0.6)
    exists = count(one.rounding, 1.4 * amount, slots)[:, None, None]
    size = scale * (8 + 110 * each.size**2)
    rows, columns = jnp.ogrid[: shape[0], : shape[1]]
    down, right = rows - each.row * shape[0], columns - each.column * shape[1]
    u = (down * jnp.sin(each.angle) + right * jnp.cos(each.angle)) / each.long
    v = down * jnp.cos(each.angle) - right * jnp.sin(each.angle)
    corner = jnp.arange(sides)[:, None, None] * (2 * math.pi / sides) + edge.turn
    along = u[:, None] * jnp.cos(corner) + v[:, None] * jnp.sin(corner)
    across = v[:, None] * jnp.cos(corner) - u[:, None] * jnp.sin(corner)
    big = size[:, None]
    # Edges are bowed; some are frayed.
    bowed = 0.25 * edge.bow * jnp.square(across) / big
    inside = jnp.min(edge.away * big - along - bowed, axis=1)
    inside = inside + scale * jnp.maximum(one.fray, 0) * (0.9 * coarse + 0.7 * fine)
    body = jnp.clip(inside / (each.soft * scale) + 0.5, 0, 1) * exists
    # Folds run one way: noise along a direction, drawn out.
    way = (down * jnp.sin(each.fold_angle) + right * jnp.cos(each.fold_angle)) / size
    folds = jnp.sin(7 * way + 1.3 * slow + 0.3 * wide)
    shade = 1 + each.folds * (folds - 0.6) + each.slope * way
    # The edge turns away from the light.
    shade = shade * (0.82 + 0.18 * jnp.clip(inside / (6 * scale), 0, 1))
    result = image
    for number in range(slots):
        color = jnp.clip(each.light[number] * shade[number], 0, 1)[..., None]
        result = _lay(result, (body[number], color * _tinted(image, one, 1.0)))
    return result


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
    one, ball, each = draw(
        key,
        (
            (),
            _HUE
            | _REGION
            | {"amount": (0, 1), "rounding": (0, 1), "size": (0.7, 1.6)}
            | {"long": (1, 6), "level": (0, 1), "angle": (0, 3.1416)},
        ),
        _BALLS,
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
    region = _region(one, ball, shape, whole=0.3)
    return _lay(image, (bright * region, jnp.clip(_tinted(image, one, 0.98), 0.8, 1)))


KINDS = {
    "stars": random_stars,
    "snow": random_snow,
    "sequins": random_sequins,
    "polka_dots": random_polka_dots,
    "buttons": random_buttons,
    "eyes": random_eyes,
    "wires": random_wires,
    "branches": random_branches,
    "lettering": random_lettering,
    "hair": random_hair,
    "lace": random_lace,
    "spectacles": random_spectacles,
    "bright_shapes": random_bright_shapes,
    "glints": random_glints,
}


def random_lookalikes(
    key: jax.Array,
    image: jax.Array,
    *,
    severity: jax.typing.ArrayLike,
    kinds: tuple[str, ...] = tuple(KINDS),
    number: int = 2,
) -> jax.Array:
    """Draws some kinds of what looks like damage and belongs there.

    Only the kinds that are drawn cost anything, unless it is vmapped: use `lax.map`.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 as each kind says.
      kinds: static names of `KINDS`.
      number: static, how many kinds are drawn; the same may come again.

    Returns:
      The picture.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"unknown lookalikes: {sorted(unknown)}")
    keys = fields.split(key, number + 1)
    which = fields.uniform(keys[0], (number,)) * len(kinds)
    branches = [
        lambda key, image, severity, kind=KINDS[name]: kind(
            key, image, severity=severity
        )
        for name in kinds
    ]
    severity = limited(severity)

    def draw_one(image, given):
        index, key = given
        return lax.switch(index, branches, key, image, severity), None

    return lax.scan(draw_one, image, (which.astype(jnp.int32), keys[1:]))[0]
