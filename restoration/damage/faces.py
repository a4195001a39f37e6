"""Eyes, spectacles and hair: what faces have and looks like damage.

They return the image alone: see `lookalikes`.
"""

import math

import jax
import jax.numpy as jnp

from restoration.damage import fields, polylines, scene
from restoration.damage.drawing import density
from restoration.damage.fields import count, draw, limited, unit


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
        ((), scene.HUE | {"amount": (0, 1), "rounding": (0, 1), "down": (-0.5, 0.1)}
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

    color = scene.tinted(image, one, 0.18 + 0.3 * one.tone)
    return scene.lay(
        image,
        (most(0.85 * opening), jnp.full(3, 0.82) * (0.7 + 0.3 * one.tone)),
        (most(0.8 * lashes), jnp.full(3, 0.07)),
        (most(iris), color),
        (most(0.9 * pupil), jnp.full(3, 0.03)),
        (most(jnp.maximum(first, second)), jnp.full(3, 0.98)),
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
        ((), scene.HUE | {"amount": (0, 1), "rounding": (0, 1)}),
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

    return scene.lay(
        image,
        (most(streak), jnp.full(3, 0.95)),
        (most(frame * (1 - metal)), scene.tinted(image, one, 0.04 + 0.12 * one.tone)),
        (most(0.9 * frame * metal), scene.tinted(image, one, 0.2 + 0.45 * one.tone)),
        (most(shine), jnp.full(3, 0.97)),
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
            scene.HUE
            | {"amount": (0, 1), "rounding": (0, 1), "shine": (0.1, 0.6)}
            | {"stray": (0, 1), "body": (0.3, 1)},
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
    # The lock that they belong to: without it strands are scratches.
    ends = jnp.clip(3 * (1 - jnp.abs(2 * even - 1)), 0.2, 1)
    lock_width = 1.7 * spread[..., 0] * ends
    body = fields.glows(
        shape,
        centre=middle[:, ::4].reshape(-1, 2),
        radius=0.45 * lock_width[:, ::4].reshape(-1),
        strength=jnp.repeat(exists[:, 0, 0], len(even[::4])),
    )
    body = one.body * jnp.clip(1.5 * body - 0.3, 0, 1)
    dark = scene.tinted(image, one, 0.05 + 0.35 * one.tone**2)
    bright = jnp.clip(0.25 + 0.6 * one.tone + 1.2 * dark, 0, 1)
    return scene.lay(
        image, (body, 0.8 * dark), (layers[0], 0.6 * dark), (layers[1], bright)
    )
