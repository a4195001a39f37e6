"""Finders with other encoders: nested samples, means over seeds, the table."""

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV (extra film)")

from experiments.pretrain import mask_pairs
from experiments.transfer import finders


def runs():
    """Runs whose precision grows with the pictures, and with ImageNet's weights."""
    return [
        {
            "start": start, "fraction": fraction, "seed": seed,
            "pictures": round(247 * fraction),
            "curve": [[80, 0.1 + 0.1 * seed], [160, 0.2 + 0.1 * seed]],
            "test": {"film": gain + fraction / 10 + seed / 100, "photo": 0.3},
        }
        for seed in range(3)
        for start, gain in (("imagenet", 0.4), ("frozen", 0.3), ("random", 0.1))
        for fraction in finders.FRACTIONS
    ]  # fmt: skip


def found():
    scale = {"steps": 160, "batch_size": 8, "image_size": 128, "seeds": 3}
    return {"cells": finders.cells_of(runs()), "scale": scale}


def test_a_larger_sample_holds_the_smaller_ones():
    few, some, whole = (set(finders.sample(247, f)) for f in finders.FRACTIONS)
    assert few < some < whole == set(range(247))
    assert [len(s) for s in (few, some, whole)] == [2, 25, 247]
    assert len(finders.sample(10, 0.01)) == 1


def test_cells_are_means_over_seeds():
    cells = finders.cells_of(runs())
    assert len(cells) == 9
    (cell,) = [c for c in cells if (c["start"], c["fraction"]) == ("frozen", 0.1)]
    assert cell["film"] == pytest.approx(0.3 + 0.01 + 0.01)
    assert cell["photo"] == 0.3 and cell["pictures"] == 25
    assert cell["std"] == pytest.approx(np.std([0, 0.005, 0.01], ddof=1), abs=1e-4)
    assert cell["curve"] == [[80, 0.2], [160, 0.3]]


def test_the_table_and_the_curves_show_every_cell():
    table = finders.to_markdown(found())
    assert "| 1% (2 pictures) | 10% (25 pictures) | 100% (247 pictures) |" in table
    assert "| ImageNet, fine-tuned | 0.411 / 0.300 ± 0.005 | 0.420 / 0.300" in table
    assert "160 steps of 8 crops of 128×128" in table
    drawing = finders.to_svg(found())
    assert drawing == finders.to_svg(found())
    assert drawing.startswith("<?xml") and "svg" in drawing


def test_a_frozen_encoder_learns_nothing(tmp_path):
    paths = {"clean": "C", "overlays": "O", "encoder": "E", "bench": "B"}
    options = finders.Options(**paths)
    rates = {
        start: finders.run_options(options, start, 0, tmp_path).encoder_rate
        for start in finders.STARTS
    }
    assert rates["frozen"] == 0 and rates["random"] == options.learning_rate
    assert finders.run_options(options, "random", 0, tmp_path).encoder == ""
    assert finders.run_options(options, "frozen", 0, tmp_path).encoder == "E"


@pytest.mark.slow
def test_a_run_is_done_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (96, 96, 3), np.uint8) for _ in range(3)]
    scan = np.zeros((40, 40), np.uint8)
    scan[10:30, 10:30] = 255
    levels = [scan, scan[::2, ::2], scan[::4, ::4], scan[::8, ::8]]
    material = mask_pairs.Material(pictures, {"dirt": [levels]}, {}, [], [])
    described = {"fingerprint": "f", "pairs": {"train": 3}, "card": {}}
    shown = [("a", pictures[0] / np.float32(255), None, scan.repeat(2, 0)[:96])] * 2
    monkeypatch.setattr(finders.finder_quality, "check", lambda bench: None)
    monkeypatch.setattr(finders.finder_quality, "pictures", lambda *_: iter(shown))
    monkeypatch.setattr(
        finders.finder_quality, "find", lambda p, image: image[:80, :40, 0]
    )
    monkeypatch.setattr(
        finders.finder_quality, "validate",
        lambda *_: {"film_average_precision": 0.5, "photo_average_precision": 0.5},
    )  # fmt: skip
    options = finders.Options(
        clean="", overlays="", encoder="", bench="B", steps=2, batch_size=2,
        image_size=64, evaluations=2, workdir=str(tmp_path),
    )  # fmt: skip
    one = finders.run_one(options, material, described, "random", 0.1, 0)
    assert one["pictures"] == 1 and [step for step, _ in one["curve"]] == [1, 2]
    assert one == finders.run_one(options, None, described, "random", 0.1, 0)
