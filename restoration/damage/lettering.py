"""Lines of letters and of handwriting, which look like scratches.

They return the image alone: see `lookalikes`.
"""

import math

import jax
import jax.numpy as jnp

from restoration.damage import fields, polylines, scene
from restoration.damage.drawing import density
from restoration.damage.fields import draw, limited, unit


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
    rows, glyphs, parts, steps, pen = 3, 16, 4, 24, 600
    one, glyph, part, hand = draw(
        key,
        (
            (),
            scene.HUE
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
            {"begin": (0, 6), "to": (0, 6), "bulge": (-1, 1), "there": (0, 1)},
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
    begin = corner[jnp.clip(part.begin.astype(jnp.int32), 0, 5)]
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
    present = present & (part.begin.astype(int) != part.to.astype(int))
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
        """Slants, turns and moves to where it belongs."""
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
    return scene.lay(
        image,
        (label, scene.tinted(image, one, ground)),
        (ink, tone * jnp.ones(3)),
    )
