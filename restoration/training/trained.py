"""What a training run has made: its weights, and a digest of its whole state."""

import hashlib
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from restoration import models
from restoration.base import errors
from restoration.devices import processes
from restoration.training import checkpoint, optim, step, train_config


def _load(
    folder: pathlib.Path, numbers: list[int], like: Callable[[pathlib.Path], Any]
) -> Any:
    """Loads the first good one of some checkpoints onto one device.

    Args:
      folder: of the checkpoints.
      numbers: their steps, the one that is wanted most first.
      like: gives the shapes and types for a checkpoint's folder.
    """
    # Of several processes one chooses: the others may not see the newest files yet.
    found = checkpoint.choose(folder, numbers) if processes.is_writer() else None
    chosen, problems = processes.gather(found)[0]
    for problem in problems.values():
        logging.warning("%s; step %d is used", problem, chosen)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        like(folder / str(chosen)),
    )
    return checkpoint.restore(folder / str(chosen), placed)


def _state_of(options: train_config.TrainConfig) -> step.TrainState:
    """Returns the shapes and types of a run's state."""
    model = models.get_model(options.model)
    return jax.eval_shape(
        lambda: step.init_state(
            model,
            optim.make_optimizer(options, 1),
            jax.random.key(0),
            ema=bool(options.ema_decay),
        )
    )


def load_trained(
    workdir: str | os.PathLike,
) -> tuple[train_config.TrainConfig, Any, int]:
    """Loads the best weights of a run: averaged ones where they are kept.

    Args:
      workdir: the run's folder.

    Returns:
      The configuration, the parameters, and the step they are of.

    Raises:
      InputError: when the workdir holds no usable checkpoint.
    """
    options, folder = train_config.load_config(workdir), checkpoint.folder_of(workdir)
    numbers = checkpoint.by_score(folder)
    if not numbers:
        raise errors.InputError(
            f"{folder}: no checkpoint; the run was stopped before its first one, "
            "start it again"
        )
    state = _load(folder, numbers, lambda path: _state_of(options))
    parameters = state.average if options.ema_decay else state.parameters
    return options, parameters, int(state.step)


def digest(workdir: str | os.PathLike) -> tuple[int, str]:
    """Returns the latest step of a run and a SHA-256 of its whole state.

    Args:
      workdir: the folder of a run, whatever it trains.

    Raises:
      InputError: when the workdir holds no usable checkpoint.
    """
    folder = checkpoint.folder_of(workdir)
    numbers = checkpoint.steps_in(folder)
    if not numbers:
        raise errors.InputError(f"{folder}: no checkpoint")
    state = _load(folder, numbers[::-1], checkpoint.shapes)
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        leaf = np.asarray(leaf)
        found.update(repr((path, leaf.shape, str(leaf.dtype))).encode())
        found.update(leaf.tobytes())
    return int(state["step"]), found.hexdigest()
