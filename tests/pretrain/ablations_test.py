"""Ablations: arms change one thing, and are trained once."""

import dataclasses
import json

import pytest

from experiments.pretrain import ablations
from restoration import damage
from restoration.base import errors
from restoration.data import drawn_pairs

OPTIONS = ablations.AblationsOptions(clean="clean", quick=True, seeds=2)


def test_every_arm_is_the_recipe_with_one_thing_changed():
    plain = dataclasses.asdict(ablations.recipe(OPTIONS, {}, 0))
    for arms in ablations.TABLES.values():
        assert len({arm.label for arm in arms}) == len(arms)
        for arm in arms:
            chosen = dataclasses.asdict(ablations.recipe(OPTIONS, arm.changes, 0))
            changed = {name for name in plain if chosen[name] != plain[name]}
            assert changed <= set(arm.changes)
            drawn_pairs.kinds_of(damage.PHOTO, chosen["leave_out"])  # known names


def test_unknown_tables_are_named():
    with pytest.raises(errors.InputError, match="--tables=depth: choose of loss"):
        ablations.AblationsOptions(clean="clean", tables=("depth",))


def test_arms_are_trained_once_and_shared_by_tables(tmp_path, monkeypatch, capsys):
    trained = []

    def train(arm, chosen, data, base, workdir):
        trained.append((arm.width, chosen.seed, chosen.loss, chosen.ssim_weight))
        assert base == ablations.recipe(options, {}, 0)
        score = 20.0 + chosen.seed + (chosen.loss == "mse")
        figures = dict.fromkeys(ablations._FIGURES, score)
        return figures | {"film_input_psnr": 24.0, "photo_input_psnr": 19.0}

    data = drawn_pairs.Data(None, None, {"pictures": {}})
    monkeypatch.setattr(ablations, "train", train)
    monkeypatch.setattr(ablations, "load", lambda options: (data, []))
    options = dataclasses.replace(
        OPTIONS,
        tables=("loss", "width"),
        results=str(tmp_path / "results"),
        workdir=str(tmp_path / "work"),
    )
    ablations.main(options)
    # PSNR is the recipe's loss and 32 channels its width: one arm, in both tables.
    assert len(trained) == len(set(trained)) == 2 * (5 + 4 - 1)
    found = json.loads((tmp_path / "results" / "ablations.json").read_text())
    rows = {row["arm"]: row for row in found["tables"]["loss"]}
    assert rows["MSE"]["film_psnr"]["mean"] == 21.5
    assert rows["PSNR"]["film_psnr"]["std"] == pytest.approx(0.5**0.5)
    assert "| MSE | 21.50 ± 0.71 | 21.500 ± 0.707 |" in capsys.readouterr().out

    ablations.main(options)
    assert len(trained) == 2 * (5 + 4 - 1)


@pytest.mark.slow
def test_an_arm_is_trained_and_measured(tmp_path, photographs):
    from restoration.images import frames

    for number, image in enumerate(photographs.values()):
        frames.write(tmp_path / "clean" / f"{number}.png", image[:96, :96])
    options = dataclasses.replace(OPTIONS, clean=str(tmp_path / "clean"), sources="all")
    chosen = ablations.recipe(options, {"leave_out": "dirt,lint"}, 1)
    data, _ = ablations.load(options)
    arm = ablations.Arm("small", {}, 8)
    base = ablations.recipe(options, {}, 0)
    figures = ablations.train(arm, chosen, data, base, tmp_path / "arm")
    assert not (tmp_path / "arm").exists()
    assert figures["clean_psnr"] > 30  # it began as the identity
    assert set(ablations._FIGURES) < set(figures)
