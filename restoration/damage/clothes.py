"""Sequins, dots, lace, buttons and sleeves: what people wear and looks like damage.

They return the image alone: see `lookalikes`.
"""

import math

import jax
import jax.numpy as jnp

from restoration.damage import cells, fields, polylines, scene
from restoration.damage.drawing import density, heading
from restoration.damage.fields import count, draw, limited, unit


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
            scene.HUE
            | scene.REGION
            | {"size": (1.8, 5), "sparkle": (0.02, 0.2), "ground": (0.2, 0.95)}
            | {"happens": (0, 1), "angle": (0, 3.1416)},
        ),
        scene.BALLS,
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
        light[..., None]
        * scene.tinted(image, one, 1.0)
        * (0.55 + 0.45 * round_[..., None])
    )
    region = scene.region_of(one, ball, shape, whole=0.25)
    region = region * (one.happens < 2 * density(severity))
    return scene.lay(
        image,
        (region * one.ground, jnp.clip(color, 0, 1)),
        (
            region * dazzling * round_,
            jnp.clip(0.75 + 0.5 * scene.tinted(image, one, 0.5), 0, 1),
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
            scene.HUE
            | scene.REGION
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
        scene.BALLS,
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
    region = scene.region_of(one, ball, shape, whole=0.2)
    region = region * (one.happens < 2 * density(severity))
    shading = 1 + one.shading * (fold + 0.6 * slow)
    bright = 0.95 - 0.25 * one.tone
    dark = 0.05 + 0.25 * one.tone
    light, ground = (
        jnp.where(one.dark < 0.6, a, b) for a, b in ((bright, dark), (dark, bright))
    )
    # On cloth of its own, or on what the picture shows.
    light = jnp.clip(light * shading[..., None] * jnp.ones(3), 0, 1)
    cloth = jnp.clip(scene.tinted(image, one, 1.0) * ground * shading[..., None], 0, 1)
    return scene.lay(
        image,
        (region * jnp.maximum(one.ground, 0) ** 0.3, cloth),
        (region * dot * one.opacity, light),
    )


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
            scene.HUE
            | scene.REGION
            | {"period": (0, 1), "angle": (0, 3.1416), "warp": (0, 1), "kind": (0, 5)}
            | {"thick": (0.08, 0.3), "opacity": (0.35, 1), "dark": (0, 1)}
            | {"ground": (-0.3, 0.8), "happens": (0, 1), "shading": (0.03, 0.25)},
        ),
        scene.BALLS,
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
    region = scene.region_of(one, ball, shape, whole=0.15)
    region = region * (one.happens < 2 * density(severity))
    shading = 1 + one.shading * (fold + 0.5 * slow)
    bright, dark = 0.96 - 0.2 * one.tone, 0.04 + 0.25 * one.tone
    thread = jnp.where(one.dark < 0.7, bright, dark) * shading
    ground = jnp.where(one.dark < 0.7, dark, bright) * shading
    return scene.lay(
        image,
        (
            region * jnp.maximum(one.ground, 0),
            jnp.clip(ground[..., None] * scene.tinted(image, one, 1.0), 0, 1),
        ),
        (region * pattern * one.opacity, jnp.clip(thread, 0, 1)[..., None]),
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
        ((), scene.HUE | {"amount": (0, 1), "rounding": (0, 1), "lamp": (0, 6.2832)}),
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
    color = scene.tinted(image, one, body)
    tones = (jnp.zeros(3), 0.8 * color, color, 0.25 * color, jnp.ones(3))
    return scene.lay(image, *zip(layers, tones, strict=True))


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
        ((), scene.HUE | {"amount": (0, 1), "rounding": (0, 1), "fray": (-2, 1)}),
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
        result = scene.lay(
            result, (body[number], color * scene.tinted(image, one, 1.0))
        )
    return result
