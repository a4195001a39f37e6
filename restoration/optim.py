"""The optimizer: Adam in Keras' form, schedules, gradient clipping."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from restoration import config


class KerasAdamState(NamedTuple):
    """Step count and the two moments of `scale_by_keras_adam`."""

    count: jnp.ndarray
    mean: optax.Updates
    variance: optax.Updates


def scale_by_keras_adam(
    *, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Adam with ε added to the uncorrected √v, as Keras does it.

    This is "ε̂" of Kingma & Ba 2015, section 2. With optax' placement losses
    part from Keras' by 5e-2 within ten steps.

    Args:
      b1: decay of the first moment.
      b2: decay of the second moment.
      epsilon: Keras' default.

    Returns:
      The gradient transformation, without learning rate.
    """

    def init(parameters: optax.Params) -> KerasAdamState:
        return KerasAdamState(
            jnp.zeros([], jnp.int32),
            jax.tree.map(jnp.zeros_like, parameters),
            jax.tree.map(jnp.zeros_like, parameters),
        )

    def update(gradients, state, parameters=None):
        del parameters
        count = optax.safe_increment(state.count)
        mean = optax.tree.update_moment(gradients, state.mean, b1, 1)
        variance = optax.tree.update_moment(gradients, state.variance, b2, 2)
        scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(
            lambda m, v: scale * m / (jnp.sqrt(v) + epsilon), mean, variance
        )
        return updates, KerasAdamState(count, mean, variance)

    return optax.GradientTransformation(init, update)


def make_schedule(options: config.TrainConfig, total_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      options: `schedule`, `learning_rate` and `warmup_steps` are read.
      total_steps: where cosine reaches zero.

    Returns:
      An optax schedule.
    """
    peak, warmup = options.learning_rate, min(options.warmup_steps, total_steps)
    if options.schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, max(1, total_steps - warmup))
    else:
        main = optax.constant_schedule(peak)
    if not warmup:
        return main
    ramp = optax.linear_schedule(0.0, peak, warmup)
    return optax.join_schedules([ramp, main], [warmup])


def make_optimizer(
    options: config.TrainConfig, total_steps: int
) -> optax.GradientTransformation:
    """Returns the optimizer of a training run."""
    parts = [
        scale_by_keras_adam(),
        optax.scale_by_learning_rate(make_schedule(options, total_steps)),
    ]
    if options.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(options.clip_norm))
    return optax.chain(*parts)
