"""Pairs held as arrays, on the host or on a device, without TensorFlow."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from restoration import errors, sampling


class PairArrays(NamedTuple):
    """Pairs of one size.

    Attributes:
      input: (count, height, width, 3), uint8 or float in [0, 1].
      output: the same for the clean frames.
    """

    input: Any
    output: Any


def check(arrays: PairArrays, *, image_size: int) -> None:
    """Raises InputError unless the arrays are pairs as large as the crops."""
    worn, truth = arrays
    if worn.shape != truth.shape or worn.ndim != 4 or worn.shape[-1] != 3:
        raise errors.InputError(
            f"pairs of shapes {worn.shape} and {truth.shape}: both must be "
            "(count, height, width, 3)"
        )
    if not len(worn) or min(worn.shape[1:3]) < image_size:
        raise errors.InputError(
            f"pairs of shape {worn.shape}: none, or smaller than "
            f"--image_size={image_size}"
        )


def take_crops(
    arrays: PairArrays, draws: sampling.Draws, image_size: int
) -> dict[str, jnp.ndarray]:
    """Cuts the training crops of one step; jittable.

    Args:
      arrays: the training pairs.
      draws: of the step, see `sampling.batch_draws`.
      image_size: side of the crops.

    Returns:
      {"input", "output"}: (batch, image_size, image_size, 3).
    """
    room = jnp.array(arrays.input.shape[1:3]) - image_size
    span = (room + 1).astype(jnp.float32)
    starts = jnp.minimum((draws.offset * span).astype(jnp.int32), room)

    def cut(images: jnp.ndarray, index: int, start: Any, flip: Any) -> jnp.ndarray:
        sizes = (1, image_size, image_size, 3)
        crop = lax.dynamic_slice(images, (index, start[0], start[1], 0), sizes)[0]
        crop = jnp.where(flip[0], crop[::-1], crop)
        return jnp.where(flip[1], crop[:, ::-1], crop)

    cut_all = jax.vmap(cut, in_axes=(None, 0, 0, 0))
    return {
        "input": cut_all(arrays.input, draws.index, starts, draws.flip),
        "output": cut_all(arrays.output, draws.index, starts, draws.flip),
    }


def evaluation_batches(
    arrays: PairArrays, *, batch_size: int
) -> Iterator[dict[str, Any]]:
    """Yields every pair once, the last batch padded; see `input_pipeline`.

    Args:
      arrays: the pairs to evaluate, on the host.
      batch_size: rows a batch.

    Yields:
      {"input", "output", "mask", "name"}; a name is the pair's number.
    """
    count = len(arrays.input)
    size = min(batch_size, count)
    for start in range(0, count, size):
        rows = slice(start, start + size)
        batch = {
            "input": np.asarray(arrays.input[rows]),
            "output": np.asarray(arrays.output[rows]),
        }
        names = [f"{number:06d}" for number in range(count)[rows]]
        yield pad_batch(batch, size) | {"name": names}


def pad_batch(batch: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Pads each array of a batch with zeros to `size` rows and adds the mask."""
    count = len(next(iter(batch.values())))
    padded = {
        name: np.pad(rows, [(0, size - count)] + [(0, 0)] * (rows.ndim - 1))
        for name, rows in batch.items()
    }
    return padded | {"mask": np.arange(size) < count}
