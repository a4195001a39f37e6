"""The average of two runs' weights: its numbers, its card, what it refuses."""

import jax
import numpy as np
import pytest

from experiments.pretrain import average_weights
from restoration import models
from restoration.base import errors
from restoration.models import pretrained


def saved(path, value, model="basic"):
    like = models.abstract_parameters(models.get_model(model))
    parameters = jax.tree.map(lambda leaf: np.full(leaf.shape, value, "f4"), like)
    card = {"limits": "few pictures", "command": f"run {value}", "figures": {"a": 1}}
    pretrained.save(path, model, parameters, card)
    return str(path)


def test_each_number_lies_between_and_the_card_tells_both_runs(tmp_path):
    options = average_weights.AverageOptions(
        first=saved(tmp_path / "first.safetensors", 1.0),
        second=saved(tmp_path / "second.safetensors", 3.0),
        share=0.25,
        out=str(tmp_path / "out" / "basic.safetensors"),
    )
    path = average_weights.write(options)
    name, parameters = pretrained.load(path)
    assert name == "basic"
    assert all((leaf == 1.5).all() for leaf in jax.tree.leaves(parameters))
    card = pretrained.read_card(path.with_suffix(".json"))
    assert [run["share"] for run in card["average of"]] == [0.75, 0.25]
    assert [run["command"] for run in card["average of"]] == ["run 1.0", "run 3.0"]
    assert card["limits"] == "few pictures" and card["figures"] == {}
    with pytest.raises(errors.InputError, match="already"):
        average_weights.write(options)


def test_other_models_are_refused(tmp_path):
    options = average_weights.AverageOptions(
        first=saved(tmp_path / "first.safetensors", 1.0),
        second=saved(tmp_path / "second.safetensors", 3.0, "advanced"),
        out=str(tmp_path / "basic.safetensors"),
    )
    with pytest.raises(errors.InputError, match="weights of advanced, not of basic"):
        average_weights.write(options)
    assert not (tmp_path / "basic.safetensors").exists()
    with pytest.raises(errors.InputError, match=r"--share=1\.5: must be from 0"):
        average_weights.AverageOptions(first="a", second="b", share=1.5)
