"""Folds, tears and worn edges of prints: they return (image, mask)."""

import math

import jax
import jax.numpy as jnp

from restoration.damage import cracks, fields
from restoration.damage.drawing import density
from restoration.damage.fields import count, draw, limited, unit
from restoration.damage.paint import Painted, paint

# Lines that are not there lie so far away, in pixels.
_FAR = 1e4


def borders(shape: fields.Shape) -> jax.Array:
    """Returns (4, H, W) pixels to the top, bottom, left and right border."""
    rows, columns = (x.astype(jnp.float32) for x in jnp.indices(shape))
    return jnp.stack([rows, shape[0] - 1 - rows, columns, shape[1] - 1 - columns])


def random_folds(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Paints folds that run across the picture.

    One side of a fold is in the light, the other in the shade; along the ridge the
    emulsion broke to a white line, with gaps, and flakes came off beside it, most where
    two folds cross.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that was folded to fit a pocket.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots = 3
    keys = fields.split(key, 4)
    one, each = draw(
        keys[0],
        (
            (),
            {"rounding": (0, 1), "amount": (0, 1), "angle": (0, math.pi)}
            | {"tone": (0, 1), "warm": (0, 1), "dirty": (0, 1), "across": (0, 1)},
        ),
        (
            (slots, 1, 1),
            {"row": (0.1, 0.9), "column": (0.1, 0.9), "turn": (-1, 1)}
            | {"bend": (-1, 1), "width": (-0.3, 2.6), "open": (-1, 0.8)}
            | {"light": (-1, 1), "soft": (2, 14), "edge": (0, 1), "flakes": (0, 1)}
            | {"begin": (-0.5, 1.3), "rim": (-0.4, 1), "jagged": (0.1, 0.9)},
        ),
    )
    expected = 1.5 * density(severity) * fields.spread(one.amount, octaves=0.8)
    exists = count(one.rounding, expected, slots)[:, None, None]
    slow, wide, coarse, middle, fine, flake, tiny = fields.smooth_noise(
        keys[1],
        shape,
        cells=(60 * scale, 30 * scale, 14 * scale, 6 * scale, 2.2 * scale, 4.5 * scale,
               1.6 * scale),
    )  # fmt: skip
    rows, columns = jnp.ogrid[: shape[0], : shape[1]]
    down, right = rows - each.row * shape[0], columns - each.column * shape[1]
    # The second fold is square to the first, nearly, the third anyhow.
    square = jnp.array([0.0, math.pi / 2, math.pi / 4])[:, None, None]
    loose = jnp.array([0.15, 0.12, 0.8])[:, None, None]
    # Folds of letters go along the sides; those of accidents go anywhere.
    base = jnp.where(
        one.across < 0.4, jnp.round(one.angle / 1.5708) * 1.5708, one.angle
    )
    angle = base + square + loose * each.turn
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    along = down * sin + right * cos
    reach = 0.5 * math.hypot(*shape)
    distance = down * cos - right * sin
    distance = distance + 0.12 * each.bend**3 * jnp.square(along) / reach
    distance = distance + each.jagged * scale * (1.6 * wide * each.bend + 0.5 * coarse)
    ragged = distance + each.jagged * scale * (0.45 * middle + 0.3 * fine)
    # Some folds end within the picture, others fade away in places.
    ends = jnp.clip((along + reach * each.begin) / (25 * scale) + 0.5, 0, 1)
    visible = ends * jnp.clip(0.75 + 0.9 * slow * each.edge + 0.25 * wide, 0, 1)

    far = jnp.abs(distance)
    side = jnp.tanh(distance / (0.8 * scale)) * jnp.sign(each.light)
    fall = jnp.exp(-far / (each.soft * scale)) * visible * exists
    # A bent sheet shines on one side and is dark on the other, as strongly as it bends.
    relief = 0.12 + 0.3 * jnp.abs(each.light)
    lit = 0.75 * relief * fall * jnp.maximum(side, 0)
    shaded = relief * fall * jnp.maximum(-side, 0)

    width = each.width + 0.9 * coarse + 0.7 * middle + 0.4 * fine + each.open
    width = scale * jnp.minimum(width, 3.5) * visible
    crack = jnp.clip(width / 2 + 0.5 - jnp.abs(ragged), 0, 1) * jnp.clip(width, 0, 1)
    crack = crack * exists
    # A thin dark line on the shaded side of the break.
    rim = jnp.abs(ragged + jnp.sign(each.light) * (0.5 * jnp.maximum(width, 0.6) + 0.7))
    rim = jnp.clip(1.0 - rim / scale, 0, 1) * jnp.maximum(each.rim, 0) * 0.7
    rim = rim * visible * exists * jnp.clip(width / scale + 0.7, 0, 1)

    # Flakes beside the ridge, and where folds cross.
    close = jnp.where(exists > 0, jnp.exp(-far / (3.5 * scale)), 0)
    worn = jnp.where(exists > 0, jnp.exp(-far / (14 * scale)), 0)
    crossing = (
        worn[0] * worn[1] + worn[0] * worn[2] + worn[1] * worn[2]
    ) / jnp.maximum(worn.max(axis=0), 1e-3)
    ready = jnp.max(close * each.flakes * visible, axis=0) + 0.9 * crossing
    loss = 1.2 * flake + 0.6 * tiny + 0.6 * middle + 3.4 * ready - 3.1
    lost = jnp.clip(1.2 * loss, 0, 1) * jnp.clip(5 * ready, 0, 1)
    lost = jnp.where(ready > 0.02, lost, 0.0)

    white = cracks.paper(
        keys[2],
        shape,
        tone=1.0 - 0.35 * one.tone**2,
        warm=one.warm**2,
    )
    # In some the break is full of dirt.
    dirty = 0.25 + 0.2 * one.tone
    white = jnp.where(one.dirty < 0.1, dirty * white, white)
    black = jnp.zeros_like(white)
    return paint(
        image,
        opacity=jnp.stack(
            [
                shaded.max(axis=0),
                lit.max(axis=0),
                rim.max(axis=0),
                jnp.maximum(crack.max(axis=0), lost),
            ]
        ),
        color=jnp.stack([black + 0.03, 0.93 + black, black + 0.03, white]),
    )


def random_tears(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Tears the print from its border inwards.

    A tear shows the torn paper's white on one side, in a ragged band, a shadow on the
    other, and a gap between where the halves are apart.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 one tear, on average, in a picture of 384 units a side.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    slots = 3
    keys = fields.split(key, 4)
    one, each = draw(
        keys[0],
        (
            (),
            {"rounding": (0, 1), "amount": (0, 1), "tone": (0, 1), "warm": (0, 1)}
            | {"behind": (0, 1), "grey": (0, 1)},
        ),
        (
            (slots, 1, 1),
            {"side": (0, 4), "position": (0.08, 0.92), "turn": (-0.8, 0.8)}
            | {"length": (0, 1), "bend": (-1, 1), "rim": (0, 1), "gap": (-2, 5)}
            | {"shadow": (0, 0.75), "soft": (1.5, 9), "flip": (-1, 1)}
            | {"jagged": (0.5, 1.6)},
        ),
    )
    expected = 1.1 * density(severity) * fields.spread(one.amount, octaves=1.0)
    exists = count(one.rounding, expected, slots)[:, None, None]
    wide, coarse, middle, fine, other, tiny = fields.smooth_noise(
        keys[1],
        shape,
        cells=(26 * scale, 12 * scale, 5 * scale, 2 * scale, 7 * scale, 1.7 * scale),
    )
    # Each begins on one of the four sides and heads inwards.
    side = jnp.floor(each.side)
    height, width = shape
    row = jnp.where(
        side == 0, 0.0, jnp.where(side == 1, height - 1.0, each.position * height)
    )
    column = jnp.where(
        side == 2, 0.0, jnp.where(side == 3, width - 1.0, each.position * width)
    )
    inward = jnp.where(
        side == 0,
        math.pi / 2,
        jnp.where(side == 1, -math.pi / 2, jnp.where(side == 2, 0.0, math.pi)),
    )
    angle = inward + each.turn
    rows, columns = jnp.ogrid[:height, :width]
    down, right = rows - row, columns - column
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    along = down * sin + right * cos
    length = scale * (18 + 190 * each.length**2)
    distance = down * cos - right * sin
    flip = jnp.where(each.flip < 0, -1.0, 1.0)
    distance = flip * (distance + 0.5 * each.bend**3 * jnp.square(along) / length)
    jagged = scale * each.jagged
    distance = distance + jagged * (
        3.0 * wide + 1.6 * coarse + 0.7 * middle + 0.4 * fine
    )
    # How far from its end, 1 at the border and 0 where it ends.
    left = jnp.clip(1 - along / length, 0, 1)
    there = (
        jnp.clip((length - along) / (4 * scale), 0, 1) * (along > -6 * scale) * exists
    )
    gap = scale * jnp.maximum(each.gap, 0) * left
    paper_width = scale * (0.6 + 7 * each.rim**2) * jnp.sqrt(left)
    paper_width = paper_width * jnp.clip(0.75 + 0.55 * other + 0.35 * middle, 0.1, 2)
    paper_width = paper_width + 0.5 * scale * tiny
    hole = jnp.clip(gap / 2 + 0.5 - jnp.abs(distance), 0, 1) * jnp.clip(gap, 0, 1)
    beyond = distance - gap / 2
    torn = jnp.clip(beyond + 0.5, 0, 1) * jnp.clip(paper_width - beyond + 0.5, 0, 1)
    torn = torn * jnp.clip(paper_width, 0, 1)
    before = -distance - gap / 2
    shade = each.shadow * jnp.exp(-jnp.maximum(before, 0) / (each.soft * scale))
    shade = shade * jnp.clip(before + 0.5, 0, 1) * jnp.sqrt(left)
    # The inner edge of the white: a hair of shadow, where the emulsion is lifted.
    lip = jnp.clip(1.2 - jnp.abs(beyond - paper_width - 0.8) / scale, 0, 1)
    lip = 0.55 * each.shadow * lip * jnp.clip(paper_width, 0, 1)

    white = cracks.paper(
        keys[2], shape, tone=1.0 - 0.25 * one.tone, warm=one.warm**2, texture=0.08
    )
    black = jnp.zeros_like(white)
    # What lies behind: the scanner's lid, white or black, or a page of the album.
    behind = jnp.where(one.behind < 0.5, 0.02 + 0.2 * one.grey, 0.75 + 0.25 * one.grey)

    def most(opacity):
        return jnp.max(opacity * there, axis=0)

    return paint(
        image,
        opacity=jnp.stack([most(shade), most(lip), most(torn), most(hole)]),
        color=jnp.stack([black + 0.02, black + 0.05, white, black + behind]),
    )


def random_worn_edges(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Wears a print's edges off: white ragged rims, bare and broken corners.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1], whose borders are the print's.
      severity: 0 none, 1 a print that was handled much.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    keys = fields.split(key, 4)
    one, side, corner = draw(
        keys[0],
        (
            (),
            {"amount": (0, 1), "tone": (0, 1), "warm": (0, 1), "behind": (0, 1)}
            | {"often": (0, 1), "ragged": (0.4, 1.6), "shadow": (0, 0.8)}
            | {"straight": (0, 1)},
        ),
        ((4, 1, 1), {"rim": (-0.5, 1), "cut": (-4, 2)}),
        (
            (4, 1, 1),
            {"there": (0, 1), "size": (0, 1), "angle": (0.35, 1.22), "rim": (0, 1)}
            | {"broken": (0, 1), "gap": (3, 14)},
        ),
    )
    amount = density(severity) * fields.spread(one.amount, octaves=1.0)
    happens = one.often < 1 - jnp.exp(-1.5 * amount)
    wide, coarse, middle, fine, flake, tiny = fields.smooth_noise(
        keys[1],
        shape,
        cells=(38 * scale, 13 * scale, 5 * scale, 2.2 * scale, 9 * scale, 1.6 * scale),
    )
    border = borders(shape)
    rough = scale * one.ragged
    # Beyond the edge lies what the print lay on; then comes the white rim.
    cut = side.cut * scale + rough * (0.8 * coarse + 0.5 * middle)
    beyond = jnp.max(cut - border, axis=0)
    rim = scale * jnp.maximum(side.rim, 0) ** 2 * 6 * jnp.minimum(amount, 1.5)
    rim = rim * (0.8 + 0.5 * wide) + rough * (0.9 * flake + 0.5 * middle) * (rim > 0)
    rim = rim + 0.5 * scale * fine * (rim > 0)
    worn = jnp.max(jnp.where(side.rim > 0, cut + rim - border, -_FAR), axis=0)

    # Corners: cut off, or broken, with a white crack between them and the rest.
    top, bottom, left, right = border
    vertical = jnp.stack([top, top, bottom, bottom])
    across = jnp.stack([left, right, left, right])
    size = scale * (5 + 55 * corner.size**2.5)
    inside = vertical * jnp.sin(corner.angle) + across * jnp.cos(corner.angle) - size
    inside = inside + rough * (2.2 * wide + 1.0 * coarse + 0.5 * middle + 0.3 * fine)
    there = corner.there < 1 - jnp.exp(-0.5 * amount)
    off = there & (corner.broken < 0.6)
    beyond = jnp.maximum(beyond, jnp.max(jnp.where(off, -inside, -_FAR), axis=0))
    bare = (
        scale * (0.5 + corner.gap * corner.rim**2) * jnp.clip(0.8 + 0.5 * flake, 0, 2)
    )
    worn = jnp.maximum(worn, jnp.max(jnp.where(off, bare - inside, -_FAR), axis=0))
    half = 0.5 * scale * (0.4 + 4.5 * corner.rim**2) * jnp.clip(0.7 + 0.6 * flake, 0, 2)
    crack = jnp.where(there & ~off, half - jnp.abs(inside), -_FAR)
    worn = jnp.maximum(worn, jnp.max(crack, axis=0))

    white = jnp.clip(worn + 0.5, 0, 1)
    gone = jnp.clip(beyond + 0.5, 0, 1)
    # A dark line where the emulsion ends, and a softer one that runs beside it.
    lip = jnp.exp(-jnp.square((worn + 1.6 * scale) / (1.1 * scale)))
    beside = (4.5 + 2.5 * wide) * scale
    second = jnp.exp(-jnp.square((worn + beside) / (0.8 * scale)))
    second = second * jnp.clip(wide - 0.2, 0, 1)
    dark = one.shadow * jnp.maximum(0.8 * lip, second)
    paper = cracks.paper(
        keys[2], shape, tone=0.98 - 0.3 * one.tone, warm=one.warm, texture=0.1
    )
    # Brown spots on the bare paper.
    rust = jnp.clip(1.2 * flake + 0.5 * tiny - 1.9, 0, 1)[..., None]
    paper = paper * (1 - rust * jnp.array([0.25, 0.5, 0.75]))
    black = jnp.zeros_like(paper)
    behind = jnp.where(one.behind < 0.6, 0.02 + 0.12 * one.tone, 0.95 - 0.2 * one.tone)
    opacity = jnp.stack([dark, white, gone]) * happens
    return paint(
        image,
        opacity=opacity,
        color=jnp.stack([black + 0.03, paper, black + behind]),
    )
