"""How things are drawn into a healthy picture: their colors, and where they are."""

import jax
import jax.numpy as jnp

from restoration.base.luma import BT601
from restoration.damage import fields
from restoration.damage.paint import paint

# What is drawn for the color of a thing: any hue, mostly pale, and how bright it is.
HUE = {"red": (0, 1), "green": (0, 1), "blue": (0, 1), "grey": (0, 1), "tone": (0, 1)}

# What a region of cloth draws: where it is, and the balls that it is made of.
REGION = {"row": (0, 1), "column": (0, 1), "extent": (0.12, 0.5), "whole": (0, 1)}
BALLS = ((5,), {"down": (-1, 1), "right": (-1, 1), "size": (0.35, 1)})


def tinted(image: jax.Array, one, light: jax.typing.ArrayLike) -> jax.Array:
    """Returns (3,) a color as bright as `light`: grey in half of color pictures."""
    colorful = jnp.mean(jnp.abs(image - image.mean(axis=-1, keepdims=True)))
    hue = jnp.stack([one.red, one.green, one.blue], -1)
    hue = hue / jnp.maximum(hue.mean(-1, keepdims=True), 0.1)
    share = jnp.maximum(one.grey - 0.5, 0) * jnp.clip(40 * colorful, 0, 1)
    return jnp.clip(light * (1 - share + share * hue), 0, 1)


def lay(image: jax.Array, *layers: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Lays pairs of an opacity (H, W) and a color, (3,) or (H, W, 3), over."""
    opacity = jnp.stack([one for one, _ in layers])
    colors = jnp.stack([jnp.broadcast_to(c, image.shape) for _, c in layers])
    return paint(image, opacity=opacity, color=colors)[0]


def luma(image: jax.Array) -> jax.Array:
    """Returns (H, W) the brightness of an image."""
    return image @ jnp.array(BT601)


def blurred(plane: jax.Array, size: int) -> jax.Array:
    """Returns (H, W): means of squares of `size` pixels, blended into each other."""
    height, width = plane.shape
    rows, columns = max(1, height // size), max(1, width // size)
    small = jax.image.resize(plane, (rows, columns), "linear")
    return jax.image.resize(small, (height, width), "linear")


def region_of(one, ball, shape: fields.Shape, *, whole: float) -> jax.Array:
    """Returns (H, W) in [0, 1]: a piece of the picture with sharp edges, or all of it.

    Args:
      one: numbers of `REGION`.
      ball: numbers of `BALLS`.
      shape: (H, W).
      whole: how often it is all of the picture.
    """
    size = jnp.array(shape, jnp.float32)
    extent = one.extent * max(shape)
    offset = jnp.stack([ball.down, ball.right], -1)
    distance, _ = fields.blobs(
        shape,
        centre=jnp.stack([one.row, one.column]) * size + 0.7 * extent * offset,
        radius=0.8 * extent * ball.size,
        values=jnp.zeros((0, len(ball.size))),
    )
    return jnp.where(one.whole < whole, 1.0, jnp.clip(distance + 0.5, 0, 1))
