"""Training runs of the experiments: started, resumed, measured, stored as JSON.

A run trains by a recipe on arrays of pairs, with one seed. Its result is stored in its
folder; a second call reads it. An interrupted run continues.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epy

from restoration import train
from restoration.base import config, errors
from restoration.evaluation import measure

with epy.lazy_imports():
    import jax

    from restoration import models
    from restoration.data import arrays
    from restoration.training import checkpoint, optim, step

# What decides a run's numbers. How its results are shown does not, and the loop in
# `train` is held by its own tests to the same weights by every way.
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SOURCES = (
    "restoration/models/autoencoder.py",
    "restoration/models/layers.py",
    "restoration/models/convolution.py",
    "restoration/damage",
    "restoration/data/arrays.py",
    "restoration/training/losses.py",
    "restoration/evaluation/metrics.py",
    "restoration/training/optim.py",
    "restoration/data/sampling.py",
    "restoration/training/step.py",
    "experiments/tables/standin.py",
    "experiments/tables/keras_reference.py",
    "experiments/tables/runs.py",
)

# Largest number of points of a validation curve.
_POINTS = 10


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the seed report's.

    The report names Adam and mean squared error; of anything else it says nothing,
    so that Keras' defaults stand. The fields that `config.TrainConfig` has too mean
    the same; `start` names the initial weights, see `STARTS`.
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


def _he(parameters: Any, seed: int) -> Any:
    """Draws kernels so that ReLU keeps the variance (He et al. 2015); biases 0."""
    generator = np.random.default_rng(seed)

    def drawn(path: tuple, leaf: Any) -> np.ndarray:
        if leaf.ndim == 1:
            return np.zeros(leaf.shape, np.float32)
        inputs = np.prod(leaf.shape[:3])
        if "upconv" in path[-2].key:  # a pixel sees a quarter of the taps
            inputs = inputs / 4
        noise = generator.standard_normal(leaf.shape, np.float32)
        return noise * np.sqrt(2 / inputs, dtype=np.float32)

    return jax.tree_util.tree_map_with_path(drawn, parameters)


def carry(parameters: Any, seed: int) -> Any:
    """Returns initial weights with which an autoencoder shows its input, blurred.

    Keras' weights start both networks at grey. Here six channels carry the picture
    through each autoencoder: the three colors, of which pooling keeps the
    brightest, and their negatives, of which it keeps the darkest; tents enlarge
    both and the last convolution joins them, so that the sigmoid, which is nearly
    a line of slope 1/4 there, gives the color back. The others start as He's
    random weights, halved.

    Args:
      parameters: of the same shapes; the values are not read.
      seed: of the random weights.

    Returns:
      The weights, float32.
    """
    found = _he(parameters, seed)
    tent = np.float32([0.5, 1, 0.5])
    for stage in found["params"].values():
        for layer in stage.values():
            layer["kernel"] *= 0.5
        for name in ("conv_1", "conv_2", "upconv_1", "upconv_2"):
            stage[name]["kernel"][..., :6] = 0
        stage["conv_3"]["kernel"][:, :, :6] = 0
        stage["conv_1"]["bias"][3:6] = 1
        for color in range(3):
            stage["conv_1"]["kernel"][1, 1, color, color] = 1
            stage["conv_1"]["kernel"][1, 1, color, color + 3] = -1
            stage["conv_3"]["kernel"][1, 1, color, color] = 2
            stage["conv_3"]["kernel"][1, 1, color + 3, color] = -2
        for channel in range(6):
            stage["conv_2"]["kernel"][1, 1, channel, channel] = 1
            for name in ("upconv_1", "upconv_2"):
                stage[name]["kernel"][:, :, channel, channel] = np.outer(tent, tent)
    return found


# Initial weights: (parameters of the right shapes, seed) -> parameters.
STARTS: Mapping[str, Callable[[Any, int], Any] | None] = {"keras": None, "carry": carry}


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


def _train_config(run: Run, workdir: pathlib.Path) -> config.TrainConfig:
    recipe = dataclasses.asdict(run.recipe)
    del recipe["start"]
    return config.TrainConfig(
        data_dir="",
        workdir=str(workdir),
        model=run.model,
        epochs=run.epochs,
        batch_size=run.batch_size,
        image_size=run.image_size,
        seed=run.seed,
        evaluate_every=max(1, run.epochs // _POINTS),
        **recipe,
    )


def _initial_state(options: config.TrainConfig, start: str) -> Any:
    model = models.get_model(options.model)
    key = jax.random.key(options.seed)
    # The optimizer's state has no values yet that the number of steps changes.
    optimizer = optim.make_optimizer(options, 1)
    ema = bool(options.ema_decay)
    state = step.init_state(model, optimizer, key, ema=ema)
    if STARTS[start]:
        parameters = jax.tree.map(
            jax.numpy.asarray, STARTS[start](state.parameters, options.seed)
        )
        average = jax.tree.map(jax.numpy.copy, parameters) if ema else {}
        state = state._replace(parameters=parameters, average=average)
    return state


def _begin(options: config.TrainConfig, start: str) -> None:
    """Saves the initial weights, where they are not Keras', as the first checkpoint."""
    if STARTS[start] and not (pathlib.Path(options.workdir) / "config.json").exists():
        manager = checkpoint.open_manager(options.workdir, keep=options.keep)
        # 0 dB stands below anything that is measured later.
        checkpoint.save(manager, _initial_state(options, start), 0.0)
        manager.close()


def _last_weights(options: config.TrainConfig) -> Any:
    """Returns the weights after the last step, as Keras's `fit`, not the best ones."""
    like = jax.device_put(_initial_state(options, "keras"), jax.devices()[0])
    manager = checkpoint.open_manager(options.workdir, keep=options.keep)
    state = checkpoint.restore_latest(manager, like)
    manager.close()
    return state.average if options.ema_decay else state.parameters


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


def _curves(workdir: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """Returns the logged epoch, loss and psnr of each split, with six digits."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {
        split: {
            name: [float(f"{row[name]:.6g}") for row in rows if row["split"] == split]
            for name in ("epoch", "loss", "psnr")
        }
        for split in ("train", "validation")
    }


def result(
    run: Run, data: "Mapping[str, arrays.PairArrays]", workdir: pathlib.Path
) -> dict[str, Any]:
    """Does or continues a run, or reads its result.

    Args:
      run: the configuration.
      data: pairs of "train", "validation" and "test", of size `run.image_size`.
      workdir: the run's folder, used only for this run, data and code.

    Returns:
      "scores": means of "input" and "restored" for each split; "curves"; "seconds", the
      wall time; "resumed", whether the time is only that of the last part.

    Raises:
      InputError: if the run was stopped before its end.
    """
    path = workdir / "result.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    options = _train_config(run, workdir)
    resumed = (workdir / "config.json").exists()
    started = time.monotonic()
    _begin(options, run.recipe.start)
    done = train.train(
        options, {split: data[split] for split in ("train", "validation")}
    )
    if done.step < done.total_steps:
        raise errors.InputError(
            f"{workdir}: stopped at step {done.step} of {done.total_steps}; "
            "the same command continues it"
        )
    seconds = time.monotonic() - started
    parameters = _last_weights(options)
    found = {
        "scores": {
            split: mean_metrics(run.model, parameters, members, run.batch_size)
            for split, members in data.items()
        },
        "curves": _curves(workdir),
        "seconds": round(seconds, 2),
        "resumed": resumed,
    }
    config.write_text(path, json.dumps(found, indent=1) + "\n")
    return found
