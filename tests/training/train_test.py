"""Training runs: resuming, stopping, and equality of the ways to feed them."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from restoration import train
from restoration.base import config, errors, files
from restoration.data import arrays, pairs, sampling
from restoration.devices import backend
from restoration.images import frames
from restoration.training import (
    checkpoint,
    provenance,
    repeat,
    run,
    train_config,
    trained,
)
from tests import selection


def options_for(folder, workdir, **changes):
    values = {
        "data_dir": str(folder), "workdir": str(workdir), "epochs": 2,
        "batch_size": 8, "image_size": 24, "ema_decay": 0.9,
    }  # fmt: skip
    return train_config.TrainConfig(**(values | changes))


def parameters_of(workdir):
    return trained.load_trained(workdir)[1]


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def read_log(workdir):
    text = (pathlib.Path(workdir) / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in rows]


@pytest.fixture(scope="module")
def whole_run(paired_folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run.train(options_for(paired_folder, workdir))


def test_log_and_checkpoints(whole_run):
    workdir, result = whole_run
    assert result.step == result.total_steps == 4
    rows = read_log(workdir)
    assert [(r["step"], r["split"]) for r in rows] == [
        (2, "train"), (2, "validation"), (4, "train"), (4, "validation"),
    ]  # fmt: skip
    assert all(0 < r["loss"] < 1 and r["psnr"] > 5 and r["ssim"] < 1 for r in rows)
    assert result.psnr == rows[-1]["psnr"]


def test_resumed_run_equals_the_whole_one(paired_folder, whole_run, tmp_path):
    run.train(options_for(paired_folder, tmp_path, epochs=1))
    # A killed run may have logged steps that no checkpoint holds.
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "split": "train"}\n{"step": 4, "spl')
    run.train(options_for(paired_folder, tmp_path))
    assert_equal(parameters_of(tmp_path), parameters_of(whole_run[0]))
    assert read_log(tmp_path) == read_log(whole_run[0])


@pytest.mark.slow
def test_arrays_equal_the_folder(paired_folder, whole_run, tmp_path):
    splits = pairs.find_splits(paired_folder)
    data = {
        split: arrays.PairArrays(
            *(
                np.stack(
                    [frames.to_uint8(frames.read(getattr(p, side))) for p in members]
                )
                for side in ("input", "output")
            )
        )
        for split, members in splits.items()
    }
    run.train(options_for(paired_folder, tmp_path), data)
    for ours, theirs in zip(
        jax.tree.leaves(parameters_of(tmp_path)),
        jax.tree.leaves(parameters_of(whole_run[0])),
        strict=True,
    ):
        # Two compiled programs: equal up to rounding.
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.slow
def test_many_steps_in_one_call_equal_single_ones(paired_folder, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
    data = {"train": arrays.PairArrays(*images)}
    results = []
    for on_cpu in (True, False):
        workdir = tmp_path / str(on_cpu)
        monkeypatch.setattr(backend, "is_cpu", lambda on_cpu=on_cpu: on_cpu)
        run.train(
            options_for("", workdir, batch_size=4, image_size=16, accumulate=1), data
        )
        results.append(parameters_of(workdir))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *results)


def test_a_workdir_of_another_run_is_refused(paired_folder, whole_run):
    changed = options_for(
        paired_folder, whole_run[0], learning_rate=0.5, model="advanced"
    )
    with pytest.raises(errors.InputError, match="model basic -> advanced, learning_r"):
        run.train(changed)


def test_bad_options_and_workdirs(paired_folder, tmp_path):
    with pytest.raises(errors.InputError, match="unknown model 'unet'"):
        run.train(options_for(paired_folder, tmp_path / "a", model="unet"))
    with pytest.raises(errors.InputError, match="--accumulate=3"):
        run.train(options_for(paired_folder, tmp_path / "b", accumulate=3))
    with pytest.raises(errors.InputError, match="train first"):
        trained.load_trained(tmp_path / "c")
    good = options_for(paired_folder, tmp_path / "d")
    files.write_text(tmp_path / "d" / "config.json", config.to_json(good))
    with pytest.raises(errors.InputError, match="no checkpoint"):
        trained.load_trained(tmp_path / "d")


def test_checkpoint_of_another_model(paired_folder, whole_run, tmp_path):
    run = tmp_path / "run"
    (run).mkdir()
    (run / "checkpoints").symlink_to(whole_run[0] / "checkpoints")
    other = dataclasses.replace(options_for(paired_folder, run), model="advanced")
    files.write_text(run / "config.json", config.to_json(other))
    with pytest.raises(errors.InputError, match="model basic -> advanced"):
        trained.load_trained(run)


def test_the_best_checkpoint_is_kept_and_loaded(paired_folder, tmp_path):
    options = options_for(paired_folder, tmp_path, ema_decay=0.0)
    run.train(options)
    manager = checkpoint.open_manager(tmp_path, keep=1)
    state = checkpoint.restore_latest(manager, _abstract(options))
    for number, psnr in ((10, 90.0), (11, 20.0), (12, 30.0), (13, None)):
        state = state._replace(step=np.int32(number))
        checkpoint.save(manager, state, psnr)
        manager.wait_until_finished()
    assert set(manager.all_steps()) == {10, 13}
    manager.close()
    assert trained.load_trained(tmp_path)[2] == 10
    (tmp_path / "checkpoints" / "10" / "_METADATA").write_text("{}")
    assert trained.load_trained(tmp_path)[2] == 13


def _abstract(options):
    from restoration import models
    from restoration.training import optim, step

    return step.init_state(
        models.get_model(options.model),
        optim.make_optimizer(options, 1),
        jax.random.key(0),
        ema=False,
    )


def random_pairs(count=9, side=16, split=("train", "validation")):
    images = np.random.default_rng(0).random((2, count, side, side, 3), np.float32)
    return {name: arrays.PairArrays(*images) for name in split}


class Countdown(list):
    """Signals that arrive after a few steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def __bool__(self):
        self.steps -= 1
        return self.steps < 0


def test_stopped_anywhere_a_run_goes_on_exactly(tmp_path, monkeypatch):
    """State and log; the means of a line include the steps before the stop."""
    data = random_pairs()
    options = options_for(
        "", tmp_path / "whole", batch_size=4, image_size=16, epochs=4, log_every=5,
        checkpoint_every=3, evaluate_every=2, schedule="cosine", clip_norm=1.0,
    )  # fmt: skip
    run.train(options, data)
    parts = dataclasses.replace(options, workdir=str(tmp_path / "parts"))
    ends = []
    for steps in (1, 3, 100):
        with monkeypatch.context() as patch:
            signals = contextlib.nullcontext(Countdown(steps))
            patch.setattr(run, "_stop_signals", lambda signals=signals: signals)
            ends.append(run.train(parts, data).step)
    assert ends == [1, 4, 12]
    assert repeat.compare(tmp_path / "whole", tmp_path / "parts") == []
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")
    starts = provenance.read(tmp_path / "parts")
    assert [record["step"] for record in starts] == [0, 1, 4]


def drawn(options, number, count):
    """Places of the pairs of a step, worked out without the code that trains."""
    return sampling.batch_draws(
        seed=options.seed, step=number, count=count,
        batch_size=options.batch_size, augment=True,
    ).index  # fmt: skip


@pytest.mark.parametrize("on_cpu", selection.slow_but([True], [True, False]))
def test_bad_numbers_are_caught_at_their_step(tmp_path, monkeypatch, on_cpu):
    monkeypatch.setattr(backend, "is_cpu", lambda: on_cpu)
    options = options_for(
        "", tmp_path / "stop", batch_size=4, image_size=16, epochs=4, accumulate=1
    )
    # A pair of the second step's, and not of the first's.
    first, second = ({*drawn(options, number, 9).tolist()} for number in (0, 1))
    place = min(second - first)
    expected = [n for n in range(12) if place in drawn(options, n, 9)]
    assert expected[0] == 1 < len(expected)
    data = random_pairs(split=("train",))
    data["train"].input[place] = np.nan
    with pytest.raises(errors.InputError) as error:
        run.train(options, data)
    said = str(error.value)
    name = f"{place:06d}"
    assert f"step {expected[0] + 1}: loss nan, gradient norm nan, on the" in said
    assert name in said and "--bad_numbers=skip" in said
    assert trained.digest(options.workdir)[0] == expected[0]

    # It goes on from there, and ends as a run does that skipped from the start.
    skipping = dataclasses.replace(options, bad_numbers="skip")
    result = run.train(skipping, data)
    assert (result.step, result.skipped) == (12, len(expected))
    rows = [row for row in read_log(options.workdir) if row["split"] == "bad numbers"]
    assert [row["step"] for row in rows] == [number + 1 for number in expected]
    assert all(name in row["pairs"] and row["loss"] == "nan" for row in rows)
    means = [row for row in read_log(options.workdir) if row["split"] == "train"]
    assert sum(row.get("skipped", 0) for row in means) == len(expected)
    assert all(np.isfinite(row["loss"]) for row in means)
    whole = dataclasses.replace(skipping, workdir=str(tmp_path / "skip"))
    run.train(whole, data)
    if on_cpu:  # other calls, other programs: equal up to rounding alone
        assert repeat.compare(options.workdir, whole.workdir) == []
    assert_close(parameters_of(options.workdir), parameters_of(whole.workdir))


def assert_close(first, second):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), first, second
    )


@pytest.fixture
def damaged_folder(paired_folder, tmp_path):
    """A film with two bad training pairs that follow each other; one differs in size.

    And the same film with copies of the pair after them in their place.
    """
    damaged, mended = tmp_path / "damaged", tmp_path / "mended"
    for folder in (damaged, mended):
        shutil.copytree(paired_folder, folder)
    members = pairs.find_splits(paired_folder)["train"]
    bad = [member.name for member in members[2:4]]
    (damaged / "output" / f"{bad[0]}.png").write_bytes(b"no image")
    frames.write(damaged / "input" / f"{bad[1]}.png", np.zeros((24, 24, 3)))
    for name in bad:
        for side in ("input", "output"):
            source = mended / side / f"{members[4].name}.png"
            shutil.copy(source, mended / side / f"{name}.png")
    return damaged, mended, bad, members[4].name


@pytest.mark.parametrize("cache", selection.slow_but(["none"], ["none", "device"]))
def test_bad_pairs_are_replaced_counted_and_named(
    damaged_folder, tmp_path, caplog, cache
):
    damaged, mended, bad, instead = damaged_folder
    options = options_for(damaged, tmp_path / "a", cache=cache, batch_size=8)
    result = run.train(options)
    assert result.replaced == tuple(bad)
    for name in bad:
        assert caplog.text.count(f"training pair {name} cannot be read (") == 1
    rows = [row for row in read_log(tmp_path / "a") if row["split"] == "replaced"]
    told = [tuple(pair) for row in rows for pair in row["pairs"]]
    assert sorted(told) == sorted([(name, instead) for name in bad] * 2)  # two epochs
    members = pairs.find_splits(damaged)["train"]
    for row in rows:
        places = drawn(options, row["step"] - 1, len(members))
        assert {n for n, _ in row["pairs"]} <= {members[p].name for p in places}

    run.train(options_for(mended, tmp_path / "b", cache=cache, batch_size=8))
    assert_equal(parameters_of(tmp_path / "a"), parameters_of(tmp_path / "b"))

    # A resumed run replaces the same pairs and logs the same lines.
    for epochs in (1, 2):
        run.train(dataclasses.replace(
            options, workdir=str(tmp_path / "c"), epochs=epochs
        ))  # fmt: skip
    assert repeat.compare(tmp_path / "a", tmp_path / "c") == []

    stopping = dataclasses.replace(
        options, workdir=str(tmp_path / "d"), bad_pairs="stop"
    )
    with pytest.raises(errors.InputError, match=bad[0]):
        run.train(stopping)


def test_when_most_pairs_are_bad_training_stops(paired_folder, tmp_path):
    shutil.copytree(paired_folder, tmp_path / "data")
    for path in (tmp_path / "data" / "input").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(errors.InputError, match="training pairs cannot be read"):
        run.train(options_for(tmp_path / "data", tmp_path / "run"))


def test_a_recorded_run_can_be_repeated(paired_folder, tmp_path, capsys, caplog):
    shutil.copytree(paired_folder, tmp_path / "data")
    options = options_for(tmp_path / "data", tmp_path / "run", epochs=1)
    train.main(options)
    (record,) = provenance.read(tmp_path / "run")
    assert record["config"] == dataclasses.asdict(options)
    assert record["packages"]["jax"] == jax.__version__
    assert record["devices"]["count"] == jax.device_count()
    assert record["data"]["pairs"]["train"] == 16
    again = train.TrainOptions(
        repeat=str(tmp_path / "run"), workdir=str(tmp_path / "b")
    )
    assert train.command(again) == 0
    assert "bit for bit" in capsys.readouterr().out
    assert "--repeat" not in caplog.text

    name = pairs.find_splits(tmp_path / "data")["train"][0].name
    frames.write(tmp_path / "data" / "input" / f"{name}.png", np.zeros((48, 40, 3)))
    other = dataclasses.replace(again, workdir=str(tmp_path / "c"))
    assert train.command(other) == 1
    assert "--repeat: data: fingerprint" in caplog.text
    assert "the log at step 2" in caplog.text


def test_what_cannot_be_repeated_is_told(tmp_path):
    with pytest.raises(errors.InputError, match="--epochs: not together with --repeat"):
        train.TrainOptions(repeat="a", workdir="b", epochs=3)
    with pytest.raises(errors.InputError, match="--data_dir is required"):
        train.TrainOptions(workdir="b")
    with pytest.raises(errors.InputError, match="train first"):
        train.command(train.TrainOptions(repeat=str(tmp_path), workdir="b"))
    run.train(options_for("", tmp_path, batch_size=3, image_size=16), random_pairs(3))
    with pytest.raises(errors.InputError, match="give a new folder"):
        train.command(train.TrainOptions(repeat=str(tmp_path), workdir=str(tmp_path)))
    with pytest.raises(errors.InputError, match="arrays in memory"):
        train.command(train.TrainOptions(repeat=str(tmp_path), workdir="b"))


def test_the_code_is_recorded(tmp_path, monkeypatch):
    """Commit and changes of a checkout; outside of one the files' hash alone."""
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    (tmp_path / "__init__.py").write_text("a = 1\n")
    alone = provenance.code()
    assert alone["commit"] is None and alone["dirty"] is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    clean = provenance.code()
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    assert clean["sources"] == alone["sources"]
    (tmp_path / "__init__.py").write_text("a = 2\n")
    changed = provenance.code()
    assert changed["dirty"] and changed["sources"] != clean["sources"]
    told = provenance.differences({"code": clean}, {"code": changed})
    assert [line.split()[1] for line in told] == ["sources", "dirty"]


def test_sigterm_saves_and_exits_cleanly(paired_folder, tmp_path):
    workdir = tmp_path / "run"
    command = [
        sys.executable, "-m", "restoration.train", f"--data_dir={paired_folder}",
        f"--workdir={workdir}", "--epochs=100000", "--batch_size=4", "--image_size=16",
        "--evaluate_every=100000", "--log_every=1",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (log.is_file() and log.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "run it again to go on" in out
    assert "Traceback" not in err
    saved = trained.load_trained(workdir)[2]
    assert saved == read_log(workdir)[-1]["step"] > 0
