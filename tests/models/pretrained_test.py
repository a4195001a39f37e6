"""The package's own weights: they fit their models, and are read as any other file."""

import shutil

import jax
import numpy as np
import pytest

from restoration.models import pretrained


@pytest.mark.parametrize(
    "path", sorted(pretrained.FOLDER.glob("*.safetensors")), ids=lambda path: path.stem
)
def test_shipped_weights_fit_their_models(path, tmp_path):
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    shutil.copy(path.with_suffix(".json"), copy.with_suffix(".json"))
    name, checked = pretrained.load(copy)  # elsewhere, shapes are checked
    own_name, own = pretrained.load(path)
    assert own_name == name
    jax.tree.map(np.testing.assert_array_equal, own, checked)
