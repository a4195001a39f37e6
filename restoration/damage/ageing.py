"""What time, damp and hands leave on prints: they return (image, mask)."""

import math

import jax
import jax.numpy as jnp

from restoration.base.luma import BT601
from restoration.damage import fields, folds
from restoration.damage.drawing import density
from restoration.damage.fields import area, count, draw, limited, unit
from restoration.damage.paint import Painted, paint


def _scattered(each, one, shape: fields.Shape, margin: float, clusters) -> jax.Array:
    """Returns (N, 2) places in pixels, most of them around a few of the picture.

    Args:
      each: (N,) `row`, `column`, `near` and `cluster` in [0, 1).
      one: `together` in [0, 1): how large a share is in clusters.
      shape: (H, W).
      margin: in pixels.
      clusters: (K,) `row`, `column` in [0, 1) and `spread` as a share of 384 units.
    """
    size = jnp.array(shape, jnp.float32)
    position = jnp.stack([each.row, each.column], -1)
    free = position * (size + 2 * margin) - margin
    number = clusters.row.shape[0]
    which = jnp.clip((each.cluster * number).astype(jnp.int32), 0, number - 1)
    middle = jnp.stack([clusters.row, clusters.column], -1)[which] * size
    # The sum of both numbers and a cube root: dense in the middle, thin outside.
    away = 2 * (position - 0.5)
    far = 384 * unit(shape) * clusters.spread[which]
    near = middle + far[:, None] * away * jnp.sum(jnp.square(away), -1, keepdims=True)
    return jnp.where((each.near < one.together)[:, None], near, free)


# What scattered objects draw.
_SCATTER = {"row": (0, 1), "column": (0, 1), "near": (0, 1), "cluster": (0, 1)}
_CLUSTERS = ((4,), {"row": (0, 1), "column": (0, 1), "spread": (0.05, 0.45)})


def random_silvering(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Silvers the dark parts near the borders: a bluish sheen, like a mirror's.

    On black, as for a bank of layers, the sheen is everywhere where it could be.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1]; what is dark in it shines.
      severity: 0 none, 1 a gelatin silver print that was kept badly.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 2)
    one, side = draw(
        keys[0],
        (
            (),
            {"amount": (0, 1), "strength": (0.3, 0.9), "blue": (0, 1), "light": (0, 1)}
            | {"patchy": (0.2, 1), "anywhere": (0, 1)},
        ),
        ((4, 1, 1), {"reach": (-40, 80)}),
    )
    slow, wide, coarse, fine = fields.smooth_noise(
        keys[1], shape, cells=(80 * scale, 28 * scale, 9 * scale, 2.2 * scale)
    )
    amount = density(severity) * fields.spread(one.amount, octaves=1.0)
    reach = scale * jnp.maximum(side.reach, 3)
    near = jnp.max(jnp.exp(-folds.borders(shape) / reach) * (side.reach > 0), axis=0)
    near = jnp.maximum(near, (one.anywhere < 0.25) * jnp.clip(0.6 * slow - 0.2, 0, 1))
    cloud = near + one.patchy * (0.3 * slow + 0.25 * wide + 0.08 * coarse) - 0.25
    cloud = jnp.clip(1.3 * cloud, 0, 1) * jnp.minimum(amount, 1.0)
    luma = image @ jnp.array(BT601)
    dark = jnp.square(jnp.clip(1 - luma / 0.65, 0, 1))
    sheen = one.strength * cloud * dark * jnp.clip(0.9 + 0.1 * fine, 0, 1)
    light = 0.5 + 0.4 * one.light + 0.06 * wide + 0.03 * fine
    tint = jnp.array([-0.09, -0.01, 0.07]) * one.blue
    color = jnp.clip(light[..., None] + tint, 0, 1)
    return paint(image, opacity=sheen[None], color=color[None])


def random_fingerprints(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints fingerprints: ovals of fine ridges that run in whorls, loops and arches.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that was passed around.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots = 3
    keys = fields.split(key, 2)
    one, each = draw(
        keys[0],
        ((), {"amount": (0, 1), "rounding": (0, 1), "bright": (0, 1), "tone": (0, 1)}),
        (
            (slots, 1, 1),
            {"row": (-0.05, 1.05), "column": (-0.05, 1.05), "angle": (0, 6.2832)}
            | {"size": (22, 48), "ridge": (3.6, 6.5), "phase": (0, 6.2832)}
            | {"strength": (0.12, 0.6), "swirl": (-1.2, 1.2), "aside": (-0.35, 0.35)}
            | {"below": (-0.3, 1.4), "press": (-0.3, 0.7), "long": (1.15, 1.6)},
        ),
    )
    slow, wide, coarse, fine = fields.smooth_noise(
        keys[1], shape, cells=(30 * scale, 14 * scale, 6 * scale, 1.7 * scale)
    )
    amount = density(severity) * fields.spread(one.amount, octaves=1.0)
    exists = count(one.rounding, 1.1 * amount, slots)[:, None, None]
    rows, columns = jnp.ogrid[: shape[0], : shape[1]]
    down, right = rows - each.row * shape[0], columns - each.column * shape[1]
    sin, cos = jnp.sin(each.angle), jnp.cos(each.angle)
    size = scale * each.size
    # Along the finger and across it, in halves of the print's width.
    u = (down * sin + right * cos) / size
    v = (down * cos - right * sin) / size
    oval = jnp.sqrt(jnp.square(u / each.long) + jnp.square(v))
    # Ridges circle a core; below it they straighten out to arches.
    from_core = u + 0.35 * each.below
    core = jnp.sqrt(jnp.square(v - each.aside) + jnp.square(0.75 * from_core) + 0.01)
    arch = from_core * 0.9 + 0.55 * jnp.square(v)
    blend = jnp.clip(0.5 - 1.4 * from_core, 0, 1)
    turned = jnp.arctan2(v - each.aside, from_core)
    lines = (1 - blend) * core + blend * (core + 0.25 * arch)
    lines = size * lines + scale * (1.5 * slow + 0.8 * wide)
    phase = (
        2 * math.pi * lines / (scale * each.ridge) + each.swirl * turned + each.phase
    )
    ridge = jnp.clip(0.5 + 0.9 * jnp.sin(phase) + 0.25 * fine + each.press, 0, 1)
    inside = jnp.clip((1 + 0.1 * slow + 0.05 * coarse - oval) * 4.5, 0, 1)
    patchy = jnp.clip(0.75 + 0.35 * slow + 0.25 * wide + 0.15 * coarse, 0, 1)
    opacity = jnp.max(each.strength * exists * inside * patchy * ridge, axis=0)
    grey = jnp.where(one.bright < 0.5, 0.95 - 0.3 * one.tone, 0.25 * one.tone)
    color = grey * jnp.array([1.0, 0.98, 0.94])
    return paint(image, opacity=opacity[None], color=color[None])


def random_tape(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Sticks adhesive tape on: yellowed strips with sharp edges, a little glossy.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that was mended.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots = 2
    keys = fields.split(key, 2)
    one, each = draw(
        keys[0],
        (
            (),
            {"amount": (0, 1), "rounding": (0, 1), "yellow": (0, 1), "glue": (0, 1)}
            | {"dark": (0, 1)},
        ),
        (
            (slots, 1, 1),
            {"row": (0, 1), "column": (0, 1), "angle": (0, 3.1416), "along": (0, 1)}
            | {"width": (18, 62), "length": (0.15, 1.4), "strength": (0.18, 0.62)}
            | {
                "edge": (0, 0.6),
                "gloss": (-0.15, 0.35),
                "saw": (2.5, 6),
                "dirt": (0, 0.7),
            }
            | {"streak": (-0.8, 0.8)},
        ),
    )
    slow, wide, coarse, fine = fields.smooth_noise(
        keys[1], shape, cells=(60 * scale, 22 * scale, 9 * scale, 3.5 * scale)
    )
    amount = density(severity) * fields.spread(one.amount, octaves=0.7)
    exists = count(one.rounding, 0.7 * amount, slots)[:, None, None]
    rows, columns = jnp.ogrid[: shape[0], : shape[1]]
    down, right = rows - each.row * shape[0], columns - each.column * shape[1]
    # Half of the strips run along the sides.
    angle = jnp.where(
        each.along < 0.5,
        jnp.round(each.angle / 1.5708) * 1.5708 + 0.06 * slow,
        each.angle,
    )
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    u, v = down * sin + right * cos, down * cos - right * sin
    half = 0.5 * scale * each.width
    reach = 0.5 * 384 * scale * each.length
    # Cut by a serrated blade at its ends.
    tooth = jnp.abs(jnp.mod(v / (scale * each.saw), 1) - 0.5) * 2 - 0.5
    from_side = half - jnp.abs(v) + 0.5 * scale * coarse * (one.glue < 0.35)
    from_end = reach - jnp.abs(u) + 0.7 * scale * each.saw * tooth
    depth = jnp.minimum(from_side, from_end)
    inside = jnp.clip(depth + 0.5, 0, 1) * exists
    # The film is even; old glue, left where it fell off, is patchy.
    glue = jnp.clip(0.65 + 0.45 * wide + 0.35 * coarse + 0.2 * fine, 0, 1.15)
    film = 0.93 + 0.07 * slow
    body = each.strength * jnp.where(one.glue < 0.35, glue, film)
    # Dust sticks to the edges.
    dust = (
        each.dirt * jnp.exp(-depth / (2.2 * scale)) * jnp.clip(0.6 + 0.5 * fine, 0, 1)
    )
    rim = each.edge * jnp.exp(-depth / (5 * scale))
    body = body * (1 + rim)
    gloss = jnp.exp(-jnp.square((v / half - each.streak) / 0.3))
    gloss = (
        jnp.maximum(each.gloss, 0)
        * gloss
        * jnp.clip(0.7 + 0.5 * slow + 0.2 * coarse, 0, 1)
    )
    # Bubbles and wrinkles shine.
    gloss = gloss + 0.25 * jnp.clip(1.2 * wide + 0.8 * fine - 2.2, 0, 1)
    amber = jnp.array([0.86, 0.74, 0.42]) - one.yellow * jnp.array([0.2, 0.28, 0.24])
    amber = amber * (1 - 0.35 * one.dark**2)
    layers = [
        jnp.max(inside * body, axis=0),
        jnp.max(inside * dust, axis=0),
        jnp.max(inside * gloss, axis=0),
    ]
    return paint(
        image,
        opacity=jnp.stack(layers),
        color=jnp.stack([amber, jnp.full(3, 0.18), jnp.array([1.0, 0.99, 0.95])]),
    )


def random_tidemarks(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints water rims: irregular closed stains, dark at the rim.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that got wet once.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots, balls = 3, 5
    keys = fields.split(key, 2)
    one, each, ball = draw(
        keys[0],
        (
            (),
            {"amount": (0, 1), "rounding": (0, 1), "brown": (0, 1), "rim": (0.15, 0.75)}
            | {"tint": (-0.05, 0.28), "soft": (2, 16), "rings": (-0.8, 0.8)}
            | {
                "apart": (6, 22),
                "ragged": (0.4, 1.4),
                "pale": (0, 1),
                "width": (0.7, 2.4),
            }
            | {"border": (0, 1)},
        ),
        ((slots,), {"row": (0, 1), "column": (0, 1), "size": (16, 85)}),
        ((slots, balls), {"down": (-1, 1), "right": (-1, 1), "size": (0.25, 0.75)}),
    )
    slow, wide, coarse, middle, fine, even = fields.smooth_noise(
        keys[1],
        shape,
        cells=(48 * scale, 20 * scale, 9 * scale, 4 * scale, 1.8 * scale, 30 * scale),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=1.0)
    exists = count(one.rounding, 1.2 * amount, slots)
    size = jnp.array(shape, jnp.float32)
    position = jnp.stack([each.row, each.column], -1)
    # Many come in from a border.
    pushed = jnp.round(position) * 1.1 - 0.05
    position = jnp.where(
        one.border < 0.4,
        jnp.where(position < position[:, ::-1], pushed, position),
        position,
    )
    position = jnp.where(exists[:, None] > 0, position * size, fields.AWAY)
    extent = scale * each.size
    offset = jnp.stack([ball.down, ball.right], -1)
    distance, _ = fields.blobs(
        shape,
        centre=(position[:, None] + extent[:, None, None] * offset).reshape(-1, 2),
        radius=(extent[:, None] * ball.size).reshape(-1),
        values=jnp.zeros((0, slots * balls)),
    )
    warp = 7 * slow + 4.5 * wide + 2.2 * coarse + 0.9 * middle + 0.3 * fine
    distance = distance + one.ragged * scale * warp

    def rim(depth, width):
        """A line that is sharp outside and fades inwards."""
        outer = jnp.clip(depth / scale + 0.5, 0, 1)
        inner = jnp.exp(-jnp.maximum(depth, 0) / (scale * width))
        soft = jnp.exp(-jnp.maximum(depth, 0) / (scale * one.soft))
        return outer * (0.7 * inner + 0.3 * soft)

    uneven = jnp.clip(0.75 + 0.5 * even + 0.2 * coarse, 0.05, 1.2)
    line = one.rim * rim(distance, one.width) * uneven
    # An earlier, smaller rim within: it dried in steps.
    second = rim(distance - scale * one.apart * (1 + 0.3 * wide), 1.2 * one.width)
    line = jnp.maximum(line, jnp.maximum(one.rings, 0) * one.rim * second * uneven)
    inside = jnp.clip(distance / (2 * scale), 0, 1)
    tint = jnp.maximum(one.tint, 0) * inside * jnp.clip(0.8 + 0.25 * wide, 0, 1)
    wet = (exists.sum() > 0) * 1.0
    brown = jnp.array([0.42, 0.3, 0.16]) * (0.5 + 0.8 * one.brown)
    # Inside, the emulsion is bleached in some, stained in others.
    pale = jnp.where(one.pale < 0.5, jnp.array([0.9, 0.86, 0.74]), 1.4 * brown)
    return paint(
        image,
        opacity=wet * jnp.stack([tint, line]),
        color=jnp.stack([jnp.clip(pale, 0, 1), brown]),
    )


def random_mould(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Grows mould: clusters of dots and of feathery blots.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that lay in a cellar.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    dots, blots = max(60, math.ceil(300 * area(shape))), 14
    keys = fields.split(key, 2)
    one, each, blot, clusters = draw(
        keys[0],
        (
            (),
            {"amount": (0, 1), "rounding": (0, 1), "together": (0.6, 1), "tone": (0, 1)}
            | {
                "bright": (0, 1),
                "green": (0, 1),
                "feathery": (0.2, 1),
                "size": (0.6, 1.5),
            }
            | {"strength": (0.45, 1)},
        ),
        ((dots,), _SCATTER | {"size": (0, 1), "opacity": (0.3, 1)}),
        ((blots,), _SCATTER | {"size": (0, 1), "opacity": (0.3, 1)}),
        _CLUSTERS,
    )
    coarse, middle, fine, tiny, other = fields.smooth_noise(
        keys[1],
        shape,
        cells=(14 * scale, 6 * scale, 2.8 * scale, 1.4 * scale, 4 * scale),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=1.5)
    exists = count(one.rounding, 120 * amount * area(shape), dots)
    width = scale * one.size * (0.8 + 3.4 * each.size**4)
    dotted = fields.discs(
        shape,
        layer=jnp.zeros(dots, jnp.int32),
        centre=_scattered(each, one, shape, 4 * scale, clusters),
        radius=width / 2,
        opacity=exists * each.opacity,
        layers=1,
        reach=math.ceil(3.4 * scale),
    )[0]
    # Threads grow from blots in all directions: noise that rises towards their middle.
    grown = count(one.rounding, 6 * amount, blots)
    position = _scattered(blot, one, shape, 10 * scale, clusters)
    halo = fields.glows(
        shape,
        centre=jnp.where(grown[:, None] > 0, position, fields.AWAY),
        radius=scale * one.size * (2.5 + 13 * blot.size**2),
        strength=blot.opacity,
    )
    halo = jnp.minimum(halo, 1)
    threads = jnp.abs(middle + 0.5 * other) + 0.5 * jnp.abs(fine)
    threads = jnp.clip(1.2 - 1.5 * threads + 0.35 * tiny, 0, 1)
    feathery = jnp.clip(2.2 * halo - 0.45 + 0.35 * coarse + 0.3 * fine, 0, 1)
    body = jnp.clip(3.0 * halo - 1.5 + 0.4 * coarse + 0.25 * fine, 0, 1)
    blotted = jnp.maximum(body, one.feathery * feathery * threads)
    blotted = blotted * (halo > 0.02)
    opacity = one.strength * jnp.maximum(dotted, 0.85 * blotted)
    light = jnp.where(one.bright < 0.4, 0.95 - 0.25 * one.tone, 0.05 + 0.35 * one.tone)
    tint = one.green**2 * jnp.array([-0.05, 0.03, -0.07])
    color = jnp.clip(light + tint + 0.04 * coarse[..., None], 0, 1)
    return paint(image, opacity=opacity[None], color=color[None])


def random_foxing(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints foxing: rust-brown spots with a dark core and a pale halo.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 an old print on bad paper.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots = max(16, math.ceil(60 * area(shape)))
    keys = fields.split(key, 2)
    one, each, clusters = draw(
        keys[0],
        (
            (),
            {"amount": (0, 1), "rounding": (0, 1), "together": (0, 0.8), "hue": (0, 1)}
            | {"size": (0.6, 1.5), "strength": (0.35, 0.95), "halo": (0.1, 0.6)},
        ),
        ((slots,), _SCATTER | {"size": (0, 1), "opacity": (0.25, 1)}),
        _CLUSTERS,
    )
    coarse, middle, fine = fields.smooth_noise(
        keys[1], shape, cells=(7 * scale, 3 * scale, 1.6 * scale)
    )
    amount = density(severity) * fields.spread(one.amount, octaves=1.8)
    exists = count(one.rounding, 18 * amount * area(shape), slots)
    position = _scattered(each, one, shape, 8 * scale, clusters)
    position = jnp.where(exists[:, None] > 0, position, fields.AWAY)
    radius = scale * one.size * (0.9 + 7 * each.size**3)
    core = fields.glows(
        shape, centre=position, radius=radius, strength=1.6 * each.opacity
    )
    halo = fields.glows(
        shape, centre=position, radius=1.8 * radius + scale, strength=each.opacity
    )
    ragged = 1 + 0.25 * coarse + 0.2 * middle + 0.12 * fine
    core = jnp.clip(1.5 * core * ragged - 0.35, 0, 1) * one.strength
    halo = jnp.clip(halo * ragged - 0.04, 0, 1) * one.halo * one.strength
    rust = jnp.array([0.44, 0.29, 0.15]) + (one.hue - 0.5) * jnp.array(
        [0.16, 0.16, 0.14]
    )
    return paint(
        image,
        opacity=jnp.stack([halo, core]),
        color=jnp.stack([jnp.clip(1.35 * rust, 0, 1), rust]),
    )
