"""Pairs as arrays on the host or on a device, without TensorFlow."""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from restoration.base import errors
from restoration.data import sampling

# Batches prepared ahead of the one in use.
_AHEAD = 4


class PairArrays(NamedTuple):
    """Pairs of one size.

    Attributes:
      input: (count, height, width, 3), uint8 or float in [0, 1].
      output: the targets, of the same shape.
    """

    input: Any
    output: Any


def check(arrays: PairArrays, *, image_size: int) -> None:
    """Raises InputError unless the arrays are pairs at least as large as the crops."""
    degraded, target = arrays
    if degraded.shape != target.shape or degraded.ndim != 4 or degraded.shape[-1] != 3:
        raise errors.InputError(
            f"pairs of shapes {degraded.shape} and {target.shape}: both must be "
            "(count, height, width, 3)"
        )
    if not len(degraded) or min(degraded.shape[1:3]) < image_size:
        raise errors.InputError(
            f"pairs of shape {degraded.shape}: must not be empty or smaller than "
            f"--image_size={image_size}"
        )


def take_crops(
    arrays: PairArrays, draws: sampling.Draws, image_size: int
) -> dict[str, jnp.ndarray]:
    """Cuts the training crops of one step; jittable.

    Args:
      arrays: the training pairs.
      draws: of the step, see `sampling.batch_draws`.
      image_size: side of the crops, pixels.

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


def _cut(
    images: tuple[np.ndarray, np.ndarray],
    offset: np.ndarray,
    flip: np.ndarray,
    size: int,
) -> list[np.ndarray]:
    """Cuts the crops of one pair on the host; the pixels equal `take_crops`'."""
    room = np.array(images[0].shape[:2]) - size
    span = (room + 1).astype(np.float32)
    top, left = np.minimum((offset * span).astype(np.int32), room)
    rows, columns = slice(top, top + size), slice(left, left + size)
    steps = (-1 if flip[0] else 1), (-1 if flip[1] else 1)
    return [image[rows, columns][:: steps[0], :: steps[1]] for image in images]


def train_batches(
    read: Callable[[int], tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int,
    total_steps: int,
    augment: bool,
    process: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the training batch of each step, from pixels that need no decoding.

    Threads prepare the batches ahead of the one in use.

    Args:
      read: takes the index of a training pair and returns its input and target, uint8
        (height, width, 3) each.
      names: of the training pairs.
      image_size: side of the crops, pixels.
      batch_size: over all processes.
      seed: of order, crops and flips.
      start_step: the first step.
      total_steps: the step after the last.
      augment: whether to flip.
      process: (number of this process, number of processes).

    Yields:
      {"input", "output"}: uint8 (batch / processes, size, size, 3), equal to those of
      `input_pipeline.train_batches` for the same pairs.

    Raises:
      InputError: if a pair is too small.
    """
    share = batch_size // process[1]
    rows = slice(process[0] * share, (process[0] + 1) * share)

    def batch(step: int) -> dict[str, np.ndarray]:
        draws = sampling.batch_draws(
            seed=seed,
            step=step,
            count=len(names),
            batch_size=batch_size,
            augment=augment,
        )
        drawn = [part[rows] for part in draws]
        shape = (share, image_size, image_size, 3)
        made = PairArrays(np.empty(shape, np.uint8), np.empty(shape, np.uint8))
        for row, (index, offset, flip) in enumerate(zip(*drawn, strict=True)):
            images = read(int(index))
            if min(images[0].shape[:2]) < image_size:
                raise errors.InputError(
                    f"the pair {names[index]}: smaller than --image_size={image_size}; "
                    "choose a smaller --image_size"
                )
            made.input[row], made.output[row] = _cut(images, offset, flip, image_size)
        return made._asdict()

    steps = iter(range(start_step, total_steps))
    waiting: collections.deque = collections.deque()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            while True:
                for step in itertools.islice(steps, _AHEAD - len(waiting)):
                    waiting.append(pool.submit(batch, step))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def evaluation_batches(
    arrays: PairArrays, *, batch_size: int, names: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yields every pair once; the last batch is padded.

    Args:
      arrays: the pairs to evaluate, on the host.
      batch_size: rows per batch.
      names: of the pairs; their numbers by default.

    Yields:
      {"input", "output", "mask", "name"}, see `input_pipeline.evaluation_batches`.
    """
    count = len(arrays.input)
    names = names or [f"{number:06d}" for number in range(count)]
    size = min(batch_size, count)
    for start in range(0, count, size):
        rows = slice(start, start + size)
        batch = {
            "input": np.asarray(arrays.input[rows]),
            "output": np.asarray(arrays.output[rows]),
        }
        yield pad_batch(batch, size) | {"name": list(names[rows])}


def pad_batch(batch: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Pads each array of a batch with zeros to `size` rows; "mask" is False there."""
    count = len(next(iter(batch.values())))
    padded = {
        name: np.pad(rows, [(0, size - count)] + [(0, 0)] * (rows.ndim - 1))
        for name, rows in batch.items()
    }
    return padded | {"mask": np.arange(size) < count}
