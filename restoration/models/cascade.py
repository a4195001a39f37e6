"""Three NAFNets: what two agree on that see the picture small is changed first.

What is wide, a blotch or a line from top to bottom, is plain to see in a picture a
quarter of the size, where a network's sight spans four times as much and a step costs
a sixteenth (a coarse network before a fine one: Eigen, Puhrsch and Fergus 2014,
arXiv 1406.2283). But pictures shrunk are few, and a network that has learned from few
takes much for dirt that is none: each something else. What both would change, as far as
both would, is added to the picture, and the fine network restores what that gives.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from restoration.models import layers, nafnet

# The coarse networks see means of squares of so many pixels.
SHRINK = 4

# The networks by name, the coarse ones first.
PARTS = ("coarse_1", "coarse_2", "fine")


def shrunk(images: jnp.ndarray, side: int) -> jnp.ndarray:
    """Returns means of squares.

    Args:
      images: (batch, height, width, channels), height and width multiples of side.
      side: of the squares, pixels.

    Returns:
      (batch, height / side, width / side, channels).
    """
    n, height, width, channels = images.shape
    squares = (n, height // side, side, width // side, side, channels)
    return images.reshape(squares).mean((2, 4))


def enlarged(images: jnp.ndarray, side: int) -> jnp.ndarray:
    """Interpolates linearly between the middles of squares; `shrunk`'s counterpart.

    Args:
      images: (batch, height, width, channels).
      side: of the squares, pixels; even.

    Returns:
      (batch, height · side, width · side, channels).
    """
    # How much of the next square, for the pixels from the middle of one to the next.
    share = (jnp.arange(side, dtype=images.dtype) + 0.5) / side
    for axis in (1, 2):
        edges = [(0, 0)] * 4
        edges[axis] = (1, 1)
        padded = jnp.pad(images, edges, mode="edge")
        count = padded.shape[axis] - 1
        first, second = (
            jnp.expand_dims(jnp.take(padded, jnp.arange(count) + shift, axis), axis + 1)
            for shift in (0, 1)
        )
        weight = share.reshape((-1,) + (1,) * (3 - axis))
        between = first + (second - first) * weight
        shape = list(images.shape)
        shape[axis] = count * side
        between = between.reshape(shape)
        half = side // 2
        images = jnp.take(between, jnp.arange(half, count * side - half), axis)
    return images


def agreed(first: jnp.ndarray, second: jnp.ndarray) -> jnp.ndarray:
    """Returns the lesser of two changes where both are of one sign, else 0."""
    lesser = jnp.where(jnp.abs(first) < jnp.abs(second), first, second)
    return jnp.where(first * second > 0, lesser, 0)


class Cascade(nn.Module):
    """Two coarse networks, then a fine one.

    Attributes:
      width: channels at half resolution of all three.
      trimmed: whether the result is left without its outermost `outer` pixels, for
        which only the coarse networks are computed then.
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "Chen et al. 2022, windowed; twice small, then whole"
    multiple: ClassVar[int] = SHRINK * nafnet.NAFNet.multiple
    halo: ClassVar[int] = (1 + SHRINK) * nafnet.NAFNet.halo
    outer: ClassVar[int] = (halo - nafnet.NAFNet.halo) // multiple * multiple
    layers: ClassVar[int] = 3 * nafnet.NAFNet.layers

    width: int = 32
    trimmed: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images; shapes and ranges as in `nafnet.NAFNet`."""
        first, second, fine = (
            nafnet.NAFNet(width=self.width, dtype=self.dtype, name=name)
            for name in PARTS
        )
        padded = layers.pad_to_multiple(images, self.multiple)
        small = shrunk(padded, SHRINK)
        change = agreed(first(small) - small, second(small) - small)
        change = enlarged(change, SHRINK)
        outer = self.outer if self.trimmed else 0
        inner = [slice(outer, side - outer) for side in images.shape[1:3]]
        return fine(images[:, *inner] + change[:, *inner])
