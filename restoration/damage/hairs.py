"""Random hairs and lint."""

import math

import jax
import jax.numpy as jnp

from restoration.damage import drawing, fields, paint
from restoration.damage.fields import area, count, draw, limited, unit
from restoration.damage.paint import Painted

# The parameters of a hair's shape.
_CURL = {"heading": (0, 2 * math.pi), "bend": (-1, 1), "kink": (0.1, 0.9)} | {
    "turn": (-1, 1),
    "curl": (0.2, 1.4),
}


def _curves(curl, chance: jax.Array, *, extent: jax.Array, length: int) -> jax.Array:
    """Returns (N, length, 2) curves like hairs: curved, wavy, with a kink.

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
    path = jnp.cumsum((extent / length)[..., None] * drawing.heading(angle), axis=1)
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
      The image and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    margin, length = 40, 128
    extent = area(shape, margin=margin)
    slots = max(6, math.ceil(18 * extent))
    one, each, curl, knot, tone = draw(
        key,
        ((), drawing.COMMON),
        (
            (slots,),
            drawing.POSITION
            | {"bright": (0, 1), "width": (0.7, 1.9), "opacity": (0.5, 1)}
            | {"extent": (0, 1)},
        ),
        ((slots, 1), _CURL),
        ((slots, 11), {"chance": (0, 1)}),
        drawing.TONE,
    )
    expected = 5.0 * drawing.density(severity) * fields.spread(one.amount, octaves=1.7)
    exists = count(one.rounding, expected * extent, slots)
    # Half of them are short (15 to 50 units), half long (up to 150).
    reach = jnp.where(
        each.extent < 0.5, 15 + 70 * each.extent, 50 + 200 * (each.extent - 0.5)
    )
    zoom = one.zoom * scale
    points = drawing.positions(each, shape, margin)[:, None] + _curves(
        curl, knot.chance, extent=zoom * reach[:, None], length=length
    )
    taper = 1 - 0.45 * jnp.abs(jnp.linspace(-1, 1, length)) ** 4
    width = (each.width * zoom)[:, None] * taper
    # A hair thinner than a pixel is drawn less opaque, not narrower.
    pale = jnp.clip(0.35 + width / 2, 0, 1)
    return paint.strokes(
        image,
        points=points,
        width=width,
        opacity=(each.opacity * exists * one.strength)[:, None] * pale,
        layer=drawing.polarity(one.share, each.bright),
        color=drawing.tones(tone),
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
      The image and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    margin, length, strands = 30, 96, 3
    extent = area(shape, margin=margin)
    slots = max(2, math.ceil(5 * extent))
    one, each, trunk, strand, knot, stray, wool, tone = draw(
        key,
        ((), drawing.COMMON),
        ((slots,), drawing.POSITION | {"bright": (0, 1)}),
        ((slots, 1), _CURL | {"width": (1, 3), "extent": (35, 110), "apart": (0, 0.6)}),
        ((slots * strands, 1), _CURL),
        ((slots, 12), {"chance": (0, 1)}),
        ((slots * strands, 12), {"chance": (0, 1)}),
        ((slots, strands, length), {"thick": (0, 1), "thin": (0, 1)}),
        drawing.TONE,
    )
    expected = 1.3 * drawing.density(severity) * fields.spread(one.amount, octaves=1.5)
    exists = count(one.rounding, expected * extent, slots)
    zoom = one.zoom * scale
    reach = zoom * trunk.extent
    main = _curves(trunk, knot.chance, extent=reach, length=length)
    main = main + drawing.positions(each, shape, margin)[:, None]
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
        layer=jnp.repeat(drawing.polarity(one.share, each.bright), strands),
        color=drawing.tones(tone),
        reach=math.ceil(3.0 * scale),
    )
