"""Dirt, scratches and tears drawn at random: they return (image, mask)."""

import math

import jax
import jax.numpy as jnp

from restoration.damage import fields, paint
from restoration.damage.fields import area, count, draw, limited, unit
from restoration.damage.paint import Painted

# Three numbers a picture, for the colors of its dirt.
_TONE = ((3,), {"dark": (0, 1), "bright": (0, 1), "tint": (-0.05, 0.05)})

# Where an object is, as shares of the picture.
_PLACE = {"row": (0, 1), "column": (0, 1)}

# What the objects of one picture have in common.
_COMMON = {
    "rounding": (0, 1),
    "amount": (0, 1),
    "share": (0, 1),
    "strength": (0.45, 1),
    "zoom": (0.6, 1.4),
}


def _tones(tone) -> jax.Array:
    """Returns (2, 3) colors: dirt on the print (dark), on the negative (bright)."""
    dark = 0.24 * tone.dark[0] ** 1.5 + tone.tint * tone.dark[1]
    bright = 1.0 - 0.36 * tone.bright[0] ** 1.3 + tone.tint * tone.bright[1]
    return jnp.clip(jnp.stack([dark, bright]), 0, 1)


def _polarity(share: jax.Array, chance: jax.Array) -> jax.Array:
    """Returns 0 (dark) or 1 (bright) for each object of a picture.

    Args:
      share: one number in [0, 1): three tenths of the pictures have dark objects
        alone, four tenths bright ones alone, the others both.
      chance: (N,) in [0, 1).
    """
    return (chance < jnp.clip(share * 3.3 - 1.0, 0, 1)).astype(jnp.int32)


def _places(each, shape: fields.Shape, margin: float) -> jax.Array:
    """Returns (N, 2) positions in pixels, some in a margin (units) outside."""
    size = jnp.array(shape, jnp.float32)
    margin = margin * unit(shape)
    place = jnp.stack([each.row, each.column], axis=-1)
    return place * (size + 2 * margin) - margin


def _heading(angle: jax.Array) -> jax.Array:
    """Returns (..., 2) unit vectors (row, column)."""
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _density(severity: jax.Array) -> jax.Array:
    """Returns how much dirt there is: growing ever more slowly, 1 at severity 1."""
    return 1.18 * severity / (0.22 + severity) + 0.04 * severity


def random_running_scratches(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints running scratches: vertical lines that last for many frames.

    They wander slowly, come and go, run in bundles, are white, black, or on
    color film yellow, green and blue, as deep as the emulsion was cut.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The picture and the mask.
    """
    height, columns, _ = image.shape
    severity, scale = limited(severity), unit((height, columns))
    breadth = columns / (384 * scale)
    slots = max(5, math.ceil(16 * breadth))
    one, each, knot, tone = draw(
        key,
        ((), _COMMON | {"together": (0, 1), "middle": (0, 1), "spacing": (0.01, 0.2)}),
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
        ((3,), _TONE[1] | {"hue": (0, 1)}),
    )
    expected = 5.0 * _density(severity) * fields.spread(one.amount, octaves=2.0)
    exists = count(one.rounding, expected * breadth, slots)
    # Half of the pictures have their scratches in one bundle.
    bundle = one.middle + one.spacing * each.near
    x = jnp.where(one.together < 0.5, each.x, bundle) * columns
    drift, strength = fields.wave(knot.chance, height)
    x = x[:, None] + 4 * scale * one.zoom * each.wander[:, None] ** 3 * drift
    # Continuous, broken by chance, or a ladder as gear teeth leave it.
    rung = jnp.arange(height) / (scale * each.period[:, None]) + each.phase[:, None]
    ladder = jnp.clip(0.6 + 2 * jnp.sin(2 * math.pi * rung) + strength, 0.15, 1)
    broken = jnp.clip(0.5 + 3 * strength, 0, 1)
    steady = jnp.clip(0.8 + 0.8 * strength, 0.2, 1)
    style = each.style[:, None]
    along = jnp.where(style < 0.25, ladder, jnp.where(style < 0.55, broken, steady))
    color = _tones(tone)
    # A cut through some of the dye layers leaves the color of the others.
    dyes = jnp.array([[0.9, 0.85, 0.25], [0.3, 0.85, 0.35], [0.3, 0.45, 0.95]])
    dye = dyes[jnp.clip((tone.hue[0] * 3).astype(jnp.int32), 0, 2)]
    color = color.at[1].set(jnp.where(tone.hue[1] < 0.3, dye, color[1]))
    return paint.vertical_scratches(
        image,
        x=x,
        width=scale * one.zoom * (0.5 + 2.3 * each.width**2),
        opacity=along * (each.opacity * exists * one.strength)[:, None],
        layer=_polarity(one.share, each.bright),
        color=color,
    )


def random_scratches(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints random scratches: bundles of straight broken lines, and rubbed areas.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    margin, lines, length = 40, 16, 80
    extent = area(shape, margin=margin)
    groups = max(5, math.ceil(14 * extent))
    one, group, line, piece, tone = draw(
        key,
        ((), _COMMON),
        (
            (groups,),
            _PLACE
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
        _TONE,
    )
    expected = 7.0 * _density(severity) * fields.spread(one.amount, octaves=2.0)
    exists = count(one.rounding, expected * extent, groups)
    zoom = one.zoom * scale
    offset = jnp.stack([line.row, line.column], axis=-1)
    start = _places(group, shape, margin)[:, None]
    start = start + zoom * group.size[:, None, None] * offset
    short = (group.short < 0.3)[:, None]
    half = zoom * jnp.where(short, 1.5 + 7 * line.length, 8 + 50 * line.length**2)
    fan = jnp.where(short, math.pi, 0.05 + 1.3 * group.fan[:, None] ** 2)
    angle = group.angle[:, None] + fan * line.turn**3
    steps = jnp.linspace(-1, 1, length)
    # Dust rolled along the line: it jumps aside and breaks off.
    rolled = jnp.where(short, 0.0, 0.7 * zoom)[..., None] * piece.aside**3
    bend = jnp.where(short, 0.4, 0.06) * line.bend**3 * half
    across = bend[..., None] * jnp.square(steps) + rolled
    points = (
        start[:, :, None]
        + (half[..., None] * steps)[..., None] * _heading(angle)[:, :, None]
        + across[..., None] * _heading(angle + math.pi / 2)[:, :, None]
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
        layer=jnp.repeat(_polarity(one.share, group.bright), lines),
        color=_tones(tone),
        reach=math.ceil(1.75 * scale),
    )


# What makes the shape of a hair, drawn for each.
_CURL = {"heading": (0, 2 * math.pi), "bend": (-1, 1), "kink": (0.1, 0.9)} | {
    "turn": (-1, 1),
    "curl": (0.2, 1.4),
}


def _curves(curl, chance: jax.Array, *, extent: jax.Array, length: int) -> jax.Array:
    """Returns (N, length, 2) curves like hairs: gentle, wavy, with a kink.

    Args:
      curl: namespace of (N, 1) numbers of `_CURL`.
      chance: (N, K) in [0, 1), the waves.
      extent: (N, 1) length of the curves in pixels.
      length: number of points.
    """
    position = jnp.linspace(0, 1, length)
    angle = (
        curl.heading
        + 2.5 * curl.bend**3 * position
        + 2.8 * curl.turn**3 * jnp.clip((position - curl.kink) * 12, 0, 1)
        + curl.curl * fields.wave(chance, length)
    )
    path = jnp.cumsum((extent / length)[..., None] * _heading(angle), axis=1)
    return path - path[:, length // 2, None]


def random_hairs(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints hairs: long and short thin curves.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    margin, length = 40, 128
    extent = area(shape, margin=margin)
    slots = max(6, math.ceil(18 * extent))
    one, each, curl, knot, tone = draw(
        key,
        ((), _COMMON),
        (
            (slots,),
            _PLACE
            | {"bright": (0, 1), "width": (0.7, 1.9), "opacity": (0.5, 1)}
            | {"extent": (0, 1)},
        ),
        ((slots, 1), _CURL),
        ((slots, 11), {"chance": (0, 1)}),
        _TONE,
    )
    expected = 5.0 * _density(severity) * fields.spread(one.amount, octaves=1.7)
    exists = count(one.rounding, expected * extent, slots)
    # As many short ones (15 to 50 units) as long ones (up to 150).
    reach = jnp.where(
        each.extent < 0.5, 15 + 70 * each.extent, 50 + 200 * (each.extent - 0.5)
    )
    zoom = one.zoom * scale
    points = _places(each, shape, margin)[:, None] + _curves(
        curl, knot.chance, extent=zoom * reach[:, None], length=length
    )
    taper = 1 - 0.45 * jnp.abs(jnp.linspace(-1, 1, length)) ** 4
    width = (each.width * zoom)[:, None] * taper
    # A hair thinner than a pixel is pale, not narrower.
    pale = jnp.clip(0.35 + width / 2, 0, 1)
    return paint.strokes(
        image,
        points=points,
        width=width,
        opacity=(each.opacity * exists * one.strength)[:, None] * pale,
        layer=_polarity(one.share, each.bright),
        color=_tones(tone),
        reach=math.ceil(1.4 * scale),
    )


def random_lint(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints lint: woolly threads of several strands.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    margin, length, strands = 30, 96, 3
    extent = area(shape, margin=margin)
    slots = max(2, math.ceil(5 * extent))
    one, each, trunk, strand, knot, stray, wool, tone = draw(
        key,
        ((), _COMMON),
        ((slots,), _PLACE | {"bright": (0, 1)}),
        ((slots, 1), _CURL | {"width": (1, 3), "extent": (35, 110), "apart": (0, 0.6)}),
        ((slots * strands, 1), _CURL),
        ((slots, 12), {"chance": (0, 1)}),
        ((slots * strands, 12), {"chance": (0, 1)}),
        ((slots, strands, length), {"thick": (0, 1), "thin": (0, 1)}),
        _TONE,
    )
    expected = 1.3 * _density(severity) * fields.spread(one.amount, octaves=1.5)
    exists = count(one.rounding, expected * extent, slots)
    zoom = one.zoom * scale
    reach = zoom * trunk.extent
    main = _curves(trunk, knot.chance, extent=reach, length=length)
    main = main + _places(each, shape, margin)[:, None]
    apart = _curves(
        strand,
        stray.chance,
        extent=jnp.repeat(reach * trunk.apart, strands, axis=0),
        length=length,
    )
    points = main[:, None] + apart.reshape(slots, strands, length, 2)
    thick = 0.45 + 0.9 * fields.smooth_line(fields.smooth_line(wool.thick))
    thin = jnp.clip(0.25 + fields.smooth_line(fields.smooth_line(wool.thin)), 0, 1)
    return paint.strokes(
        image,
        points=points.reshape(-1, length, 2),
        width=(zoom * trunk.width[..., None] * thick).reshape(-1, length),
        opacity=(one.strength * exists[:, None, None] * thin).reshape(-1, length),
        layer=jnp.repeat(_polarity(one.share, each.bright), strands),
        color=_tones(tone),
        reach=math.ceil(3.0 * scale),
    )


def random_dust(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints dust: fine specks, thinly everywhere and in dense clouds.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 3)
    one, two, tone = draw(
        keys[0],
        (
            (),
            _COMMON
            | {
                "size": (0, 1),
                "stretch": (-0.15, 0.15),
                "broad": (1.3, 3.5),
                "coarse": (0, 0.7),
                "softness": (0.4, 1.8),
            },
        ),
        ((2,), {"everywhere": (0, 1), "cloudy": (0, 1), "cover": (0, 1)}),
        _TONE,
    )
    sigma = scale * (0.5 + 0.6 * one.size**2)
    stretch = jnp.exp(jnp.stack([one.stretch, -one.stretch]))
    fine = fields.fine_noise(
        keys[1], shape, sigma=sigma * stretch, radius=math.ceil(3 * scale)
    )[0]
    *clouds, middle, coarse = fields.smooth_noise(
        keys[2],
        shape,
        cells=(24 * scale, 24 * scale, 8 * scale, 2.2 * scale),
        zoom=one.broad * stretch**0.5,
    )
    # Grains of two sizes.
    noise = jnp.sqrt(1 - one.coarse**2) * fine + one.coarse * coarse
    # Bright dust is where the noise is high, dark dust where it is low.
    bright = jnp.clip(one.share * 3.3 - 1.0, 0, 1)
    side = jnp.stack([1 - bright, bright])[:, None, None]
    amount = _density(severity)
    sparse = 0.005 * amount * two.everywhere**4
    dense = 0.4 * amount * two.cloudy**2
    level = (1.5 - 1.3 * amount * two.cover)[:, None, None]
    bank = jnp.stack(clouds) + 0.5 * middle - level
    bank = jnp.clip(0.6 * bank, 0, 1) ** 2
    share = sparse[:, None, None] + dense[:, None, None] * bank
    share = jnp.clip(share * (side > 0), 1e-9, 0.45)
    # The threshold that a normal number passes with that chance, nearly.
    threshold = jnp.sqrt(-2 * jnp.log(share) + 0.3) - 1.25 + 0.25 * jnp.sqrt(share)
    return paint.specks(
        image,
        noise=jnp.stack([-noise, noise]),
        threshold=threshold,
        softness=one.softness,
        opacity=one.strength * (severity > 0),
        color=_tones(tone),
    )


def random_dirt(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints dirt: ragged clumps of 5 to 50 pixels.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    balls, margin = 6, 15
    extent = area(shape, margin=margin)
    slots = max(8, math.ceil(32 * extent))
    keys = fields.split(key, 3)
    one, each, ball, tone = draw(
        keys[0],
        ((), _COMMON | {"ragged": (0, 1), "clumpy": (0, 1), "soft": (0.8, 2.4)}),
        (
            (slots,),
            _PLACE
            | {"size": (0, 1), "bright": (0, 1), "opacity": (0.5, 1)}
            | {"angle": (0, math.pi), "long": (0, 1)},
        ),
        ((slots, balls), {"along": (-1, 1), "across": (-1, 1), "size": (0.3, 1)}),
        _TONE,
    )
    expected = 8.0 * _density(severity) * fields.spread(one.amount, octaves=1.8)
    exists = count(one.rounding, expected * extent, slots)
    size = one.zoom * scale * (3 + 24 * each.size**2)
    angle = each.angle[:, None]
    along = (0.4 + 0.9 * each.long**2)[:, None] * ball.along
    offset = along[..., None] * _heading(angle)
    offset = offset + 0.5 * ball.across[..., None] * _heading(angle + math.pi / 2)
    centre = _places(each, shape, margin)[:, None] + size[:, None, None] * offset
    radius = 0.6 * size[:, None] * ball.size
    layer = _polarity(one.share, each.bright)
    coarse, middle, fine = fields.smooth_noise(
        keys[1], shape, cells=(10 * scale, 4 * scale, 1.8 * scale)
    )
    distance, opacity = [], []
    for index in (0, 1):
        # Clumps of the other layer, and those that do not exist, lie far away.
        mine = exists * (layer == index)
        edge, (strength, extent) = fields.blobs(
            shape,
            centre=jnp.where(mine[:, None, None] > 0, centre, -1e4).reshape(-1, 2),
            radius=radius.reshape(-1),
            values=jnp.stack(
                [jnp.repeat(each.opacity, balls), jnp.repeat(size, balls)]
            ),
        )
        extent = jnp.minimum(extent, 16 * scale)
        ragged = extent * (
            (0.1 + 0.22 * one.clumpy) * coarse
            + (0.08 + 0.2 * one.clumpy * one.ragged) * middle
            + (0.03 + 0.09 * one.ragged) * fine
        )
        distance.append(edge + ragged * (1 - 2 * index))
        opacity.append(strength * jnp.any(mine > 0))
    return paint.blotches(
        image,
        distance=jnp.stack(distance),
        softness=one.soft * scale,
        opacity=one.strength * jnp.stack(opacity),
        color=_tones(tone),
    )


def random_spots(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints spots: single grains of dirt, round or long, of 1 to 8 pixels.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots, dabs = max(32, math.ceil(250 * area(shape))), 4
    one, each, tone = draw(
        key,
        ((), _COMMON),
        (
            (slots,),
            _PLACE
            | {"angle": (0, 2 * math.pi), "turn": (-0.8, 0.8), "size": (0, 1)}
            | {"long": (0, 1), "bright": (0, 1), "opacity": (0.25, 1)},
        ),
        _TONE,
    )
    expected = 40.0 * _density(severity) * fields.spread(one.amount, octaves=2.5)
    exists = count(one.rounding, expected * area(shape), slots)
    width = one.zoom * scale * (0.9 + 3.3 * each.size**3)
    dab = jnp.arange(dabs) - (dabs - 1) / 2
    step = (width * (0.1 + 0.6 * each.long))[:, None] * dab
    angle = each.angle[:, None] + each.turn[:, None] * dab
    points = _places(each, shape, 2)[:, None] + step[..., None] * _heading(angle)
    return paint.strokes(
        image,
        points=points,
        width=width[:, None] * (1 - 0.14 * jnp.square(dab)),
        opacity=jnp.broadcast_to((each.opacity * exists)[:, None], step.shape),
        layer=_polarity(one.share, each.bright),
        color=_tones(tone),
        reach=math.ceil(3.0 * scale),
    )


def random_stains(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints stains: translucent blotches in layers, with drops around them.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    balls, drops, margin = 5, 24, 40
    extent = area(shape, margin=margin)
    slots = max(3, math.ceil(5 * extent))
    keys = fields.split(key, 2)
    one, each, ball, drop, tone = draw(
        keys[0],
        (
            (),
            _COMMON
            | {
                "rim": (-0.7, 0.9),
                "rim_width": (1.5, 8),
                "soft": (0, 1),
                "ragged": (0.3, 1.2),
                "brown": (0, 1),
                "warm": (0, 0.35),
                "texture": (0, 0.1),
            },
        ),
        ((slots,), _PLACE | {"size": (14, 60)}),
        (
            (2, slots, balls),
            {"down": (-1, 1), "right": (-1, 1), "size": (0.15, 0.6)}
            | {"opacity": (0.1, 0.8)},
        ),
        (
            (slots, drops),
            {"down": (-1, 1), "right": (-1, 1), "size": (0, 1), "opacity": (0.1, 0.7)},
        ),
        _TONE,
    )
    expected = 1.9 * _density(severity) * fields.spread(one.amount, octaves=1.5)
    exists = count(one.rounding, expected * extent, slots)
    size = one.zoom * scale * each.size
    place = jnp.where(exists[:, None] > 0, _places(each, shape, margin), -1e4)
    tones = _tones(tone)
    tea = jnp.array([0.4, 0.3, 0.18]) + one.warm * jnp.array([1.0, 1.0, 0.8])
    color = jnp.where(one.share < 0.4, tones[0], tones[1])
    color = jnp.where(one.brown < 0.3, tea, color)
    coarse, middle, fine, other = fields.smooth_noise(
        keys[1], shape, cells=(22 * scale, 8 * scale, 3 * scale, 15 * scale)
    )
    warp = one.ragged * scale * (6 * coarse + 3 * middle + 1.2 * fine)
    distance, opacity = [], []
    # Two layers of one color: where they overlap, the edge of each shows.
    for index in (0, 1):
        offset = jnp.stack([ball.down[index], ball.right[index]], axis=-1)
        edge, (strength,) = fields.blobs(
            shape,
            centre=(place[:, None] + 0.8 * size[:, None, None] * offset).reshape(-1, 2),
            radius=(size[:, None] * ball.size[index]).reshape(-1),
            values=ball.opacity[index].reshape(1, -1),
        )
        distance.append(edge + (warp if index else -0.8 * warp + 3 * scale * other))
        opacity.append(strength * (1 + one.texture * (2 * other + fine)))
    image, mask = paint.blotches(
        image,
        distance=jnp.stack(distance),
        softness=jnp.exp2(0.5 + 3.5 * one.soft**3) * scale,
        opacity=one.strength * jnp.stack(opacity),
        color=jnp.stack([color, color]),
        rim=one.rim,
        rim_width=one.rim_width * scale,
    )
    offset = jnp.stack([drop.down, drop.right], axis=-1)
    centre = place[:, None] + 1.8 * size[:, None, None] * offset**3
    image, splashed = paint.strokes(
        image,
        points=centre.reshape(-1, 1, 2),
        width=(scale * (0.7 + 4.5 * drop.size**4)).reshape(-1, 1),
        opacity=(one.strength * exists[:, None] * drop.opacity).reshape(-1, 1),
        layer=jnp.zeros(slots * drops, jnp.int32),
        color=color[None],
        reach=math.ceil(2.6 * scale),
    )
    return image, 1 - (1 - mask) * (1 - splashed)


def random_cue_marks(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints a cue mark near the top right corner, in some of the pictures.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 about one picture in twelve.

    Returns:
      The picture and the mask.
    """
    height, columns, _ = image.shape
    severity, scale = limited(severity), unit((height, columns))
    one, tone = draw(
        key,
        (
            (),
            _COMMON
            | {
                "row": (0.04, 0.2),
                "column": (0.8, 0.96),
                "radius": (3.5, 9),
                "aspect": (0.8, 2),
                "ring": (-1.5, 2.5),
            },
        ),
        _TONE,
    )
    exists = one.amount < 1 - jnp.exp(-0.12 * _density(severity))
    tones = _tones(tone)
    return paint.cue_mark(
        image,
        centre=jnp.stack([one.row * height, one.column * columns]),
        radius=one.radius * scale,
        aspect=one.aspect,
        ring=jnp.maximum(one.ring, 0) * scale,
        opacity=one.strength * exists,
        color=jnp.where(one.share < 0.5, tones, tones[::-1]),
    )


def random_creases(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints folds across the picture, cracked open here and there.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that lay in a drawer.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots = 4
    keys = fields.split(key, 2)
    one, each, tone = draw(
        keys[0],
        ((), _COMMON),
        (
            (slots, 1, 1),
            _PLACE
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
        _TONE,
    )
    expected = 0.9 * _density(severity) * fields.spread(one.amount, octaves=1.0)
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
    # The crack opens where the noise is high, and closes in between.
    width = scale * (each.width + 1.0 * open_ + 0.9 * flake) * ends
    return paint.creases(
        image,
        distance=distance + jagged,
        width=width,
        opacity=exists * one.strength**0.5 * each.opacity * jnp.clip(width, 0, 1),
        shadow=exists * jnp.maximum(each.shadow, 0) * ends,
        shadow_width=each.shadow_width[:, 0, 0] * scale,
        color=_tones(tone),
    )


def random_missing(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Tears off corners, wears the edges away and makes holes.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that was handled much.

    Returns:
      The picture and the mask.
    """
    height, width, _ = image.shape
    shape = (height, width)
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 2)
    one, corner, hole, tone = draw(
        keys[0],
        (
            (),
            _PLACE
            | {
                "worn": (0, 1),
                "depth": (-8, 3),
                "behind": (0, 1),
                "rim": (-1, 4),
                "hole": (0, 1),
                "size": (2.5, 13),
                "ragged": (0.4, 1.5),
            },
        ),
        ((4, 1, 1), {"chance": (0, 1), "size": (0, 1), "angle": (0.25, 1.32)}),
        ((3,), {"down": (-1, 1), "right": (-1, 1), "size": (0.3, 1)}),
        _TONE,
    )
    coarse, middle, fine, other = fields.smooth_noise(
        keys[1], shape, cells=(30 * scale, 9 * scale, 2.5 * scale, 12 * scale)
    )
    ragged = one.ragged * scale * (1.2 * middle + 0.6 * fine)
    often = 1 - jnp.exp(-_density(severity) * jnp.array([0.08, 0.12, 0.07]))
    far = -1e4
    rows, columns = jnp.ogrid[:height, :width]
    top, left = rows.astype(jnp.float32), columns.astype(jnp.float32)
    bottom, right = height - 1 - top, width - 1 - left
    border = jnp.minimum(jnp.minimum(top, bottom), jnp.minimum(left, right))
    # The edge is worn in places, where the coarse noise is high.
    worn = scale * (one.depth + 3.5 * coarse) - border
    distance = jnp.where(one.worn < often[0], worn, far)
    down = jnp.stack([top + 0 * left, top + 0 * left, bottom + 0 * left] * 2)[
        jnp.array([0, 1, 2, 5])
    ]
    across = jnp.stack([left + 0 * top, right + 0 * top])[jnp.array([0, 1, 0, 1])]
    size = scale * (6 + 45 * corner.size**3)
    cut = size - (down * jnp.sin(corner.angle) + across * jnp.cos(corner.angle))
    cut = jnp.where(corner.chance < often[1], cut, far).max(axis=0)
    distance = jnp.maximum(distance, cut + 0.06 * size.max() * coarse)
    place = jnp.stack([one.row * height, one.column * width])
    offset = jnp.stack([hole.down, hole.right], axis=-1)
    gap, _ = fields.blobs(
        shape,
        centre=place + 0.7 * scale * one.size * offset,
        radius=scale * one.size * hole.size,
        values=jnp.zeros((0, 3)),
    )
    distance = jnp.maximum(distance, jnp.where(one.hole < often[2], gap, far))
    tones = _tones(tone)
    behind = jnp.where(one.behind < 0.7, tones[1], tones[0])
    return paint.missing(
        image,
        distance=distance + ragged,
        rim=scale * jnp.maximum(one.rim + 1.2 * other + 0.8 * fine, 0),
        color=jnp.stack([jnp.clip(tones[1] + 0.05, 0, 1), behind]),
    )
