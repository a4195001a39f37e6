"""The optimizer: Adam in Keras' form, AdamW or Muon; schedules, gradient clipping."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from restoration.training import train_config

# Channels of a picture; a layer that has no more on one side is no hidden one.
_COLORS = 3


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


def are_kernels(parameters: optax.Params) -> optax.Params:
    """Returns which leaves decay: kernels do, biases and scales do not."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, parameters)


def _muon_axes(kernels: optax.Params) -> optax.Params:
    """Returns for each kernel what is summed over and what is not: its outputs."""

    def axes(leaf: jnp.ndarray) -> contrib.MuonDimensionNumbers:
        return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree.map(axes, kernels)


def _methods(parameters: optax.Params) -> optax.Params:
    """Returns each leaf's method: muon for kernels between hidden channels."""

    def method(leaf: jnp.ndarray) -> str:
        hidden = leaf.ndim in (2, 4) and min(leaf.shape[-2:]) > _COLORS
        return "muon" if hidden else "adam"

    return jax.tree.map(method, parameters)


def muon(
    schedule: optax.Schedule, *, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Muon for the kernels of hidden layers, Adam for all else (Jordan et al. 2024).

    A kernel's step is its momentum with all singular values made one, so that no
    direction starves: a plain network of many layers learns several times as fast.
    Biases, scales, 3×3 kernels of single channels and layers that read or write the
    three colors are Adam's, with Nesterov's momentum as Muon's, at a tenth of the
    learning rate.

    Args:
      schedule: learning rate as a function of the step, 1e-2 or so at its highest.
      weight_decay: of all kernels, times the learning rate.

    Returns:
      The gradient transformation, learning rate and sign included.
    """
    methods = {
        "muon": contrib.muon(
            schedule,
            weight_decay=weight_decay,
            muon_weight_dimension_numbers=_muon_axes,
        ),
        "adam": optax.nadamw(
            lambda count: 0.1 * schedule(count),
            weight_decay=weight_decay,
            mask=are_kernels,
        ),
    }
    return optax.partition(methods, _methods)


def make_schedule(options: train_config.RunConfig, total_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      options: `schedule`, `learning_rate`, `warmup_steps`, `decay_from`
        and `cosine_end` are read.
      total_steps: where cosine ends.

    Returns:
      An optax schedule.
    """
    peak, warmup = options.learning_rate, min(options.warmup_steps, total_steps)
    fall = min(max(warmup, options.decay_from), total_steps)
    if options.schedule == "cosine":
        main = optax.cosine_decay_schedule(
            peak, max(1, total_steps - fall), alpha=options.cosine_end
        )
        if fall > warmup:
            flat = optax.constant_schedule(peak)
            main = optax.join_schedules([flat, main], [fall - warmup])
    else:
        main = optax.constant_schedule(peak)
    if not warmup:
        return main
    ramp = optax.linear_schedule(0.0, peak, warmup)
    return optax.join_schedules([ramp, main], [warmup])


def scale_parts(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of some parts of a network, so their learning rates.

    Args:
      rates: factors by the names of modules; the outermost module of a leaf that is
        named counts, and leaves of none keep their updates.

    Returns:
      The gradient transformation, to stand after the optimizer.
    """

    def factor(path: tuple) -> float:
        names = [getattr(key, "key", None) for key in path]
        return next((rates[name] for name in names if name in rates), 1.0)

    def update(updates, state, parameters=None):
        del parameters
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, leaf: factor(path) * leaf, updates
        )
        return scaled, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def make_optimizer(
    options: train_config.RunConfig,
    total_steps: int,
    rates: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """Returns the optimizer of a training run.

    Args:
      options: of the run.
      total_steps: of the run.
      rates: factors of the learning rates of parts, see `scale_parts`.

    Returns:
      The gradient transformation, learning rate and sign included.
    """
    schedule, decay = make_schedule(options, total_steps), options.weight_decay
    if options.optimizer == "muon":
        parts = [muon(schedule, weight_decay=decay)]
    elif options.optimizer == "adamw":
        adamw = optax.adamw(
            schedule, b2=options.beta2, weight_decay=decay, mask=are_kernels
        )
        parts = [adamw]
    else:
        parts = [scale_by_keras_adam(), optax.scale_by_learning_rate(schedule)]
    if options.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(options.clip_norm))
    if rates:
        parts.append(scale_parts(rates))
    return optax.chain(*parts)
