"""Random stains, cue marks and missing pieces."""

import math

import jax
import jax.numpy as jnp

from restoration.damage import drawing, fields, paint
from restoration.damage.fields import area, count, draw, limited, unit
from restoration.damage.paint import Painted


def random_stains(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints stains: translucent blotches in two layers, with drops around them.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a worn print.

    Returns:
      The image and the mask.
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
            drawing.COMMON
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
        ((slots,), drawing.POSITION | {"size": (14, 60)}),
        (
            (2, slots, balls),
            {"down": (-1, 1), "right": (-1, 1), "size": (0.15, 0.6)}
            | {"opacity": (0.1, 0.8)},
        ),
        (
            (slots, drops),
            {"down": (-1, 1), "right": (-1, 1), "size": (0, 1), "opacity": (0.1, 0.7)},
        ),
        drawing.TONE,
    )
    expected = 1.9 * drawing.density(severity) * fields.spread(one.amount, octaves=1.5)
    exists = count(one.rounding, expected * extent, slots)
    size = one.zoom * scale * each.size
    position = jnp.where(
        exists[:, None] > 0, drawing.positions(each, shape, margin), -1e4
    )
    tones = drawing.tones(tone)
    tea = jnp.array([0.4, 0.3, 0.18]) + one.warm * jnp.array([1.0, 1.0, 0.8])
    color = jnp.where(one.share < 0.4, tones[0], tones[1])
    color = jnp.where(one.brown < 0.3, tea, color)
    coarse, middle, fine, other = fields.smooth_noise(
        keys[1], shape, cells=(22 * scale, 8 * scale, 3 * scale, 15 * scale)
    )
    warp = one.ragged * scale * (6 * coarse + 3 * middle + 1.2 * fine)
    distance, opacity = [], []
    # Two layers of one color, so that edges are visible where they overlap.
    for index in (0, 1):
        offset = jnp.stack([ball.down[index], ball.right[index]], axis=-1)
        edge, (strength,) = fields.blobs(
            shape,
            centre=(position[:, None] + 0.8 * size[:, None, None] * offset).reshape(
                -1, 2
            ),
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
    centre = position[:, None] + 1.8 * size[:, None, None] * offset**3
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
    """Paints a cue mark near the top right corner of some images.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 about one image in twelve.

    Returns:
      The image and the mask.
    """
    height, columns, _ = image.shape
    severity, scale = limited(severity), unit((height, columns))
    one, tone = draw(
        key,
        (
            (),
            drawing.COMMON
            | {
                "row": (0.04, 0.2),
                "column": (0.8, 0.96),
                "radius": (3.5, 9),
                "aspect": (0.8, 2),
                "ring": (-1.5, 2.5),
            },
        ),
        drawing.TONE,
    )
    exists = one.amount < 1 - jnp.exp(-0.12 * drawing.density(severity))
    tones = drawing.tones(tone)
    return paint.cue_mark(
        image,
        centre=jnp.stack([one.row * height, one.column * columns]),
        radius=one.radius * scale,
        aspect=one.aspect,
        ring=jnp.maximum(one.ring, 0) * scale,
        opacity=one.strength * exists,
        color=jnp.where(one.share < 0.5, tones, tones[::-1]),
    )


def random_missing(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Removes corners, parts of the edges, and holes.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 like a print that was handled much.

    Returns:
      The image and the mask.
    """
    height, width, _ = image.shape
    shape = (height, width)
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 2)
    one, corner, hole, tone = draw(
        keys[0],
        (
            (),
            drawing.POSITION
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
        drawing.TONE,
    )
    coarse, middle, fine, other = fields.smooth_noise(
        keys[1], shape, cells=(30 * scale, 9 * scale, 2.5 * scale, 12 * scale)
    )
    ragged = one.ragged * scale * (1.2 * middle + 0.6 * fine)
    often = 1 - jnp.exp(-drawing.density(severity) * jnp.array([0.08, 0.12, 0.07]))
    far = -1e4
    rows, columns = jnp.ogrid[:height, :width]
    top, left = rows.astype(jnp.float32), columns.astype(jnp.float32)
    bottom, right = height - 1 - top, width - 1 - left
    border = jnp.minimum(jnp.minimum(top, bottom), jnp.minimum(left, right))
    # Parts of the edge are missing where the coarse noise is high.
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
    position = jnp.stack([one.row * height, one.column * width])
    offset = jnp.stack([hole.down, hole.right], axis=-1)
    gap, _ = fields.blobs(
        shape,
        centre=position + 0.7 * scale * one.size * offset,
        radius=scale * one.size * hole.size,
        values=jnp.zeros((0, 3)),
    )
    distance = jnp.maximum(distance, jnp.where(one.hole < often[2], gap, far))
    tones = drawing.tones(tone)
    behind = jnp.where(one.behind < 0.7, tones[1], tones[0])
    return paint.missing(
        image,
        distance=distance + ragged,
        rim=scale * jnp.maximum(one.rim + 1.2 * other + 0.8 * fine, 0),
        color=jnp.stack([jnp.clip(tones[1] + 0.05, 0, 1), behind]),
    )
