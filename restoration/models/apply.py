"""Applying a model to whole images."""

from typing import Any

import jax
import jax.numpy as jnp

from restoration.devices import backend


def on_grid(pixels: int, multiple: int) -> int:
    """Returns a number of pixels, rounded up to a multiple."""
    return -(-pixels // multiple) * multiple


def margin(model: Any) -> int:
    """Returns the model's halo, rounded up to the grid of its pooling."""
    return on_grid(model.halo, model.stride)


def apply(model: Any, parameters: Any, images: jnp.ndarray) -> jnp.ndarray:
    """Applies a model; on a CPU in microbatches that stay in its caches.

    Args:
      model: Flax module.
      parameters: its parameters.
      images: float (batch, height, width, 3).

    Returns:
      The model's output for the whole batch.
    """
    batch, devices = images.shape[0], jax.device_count()
    if batch % devices:
        return model.apply(parameters, images)
    count = backend.microbatches(batch // devices, max(images.shape[1:3]))
    # Strided, so that each microbatch keeps all devices busy.
    parts = [model.apply(parameters, images[first::count]) for first in range(count)]
    return jnp.stack(parts, axis=1).reshape(batch, *parts[0].shape[1:])


def restore_whole(model: Any, parameters: Any, images: jnp.ndarray) -> jnp.ndarray:
    """Restores a batch of images at once; jittable.

    Args:
      model: Flax module.
      parameters: its parameters.
      images: float (batch, height, width, 3) in [0, 1].

    Returns:
      float32 of the same shape, in [0, 1].
    """
    context = margin(model)
    height, width = images.shape[1:3]
    edges = ((0, 0), (context, context), (context, context), (0, 0))
    padded = jnp.pad(images, edges, mode="symmetric")
    restored = apply(model, parameters, padded)
    restored = restored[:, context : context + height, context : context + width]
    return jnp.clip(restored, 0, 1)
