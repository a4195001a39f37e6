"""Two NAFNets, the first of which looks at the picture small.

What is wide, a blotch or a line from top to bottom, is plain to see in a picture a
quarter of the size, where a network's sight spans four times as much and a step costs
a sixteenth (a coarse network before a fine one: Eigen, Puhrsch and Fergus 2014,
arXiv 1406.2283). What the coarse network would change, enlarged, is added to the
picture; the fine one restores what that gives.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from restoration.models import layers, nafnet

# The coarse network sees means of squares of so many pixels.
SHRINK = 4


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


def joined(coarse: Any, fine: Any) -> Any:
    """Returns a cascade's parameters, made of those of two NAFNets of its width.

    Args:
      coarse: of the network that sees the picture small.
      fine: of the network that sees it whole; what a proposal adds to its first and
        last convolution is zero.

    Returns:
      Parameters with which a cascade gives what the fine network gave alone.
    """
    fine = {name: dict(part) for name, part in fine["params"].items()}

    def widened(array: jnp.ndarray, axis: int, channels: int) -> jnp.ndarray:
        # Channels of the four pixels that are folded into one.
        shape = array.shape
        array = array.reshape(*shape[:axis], 4, shape[axis] // 4, *shape[axis + 1 :])
        edges = [(0, 0)] * array.ndim
        edges[axis + 1] = (0, channels)
        array = jnp.pad(array, edges)
        return array.reshape(*shape[:axis], -1, *shape[axis + 1 :])

    fine["intro"]["kernel"] = widened(fine["intro"]["kernel"], 2, 3)
    fine["outro"]["kernel"] = widened(fine["outro"]["kernel"], 3, 1)
    fine["outro"]["bias"] = widened(fine["outro"]["bias"], 0, 1)
    return {"params": {"coarse": coarse["params"], "fine": fine}}


class Cascade(nn.Module):
    """A coarse network that proposes, and a fine one that chooses.

    The fine network is shown what the coarse one would change, and takes at each pixel
    as much of it as it thinks right, as it does of openings and closings: nothing at
    first, so that it begins as the fine network alone.

    Attributes:
      width: channels at half resolution of both.
      trimmed: whether the result is left without its outermost `outer` pixels, for
        which only the coarse network is computed then.
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "Chen et al. 2022, windowed, small and whole"
    multiple: ClassVar[int] = SHRINK * nafnet.NAFNet.multiple
    # Eight less than the two sights in a row, whose farthest places do not meet.
    halo: ClassVar[int] = nafnet.NAFNet.sight + SHRINK * nafnet.NAFNet.halo - 2
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
            for name in ("coarse", "fine")
        )
        padded = layers.pad_to_multiple(images, self.multiple)
        small = shrunk(padded, SHRINK)
        proposal = enlarged(coarse(small) - small, SHRINK)
        outer = self.outer if self.trimmed else 0
        inner = [slice(outer, side - outer) for side in images.shape[1:3]]
        return fine(images[:, *inner], proposal[:, *inner])
