"""Training runs of the experiments: started, resumed, measured, stored as JSON.

A run trains by a recipe on arrays of pairs, with one seed. Its result is stored in its
folder; a second call reads it. An interrupted run continues. At a constant learning
rate the beginning of a run is a shorter run, whose result is measured on the way.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy

from restoration.base import errors, files
from restoration.data import sampling
from restoration.evaluation import measure
from restoration.training import run_log, train_config

with epy.lazy_imports():
    import jax

    from restoration import models
    from restoration.data import arrays
    from restoration.models import identity_init, pretrained
    from restoration.training import checkpoint, losses, step
    from restoration.training import run as training

# What decides a run's numbers. How its results are shown does not, and the loop in
# `train` is held by its own tests to the same weights by every way.
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SOURCES = (
    "restoration/models/autoencoder.py",
    "restoration/models/layers.py",
    "restoration/models/convolution.py",
    "restoration/damage",
    "restoration/data/arrays.py",
    "restoration/models/identity_init.py",
    "restoration/training/losses.py",
    "restoration/evaluation/metrics.py",
    "restoration/training/optim.py",
    "restoration/data/sampling.py",
    "restoration/training/step.py",
    "experiments/tables/standin.py",
    "experiments/tables/keras_reference.py",
    "experiments/tables/runs.py",
)

# Number of points of a validation curve, at most, up to the first result.
_POINTS = 10

# Weights in a run's folder, of its latest result.
WEIGHTS = "weights.safetensors"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the seed report's.

    The report names Adam and mean squared error; of anything else it says nothing,
    so that Keras' defaults stand. The fields that `TrainConfig` has too mean the
    same; `start` names the initial weights, see `STARTS`.
    """

    start: str = "keras"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    loss: str = "mse"
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    augment: bool = False
    bfloat16: bool = False


SEED = Recipe()


# Initial weights: (parameters of the right shapes, seed) -> parameters.
STARTS: Mapping[str, Callable[[Any, int], Any] | None] = {
    "keras": None,
    "carry": lambda parameters, seed: identity_init.autoencoder(parameters, seed),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """The configuration of one training run.

    Attributes:
      model: name of the network.
      recipe: of the training.
      epochs: passes over the training pairs.
      batch_size: pairs per step; the report does not give its own.
      image_size: side of the pairs, which are not cropped.
      seed: of weights and order.
    """

    model: str
    recipe: Recipe
    epochs: int
    batch_size: int
    image_size: int
    seed: int


def code_version() -> str:
    """Returns a hash of the source files that determine a run's numbers."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        path = _ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(_ROOT).as_posix().encode() + b"\0")
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def machine() -> dict[str, Any]:
    """Returns the machine's properties on which a run's times depend."""
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def keep_compiled(folder: pathlib.Path) -> None:
    """Caches compiled programs in a folder, for later runs with the same shapes."""
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _train_config(
    run: Run, workdir: pathlib.Path, evaluate_every: int
) -> train_config.TrainConfig:
    recipe = dataclasses.asdict(run.recipe)
    del recipe["start"]
    return train_config.TrainConfig(
        data_dir="",
        workdir=str(workdir),
        model=run.model,
        epochs=run.epochs,
        batch_size=run.batch_size,
        image_size=run.image_size,
        seed=run.seed,
        evaluate_every=evaluate_every,
        **recipe,
    )


def _task(options: train_config.TrainConfig, start: str) -> Any:
    """Returns what is trained, from which weights."""
    dtype = jax.numpy.bfloat16 if options.bfloat16 else None
    model = models.get_model(options.model, dtype=dtype)
    initial = None
    if make := STARTS[start]:
        random = step.init_parameters(model, jax.random.key(options.seed))
        initial = make(random, options.seed)
    # SSIM of the training batches, which nothing here shows, would take time.
    objective = step.restoring(losses.make_loss(options.loss), ssim=False)
    return training.Task(model, objective, initial)


@functools.cache
def _eval_step(model: str) -> Callable:
    return jax.jit(step.make_eval_step(models.get_model(model)))


def mean_metrics(
    model: str, parameters: Any, members: "arrays.PairArrays", batch_size: int
) -> dict[str, dict[str, float]]:
    """Returns mean mse, psnr and ssim of input and restored images."""
    batches = arrays.evaluation_batches(members, batch_size=batch_size)
    compute = _eval_step(model)
    return measure.means(measure.measure(lambda b: compute(parameters, b), batches))


def _log(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return run_log.read(workdir / run_log.NAME)


def _curves(workdir: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """Returns the logged epoch, loss and psnr of each split, with six digits."""
    return {
        split: {
            name: [
                float(f"{row[name]:.6g}")
                for row in _log(workdir)
                if row["split"] == split
            ]
            for name in ("epoch", "loss", "psnr")
        }
        for split in ("train", "validation")
    }


def _seconds(workdir: pathlib.Path, batch_size: int) -> float:
    """Returns the time of a run's steps, over all of its parts, by its log."""
    rows = [row for row in _log(workdir) if row["split"] == "train"]
    counts = np.diff([0, *(row["step"] for row in rows)])
    speeds = [row["images_per_second"] for row in rows]
    return float(sum(batch_size * counts / np.array(speeds)))


def result(
    run: Run,
    data: "Mapping[str, arrays.PairArrays]",
    workdir: pathlib.Path,
    *,
    stops: Sequence[int] = (),
) -> dict[str, Any]:
    """Does or continues a run, or reads its result.

    The result of each stop is kept as `result_EPOCHS.json` in the folder, and the
    weights of the last one as `WEIGHTS`.

    Args:
      run: the configuration.
      data: pairs of "train", "validation" and further splits that are only measured,
        of size `run.image_size`.
      workdir: the folder of this run, and of shorter and longer ones that differ in
        `epochs` alone, with the same data, stops and code.
      stops: the epochs of all these runs, at a constant learning rate. The run goes
        no further than its own, and measures those before it on the way.

    Returns:
      "scores": means of "input" and "restored" for each split; "curves"; "seconds" of
      all steps; "resumed", whether the run was interrupted.

    Raises:
      InputError: if the run was stopped before its end.
      ValueError: for stops where a shorter run has another schedule.
    """
    ends = sorted({*stops, run.epochs})
    if len(ends) > 1 and run.recipe.schedule != "constant":
        raise ValueError(f"{run.recipe.schedule}: a shorter run has other rates")
    before = 0
    for epochs in ends[: ends.index(run.epochs) + 1]:
        path = workdir / f"result_{epochs}.json"
        if not path.is_file():
            part = dataclasses.replace(run, epochs=epochs)
            every = max(1, ends[0] // _POINTS)
            found = _train(part, data, workdir, before=before, evaluate_every=every)
            files.write_text(path, json.dumps(found, indent=1) + "\n")
        before = epochs
    return json.loads(path.read_text(encoding="utf-8"))


def _train(
    run: Run,
    data: "Mapping[str, arrays.PairArrays]",
    workdir: pathlib.Path,
    *,
    before: int,
    evaluate_every: int,
) -> dict[str, Any]:
    """Trains from one result to the next, see `result`.

    Args:
      run: with the epochs of the next result.
      data: of `result`.
      workdir: of `result`.
      before: epochs of the result before, 0 without one.
      evaluate_every: epochs between points of the validation curve.
    """
    each = sampling.steps_per_epoch(len(data["train"].input), run.batch_size)
    steps = checkpoint.steps_in(checkpoint.folder_of(workdir))
    resumed = bool(steps) and steps[-1] > before * each
    if before:
        earlier = workdir / f"result_{before}.json"
        resumed |= json.loads(earlier.read_text(encoding="utf-8"))["resumed"]
    options = _train_config(run, workdir, evaluate_every)
    done = training.train(
        options,
        {split: data[split] for split in ("train", "validation")},
        task=_task(options, run.recipe.start),
    )
    if done.step < done.total_steps:
        raise errors.InputError(
            f"{workdir}: stopped at step {done.step} of {done.total_steps}; "
            "the same command continues it"
        )
    if done.step > done.total_steps:
        raise errors.InputError(
            f"{workdir}: trained beyond epoch {run.epochs}, at which it was not "
            "measured; remove the folder to begin anew"
        )
    card = {"run": dataclasses.asdict(run)}
    pretrained.save(
        workdir / WEIGHTS, run.model, done.parameters, card, dtype=np.float16
    )
    return {
        "scores": {
            split: mean_metrics(run.model, done.parameters, members, run.batch_size)
            for split, members in data.items()
        },
        "curves": _curves(workdir),
        "seconds": round(_seconds(workdir, run.batch_size), 2),
        "resumed": resumed,
    }
