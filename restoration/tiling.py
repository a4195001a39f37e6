"""Restoring images of any size through tiles of one static shape.

A pixel's result depends on no more than the model's halo around it, so a tile's
inner part, its core, is exactly what the whole image would give. Cores overlap
by a ramp and are blended with a smooth window, which hides what differs in
models that are not exactly local. Beyond its borders an image is continued by
reflection, so that the result does not depend on where tiles lie.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from restoration import errors

# Cores overlap by so many pixels, unless told otherwise.
RAMP = 16


def margin(model: Any) -> int:
    """Returns the model's halo, rounded up to the grid of its pooling."""
    return -(-model.halo // model.multiple) * model.multiple


def restore_whole(model: Any, parameters: Any, images: jnp.ndarray) -> jnp.ndarray:
    """Restores a batch of images at once; jittable.

    Args:
      model: Flax module.
      parameters: its parameters.
      images: float (batch, height, width, 3) in [0, 1].

    Returns:
      float32 of the same shape, in [0, 1].
    """
    around = margin(model)
    height, width = images.shape[1:3]
    edges = ((0, 0), (around, around), (around, around), (0, 0))
    padded = jnp.pad(images, edges, mode="symmetric")
    restored = model.apply(parameters, padded)
    restored = restored[:, around : around + height, around : around + width]
    return jnp.clip(restored, 0, 1)


def starts(length: int, *, core: int, ramp: int, multiple: int) -> list[int]:
    """Returns where the cores begin that cover `length` pixels.

    They lie on the model's pooling grid, the last one as far back as the grid
    allows, and neighbours share at least `ramp` pixels.

    Args:
      length: pixels to cover.
      core: pixels a core covers.
      ramp: pixels that neighbours share at least, less than core.
      multiple: the pooling grid.

    Returns:
      Ascending multiples of `multiple`, from 0.
    """
    stride = (core - ramp) // multiple * multiple
    last = max(0, -(-(length - core) // multiple) * multiple)
    return [*range(0, last, stride), last]


def window(core: int, ramp: int) -> np.ndarray:
    """Returns blending weights along one axis: raised cosine over each ramp.

    Args:
      core: pixels a core covers.
      ramp: pixels that rise, and fall.

    Returns:
      float32 (core,), above 0.
    """
    rise = np.sin(np.pi / 2 * (np.arange(ramp) + 0.5) / max(1, ramp)) ** 2
    weights = np.ones(core, np.float32)
    weights[:ramp] *= rise.astype(np.float32)
    weights[core - ramp :] *= rise[::-1].astype(np.float32)
    return weights


def make_restore(
    model: Any, *, tile: int, ramp: int = RAMP, batch: int = 1
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Returns restore(parameters, image) for images of any size.

    Args:
      model: Flax module.
      tile: side of the tiles that the model sees, a multiple of its grid.
      ramp: pixels over which neighbouring tiles are blended.
      batch: tiles computed at once.

    Returns:
      A function of parameters and a float image (height, width, 3) in [0, 1]
      that gives the restored image, float32 of the same shape. It compiles once.

    Raises:
      InputError: for a tile that does not fit the model.
    """
    around, multiple = margin(model), model.multiple
    core = tile - 2 * around
    if tile % multiple or (core - ramp) < multiple:
        least = 2 * around + ramp + multiple
        raise errors.InputError(
            f"--tile={tile}: must be a multiple of {multiple} and at least {least}"
        )
    weights = window(core, ramp)
    weights = (weights[:, None] * weights[None, :])[..., None]

    @jax.jit
    def compute(parameters: Any, tiles: jnp.ndarray) -> jnp.ndarray:
        restored = model.apply(parameters, tiles)
        return jnp.clip(
            restored[:, around : around + core, around : around + core], 0, 1
        )

    def places(height: int, width: int) -> Iterator[tuple[int, int]]:
        for top in starts(height, core=core, ramp=ramp, multiple=multiple):
            for left in starts(width, core=core, ramp=ramp, multiple=multiple):
                yield top, left

    def restore(parameters: Any, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        tops, lefts = (list(axis) for axis in zip(*places(height, width), strict=True))
        below, right = max(tops) + core - height, max(lefts) + core - width
        edges = ((around, around + below), (around, around + right), (0, 0))
        padded = np.pad(np.asarray(image, np.float32), edges, mode="symmetric")
        total = np.zeros((height + below, width + right, 3), np.float32)
        weight = np.zeros((height + below, width + right, 1), np.float32)
        corners = list(zip(tops, lefts, strict=True))
        for first in range(0, len(corners), batch):
            group = corners[first : first + batch]
            tiles = np.zeros((batch, tile, tile, 3), np.float32)
            for place, (top, left) in enumerate(group):
                tiles[place] = padded[top : top + tile, left : left + tile]
            restored = np.asarray(compute(parameters, tiles))
            for (top, left), part in zip(group, restored, strict=False):
                area = np.s_[top : top + core, left : left + core]
                total[area] += part * weights
                weight[area] += weights
        return (total / weight)[:height, :width]

    return restore
