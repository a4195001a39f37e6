"""The networks in PyTorch equal ours, so that their speeds can be compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import models

torch = pytest.importorskip(
    "torch",
    reason="PyTorch, which is optional, is not installed",
    exc_type=ImportError,
)

from experiments.benchmark import torch_models  # noqa: E402


def _drawn(model):
    """Returns parameters without zeros, so that each has an effect."""
    generator = np.random.default_rng(0)

    def draw(leaf):
        fan = max(1, int(np.prod(leaf.shape[:-1])))
        values = generator.normal(0, 1 / np.sqrt(fan), leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map(draw, models.abstract_parameters(model))


def test_every_model_exists_in_pytorch():
    assert set(torch_models.NAMES) == set(models.MODELS)


@pytest.mark.parametrize("name", models.MODELS)
def test_same_weights_give_the_same_picture(name, photographs):
    model = models.get_model(name)
    parameters = _drawn(model)
    torch_model = torch_models.build(name)
    torch_models.copy_weights(torch_model, name, parameters)
    degraded = np.stack(
        [photographs[n][100:132, 100:148] for n in ("astronaut", "coffee")]
    )
    ours = np.asarray(model.apply(parameters, degraded))
    theirs = torch_models.restore(torch_model, name, degraded)
    assert np.ptp(ours) > 0.05
    scale = max(1.0, np.abs(ours).max())
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * scale)


@pytest.mark.parametrize("name", models.MODELS)
def test_both_have_the_same_number_of_parameters(name):
    count = sum(p.numel() for p in torch_models.build(name).parameters())
    parameters = models.abstract_parameters(models.get_model(name))
    assert count == models.count_parameters(parameters)


def test_weights_of_another_model_are_refused():
    parameters = _drawn(models.get_model("basic"))
    with pytest.raises(RuntimeError, match="state_dict"):
        torch_models.copy_weights(
            torch_models.build("advanced"), "advanced", parameters
        )
