"""Emulsion that flakes off a print: returns (image, mask)."""

import math

import jax
import jax.numpy as jnp

from restoration.damage import cells, cracks, fields, folds
from restoration.damage.drawing import density, heading
from restoration.damage.fields import count, draw, limited, unit
from restoration.damage.paint import Painted, paint


def random_flakes(
    key: jax.Array, image: jax.Array, *, severity: jax.typing.ArrayLike
) -> Painted:
    """Flakes the emulsion off: ragged or angular patches of bare paper.

    They cluster along lines, as those of cracks, and at the borders; pieces that still
    hold stand like islands in them, and the edge throws a thin shadow.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      severity: 0 none, 1 a print that got damp and dried.

    Returns:
      The picture and the mask.
    """
    shape = image.shape[:2]
    severity, scale = limited(severity), unit(shape)
    lines, balls = 3, 10
    keys = fields.split(key, 6)
    one, line, ball = draw(
        keys[0],
        (
            (),
            {"amount": (0, 1), "tone": (0, 1), "warm": (0, 1), "lamp": (0, 6.2832)}
            | {"shadow": (-0.2, 0.8), "size": (0, 1), "angular": (0, 1)}
            | {
                "border": (-2, 1),
                "under": (0, 1),
                "stretch": (0, 1),
                "angle": (0, 3.1416),
            }
            | {"rounding": (0, 1), "step": (0.3, 1.2)},
        ),
        (
            (lines,),
            {"row": (0, 1), "column": (0, 1), "angle": (0, 6.2832)}
            | {"length": (0.03, 0.4), "width": (4, 20)},
        ),
        ((lines, balls), {"along": (-1, 1), "across": (-1, 1), "size": (0.3, 1.1)}),
    )
    slow, wide, coarse, middle, fine, flake, tiny, other = fields.smooth_noise(
        keys[1],
        shape,
        cells=(45 * scale, 22 * scale, 11 * scale, 5.5 * scale, 2.6 * scale, 9 * scale,
               1.5 * scale, 5.5 * scale),
    )  # fmt: skip
    amount = density(severity) * fields.spread(one.amount, octaves=1.2)
    exists = count(one.rounding, 0.9 * amount, lines)
    size = jnp.array(shape, jnp.float32)
    position = jnp.stack([line.row, line.column], -1) * size
    length = 384 * scale * line.length
    centre = (
        position[:, None]
        + (length[:, None] * ball.along)[..., None] * heading(line.angle)[:, None]
        + (0.4 * scale * line.width[:, None] * ball.across)[..., None]
        * heading(line.angle + math.pi / 2)[:, None]
    )
    centre = jnp.where(exists[:, None, None] > 0, centre, fields.AWAY)
    radius = scale * line.width[:, None] * ball.size
    near = fields.glows(
        shape,
        centre=centre.reshape(-1, 2),
        radius=radius.reshape(-1),
        strength=jnp.ones(lines * balls),
    )
    edge = jnp.min(folds.borders(shape), axis=0)
    near = jnp.minimum(near, 1.3)
    near = near + jnp.minimum(amount, 1.1) * jnp.maximum(one.border, 0) * jnp.exp(
        -edge / (11 * scale)
    )
    ready = near + 0.22 * slow + 0.15 * wide

    # Angular pieces fall off whole, small beside large ones.
    cell = scale * (3.5 + 10 * one.size**2)
    warp = 0.12 * cell * jnp.stack([middle, other]) + 0.3 * scale * jnp.stack(
        [fine, tiny]
    )
    cut = cells.cells(
        keys[2],
        shape,
        size=cell,
        warp=warp,
        stretch=1 + 3 * one.stretch**2,
        angle=one.angle,
    )
    here, there = (ready > 0.4 + 1.1 * x for x in (cut.chance, cut.beyond))
    angular = jnp.where(
        here == there,
        jnp.where(here, 1, -1) * (cut.distance + 2 * scale),
        jnp.where(here, 1, -1) * cut.distance,
    )
    # Ragged ones follow the noise.
    ragged = (
        4.2
        * scale
        * (1.6 * ready + 0.55 * flake + 0.5 * coarse + 0.3 * middle + 0.2 * fine - 1.75)
    )
    depth = jnp.where(one.angular < 0.5, angular, ragged + 0.4 * scale * tiny)
    depth = jnp.where((near > 0.03) & (amount > 0), depth, fields.AWAY)
    bare = jnp.clip(depth / (0.5 + 0.5 * one.step) + 0.5, 0, 1)
    # A shadow where the slope falls away from the lamp: the patch, moved, less itself.
    down, right = 1.5 * scale * jnp.sin(one.lamp), 1.5 * scale * jnp.cos(one.lamp)
    slope = jnp.gradient(jnp.clip(depth, -4 * scale, 4 * scale))
    facing = (slope[0] * down + slope[1] * right) / scale
    rim = jnp.exp(-jnp.square((depth + 0.9 * scale) / (0.9 * scale)))
    shade = jnp.maximum(one.shadow, 0) * rim * jnp.clip(0.35 + 0.6 * facing, 0, 1)
    # Bare paper; in a fifth of the pictures the layer under the emulsion stays grey.
    tone = jnp.where(one.under < 0.2, 0.75 - 0.35 * one.tone, 1.0 - 0.25 * one.tone**2)
    white = cracks.paper(keys[3], shape, tone=tone, warm=one.warm**1.5, texture=0.08)
    return paint(
        image,
        opacity=jnp.stack([shade, bare]),
        color=jnp.stack([0.04 * jnp.ones_like(white), white]),
    )
