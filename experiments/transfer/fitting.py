"""Trains any network from given weights, on batches drawn on the device.

`restoration.train` starts a named network with random weights, on pairs from files. A
comparison of initial weights needs weights of any origin, and batches drawn from pairs
on the device; both use the same training run.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from restoration.base import errors
from restoration.data import sampling
from restoration.evaluation import measure
from restoration.training import provenance, run_log, train_config

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp

    from restoration import damage
    from restoration.data import arrays
    from restoration.evaluation import metrics
    from restoration.training import feed, run, step

# Highest noise of a blind denoiser, of 255 (Zhang et al. 2017). Range of the blur in
# pixels; a little noise is added, since blur alone could be undone exactly.
_BLIND_NOISE = 55.0
_BLUR, _BLUR_RADIUS, _BLUR_NOISE = (0.5, 2.5), 8, 1.0


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long and how a network is trained.

    Attributes:
      steps: number of batches.
      batch_size: images per step.
      image_size: side of the images, pixels.
      learning_rate: peak value, after a warm-up of a twentieth of the steps and before
        a cosine decay to zero.
      optimizer: see `train_config.TrainConfig`.
      loss: see `losses`.
      ema_decay: decay of the averaged weights, which are the result.
      points: number of times that the run is measured and saved, after its start.
    """

    steps: int
    batch_size: int
    image_size: int
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    loss: str = "charbonnier"
    ema_decay: float = 0.99
    points: int = 10


class Fitted(NamedTuple):
    """The result of a run.

    Attributes:
      parameters: the averaged weights after the last step.
      curve: (step, value of `measure`), from step 0.
    """

    parameters: Any
    curve: list[tuple[int, float]]


# Gives a step's batch: (key, data, batch_size=, image_size=) -> {"input", "output"}.
Draw = Callable[..., Mapping[str, Any]]


def crops(
    key: "jax.Array", data: "arrays.PairArrays", *, batch_size: int, image_size: int
) -> dict[str, Any]:
    """Draws crops of pairs, with flips.

    Args:
      key: PRNG key.
      data: pairs, at least as large as the crops.
      batch_size: number of crops.
      image_size: their side, pixels.

    Returns:
      {"input", "output"}: float32 (batch_size, image_size, image_size, 3).
    """
    which, where, flip = jax.random.split(key, 3)
    draws = sampling.Draws(
        index=jax.random.randint(which, (batch_size,), 0, len(data.input)),
        offset=jax.random.uniform(where, (batch_size, 2)),
        flip=jax.random.bernoulli(flip, shape=(batch_size, 2)),
    )
    batch = arrays.take_crops(data, draws, image_size)
    return {side: step.to_float(images) for side, images in batch.items()}


def with_noise(key: "jax.Array", clean: Any, sigma: Any) -> Any:
    """Adds Gaussian noise; not clipped, as in the papers.

    Args:
      key: PRNG key.
      clean: float (batch, height, width, channels) in [0, 1].
      sigma: of 255; one number or (batch, 1, 1, 1).
    """
    return clean + sigma / 255 * jax.random.normal(key, clean.shape)


def with_any_noise(key: "jax.Array", clean: Any) -> dict[str, Any]:
    """Returns a batch for a blind denoiser, with another noise level for each image."""
    strength, noise = jax.random.split(key)
    shape = (len(clean), 1, 1, 1)
    sigma = jax.random.uniform(strength, shape, maxval=_BLIND_NOISE)
    return {"input": with_noise(noise, clean, sigma), "output": clean}


def noisy_crops(key: "jax.Array", data: "arrays.PairArrays", **sizes: int) -> dict:
    """Draws clean crops and adds noise of random levels; see `crops`."""
    cut, noise = jax.random.split(key)
    return with_any_noise(noise, crops(cut, data, **sizes)["output"])


def blurred_crops(key: "jax.Array", data: "arrays.PairArrays", **sizes: int) -> dict:
    """Draws clean crops and blurs each by a random width; see `crops`."""
    cut, width, noise = jax.random.split(key, 3)
    clean = crops(cut, data, **sizes)["output"]
    low, high = _BLUR
    sigma = jax.random.uniform(width, (len(clean),), minval=low, maxval=high)
    blurred = jax.vmap(
        lambda image, s: damage.blur(image, sigma=s, radius=_BLUR_RADIUS)
    )(clean, sigma)
    return {"input": with_noise(noise, blurred, _BLUR_NOISE), "output": clean}


def run_options(
    model: Any, budget: Budget, *, seed: int, workdir: pathlib.Path
) -> train_config.RunConfig:
    """Returns the options of a run."""
    return train_config.RunConfig(
        workdir=str(workdir),
        model=type(model).__name__,
        steps=budget.steps,
        evaluations=budget.points,
        batch_size=budget.batch_size,
        image_size=budget.image_size,
        seed=seed,
        loss=budget.loss,
        optimizer=budget.optimizer,
        learning_rate=budget.learning_rate,
        schedule="cosine",
        warmup_steps=budget.steps // 20,
        clip_norm=1.0,
        ema_decay=budget.ema_decay,
        keep=1,
    )


def _feed(
    options: train_config.RunConfig,
    draw: Draw,
    data: "arrays.PairArrays",
    measure: Callable[[Any], float],
) -> "feed.Feed":
    """Returns the feed that draws each step's batch on the device."""
    root = jax.random.key(options.seed)

    def take(data: Any, number: Any) -> Mapping[str, Any]:
        return draw(
            jax.random.fold_in(root, number),
            data,
            batch_size=options.batch_size,
            image_size=options.image_size,
        )

    described = provenance.describe_arrays({"train": data}) | {
        "drawn by": draw.__name__
    }
    return feed.Feed(
        count=options.steps * options.batch_size,
        names=(),
        make_run=feed.resident_run(options, data, take, np.int32),
        make_validate=lambda model: lambda parameters: {"psnr": measure(parameters)},
        bad={},
        describe=lambda: described,
        fixed=True,
    )


def fit(
    model: Any,
    initial: Any,
    draw: Draw,
    data: Any,
    budget: Budget,
    *,
    seed: int,
    workdir: pathlib.Path,
    measure: Callable[[Any], float],
) -> Fitted:
    """Trains a network, continues an interrupted run, or reads a finished one.

    Args:
      model: Flax module.
      initial: its parameters before the first step.
      draw: draws a batch.
      data: passed to `draw`, on the device.
      budget: of the training.
      seed: of the batches.
      workdir: the run's folder, used for this run only.
      measure: takes parameters and returns a finite number for the curve.

    Returns:
      The weights and the curve.

    Raises:
      InputError: if the run was stopped before its end.
    """
    options = run_options(model, budget, seed=seed, workdir=workdir)
    first = float(measure(initial))
    done = run.train(
        options,
        _feed(options, draw, data, measure),
        task=run.Task(model, initial=initial),
    )
    if done.step < done.total_steps:
        raise errors.InputError(
            f"{workdir}: stopped at step {done.step} of {done.total_steps}; "
            "the same command continues it"
        )
    rows = run_log.read(workdir / run_log.NAME)
    curve = [(row["step"], row["psnr"]) for row in rows if row["split"] == "validation"]
    return Fitted(done.parameters, [(0, first), *curve])


@functools.cache
def _scores(model: Any) -> Callable:
    def compute(parameters: Any, batch: Mapping[str, Any]) -> tuple:
        degraded, target = (step.to_float(batch[side]) for side in ("input", "output"))
        restored = jnp.clip(model.apply(parameters, degraded), 0, 1)
        values = {
            "input": metrics.all_metrics(degraded, target),
            "restored": metrics.all_metrics(restored, target),
        }
        return values, restored

    return jax.jit(compute)


def score(
    model: Any, parameters: Any, members: "arrays.PairArrays", batch_size: int
) -> dict[str, dict[str, float]]:
    """Measures whole pairs, without padding, as in training.

    Args:
      model: Flax module.
      parameters: its parameters.
      members: the pairs.
      batch_size: pairs per call.

    Returns:
      Means of mse, psnr and ssim of "input" and "restored".
    """
    compute = _scores(model)
    batches = arrays.evaluation_batches(members, batch_size=batch_size)
    return measure.means(measure.measure(lambda b: compute(parameters, b), batches))
