"""Fills what damage hides: a picture and a mask in, the picture with it filled out.

A small U-Net of NAFNet's blocks (`nafnet`). Beside the picture and the mask it sees a
first guess: means of what the mask leaves, by ever larger cells where ever more is
hidden (normalized convolution, Knutsson and Westin 1993, in a pyramid, as Gortler
et al. 1996 push and pull), smoothed at each size from coarse to fine as Laplace's
equation has it. What the network adds begins at zero: without training it gives the
first guess, which passes OpenCV's Telea and Navier-Stokes by a little.

What a finder found may be no damage: where the mask is between 0 and 1 the network
has learned to look whether what lies there belongs to the picture, and to keep it.
Where the mask is 0 the picture comes out bit for bit.

    filled = Filler().apply(parameters, images, masks)
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from restoration.models import layers, nafnet

# Weights are stored by this name.
NAME = "filler"

# What a mask has where a finder found something, of probability 0 and 1: somebody who
# says that there is damage gives 1.
_CERTAINTY = (0.05, 0.95)

# Halvings of the first guess: the coarsest cells have 32 pixels a side.
_LEVELS = 5

# What a hidden pixel counts, so that there is a mean where all are hidden.
_HIDDEN = 1e-5

# How fast the share of a cell that is known makes its mean trusted.
_TRUST = 4.0

# At each size, full size first, what is hidden is so often put to the mean of what is
# around it: nearly the solution of Laplace's equation, which it would take very many
# such sweeps to reach at full size alone.
_SWEEPS = (6, 6, 2, 1, 0)


def certainty(probability: Any) -> Any:
    """Returns what a mask has where damage was found, of its probability, in [0, 1]."""
    low, high = _CERTAINTY
    return low + (high - low) * probability


def _doubled(x: jnp.ndarray) -> jnp.ndarray:
    """Doubles the size by linear interpolation, edges continued."""
    for axis in (1, 2):
        length = x.shape[axis]
        edges = [(0, 0)] * 4
        edges[axis] = (1, 1)
        padded = jnp.pad(x, edges, mode="edge")
        before = jax.lax.slice_in_dim(padded, 0, length, axis=axis)
        after = jax.lax.slice_in_dim(padded, 2, length + 2, axis=axis)
        halves = jnp.stack(
            [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1
        )
        shape = list(x.shape)
        shape[axis] *= 2
        x = halves.reshape(shape)
    return x


def _around(x: jnp.ndarray) -> jnp.ndarray:
    """Returns the weighted mean of the eight neighbors of each pixel."""
    total = x
    for axis in (1, 2):
        edges = [(0, 0)] * 4
        edges[axis] = (1, 1)
        padded, length = jnp.pad(total, edges, mode="edge"), x.shape[axis]
        before = jax.lax.slice_in_dim(padded, 0, length, axis=axis)
        after = jax.lax.slice_in_dim(padded, 2, length + 2, axis=axis)
        total = before + 4 * total + after
    return (total - 16 * x) / 20


def _halved(x: jnp.ndarray) -> jnp.ndarray:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def first_guess(images: jnp.ndarray, masks: jnp.ndarray) -> jnp.ndarray:
    """Fills masks smoothly from what they leave.

    Args:
      images: (batch, height, width, 3), sides multiples of 32.
      masks: (batch, height, width, 1) in [0, 1].

    Returns:
      The images, smooth where the masks are 1.
    """
    weights = jnp.maximum(1 - masks, _HIDDEN)
    sums = [jnp.concatenate([images * weights, weights], axis=-1)]
    for _ in range(_LEVELS):
        sums.append(_halved(sums[-1]))
    guess = sums[-1][..., :3] / sums[-1][..., 3:]
    for level, sweeps in reversed(list(zip(sums[:-1], _SWEEPS, strict=True))):
        known = level[..., 3:]
        mean = level[..., :3] / known
        trust = jnp.minimum(_TRUST * known, 1.0)
        coarse = _doubled(guess)
        guess = coarse + trust * (mean - coarse)
        for _ in range(sweeps):
            # Fused, each sweep would be computed anew for each of its neighbors.
            guess = jax.lax.optimization_barrier(guess)
            guess = trust * mean + (1 - trust) * _around(guess)
    return guess


class Filler(nn.Module):
    """The whole network: fold, two levels down, the middle, two levels up, unfold.

    Attributes:
      width: channels at half resolution.
      dtype: of the computation; parameters stay float32.
    """

    source: ClassVar[str] = "NAFNet's blocks around a pyramid of means"
    stride: ClassVar[int] = 32
    halo: ClassVar[int] = 192

    # Channels at 1/2, 1/4 and 1/8 of the size, and blocks at each, down and up.
    widths: ClassVar[tuple[int, ...]] = (24, 48, 64)
    blocks: ClassVar[tuple[int, ...]] = (1, 1, 4)

    dtype: Any = None

    @nn.compact
    def __call__(self, images: jnp.ndarray, masks: jnp.ndarray) -> jnp.ndarray:
        """Fills.

        Args:
          images: float (batch, height, width, 3) in [0, 1], any height and width.
          masks: float (batch, height, width, 1): 1 where there is damage, the
            `certainty` of what was found, 0 elsewhere.

        Returns:
          float32 like the images, near [0, 1] but not clipped; where the mask is 0
          the same bits.
        """
        padded = layers.pad_to_multiple(images, self.stride)
        hidden = layers.pad_to_multiple(masks, self.stride)
        guess = first_guess(padded, (hidden > 0).astype(hidden.dtype))
        shown = jnp.concatenate([padded, hidden, guess], axis=-1)
        x = nafnet.fold(shown.astype(self.dtype or padded.dtype))
        x = nn.Dense(self.widths[0], dtype=self.dtype, name="intro")(x)
        kept = []
        for level, (width, count) in enumerate(
            zip(self.widths, self.blocks, strict=True), 1
        ):
            if level > 1:
                kept.append(x)
                x = nn.Dense(width, dtype=self.dtype, name=f"down_{level}")(
                    nafnet.fold(x)
                )
            for number in range(1, count + 1):
                x = nafnet.Block(dtype=self.dtype, name=f"down_{level}_{number}")(x)
        for level in range(len(self.widths) - 1, 0, -1):
            width, count = self.widths[level - 1], self.blocks[level - 1]
            up = nn.Dense(
                4 * width, use_bias=False, dtype=self.dtype, name=f"up_{level}"
            )
            x = layers.depth_to_space(up(x)) + kept.pop()
            for number in range(1, count + 1):
                x = nafnet.Block(dtype=self.dtype, name=f"up_{level}_{number}")(x)
        change = nn.Dense(
            12,
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="outro",
        )(x)
        filled = guess + layers.depth_to_space(change).astype(jnp.float32)
        filled = jnp.where(hidden > 0, filled, padded)
        return filled[:, : images.shape[1], : images.shape[2]].astype(
            jnp.promote_types(images.dtype, jnp.float32)
        )


def abstract_parameters() -> Any:
    """Returns the shapes and types of the parameters without computing."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    masks = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    return jax.eval_shape(Filler().init, jax.random.key(0), images, masks)
