"""The sheet of the tables' networks: what stands in it, and what is missing."""

import jax
import numpy as np
import pytest

from experiments.figures import tables_sheet
from experiments.tables import findings, standin, tables
from restoration import models
from restoration.base import errors
from restoration.models import pretrained
from restoration.training import step


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setattr(standin, "KINDS", ("grain",))  # compiles fastest
    monkeypatch.setattr(standin, "_find_severity", lambda *_: (1.0, 28.0))


def keep(options, row, kind, epochs, dim=1.0):
    """Writes weights of a basic network whose colors are `dim` times as bright."""
    parameters = step.init_parameters(models.get_model("basic"), jax.random.key(0))
    parameters = jax.tree.map(lambda leaf: dim * leaf, parameters)
    path = tables.weights_file(options, tables.row_config(options, row), kind)
    pretrained.save(path, "basic", parameters, {"run": {"epochs": epochs}})


def test_a_row_of_pictures_each_with_its_numbers(tmp_path, cheap, monkeypatch):
    options = tables.TablesOptions(scale="quick", workdir=str(tmp_path))
    keep(options, tables.rows_of("1")[0], "", 18)
    keep(options, findings.BETTER_ROWS["basic"], "better", 18, dim=0.0)
    written = []
    label = tables_sheet.damage_sheet.label

    def noted(image, text):
        written.append((text, image))
        return label(image, text)

    monkeypatch.setattr(tables_sheet.damage_sheet, "label", noted)
    image = tables_sheet.sheet(
        tables_sheet.SheetOptions(scale="quick", workdir=str(tmp_path), count=1)
    )
    names = [text.split(":")[0] for text, _ in written]
    assert names == ["input", "basic 48×18", "basic 288×18 better", "target"]
    # Four cells of 192 pixels with their gaps in a row.
    assert image.shape == (192 + 18 + 4, 4 * (192 + 4), 3)
    shown = dict(zip(names, (cell for _, cell in written), strict=True))
    # Without weights a sigmoid gives grey; its PSNR is that of the target to grey.
    np.testing.assert_allclose(shown["basic 288×18 better"], 0.5)
    expected = -10 * np.log10(np.mean((shown["target"] - 0.5) ** 2))
    assert written[2][0].endswith(f"better: {expected:.1f} dB")


def test_without_weights_it_says_what_to_run(tmp_path):
    options = tables_sheet.SheetOptions(scale="quick", workdir=str(tmp_path))
    with pytest.raises(errors.InputError, match="no weights of the scale quick; run"):
        tables_sheet.sheet(options)
