"""One training step of every network gives the numbers that it always gave.

The numbers were written by `python -m tests.training.golden_test` on an x86 CPU. They
change when the step changes for all ways of training alike, which no comparison of one
way with another would show. Write them anew only where such a change is meant.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import models
from restoration.training import losses, optim, step, train_config
from tests import selection

NUMBERS = pathlib.Path(__file__).with_name("golden.json")

_LARGE = {"nafnet_s", "nafnet_m", "dncnn"}

# Compiled for long, so tried by `make test-all`.
_SLOW = _LARGE | {"advanced", "advanced_residual"}


def deterministic_parameters(model):
    """Returns weights that follow from names and shapes, without a generator's bits."""
    like = models.abstract_parameters(model)

    def filled(path, leaf):
        number = sum(map(ord, jax.tree_util.keystr(path)))
        waves = np.sin(number + 0.7 * np.arange(leaf.size)).reshape(leaf.shape)
        fan = max(1, leaf.size // leaf.shape[-1])
        return jnp.asarray(waves * (1.5 / fan) ** 0.5, jnp.float32)

    return jax.tree_util.tree_map_with_path(filled, like)


def batch():
    """Returns four pairs of 16×16: waves, and the same with a stain."""
    rows, columns = np.mgrid[:16, :16] / 16
    target = np.stack([
        np.stack([0.5 + 0.4 * np.sin(a * rows + b * columns + c) for c in range(3)], -1)
        for a, b in ((3, 5), (9, 2), (1, 11), (6, 7))
    ])  # fmt: skip
    degraded = target.copy()
    degraded[:, 5:10, 6:11] = 0.9
    return {
        side: np.uint8(np.rint(255 * images))
        for side, images in (("input", degraded), ("output", target))
    }


def numbers(name):
    """Returns what two steps give: metrics, and sums over the new weights."""
    options = train_config.TrainConfig(
        data_dir="", workdir="", optimizer="adamw", learning_rate=1e-3,
        weight_decay=1e-2, schedule="cosine", warmup_steps=1, clip_norm=1.0,
    )  # fmt: skip
    model, optimizer = models.get_model(name), optim.make_optimizer(options, 10)
    objective = step.restoring(losses.make_loss("charbonnier"))
    # Two microbatches, but of the large networks, which compile for minutes.
    accumulate = 1 if name in _LARGE else 2
    advance = jax.jit(
        step.make_train_step(
            model, optimizer, objective, ema_decay=0.5, accumulate=accumulate
        )
    )
    before = deterministic_parameters(model)
    state = jax.jit(lambda leaves: step.state_of(leaves, optimizer, ema=True))(before)
    for _ in range(2):
        state, values = advance(state, batch())
    moved = jax.tree.map(lambda new, old: new - old, state.parameters, before)
    return {
        **{metric: float(value) for metric, value in values.items()},
        "moved": float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(moved))),
        "averaged": float(
            sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(state.average))
        ),
    }


@pytest.mark.parametrize(
    "name", selection.slow_but(set(models.MODELS) - _SLOW, models.MODELS)
)
def test_a_step_gives_the_numbers_that_it_gave(name):
    expected = json.loads(NUMBERS.read_text(encoding="utf-8"))[name]
    found = numbers(name)
    assert found == pytest.approx(expected, rel=2e-3)


if __name__ == "__main__":
    found = {}
    for name in sorted(models.MODELS, key=lambda name: name in _LARGE):
        found[name] = numbers(name)
        NUMBERS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
