"""Draws the pairs, crops and flips of each step: pure functions of seed and step.

Every source of pairs (folder, prepared records, arrays, a GPU's memory) draws from
here. So all of them give the same batches for the same seed, and a resumed run
continues exactly where it stopped. A batch may contain the end of one epoch and the
start of the next, so that every pair is used equally often at any batch size.
"""

import functools
from typing import NamedTuple

import numpy as np


class Draws(NamedTuple):
    """The random choices of a batch of training crops.

    Attributes:
      index: int32 (batch,), indices into the list of training pairs.
      offset: float32 (batch, 2), row and column of the crop as a share, in [0, 1), of
        the possible offsets.
      flip: bool (batch, 2), whether to flip top to bottom and left to right.
    """

    index: np.ndarray
    offset: np.ndarray
    flip: np.ndarray


@functools.lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, count: int) -> Draws:
    generator = np.random.default_rng([seed, epoch])
    return Draws(
        index=generator.permutation(count).astype(np.int32),
        offset=generator.random((count, 2), np.float32),
        flip=generator.random((count, 2)) < 0.5,
    )


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch, rounded up."""
    return -(-count // batch_size)


def batch_draws(
    *, seed: int, step: int, count: int, batch_size: int, augment: bool
) -> Draws:
    """Returns the draws of one training step.

    Args:
      seed: of the run.
      step: from 0.
      count: number of training pairs.
      batch_size: over all devices and processes.
      augment: whether to flip.

    Returns:
      The draws, with batch_size rows.
    """
    drawn = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = []
    for epoch in np.unique(drawn // count):
        chosen = drawn[drawn // count == epoch] % count
        rows.append([part[chosen] for part in _epoch(seed, int(epoch), count)])
    draws = Draws(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))
    return draws if augment else draws._replace(flip=np.zeros_like(draws.flip))
