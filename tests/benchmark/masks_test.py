"""The benchmark of the finder's and the filler's training: cases, rows and table."""

import sys

import jax
import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs opencv-python-headless")

from experiments.benchmark import interleaved, masks
from experiments.figures import readme
from experiments.pretrain import pretrain_masks
from restoration.base import errors
from restoration.models import filler, finder
from restoration.training import optim

MODULES = {"finder": finder, "filler": filler}


def _measured(**speeds):
    return {p: {"per_second": speed, "rounds": [speed]} for p, speed in speeds.items()}


@pytest.fixture
def rows():
    theirs = dict(zip(masks.TORCH, (2.0, 3.0, 2.5), strict=True))
    fed = _measured(ours=3.0, **theirs)
    fed[masks.TORCH[2]] = {"error": "no compiler"}
    return {
        masks.STEP: _measured(ours=4.5, **theirs),
        masks.FED: fed,
        masks.DRAWING: _measured(ours=45.0),
    }


def test_a_row_compares_with_the_fastest_and_names_what_failed(rows):
    found = masks.row(rows, masks.recipe("finder", False))
    assert found["ratio_to_torch"] == {masks.STEP: 1.5, masks.FED: 1.0}
    assert found["drawing_share"] == pytest.approx(0.1)
    assert (found["batch"], found["side"]) == (8, 256)
    assert found["errors"] == {f"{masks.FED}, {masks.TORCH[2]}": "no compiler"}


def test_without_pytorch_ours_is_measured_alone(rows):
    alone = {kind: {"ours": cases["ours"]} for kind, cases in rows.items()}
    found = masks.row(alone, masks.recipe("filler", False))
    assert found["ratio_to_torch"] == {} and found["drawing_share"] > 0


def test_the_table_shows_every_program(rows, monkeypatch):
    network = masks.row(rows, masks.recipe("finder", False))
    machine = {"cores": 2, "processor": "P", "packages": {"jax": "1"}}
    result = {"machine": machine, "torch": "2", "networks": {"finder": network}}
    monkeypatch.setattr(readme, "_measured", {"masks": result}.get)
    table = readme.masks_table()
    assert "| finder, step | 4.50 | 2.00 | 3.00 | 2.50 | 1.50 | 10.0 % |" in table
    assert "| finder, with drawing | 3.00 | 2.00 | 3.00 | – | 1.00 |  |" in table


def test_another_jax_has_a_column_and_is_not_compared_with(rows, monkeypatch):
    rows[masks.STEP] |= _measured(**{interleaved.OTHER: 9.0})
    network = masks.row(rows, masks.recipe("finder", False))
    assert network["ratio_to_torch"][masks.STEP] == 1.5
    machine = {"cores": 2, "processor": "P", "packages": {"jax": "1"}}
    result = {"machine": machine, "torch": "2", "networks": {"finder": network}}
    measured = {"masks": result | {"other_jax": "0.9"}}
    monkeypatch.setattr(readme, "_measured", measured.get)
    table = readme.masks_table()
    assert "| pairs/s | ours | ours, JAX 0.9 | PyTorch |" in table
    assert "| finder, step | 4.50 | 9.00 | 2.00 |" in table


@pytest.mark.parametrize("python", ["no_such_python", sys.executable])
def test_another_python_without_jax_is_named(python, tmp_path, monkeypatch):
    # A module of this name that cannot be imported stands before the package.
    (tmp_path / "jax.py").write_text("raise ImportError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(errors.InputError, match=f"--other_python={python}: "):
        interleaved.jax_version(python)


@pytest.mark.parametrize("name", masks.NETWORKS)
def test_pairs_of_the_benchmark_are_damaged_and_differ(name):
    options, drawn = masks.recipe(name, True), masks.material()
    batches = [pretrain_masks.draw_batch(options, drawn, n) for n in range(4)]
    assert any((batch["mask"] > 128).mean() > 0.001 for batch in batches)
    assert (batches[0]["input"] != batches[1]["input"]).any()
    assert batches[0]["input"].shape == (2, 64, 64, 3)


@pytest.mark.parametrize("name", masks.NETWORKS)
def test_pytorch_learns_with_our_settings(name):
    reason = "PyTorch, which is optional, is not installed"
    pytest.importorskip("torch", reason=reason, exc_type=ImportError)
    from experiments.benchmark import torch_models

    options = masks.recipe(name, True)
    groups = masks._groups(torch_models.build(name), options)
    decaying = sum(p.numel() for g in groups if g["weight_decay"] for p in g["params"])
    shapes = MODULES[name].abstract_parameters()
    kernels = optim.are_kernels(shapes)
    assert decaying == sum(
        int(np.prod(leaf.shape)) * kernel
        for leaf, kernel in zip(*map(jax.tree.leaves, (shapes, kernels)), strict=True)
    )
    batch = pretrain_masks.draw_batch(options, masks.material(), 1)
    do = masks._torch(options, masks.TORCH[1])
    losses = [do(batch).item() for _ in range(8)]
    assert min(losses[4:]) < losses[0]
