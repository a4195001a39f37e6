"""Training and evaluation steps: pure functions over explicit state."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from restoration.evaluation import metrics
from restoration.models import apply
from restoration.training import losses

# Arrays whose first axis is that of the examples: a dict by name, or a named tuple.
Batch = Any


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
      step: int32 scalar, number of steps done.
      parameters: nested dict of float32.
      optimizer: state of the optax transformation.
      average: exponential moving average of the parameters; empty without one.
    """

    step: jnp.ndarray
    parameters: Any
    optimizer: Any
    average: Any


def init_parameters(model: Any, key: jax.Array) -> Any:
    """Returns the random weights that a network of pictures begins with."""
    side = 4 * model.stride
    return model.init(key, jnp.zeros((1, side, side, 3)))


def init_state(
    model: Any, optimizer: optax.GradientTransformation, key: jax.Array, *, ema: bool
) -> TrainState:
    """Returns the state before the first step, with random weights.

    Args:
      model: Flax module.
      optimizer: optax transformation.
      key: of the weights.
      ema: whether averaged weights are kept.

    Returns:
      A TrainState.
    """
    return state_of(init_parameters(model, key), optimizer, ema=ema)


def state_of(
    parameters: Any, optimizer: optax.GradientTransformation, *, ema: bool
) -> TrainState:
    """Returns the state before the first step, with given weights.

    Args:
      parameters: nested dict of float32.
      optimizer: optax transformation.
      ema: whether averaged weights are kept.

    Returns:
      A TrainState; its average is a copy, since a step gives its state away.
    """
    average = jax.tree.map(jnp.copy, parameters) if ema else {}
    return TrainState(
        jnp.zeros([], jnp.int32), parameters, optimizer.init(parameters), average
    )


def to_float(images: jnp.ndarray) -> jnp.ndarray:
    """Returns uint8 images as float32 in [0, 1]; float images as they are."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    return images.astype(jnp.float32)


class Objective(Protocol):
    """What a training step makes smaller."""

    def __call__(
        self,
        model: Any,
        parameters: Any,
        batch: Batch,
        *,
        key: jax.Array,
        microbatch: int,
    ) -> tuple[jnp.ndarray, dict[str, jnp.ndarray]]:
        """Returns the loss of a microbatch and further metrics.

        Args:
          model: Flax module.
          parameters: what is differentiated by.
          batch: what the run's feed gives; the first axis of each array is that of
            the examples.
          key: PRNG key of the step and the microbatch, for dropout and the like.
          microbatch: static, its number in the batch, from 0.

        Returns:
          The loss, a scalar; scalars by name, of which a step gives the mean over the
          microbatches that have them.
        """


def restoring(loss: losses.Loss, *, ssim: bool = True) -> Objective:
    """Returns the objective of restoring networks: a loss between two images.

    Batches hold `input` and `output`: (batch, height, width, 3), uint8 or float in
    [0, 1]. The metrics are psnr, a mean over the images of which exact ones count as
    100 dB, and ssim.

    Args:
      loss: one value an image, see `losses`.
      ssim: whether SSIM is measured, of the first microbatch alone, since on a CPU
        it would cost a third of the step.
    """

    def objective(
        model: Any, parameters: Any, batch: Batch, *, key: jax.Array, microbatch: int
    ):
        del key
        restored = model.apply(parameters, to_float(batch["input"]))
        target = to_float(batch["output"])
        value = jnp.mean(loss(restored, target))
        clipped = jax.lax.stop_gradient(jnp.clip(restored, 0, 1))
        psnr = jnp.minimum(metrics.psnr(clipped, target), 100.0)
        found = {"psnr": jnp.mean(psnr)}
        if ssim and not microbatch:
            found["ssim"] = jnp.mean(metrics.ssim(clipped, target))
        return value, found

    return objective


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    *,
    ema_decay: float = 0.0,
    accumulate: int = 1,
    seed: int = 0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jnp.ndarray]]]:
    """Returns the training step (state, batch) -> (state, metrics).

    The metrics are the loss, the norm of the gradient, and what the objective gives.

    Args:
      model: Flax module.
      optimizer: optax transformation.
      objective: what is made smaller, such as `restoring` gives.
      ema_decay: decay of the averaged weights; 0 keeps none.
      accumulate: number of equal microbatches whose gradients are averaged. They are
        unrolled, since a convolution inside a loop leaves XLA's fast path on a CPU,
        and strided, so that each keeps all devices busy.
      seed: of the keys that the objective is given.

    Returns:
      A pure function for jax.jit.
    """

    def microbatch_loss(parameters: Any, batch: Batch, key: jax.Array, number: int):
        value, found = objective(model, parameters, batch, key=key, microbatch=number)
        return value, found | {"loss": value}

    def train_step(state: TrainState, batch: Batch):
        microbatches = [
            jax.tree.map(lambda rows, first=first: rows[first::accumulate], batch)
            for first in range(accumulate)
        ]
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        keys = [jax.random.fold_in(key, n) if n else key for n in range(accumulate)]
        differentiate = jax.grad(microbatch_loss, has_aux=True)
        gradients, found = zip(
            *(
                differentiate(state.parameters, part, keys[number], number)
                for number, part in enumerate(microbatches)
            ),
            strict=True,
        )
        gradients = jax.tree.map(lambda *leaves: sum(leaves) / accumulate, *gradients)
        updates, optimizer_state = optimizer.update(
            gradients, state.optimizer, state.parameters
        )
        parameters = optax.apply_updates(state.parameters, updates)
        average = state.average
        if ema_decay:
            # Early averages would hold on to the initial weights otherwise.
            done = state.step.astype(jnp.float32)
            decay = jnp.minimum(ema_decay, (1 + done) / (10 + done))
            average = optax.incremental_update(parameters, average, 1 - decay)
        values = {"gradient_norm": optax.tree.norm(gradients)}
        for name in found[0]:
            parts = [part[name] for part in found if name in part]
            values[name] = sum(parts) / len(parts)
        return TrainState(state.step + 1, parameters, optimizer_state, average), values

    return train_step


def make_eval_step(
    model: Any,
) -> Callable[[Any, Batch], tuple[dict[str, dict[str, jnp.ndarray]], jnp.ndarray]]:
    """Returns the evaluation step (parameters, batch) -> (metrics, restored).

    The metrics are `{"input": {...}, "restored": {...}}` with mse, psnr and ssim
    of each image, (batch,), against `batch["output"]`.

    Args:
      model: Flax module.

    Returns:
      A pure function for jax.jit.
    """

    def eval_step(parameters: Any, batch: Batch):
        degraded, target = to_float(batch["input"]), to_float(batch["output"])
        restored = apply.restore_whole(model, parameters, degraded)
        values = {
            "input": metrics.all_metrics(degraded, target),
            "restored": metrics.all_metrics(restored, target),
        }
        return values, restored

    return eval_step
