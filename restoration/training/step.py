"""Training and evaluation steps: pure functions over explicit state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from restoration.evaluation import metrics
from restoration.models import apply
from restoration.training import losses

Batch = dict[str, jnp.ndarray]


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


def init_state(
    model: Any, optimizer: optax.GradientTransformation, key: jax.Array, *, ema: bool
) -> TrainState:
    """Returns the state before the first step.

    Args:
      model: Flax module.
      optimizer: optax transformation.
      key: of the weights.
      ema: whether averaged weights are kept.

    Returns:
      A TrainState.
    """
    side = 4 * model.stride
    parameters = model.init(key, jnp.zeros((1, side, side, 3)))
    average = jax.tree.map(jnp.copy, parameters) if ema else {}
    return TrainState(
        jnp.zeros([], jnp.int32), parameters, optimizer.init(parameters), average
    )


def to_float(images: jnp.ndarray) -> jnp.ndarray:
    """Returns uint8 images as float32 in [0, 1]; float images as they are."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    return images.astype(jnp.float32)


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    loss: losses.Loss,
    *,
    ema_decay: float = 0.0,
    accumulate: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jnp.ndarray]]]:
    """Returns the training step (state, batch) -> (state, metrics).

    A batch holds `input` and `output`: (batch, height, width, 3), uint8 or
    float in [0, 1]. The metrics are loss and psnr, means over the batch; ssim,
    the mean over its first piece, since on a CPU it would cost a third of the
    step; and the norm of the gradient.

    Args:
      model: Flax module.
      optimizer: optax transformation.
      loss: one value an image, see `losses`.
      ema_decay: decay of the averaged weights; 0 keeps none.
      accumulate: number of equal pieces whose gradients are averaged. The
        pieces are unrolled, since a convolution inside a loop leaves XLA's fast
        path on a CPU, and strided, so that each keeps all devices busy.

    Returns:
      A pure function for jax.jit.
    """

    def piece_loss(parameters: Any, piece: Batch):
        restored = model.apply(parameters, to_float(piece["input"]))
        target = to_float(piece["output"])
        value = jnp.mean(loss(restored, target))
        clipped = jax.lax.stop_gradient(jnp.clip(restored, 0, 1))
        return value, (value, jnp.mean(metrics.psnr(clipped, target)), clipped)

    def train_step(state: TrainState, batch: Batch):
        pieces = [
            {name: images[first::accumulate] for name, images in batch.items()}
            for first in range(accumulate)
        ]
        gradients, seen = zip(
            *(
                jax.grad(piece_loss, has_aux=True)(state.parameters, piece)
                for piece in pieces
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
        losses_, psnrs, restored = zip(*seen, strict=True)
        values = {
            "loss": sum(losses_) / accumulate,
            "psnr": sum(psnrs) / accumulate,
            "ssim": jnp.mean(metrics.ssim(restored[0], to_float(pieces[0]["output"]))),
            "gradient_norm": optax.tree.norm(gradients),
        }
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
