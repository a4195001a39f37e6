"""The whole path through its command lines' functions, on a tiny film."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from skimage import metrics as reference

from restoration import clean, evaluate, report
from restoration.data import pairs
from restoration.images import frames
from restoration.inference import batch
from restoration.reports import training_run
from restoration.training import run, train_config


def test_clean_train_resume_evaluate_restore_report(paired_folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(paired_folder, data)
    (data / "input" / "clip9_000.png").write_bytes(b"no image")
    shutil.copy(data / "output" / "clip0_000.png", data / "output" / "clip9_000.png")
    shutil.copy(data / "output" / "clip0_000.png", data / "output" / "lone_000.png")

    clean.main(clean.CleanOptions(data_dir=str(data)))
    moved = (data / "Disregard").rglob("*.png")
    assert sorted(p.relative_to(data / "Disregard").as_posix() for p in moved) == [
        "input/clip9_000.png", "output/clip9_000.png", "output/lone_000.png",
    ]  # fmt: skip
    assert "lone_000.png" in (data / "Disregard" / "report.csv").read_text()

    workdir = tmp_path / "run"
    options = {
        "data_dir": str(data), "workdir": str(workdir), "batch_size": 8,
        "image_size": 32, "learning_rate": 3e-3,
    }  # fmt: skip
    assert run.train(train_config.TrainConfig(**options, epochs=1)).step == 2
    result = run.train(train_config.TrainConfig(**options, epochs=3))
    assert result.step == result.total_steps == 6

    measured = evaluate.EvaluateOptions(workdir=str(workdir), split="all", cases=-1)
    results = evaluate.evaluate(measured)
    members = pairs.find_splits(data)["test"]
    assert results["test"]["count"] == len(members)
    for side in ("input", "restored"):
        values = []
        for pair in members:
            image = pair.input
            if side == "restored":
                image = workdir / "evaluation" / "test" / f"{pair.name}.png"
            values.append(
                reference.peak_signal_noise_ratio(
                    frames.read(pair.output).astype(float),
                    frames.read(image).astype(float),
                    data_range=1,
                )
            )
        # The saved pictures are rounded to 8 bits.
        assert results["test"][side]["psnr"] == pytest.approx(np.mean(values), abs=0.05)
    saved = json.loads((workdir / "evaluation" / "test.json").read_text())
    assert saved == results["test"]

    out = tmp_path / "restored"
    done = batch.restore(
        batch.RestoreOptions(
            input=tuple(str(p.input) for p in members),
            output=str(out),
            workdir=str(workdir),
        )
    )
    assert not any(r.error for r in done)
    for pair in members:  # evaluating and restoring are the same computation
        ours = frames.read(out / f"{pair.name}_restored.png")
        theirs = frames.read(workdir / "evaluation" / "test" / f"{pair.name}.png")
        assert np.abs(ours - theirs).max() <= 1 / 255 + 1e-6

    page = report.report(training_run.ReportOptions(workdir=str(workdir)))
    text = page.read_text(encoding="utf-8")
    assert f"{results['test']['restored']['psnr']:.2f}" in text
    assert members[0].name in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["restoration.train", "--data_dir=/nowhere", "--workdir=w"], 2,
         "error: /nowhere: no such folder"),
        (["restoration.restore", "-o", "out"], 2, "error: -i is required"),
        (["restoration.evaluate", "--workdir=/nowhere"], 2, "train first"),
        (["restoration.degrade", "--help"], 0, ""),
    ],
)  # fmt: skip
def test_exit_codes_and_one_line_errors(arguments, code, message, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == code, run.stderr
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    if code:
        assert len(run.stderr.strip().splitlines()) == 1
