"""The networks in PyTorch equal ours, so that their speeds can be compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pretrain import pretrain_masks
from restoration import models
from restoration.models import filler, finder

torch = pytest.importorskip(
    "torch",
    reason="PyTorch, which is optional, is not installed",
    exc_type=ImportError,
)

from experiments.benchmark import torch_losses, torch_models  # noqa: E402


def _drawn(shapes):
    """Returns parameters without zeros, so that each has an effect."""
    generator = np.random.default_rng(0)

    def draw(leaf):
        fan = max(1, int(np.prod(leaf.shape[:-1])))
        values = generator.normal(0, 1 / np.sqrt(fan), leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map(draw, shapes)


def test_every_model_exists_in_pytorch():
    assert set(torch_models.NAMES) == set(models.MODELS)


@pytest.mark.parametrize("name", models.MODELS)
def test_same_weights_give_the_same_picture(name, photographs):
    model = models.get_model(name)
    parameters = _drawn(models.abstract_parameters(model))
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
    parameters = _drawn(models.abstract_parameters(models.get_model("basic")))
    with pytest.raises(RuntimeError, match="state_dict"):
        torch_models.copy_weights(
            torch_models.build("advanced"), "advanced", parameters
        )


_MASKS = {"finder": (finder, finder.Finder()), "filler": (filler, filler.Filler())}


@pytest.fixture(scope="module", params=_MASKS)
def twins(request):
    """The name of a network of masks, ours, its parameters, and its twin."""
    module, model = _MASKS[request.param]
    parameters = _drawn(module.abstract_parameters())
    torch_model = torch_models.build(request.param)
    torch_models.copy_weights(torch_model, request.param, parameters)
    return request.param, model, parameters, torch_model


@pytest.fixture(scope="module")
def batch(photographs):
    """Two crops, damaged where a mask has pieces, some of them half opaque."""
    crops = [photographs[n][100:164, 100:196] for n in ("astronaut", "coffee")]
    target = np.stack([crop[:, :64] for crop in crops])
    mask = np.zeros((2, 64, 64, 1), np.float32)
    mask[0, 8:20, 30:33], mask[1, 40:60, 10:30] = 1, 0.5
    damaged = target * (1 - mask) + 0.9 * mask
    return {"input": damaged, "output": target} | dict.fromkeys(
        ("mask", "seen", "given"), mask
    )


def _channels_first(batch):
    return {
        name: torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))
        for name, rows in batch.items()
    }


def _close(theirs, ours):
    ours, theirs = np.asarray(ours), theirs.detach().numpy().transpose(0, 2, 3, 1)
    assert np.ptp(ours) > 0.05
    scale = max(1.0, np.abs(ours).max())
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * scale)


def test_networks_of_masks_give_the_same(twins, batch):
    name, model, parameters, torch_model = twins
    inputs = ("input", "mask") if name == "filler" else ("input",)
    windows = ((8, 20, 32),) if name == "finder" else ()

    @jax.jit
    def ours(parameters, *images):
        shown = [model.apply(parameters, *images)]
        for window in windows:
            shown += model.apply(parameters, *images, window)
        return shown

    given = [_channels_first(batch)[key] for key in inputs]
    theirs = [torch_model(*given)]
    for window in windows:
        theirs += torch_model(*given, window)
    expected = ours(parameters, *(batch[key] for key in inputs))
    for mine, other in zip(expected, theirs, strict=True):
        _close(other, mine)


def test_losses_and_their_gradients_are_the_same(twins, batch):
    name, model, parameters, torch_model = twins
    objective = getattr(pretrain_masks, f"{name}_loss")
    key = jax.random.fold_in(jax.random.key(0), 7)
    arguments = ()
    if name == "finder":
        row, column = 4 * np.asarray(jax.random.randint(key, (2,), 0, 9))
        assert row != column
        arguments = ((int(row), int(column), 32),)

    @jax.jit
    def differentiated(parameters):
        return jax.value_and_grad(
            lambda p: objective(model, p, batch, key=key, microbatch=0)[0]
        )(parameters)

    ours, gradients = differentiated(parameters)
    loss = getattr(torch_losses, f"{name}_loss")
    torch_model.zero_grad()
    theirs = loss(torch_model, _channels_first(batch), *arguments)
    theirs.backward()
    assert theirs.item() == pytest.approx(float(ours), rel=1e-4)

    # Gradients, copied as weights are, stand where the twin's stand.
    expected = torch_models.build(name)
    torch_models.copy_weights(expected, name, gradients)
    for where, gradient in expected.state_dict().items():
        away = (torch_model.get_parameter(where).grad - gradient).abs().max()
        assert float(away) < 2e-3 * max(float(gradient.abs().max()), 1e-3), where
