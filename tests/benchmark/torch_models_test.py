"""The twins in PyTorch are the same networks, so that their speeds can be compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import models

torch = pytest.importorskip(
    "torch",
    reason="PyTorch is not installed; it is no dependency",
    exc_type=ImportError,
)

from experiments.benchmark import torch_models  # noqa: E402


def _drawn(model):
    """Returns parameters none of which is zero, so that each one matters."""
    generator = np.random.default_rng(0)

    def draw(leaf):
        fan = max(1, int(np.prod(leaf.shape[:-1])))
        values = generator.normal(0, 1 / np.sqrt(fan), leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map(draw, models.abstract_parameters(model))


def test_every_model_has_a_twin():
    assert set(torch_models.NAMES) == set(models.MODELS)


@pytest.mark.parametrize("name", models.MODELS)
def test_same_weights_give_the_same_picture(name, photographs):
    model = models.get_model(name)
    parameters = _drawn(model)
    twin = torch_models.build(name)
    torch_models.copy_weights(twin, name, parameters)
    degraded = np.stack(
        [photographs[n][100:132, 100:148] for n in ("astronaut", "coffee")]
    )
    ours = np.asarray(model.apply(parameters, degraded))
    theirs = torch_models.restore(twin, name, degraded)
    assert np.ptp(ours) > 0.05
    scale = max(1.0, np.abs(ours).max())
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * scale)


@pytest.mark.parametrize("name", models.MODELS)
def test_both_have_as_many_parameters(name):
    count = sum(p.numel() for p in torch_models.build(name).parameters())
    parameters = models.abstract_parameters(models.get_model(name))
    assert count == models.count_parameters(parameters)


def test_a_twin_takes_no_other_weights():
    parameters = _drawn(models.get_model("basic"))
    with pytest.raises(RuntimeError, match="state_dict"):
        torch_models.copy_weights(
            torch_models.build("advanced"), "advanced", parameters
        )
