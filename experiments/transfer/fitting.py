"""Trains any network, from given weights, on batches drawn on the device.

`restoration.train` knows a network by its name, begins with fresh weights and counts
epochs. Comparing ways to begin wants a network with weights of any origin, and the
same number of steps however many pairs there are. A step's batch follows from the key
and the step's number, so that a run that was cut goes on to the same weights.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from etils import epy

from restoration.base import config
from restoration.data import sampling
from restoration.devices import backend
from restoration.evaluation import measure

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp

    from restoration import damage
    from restoration.data import arrays
    from restoration.evaluation import metrics
    from restoration.training import checkpoint, losses, optim, step

# On an accelerator at most so many steps go into one compiled call.
_STEPS_A_CALL = 500

# A blind denoiser's noise, of 255 (Zhang et al. 2017), and a blurred picture's blur,
# in pixels; it has a little noise too, without which it could be undone exactly.
_BLIND_NOISE = 55.0
_BLUR, _BLUR_RADIUS, _BLUR_NOISE = (0.5, 2.5), 8, 1.0


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long and how a network is trained.

    Attributes:
      steps: number of batches.
      batch_size: pictures a step.
      image_size: side of the pictures, pixels.
      learning_rate: at its highest; it rises over a twentieth of the steps and falls
        to zero as a cosine.
      optimizer: see `config.TrainConfig`.
      loss: see `losses`.
      ema_decay: decay of the averaged weights, which are those that count.
      points: how often the run is measured and saved, besides its start.
    """

    steps: int
    batch_size: int
    image_size: int
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    loss: str = "charbonnier"
    ema_decay: float = 0.99
    points: int = 10

    @property
    def stops(self) -> list[int]:
        """The steps after which the run is measured, 0 and the last among them."""
        found = {self.steps * n // self.points for n in range(self.points + 1)}
        return sorted(found)


class Fitted(NamedTuple):
    """What a run gave.

    Attributes:
      parameters: the averaged weights after the last step.
      curve: (step, what `measure` gave), from step 0.
    """

    parameters: Any
    curve: list[tuple[int, float]]


# Gives a step's batch: (key, data, batch_size=, image_size=) -> {"input", "output"}.
Draw = Callable[..., Mapping[str, Any]]


def crops(
    key: "jax.Array", data: "arrays.PairArrays", *, batch_size: int, image_size: int
) -> dict[str, Any]:
    """Draws pairs, places in them and flips.

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
    """Returns a batch for a blind denoiser: noise of another strength a picture."""
    strength, noise = jax.random.split(key)
    shape = (len(clean), 1, 1, 1)
    sigma = jax.random.uniform(strength, shape, maxval=_BLIND_NOISE)
    return {"input": with_noise(noise, clean, sigma), "output": clean}


def noisy_crops(key: "jax.Array", data: "arrays.PairArrays", **sizes: int) -> dict:
    """Draws clean crops, and noise of any strength over them; see `crops`."""
    cut, noise = jax.random.split(key)
    return with_any_noise(noise, crops(cut, data, **sizes)["output"])


def blurred_crops(key: "jax.Array", data: "arrays.PairArrays", **sizes: int) -> dict:
    """Draws clean crops, and blurs each by another width; see `crops`."""
    cut, width, noise = jax.random.split(key, 3)
    clean = crops(cut, data, **sizes)["output"]
    low, high = _BLUR
    sigma = jax.random.uniform(width, (len(clean),), minval=low, maxval=high)
    blurred = jax.vmap(
        lambda image, s: damage.blur(image, sigma=s, radius=_BLUR_RADIUS)
    )(clean, sigma)
    return {"input": with_noise(noise, blurred, _BLUR_NOISE), "output": clean}


def _optimizer(budget: Budget) -> Any:
    options = config.TrainConfig(
        data_dir="",
        workdir="",
        optimizer=budget.optimizer,
        learning_rate=budget.learning_rate,
        schedule="cosine",
        warmup_steps=budget.steps // 20,
        clip_norm=1.0,
    )
    return optim.make_optimizer(options, budget.steps)


@functools.cache
def _advance(model: Any, draw: Draw, budget: Budget) -> Callable:
    """Returns the jitted (state, data, key, count) -> state after so many steps."""
    train_step = step.make_train_step(
        model,
        _optimizer(budget),
        losses.make_loss(budget.loss),
        ema_decay=budget.ema_decay,
        accumulate=backend.microbatches(budget.batch_size, budget.image_size),
    )

    def one(state: Any, data: Any, key: Any) -> Any:
        batch = draw(
            jax.random.fold_in(key, state.step),
            data,
            batch_size=budget.batch_size,
            image_size=budget.image_size,
        )
        return train_step(state, batch)[0]

    def many(state: Any, data: Any, key: Any, count: int) -> Any:
        if count == 1:
            return one(state, data, key)
        repeat = lambda state, _: (one(state, data, key), None)  # noqa: E731
        return jax.lax.scan(repeat, state, length=count)[0]

    return jax.jit(many, static_argnums=3, donate_argnums=0)


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
    """Trains a network, or goes on with a run that was cut, or reads what it gave.

    Args:
      model: Flax module.
      initial: its parameters before the first step.
      draw: gives the batches; a function of a module, since programs are kept by it.
      data: what `draw` draws from, on the device.
      budget: how long and how.
      seed: of the batches.
      workdir: the run's folder; it must be of this run alone.
      measure: takes parameters, returns one finite number for the curve.

    Returns:
      The weights and the curve.
    """
    state = step.TrainState(
        jnp.zeros([], jnp.int32),
        jax.tree.map(jnp.array, initial),  # copied: a step gives its state away
        _optimizer(budget).init(initial),
        jax.tree.map(jnp.array, initial),
    )
    advance, key = _advance(model, draw, budget), jax.random.key(seed)
    # On a CPU a convolution inside a loop leaves XLA's fast path.
    most = 1 if backend.is_cpu() else _STEPS_A_CALL
    path = workdir / "curve.json"
    manager = checkpoint.open_manager(workdir, keep=1)
    try:
        state = checkpoint.restore_latest(manager, state) or state
        curve = _read_curve(path, int(state.step)) if manager.all_steps() else []
        for stop in budget.stops[len(curve) :]:
            while (missing := stop - int(state.step)) > 0:
                state = advance(state, data, key, min(most, missing))
            curve.append((stop, float(measure(state.average))))
            config.write_text(path, json.dumps(curve))
            checkpoint.save(manager, state, curve[-1][1])
    finally:
        manager.close()
    return Fitted(state.average, curve)


def _read_curve(path: pathlib.Path, done: int) -> list[tuple[int, float]]:
    """Returns the points up to a step; later ones no checkpoint holds."""
    points = json.loads(path.read_text(encoding="utf-8"))
    return [(number, value) for number, value in points if number <= done]


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
    """Measures pairs as they are trained on: whole, without context around them.

    Args:
      model: Flax module.
      parameters: its parameters.
      members: the pairs.
      batch_size: pairs a call.

    Returns:
      Means of mse, psnr and ssim of "input" and "restored".
    """
    compute = _scores(model)
    batches = arrays.evaluation_batches(members, batch_size=batch_size)
    return measure.means(measure.measure(lambda b: compute(parameters, b), batches))
