"""Keeps numbers that are not finite out of the training state."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from restoration.base import errors
from restoration.training import step

# Pairs that a one-line message names.
_NAMED = 8


def _keep(
    before: step.TrainState,
    after: step.TrainState,
    values: dict[str, Any],
    number: Any,
    *,
    skip: bool,
) -> tuple[step.TrainState, dict[str, Any]]:
    """Returns the state after a step, or before it where the numbers are bad."""
    finite = jnp.isfinite(values["loss"]) & jnp.isfinite(values["gradient_norm"])
    due = before.step == number
    taken = due & finite
    kept = jax.tree.map(lambda new, old: jnp.where(taken, new, old), after, before)
    if skip:
        kept = kept._replace(step=jnp.where(due, after.step, before.step))
    return kept, values | {"bad": due & ~finite}


def protect(train_step: Callable[..., tuple], *, skip: bool) -> Callable[..., tuple]:
    """Returns a training step that leaves the state alone when numbers go bad.

    Bad is a loss or a norm of the gradient that is not finite.

    Args:
      train_step: (state, ...) -> (state, metrics), see `step.make_train_step`.
      skip: whether training goes on after a bad step, as if it had been done;
        otherwise the state stays before it, and later steps do nothing.

    Returns:
      A pure function (state, number of the step, ...) -> (state, metrics), with
      `bad` among the metrics.
    """

    def protected(state: step.TrainState, number: Any, *rest: Any) -> tuple:
        return _keep(state, *train_step(state, *rest), number, skip=skip)

    return protected


def compile_protected(
    train_step: Callable[..., tuple], *, skip: bool, whole: Any, rest: tuple
) -> Callable[..., tuple]:
    """Compiles a protected training step so that the guard changes no bit.

    In two programs: in one, XLA on a CPU computes the step itself in another way,
    to another last bit.

    Args:
      train_step: see `protect`.
      skip: likewise.
      whole: sharding of state and metrics.
      rest: shardings of the further arguments of the step.

    Returns:
      What `protect` returns, compiled.
    """
    advance = jax.jit(
        train_step, in_shardings=(whole, *rest), out_shardings=(whole, whole)
    )
    keep = jax.jit(
        functools.partial(_keep, skip=skip),
        out_shardings=(whole, whole),
        donate_argnums=1,
    )

    def protected(state: step.TrainState, number: Any, *rest: Any) -> tuple:
        return keep(state, *advance(state, *rest), number)

    return protected


class BadStep(NamedTuple):
    """A step whose numbers were bad.

    Attributes:
      number: from 0.
      loss: of the batch.
      gradient_norm: likewise.
    """

    number: int
    loss: float
    gradient_norm: float


def bad_steps(first: int, values: Mapping[str, np.ndarray]) -> list[BadStep]:
    """Returns the bad ones of some consecutive steps.

    Args:
      first: number of the first of them.
      values: their metrics, (steps,) each.
    """
    return [
        BadStep(
            first + int(index),
            float(values["loss"][index]),
            float(values["gradient_norm"][index]),
        )
        for index in np.flatnonzero(values["bad"])
    ]


def describe(bad: BadStep, names: Sequence[str]) -> str:
    """Returns one line about a bad step and the pairs of its batch."""
    pairs = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        pairs += f" and {len(names) - _NAMED} more"
    return (
        f"step {bad.number + 1}: loss {bad.loss}, gradient norm {bad.gradient_norm}, "
        f"on the pairs {pairs}"
    )


def stop(workdir: str, bad: BadStep, names: Sequence[str]) -> errors.InputError:
    """Returns the error that ends a run at a bad step."""
    return errors.InputError(
        f"{workdir}: {describe(bad, names)}; saved before it. Look at these pairs, or "
        "go on without such steps (--bad_numbers=skip), or start anew with a lower "
        "--learning_rate or with --clip_norm"
    )
