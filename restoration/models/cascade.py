"""Two NAFNets: one sees the picture small, in eight ways, then one sees it whole.

What is wide, a blotch or a line from top to bottom, is plain to see in a picture a
quarter of the size, where a network's sight spans four times as much and a step costs
a sixteenth (a coarse network before a fine one: Eigen, Puhrsch and Fergus 2014,
arXiv 1406.2283). But pictures shrunk are few, and a network that has learned from few
takes much for dirt that is none; what it takes depends on how the picture lies. So it
sees it turned and mirrored in all eight ways (Timofte, Rothe and Van Gool 2016, arXiv
1511.02228, who average). What it would change in all of them, as far as in all, is
added to the picture, and the fine network restores what that gives.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from restoration.models import layers, nafnet

# The coarse networks see means of squares of so many pixels.
SHRINK = 4

# The networks by name, in their order.
PARTS = ("coarse", "fine")

# Whether a view is flipped top to bottom, and left to right, before it is turned.
_FLIPS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


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


def agreed_change(
    network: Callable[[jnp.ndarray], jnp.ndarray], images: jnp.ndarray
) -> jnp.ndarray:
    """Returns what a network would change in every view of images, as far as in all.

    Args:
      network: restores images.
      images: (batch, height, width, channels).

    Returns:
      Of the shape of images: of the changes in eight views (as it is and transposed,
      each flipped in four ways) the one nearest to 0 where all are of one sign, else 0.
    """
    changes = []
    for order in ((0, 1, 2, 3), (0, 2, 1, 3)):
        turned = images.transpose(order)
        # Of one shape, so that the network is compiled and called once for all four.
        views = [turned[:, ::down, ::across] for down, across in _FLIPS]
        views = jnp.concatenate(views)
        parts = jnp.split(network(views) - views, len(_FLIPS))
        changes += [
            part[:, ::down, ::across].transpose(order)
            for part, (down, across) in zip(parts, _FLIPS, strict=True)
        ]
    stacked = jnp.stack(changes)
    return jnp.clip(0, stacked.min(0), stacked.max(0))


class Cascade(nn.Module):
    """A coarse network, then a fine one.

    Attributes:
      width: channels at half resolution of both.
      trimmed: whether the result is left without its outermost `outer` pixels, for
        which only the coarse network is computed then.
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "Chen et al. 2022, windowed; small, then whole"
    multiple: ClassVar[int] = SHRINK * nafnet.NAFNet.multiple
    halo: ClassVar[int] = (1 + SHRINK) * nafnet.NAFNet.halo
    outer: ClassVar[int] = (halo - nafnet.NAFNet.halo) // multiple * multiple
    layers: ClassVar[int] = 2 * nafnet.NAFNet.layers

    width: int = 32
    trimmed: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray) -> jnp.ndarray:
        """Restores images; shapes and ranges as in `nafnet.NAFNet`."""
        coarse, fine = (
            nafnet.NAFNet(width=self.width, dtype=self.dtype, name=name)
            for name in PARTS
        )
        padded = layers.pad_to_multiple(images, self.multiple)
        change = agreed_change(coarse, shrunk(padded, SHRINK))
        change = enlarged(change, SHRINK)
        outer = self.outer if self.trimmed else 0
        inner = [slice(outer, side - outer) for side in images.shape[1:3]]
        return fine(images[:, *inner] + change[:, *inner])
