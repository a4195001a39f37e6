"""The transfer experiment: what it trains, what it concludes, that it goes on."""

import dataclasses
import functools
import itertools
import json
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments.tables import standin
from experiments.transfer import fitting, reproduce, transfer, transfer_report
from restoration import models
from restoration.base import errors
from restoration.data import arrays
from restoration.images import frames
from restoration.training import losses, optim, step

BUDGET = fitting.Budget(
    steps=6, batch_size=2, image_size=16, ema_decay=0.5, points=3, loss="mse"
)


@pytest.fixture(scope="module")
def squares(photographs):
    """Pairs of 16×16, the input darker."""
    target = np.stack([p[60:76, 60:76] for p in photographs.values()])
    return arrays.PairArrays(
        jax.numpy.asarray(np.uint8(128 * target)),
        jax.numpy.asarray(np.uint8(255 * target)),
    )


@pytest.fixture(scope="module")
def basic():
    model = models.get_model("basic")
    zeros = np.zeros((1, 16, 16, 3), np.float32)
    return model, model.init(jax.random.key(0), zeros)


def fit(basic, squares, workdir, measure=lambda _: 1.0, draw=fitting.crops):
    return fitting.fit(
        *basic, draw, squares, BUDGET, seed=0, workdir=workdir, measure=measure
    )


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(basic, squares, tmp_path):
    whole = fit(basic, squares, tmp_path / "whole")
    assert [step for step, _ in whole.curve] == [0, 2, 4, 6]
    calls = []

    def killed(parameters):
        calls.append(parameters)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        fit(basic, squares, tmp_path / "cut", killed)
    again = fit(basic, squares, tmp_path / "cut")
    assert again.curve == whole.curve
    jax.tree.map(np.testing.assert_array_equal, again.parameters, whole.parameters)
    # And once more it is only read.
    read = fit(basic, squares, tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, read.parameters, whole.parameters)
    changed = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), whole.parameters, basic[1]
    )
    assert min(jax.tree.leaves(changed)) > 0


def test_crops_are_pairs_and_depend_on_the_key(squares):
    draw = lambda seed: fitting.crops(  # noqa: E731
        jax.random.key(seed), squares, batch_size=8, image_size=12
    )
    batch = draw(0)
    assert batch["input"].shape == (8, 12, 12, 3)
    np.testing.assert_allclose(2 * batch["input"], batch["output"], atol=0.02)
    np.testing.assert_array_equal(batch["input"], draw(0)["input"])
    assert np.any(batch["input"] != draw(1)["input"])


@pytest.mark.slow
def test_pretraining_batches_have_noise_and_blur(squares):
    sizes = {"batch_size": 64, "image_size": 16}
    noisy = fitting.noisy_crops(jax.random.key(0), squares, **sizes)
    sigma = 255 * np.std(noisy["input"] - noisy["output"], axis=(1, 2, 3))
    # Uniform over 0 to 55.
    assert sigma.min() < 6 and 50 < sigma.max() < 60
    assert sigma.mean() == pytest.approx(27.5, abs=6)
    blurred = fitting.blurred_crops(jax.random.key(0), squares, **sizes)
    rough = lambda x: np.abs(np.diff(x, axis=1)).mean()  # noqa: E731
    assert rough(blurred["input"]) < 0.7 * rough(blurred["output"])
    # Blurring keeps the mean, but for what the edges repeat.
    apart = blurred["input"].mean((1, 2)) - blurred["output"].mean((1, 2))
    assert np.abs(apart).max() < 0.05


def test_scores_are_of_the_pairs(squares):
    class Doubling:
        """Undoes the damage of `squares`."""

        def apply(self, parameters, images):
            return parameters * images

    found = fitting.score(Doubling(), 255 / 128, squares, 3)
    assert found["restored"]["psnr"] > 40 > found["input"]["psnr"]


def a_run(arm, fraction, seed, psnr, curve=(20.0, 25.0)):
    return {
        "arm": arm,
        "fraction": fraction,
        "seed": seed,
        "curve": [[10 * step, value] for step, value in enumerate(curve)],
        "test": {
            "input": {"psnr": 20.0, "ssim": 0.5},
            "start": {"psnr": 20.0, "ssim": 0.5},
            "end": {"psnr": psnr, "ssim": 0.9},
        },
    }


def some_runs():
    """A start that gains 2 dB at 1 %, and nothing beyond the spread at 100 %."""
    psnr = {
        ("dncnn_scratch", 0.01): (24, 25, 26),
        ("dncnn_published", 0.01): (26, 27, 28),
        ("dncnn_scratch", 1.0): (27, 28, 29),
        ("dncnn_published", 1.0): (27.5, 28.5, 29.5),
    }
    curve = {"dncnn_scratch": (20, 22, 24), "dncnn_published": (21, 24, 26)}
    return [
        a_run(arm, fraction, seed, value, curve[arm])
        for (arm, fraction), values in psnr.items()
        for seed, value in enumerate(values)
    ]


def test_gains_are_computed_from_the_runs():
    cells = transfer_report.cells_of(some_runs())
    assert [cell["psnr"] for cell in cells] == [25, 27, 28, 28.5]
    assert {cell["std"] for cell in cells} == {1.0}
    few, many = transfer_report.gains_of(cells)
    assert few["gain"] == 2 and few["pays"]
    assert few["spread"] == pytest.approx(2**0.5)
    assert few["catches_up"] == 0.5  # of the steps, at its second point of three
    assert many["gain"] == 0.5 and not many["pays"]


def test_a_start_without_a_baseline_has_no_gain():
    runs = [run for run in some_runs() if run["arm"] == "dncnn_published"]
    assert transfer_report.gains_of(transfer_report.cells_of(runs)) == []


def found_of(runs):
    cells = transfer_report.cells_of(runs)
    budget = {"steps": 20, "batch_size": 4, "image_size": 32, "learning_rate": 1e-3}
    return {
        "scale": "quick",
        "identity": {
            "fractions": [0.01, 1.0],
            "scale": {"budget": budget},
            "seeds": 3,
        },
        "counts": {"0.01": 8, "1": 800},
        "cells": cells,
        "gains": transfer_report.gains_of(cells),
        "left_out": {"efficientnet_imagenet": "no weights of ImageNet"},
        "input": {"psnr": 20.0},
        "encoder": "random weights",
        "measured_on": "40 test pairs",
        "protocol": "RGB",
    }


def test_table_and_answer_contain_the_measurements():
    text = transfer_report.to_markdown(found_of(some_runs()))
    assert (
        "| DnCNN | published denoiser | 20.00 | 27.00 ± 1.00 | 28.50 ± 1.00 |" in text
    )
    assert "1% (8 pairs) | 100% (800 pairs)" in text
    assert (
        "DnCNN, published denoiser: pays at 1% — +2.00 dB at 1% (as good after 50% of "
        "the steps); +0.50 dB at 100% (within the spread of 1.41)." in text
    )
    assert "Left out: efficientnet_imagenet" in text
    assert "Quick run, too short to conclude from" in text


def test_a_loss_does_not_pay():
    runs = some_runs()
    for run in runs:
        if run["arm"] == "dncnn_published":
            run["test"]["end"]["psnr"] -= 10
    text = transfer_report.to_markdown(found_of(runs))
    # That it began above where the other ends is no praise.
    assert "does not pay — -8.00 dB at 1%; " in text


def test_the_curves_are_an_svg_file():
    found = found_of(some_runs())
    drawn = transfer_report.to_svg(found)
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert drawn == transfer_report.to_svg(found)


def write_dncnn(path, channels=3):
    """A published denoiser of 20 layers that takes nothing for noise."""
    ends = [channels, *[64] * 19, channels]
    tensors = {}
    for number, (before, after) in enumerate(itertools.pairwise(ends)):
        tensors[f"layers.{2 * number}.weight"] = np.zeros((after, before, 3, 3), "f4")
        tensors[f"layers.{2 * number}.bias"] = np.zeros(after, "f4")
    safetensors.numpy.save_file(tensors, path)
    return str(path)


def test_arms_without_weights_are_left_out_with_a_reason():
    arms, left_out = transfer.arms_of(transfer.TransferOptions())
    names = [arm.name for arm in arms]
    assert "dncnn_published" in left_out and "dncnn_published" not in names
    assert "efficientnet_imagenet" in left_out and "efficientnet_frozen" in names
    arms, left_out = transfer.arms_of(
        transfer.TransferOptions(denoiser="a.mat", imagenet="b.h5")
    )
    assert tuple(arms) == transfer.ARMS and left_out == {}


def test_networks_and_the_budget_can_be_chosen():
    options = transfer.TransferOptions(
        scale="cpu", networks=("nafnet_s",), steps=7, learning_rate=1e-4
    )
    arms, left_out = transfer.arms_of(options)
    assert {arm.network for arm in arms} == {"nafnet_s"}
    assert len(arms) + len(left_out) == len(transfer.ARMS)
    assert "--networks" in left_out["dncnn_published"]
    chosen, plain = transfer.scale_of(options), transfer.SCALES["cpu"]
    assert (chosen.budget.steps, chosen.budget.learning_rate) == (7, 1e-4)
    assert chosen.budget.batch_size == plain.budget.batch_size
    assert chosen.pairs == plain.pairs
    with pytest.raises(errors.InputError, match="--networks=unet: choose one of dncnn"):
        transfer.TransferOptions(networks=("unet",))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arm",
    [arm for arm in transfer.ARMS if arm.start != "scratch"],
    ids=lambda arm: arm.name,
)
def test_every_arm_can_take_a_step(arm, squares):
    """By shapes alone: to compile the large networks takes long."""
    model = transfer.build(arm, transfer.TransferOptions(imagenet="some.h5"))
    budget = fitting.Budget(2, 2, 16)
    like = models.abstract_parameters(model)
    options = fitting.run_options(model, budget, seed=0, workdir="")
    optimizer = optim.make_optimizer(options, budget.steps)
    objective = step.restoring(losses.make_loss(options.loss))
    train_step = step.make_train_step(model, optimizer, objective, ema_decay=0.9)
    state = jax.eval_shape(lambda p: step.state_of(p, optimizer, ema=True), like)
    draw = functools.partial(fitting.crops, batch_size=2, image_size=16)
    batch = jax.eval_shape(draw, jax.random.key(0), squares)
    after, _ = jax.eval_shape(train_step, state, batch)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, state)
    frozen = getattr(model, "frozen", False), getattr(model, "imagenet", False)
    assert frozen == (arm.start == "frozen", arm.start in ("imagenet", "frozen"))


def test_the_published_denoiser_is_read_for_the_model_dncnn(tmp_path):
    found = transfer.read_denoiser(write_dncnn(tmp_path / "color.safetensors"))
    expected = models.abstract_parameters(models.get_model("dncnn"))
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, expected)


def test_another_denoiser_than_the_color_one_is_refused(tmp_path):
    grey = write_dncnn(tmp_path / "grey.safetensors", channels=1)
    with pytest.raises(errors.InputError, match="not the color DnCNN"):
        transfer.read_denoiser(grey)


def test_samples_are_nested_and_share_the_measured_pairs(monkeypatch):
    """With pairs that show their number, in place of pictures."""
    splits = standin.lay_out(["a", "b", "c", "d"], 1000)

    def draw(_, members):
        numbers = np.array([member.number for member in members])
        images = np.broadcast_to(numbers[:, None, None, None], (len(numbers), 2, 2, 3))
        return arrays.PairArrays(images, images)

    drawn = standin.Standin(None, (), splits, None, 1.0, 28.0)
    monkeypatch.setattr(standin, "prepare", lambda _: drawn)
    monkeypatch.setattr(standin, "draw", draw)
    monkeypatch.setattr(standin, "card", lambda _: {})
    data = transfer.make_data(transfer.TransferOptions(scale="quick"))
    few, some, whole = (
        set(data.train[fraction].input[:, 0, 0, 0].tolist())
        for fraction in transfer.FRACTIONS
    )
    assert few < some < whole and len(whole) == 800
    assert 2 <= len(few) <= 10 and 60 < len(some) < 100
    for part in (data.validation, data.test):
        assert len(part.input) == transfer.SCALES["quick"].measured
        assert not whole & set(part.input[:, 0, 0, 0].tolist())


@pytest.mark.slow
def test_the_experiment_runs_continues_and_is_read(
    tmp_path, monkeypatch, capsys, squares
):
    """With the smallest network in place of the large ones, and a few squares."""
    data = transfer.Data({1.0: squares}, squares, squares, {"what": "squares"})
    monkeypatch.setattr(transfer, "make_data", lambda _: data)
    scale = transfer.Scale(
        pairs=60, measured=4, pretraining_steps=1,
        budget=fitting.Budget(2, 2, 16, points=1),
    )  # fmt: skip
    starts = ("scratch", "denoising")
    monkeypatch.setitem(transfer.SCALES, "quick", scale)
    monkeypatch.setattr(transfer, "FRACTIONS", (1.0,))
    monkeypatch.setattr(
        transfer, "ARMS", tuple(transfer.Arm("basic", start) for start in starts)
    )
    monkeypatch.setitem(transfer_report._NETWORKS, "basic", "Basic")
    options = transfer.TransferOptions(
        scale="quick",
        seeds=2,
        results=str(tmp_path / "results"),
        workdir=str(tmp_path / "work"),
    )
    real, count = transfer.run, []

    def killed(*arguments):
        count.append(arguments)
        if len(count) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(transfer, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        transfer.transfer(options)
    kept = sorted((tmp_path / "work").rglob("result.json"))
    assert len(kept) == 2
    times = {path: path.stat().st_mtime_ns for path in kept}
    seen = []

    def watched(*arguments):
        seen.append(real(*arguments))
        assert all(path.stat().st_mtime_ns == time for path, time in times.items())
        return seen[-1]

    monkeypatch.setattr(transfer, "run", watched)
    transfer.main(options)
    assert len(seen) == 2 * 2
    found = json.loads((tmp_path / "results" / "transfer.json").read_text())
    assert found["counts"] == {"1": 4}
    for one in found["runs"]:
        assert [step for step, _ in one["curve"]] == [0, 2]
        assert one["test"]["start"] != one["test"]["end"]
    # Training before has changed what the training began with.
    before = {one["arm"]: one["test"]["start"]["psnr"] for one in found["runs"]}
    assert before["basic_scratch"] != before["basic_denoising"]
    assert [gain["arm"] for gain in found["gains"]] == ["basic_denoising"]
    assert "dncnn_published" in found["left_out"]
    assert str(tmp_path) not in json.dumps(found)
    assert "| Basic |" in capsys.readouterr().out
    assert (tmp_path / "results" / "transfer.svg").is_file()
    monkeypatch.setattr(transfer, "run", None)  # now it is only read
    assert transfer.transfer(options) == found


@pytest.fixture(scope="module")
def folders(tmp_path_factory, photographs):
    """Small pictures of several sizes to train on, and to measure on."""
    root = tmp_path_factory.mktemp("pictures")
    for number, (name, picture) in enumerate(photographs.items()):
        side = 60 + 10 * number
        frames.write(root / "train" / f"{name}.png", picture[100 : 100 + side, 80:150])
        frames.write(root / "test" / f"{name}.png", picture[60:100, 60:100])
    return root


def test_squares_are_cut_from_one_image(folders):
    sources = standin.find_sources(str(folders / "train"))
    clean = standin.load_clean(sources, 50)
    squares = reproduce.clean_crops(
        jax.random.key(0), clean, batch_size=16, image_size=50
    )
    windows = [
        np.lib.stride_tricks.sliding_window_view(frames.read(path), (50, 50, 3))
        for path in sources.values()
    ]
    for square in np.asarray(squares):
        found = [np.isclose(w, square, atol=1e-6).all((3, 4, 5)).sum() for w in windows]
        assert sum(found) >= 1
    assert len({square.tobytes() for square in np.asarray(squares)}) > 8


def test_noise_has_the_wanted_level(folders):
    found = reproduce.psnr_of(
        lambda noisy: noisy, str(folders / "test"), sigma=10.0, seed=0
    )
    assert found["pictures"] == 4
    # -20 log10(10 / 255), a little more where clipping at 0 and 1 helps.
    assert found["input"] == pytest.approx(28.13, abs=0.6)
    assert found["psnr"] == found["input"]


def test_patches_have_the_papers_size():
    options = reproduce.ReproduceOptions(pictures=("folder",), train_on="folder")
    blind = reproduce.budget_of(options)
    assert (blind.image_size, blind.batch_size) == (50, 128)
    options = dataclasses.replace(options, blind=False, steps=9, batch_size=8)
    one = reproduce.budget_of(options)
    assert (one.image_size, one.batch_size, one.steps) == (40, 8, 9)


@pytest.mark.slow
def test_dncnn_is_trained_and_compared(folders, tmp_path):
    options = reproduce.ReproduceOptions(
        pictures=(str(folders / "test"),),
        weights=(write_dncnn(tmp_path / "zero.safetensors"),),
        train_on=str(folders / "train"),
        quick=True,
        steps=2,
        results=str(tmp_path / "results"),
        workdir=str(tmp_path / "work"),
    )
    found = reproduce.reproduce(options)
    (zero,) = found["published"]
    assert zero["psnr"]["test"]["psnr"] == zero["psnr"]["test"]["input"]
    assert [step for step, _ in found["ours"]["curve"]] == [0, 1, 2]
    ours = found["ours"]["psnr"]["test"]["psnr"]
    expected = ours >= zero["psnr"]["test"]["psnr"] - reproduce.NEAR
    assert found["near"] == {"zero.safetensors": {"test": expected}}
    assert str(tmp_path) not in (tmp_path / "results" / "reproduce.json").read_text()
    text = reproduce.to_markdown(found)
    assert "| ours | test (4) |" in text
    assert "2 steps of 4 patches of 50×50 with noise of any σ up to 55" in text
    with pytest.raises(errors.InputError, match="nothing to measure"):
        reproduce.ReproduceOptions(pictures=("folder",))
