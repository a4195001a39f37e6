"""Random parameters that several kinds of damage share."""

import jax
import jax.numpy as jnp

from restoration.damage import fields
from restoration.damage.fields import unit

# Three numbers for the colors of an image's dirt.
TONE = ((3,), {"dark": (0, 1), "bright": (0, 1), "tint": (-0.05, 0.05)})

# The position of an object, as shares of the image's size.
POSITION = {"row": (0, 1), "column": (0, 1)}

# Parameters common to all objects of an image.
COMMON = {
    "rounding": (0, 1),
    "amount": (0, 1),
    "share": (0, 1),
    "strength": (0.45, 1),
    "zoom": (0.6, 1.4),
}


def tones(tone) -> jax.Array:
    """Returns (2, 3) colors: dirt on the print (dark), on the negative (bright)."""
    dark = 0.24 * tone.dark[0] ** 1.5 + tone.tint * tone.dark[1]
    bright = 1.0 - 0.36 * tone.bright[0] ** 1.3 + tone.tint * tone.bright[1]
    return jnp.clip(jnp.stack([dark, bright]), 0, 1)


def polarity(share: jax.Array, chance: jax.Array) -> jax.Array:
    """Returns 0 (dark) or 1 (bright) for each object of an image.

    Args:
      share: one number in [0, 1): 30 % of the images have only dark objects, 40 % only
        bright ones, the others both.
      chance: (N,) in [0, 1).
    """
    return (chance < jnp.clip(share * 3.3 - 1.0, 0, 1)).astype(jnp.int32)


def positions(each, shape: fields.Shape, margin: float) -> jax.Array:
    """Returns (N, 2) positions in pixels, in the image and a margin (units) around."""
    size = jnp.array(shape, jnp.float32)
    margin = margin * unit(shape)
    share = jnp.stack([each.row, each.column], axis=-1)
    return share * (size + 2 * margin) - margin


def heading(angle: jax.Array) -> jax.Array:
    """Returns (..., 2) unit vectors (row, column)."""
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def density(severity: jax.Array) -> jax.Array:
    """Returns the amount of dirt: it grows more and more slowly, and is 1 at 1."""
    return 1.18 * severity / (0.22 + severity) + 0.04 * severity
