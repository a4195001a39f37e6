"""Training runs: resuming, stopping, and equality of the ways to feed them."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from restoration import arrays, checkpoint, config, errors, frames, pairs, train


def options_for(folder, workdir, **changes):
    values = {
        "data_dir": str(folder), "workdir": str(workdir), "epochs": 2,
        "batch_size": 8, "image_size": 24, "ema_decay": 0.9,
    }  # fmt: skip
    return config.TrainConfig(**(values | changes))


def parameters_of(workdir):
    return checkpoint.load_trained(workdir)[1]


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def read_log(workdir):
    text = (pathlib.Path(workdir) / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in rows]


@pytest.fixture(scope="module")
def whole_run(paired_folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train.train(options_for(paired_folder, workdir))


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
    train.train(options_for(paired_folder, tmp_path, epochs=1))
    # A killed run may have logged steps that no checkpoint holds.
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "split": "train"}\n{"step": 4, "spl')
    train.train(options_for(paired_folder, tmp_path))
    assert_equal(parameters_of(tmp_path), parameters_of(whole_run[0]))
    assert read_log(tmp_path) == read_log(whole_run[0])


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
    train.train(options_for(paired_folder, tmp_path), data)
    for ours, theirs in zip(
        jax.tree.leaves(parameters_of(tmp_path)),
        jax.tree.leaves(parameters_of(whole_run[0])),
        strict=True,
    ):
        # Two compiled programs: equal up to rounding.
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_many_steps_in_one_call_equal_single_ones(paired_folder, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
    data = {"train": arrays.PairArrays(*images)}
    results = []
    for on_cpu in (True, False):
        workdir = tmp_path / str(on_cpu)
        monkeypatch.setattr(train.backend, "is_cpu", lambda on_cpu=on_cpu: on_cpu)
        train.train(
            options_for("", workdir, batch_size=4, image_size=16, accumulate=1), data
        )
        results.append(parameters_of(workdir))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *results)


def test_a_workdir_of_another_run_is_refused(paired_folder, whole_run):
    changed = options_for(
        paired_folder, whole_run[0], learning_rate=0.5, model="advanced"
    )
    with pytest.raises(errors.InputError, match="model basic -> advanced, learning_r"):
        train.train(changed)


def test_bad_options_and_workdirs(paired_folder, tmp_path):
    with pytest.raises(errors.InputError, match="unknown model 'unet'"):
        train.train(options_for(paired_folder, tmp_path / "a", model="unet"))
    with pytest.raises(errors.InputError, match="--accumulate=3"):
        train.train(options_for(paired_folder, tmp_path / "b", accumulate=3))
    with pytest.raises(errors.InputError, match="train first"):
        checkpoint.load_trained(tmp_path / "c")
    good = options_for(paired_folder, tmp_path / "d")
    config.write_text(tmp_path / "d" / "config.json", config.to_json(good))
    with pytest.raises(errors.InputError, match="no checkpoint"):
        checkpoint.load_trained(tmp_path / "d")


def test_checkpoint_of_another_model(paired_folder, whole_run, tmp_path):
    run = tmp_path / "run"
    (run).mkdir()
    (run / "checkpoints").symlink_to(whole_run[0] / "checkpoints")
    other = dataclasses.replace(options_for(paired_folder, run), model="advanced")
    config.write_text(run / "config.json", config.to_json(other))
    with pytest.raises(errors.InputError, match="not a checkpoint of this model"):
        checkpoint.load_trained(run)


def test_the_best_checkpoint_is_kept_and_loaded(paired_folder, tmp_path):
    options = options_for(paired_folder, tmp_path, ema_decay=0.0)
    train.train(options)
    manager = checkpoint.open_manager(tmp_path, keep=1)
    state = checkpoint.restore_latest(manager, _abstract(options))
    for number, psnr in ((10, 90.0), (11, 20.0), (12, 30.0), (13, None)):
        state = state._replace(step=np.int32(number))
        checkpoint.save(manager, state, psnr)
        manager.wait_until_finished()
    assert set(manager.all_steps()) == {10, 13}
    manager.close()
    assert checkpoint.load_trained(tmp_path)[2] == 10


def _abstract(options):
    from restoration import models, optim, step

    return step.init_state(
        models.get_model(options.model),
        optim.make_optimizer(options, 1),
        jax.random.key(0),
        ema=False,
    )


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
    saved = checkpoint.load_trained(workdir)[2]
    assert saved == read_log(workdir)[-1]["step"] > 0
