"""Checkpoints of a training run; the only caller of Orbax.

A workdir keeps the latest few checkpoints and the best one by validation PSNR,
beside `config.json`.
"""

import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from restoration import config, errors, models, optim, step

_METRIC = "psnr"


def _folder(workdir: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(workdir).resolve() / "checkpoints"


def _psnr(metrics: dict[str, float]) -> float:
    return metrics[_METRIC]


def open_manager(workdir: str | os.PathLike, *, keep: int) -> ocp.CheckpointManager:
    """Opens the checkpoints of a workdir for writing, asynchronously.

    Args:
      workdir: the run's folder.
      keep: how many of the latest to keep, beside the best.

    Returns:
      The manager; close it to wait for the last write.
    """
    policy = checkpoint_managers.AnyPreservationPolicy(
        [
            checkpoint_managers.LatestN(keep),
            checkpoint_managers.BestN(
                get_metric_fn=_psnr,
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
    )
    return ocp.CheckpointManager(
        _folder(workdir),
        # Orbax writes metrics only when it is told of a best_fn; the policy above
        # alone decides what is kept (best_fn would drop the newest).
        options=ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=_psnr),
    )


def save(
    manager: ocp.CheckpointManager, state: step.TrainState, psnr: float | None
) -> None:
    """Starts writing a checkpoint; one that exists for the step is kept.

    Args:
      manager: from `open_manager`.
      state: the training state.
      psnr: validation PSNR, dB, or None when it was not measured.
    """
    number = int(state.step)
    if number in manager.all_steps():
        return
    manager.save(
        number,
        args=ocp.args.StandardSave(state),
        metrics=None if psnr is None else {_METRIC: psnr},
    )


def restore_latest(
    manager: ocp.CheckpointManager, like: step.TrainState
) -> step.TrainState | None:
    """Returns the latest state, or None when there is none.

    Args:
      manager: from `open_manager`.
      like: a state of the same shapes, types and shardings.

    Returns:
      The state, placed as `like` is.

    Raises:
      InputError: when the checkpoint is of another model or is damaged.
    """
    latest = manager.latest_step()
    return None if latest is None else _restore(manager, latest, like)


def _restore(manager: ocp.CheckpointManager, number: int, like: Any) -> Any:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        return manager.restore(number, args=ocp.args.StandardRestore(abstract))
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise errors.InputError(
            f"{manager.directory / str(number)}: not a checkpoint of this model, or "
            f"damaged ({reason}); remove it or use another --workdir"
        ) from None


def load_config(workdir: str | os.PathLike) -> config.TrainConfig:
    """Returns the configuration of a training run.

    Args:
      workdir: the run's folder.

    Returns:
      The configuration that `train` saved.

    Raises:
      InputError: when there is none, or it is malformed.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not path.is_file():
        raise errors.InputError(
            f"{path}: no such file; train first: python -m restoration.train "
            f"--workdir {workdir} --data_dir ..."
        )
    text = path.read_text(encoding="utf-8", errors="replace")
    return config.from_json(text, config.TrainConfig, source=str(path))


def load_trained(workdir: str | os.PathLike) -> tuple[config.TrainConfig, Any, int]:
    """Loads the best weights of a run: averaged ones where they are kept.

    Args:
      workdir: the run's folder.

    Returns:
      The configuration, the parameters, and the step they are of.

    Raises:
      InputError: when the workdir holds no usable checkpoint.
    """
    options = load_config(workdir)
    folder = _folder(workdir)
    manager = None
    if folder.is_dir():
        manager = open_manager(workdir, keep=options.keep)
    numbers = manager.all_steps() if manager else ()
    if not numbers:
        raise errors.InputError(
            f"{folder}: no checkpoint; the run was stopped before its first one, "
            "start it again"
        )
    scores = {n: (manager.metrics(n) or {}).get(_METRIC) for n in numbers}
    scored = {n: score for n, score in scores.items() if score is not None}
    number = max(scored, key=scored.get) if scored else max(numbers)
    model = models.get_model(options.model)
    like = jax.eval_shape(
        lambda: step.init_state(
            model,
            optim.make_optimizer(options, 1),
            jax.random.key(0),
            ema=bool(options.ema_decay),
        )
    )
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), like
    )
    state = _restore(manager, number, like)
    manager.close()
    return options, state.average if options.ema_decay else state.parameters, number
