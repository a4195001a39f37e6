"""Random dust, dirt and spots."""

import math

import jax
import jax.numpy as jnp

from restoration.damage import drawing, fields, paint
from restoration.damage.fields import area, count, draw, limited, unit
from restoration.damage.paint import Painted


def random_dust(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints dust: fine specks, sparse everywhere and dense in clouds.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The image and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 3)
    one, two, tone = draw(
        keys[0],
        (
            (),
            drawing.COMMON
            | {
                "size": (0, 1),
                "stretch": (-0.15, 0.15),
                "broad": (1.3, 3.5),
                "coarse": (0, 0.7),
                "softness": (0.4, 1.8),
            },
        ),
        ((2,), {"everywhere": (0, 1), "cloudy": (0, 1), "cover": (0, 1)}),
        drawing.TONE,
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
    # High noise gives bright dust, low noise dark dust.
    bright = jnp.clip(one.share * 3.3 - 1.0, 0, 1)
    side = jnp.stack([1 - bright, bright])[:, None, None]
    amount = drawing.density(severity)
    sparse = 0.005 * amount * two.everywhere**4
    dense = 0.4 * amount * two.cloudy**2
    level = (1.5 - 1.3 * amount * two.cover)[:, None, None]
    bank = jnp.stack(clouds) + 0.5 * middle - level
    bank = jnp.clip(0.6 * bank, 0, 1) ** 2
    share = sparse[:, None, None] + dense[:, None, None] * bank
    share = jnp.clip(share * (side > 0), 1e-9, 0.45)
    # About the threshold that a normal number exceeds with this probability.
    threshold = jnp.sqrt(-2 * jnp.log(share) + 0.3) - 1.25 + 0.25 * jnp.sqrt(share)
    return paint.specks(
        image,
        noise=jnp.stack([-noise, noise]),
        threshold=threshold,
        softness=one.softness,
        opacity=one.strength * (severity > 0),
        color=drawing.tones(tone),
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
      The image and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    balls, margin = 6, 15
    extent = area(shape, margin=margin)
    slots = max(8, math.ceil(32 * extent))
    keys = fields.split(key, 3)
    one, each, ball, tone = draw(
        keys[0],
        ((), drawing.COMMON | {"ragged": (0, 1), "clumpy": (0, 1), "soft": (0.8, 2.4)}),
        (
            (slots,),
            drawing.POSITION
            | {"size": (0, 1), "bright": (0, 1), "opacity": (0.5, 1)}
            | {"angle": (0, math.pi), "long": (0, 1)},
        ),
        ((slots, balls), {"along": (-1, 1), "across": (-1, 1), "size": (0.3, 1)}),
        drawing.TONE,
    )
    expected = 8.0 * drawing.density(severity) * fields.spread(one.amount, octaves=1.8)
    exists = count(one.rounding, expected * extent, slots)
    size = one.zoom * scale * (3 + 24 * each.size**2)
    angle = each.angle[:, None]
    along = (0.4 + 0.9 * each.long**2)[:, None] * ball.along
    offset = along[..., None] * drawing.heading(angle)
    offset = offset + 0.5 * ball.across[..., None] * drawing.heading(
        angle + math.pi / 2
    )
    centre = (
        drawing.positions(each, shape, margin)[:, None] + size[:, None, None] * offset
    )
    radius = 0.6 * size[:, None] * ball.size
    layer = drawing.polarity(one.share, each.bright)
    coarse, middle, fine = fields.smooth_noise(
        keys[1], shape, cells=(10 * scale, 4 * scale, 1.8 * scale)
    )
    distance, opacity = [], []
    for index in (0, 1):
        # Clumps of the other layer, and those that do not exist, are moved far away.
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
        color=drawing.tones(tone),
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
      The image and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots, dabs = max(32, math.ceil(250 * area(shape))), 4
    one, each, tone = draw(
        key,
        ((), drawing.COMMON),
        (
            (slots,),
            drawing.POSITION
            | {"angle": (0, 2 * math.pi), "turn": (-0.8, 0.8), "size": (0, 1)}
            | {"long": (0, 1), "bright": (0, 1), "opacity": (0.25, 1)},
        ),
        drawing.TONE,
    )
    expected = 40.0 * drawing.density(severity) * fields.spread(one.amount, octaves=2.5)
    exists = count(one.rounding, expected * area(shape), slots)
    width = one.zoom * scale * (0.9 + 3.3 * each.size**3)
    dab = jnp.arange(dabs) - (dabs - 1) / 2
    step = (width * (0.1 + 0.6 * each.long))[:, None] * dab
    angle = each.angle[:, None] + each.turn[:, None] * dab
    points = drawing.positions(each, shape, 2)[:, None] + step[
        ..., None
    ] * drawing.heading(angle)
    return paint.strokes(
        image,
        points=points,
        width=width[:, None] * (1 - 0.14 * jnp.square(dab)),
        opacity=jnp.broadcast_to((each.opacity * exists)[:, None], step.shape),
        layer=drawing.polarity(one.share, each.bright),
        color=drawing.tones(tone),
        reach=math.ceil(3.0 * scale),
    )
