"""Several processes give the results of one, with one writer; none is left hanging."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from restoration import evaluate
from restoration.base import errors
from restoration.data import array_files, pairs
from restoration.devices import processes
from restoration.images import frames
from restoration.training import run, train_config

# Uneven shares: the last of four processes has no validation pair.
COUNTS = {"train": 10, "validation": 3, "test": 6}

WORK = """
import json, sys
from restoration import evaluate
from restoration.devices import processes
from restoration.training import run, train_config
place, options, measured = map(json.loads, sys.argv[1:])
with processes.joined(processes.ProcessOptions(**place)):
    run.train(train_config.TrainConfig(**options))
    if measured:
        evaluate.evaluate(evaluate.EvaluateOptions(**measured))
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, photographs):
    """Small pairs, prepared as arrays, which need no TensorFlow."""
    folder, prepared = (tmp_path_factory.mktemp(name) for name in ("film", "prepared"))
    generator = np.random.default_rng(0)
    image = photographs["coffee"]
    for split, count in COUNTS.items():
        for number in range(count):
            target = image[20 * number :][:24, 100:120]
            noisy = np.clip(target + generator.normal(0, 0.1, target.shape), 0, 1)
            frames.write(folder / split / "output" / f"{split}_{number}.png", target)
            frames.write(folder / split / "input" / f"{split}_{number}.png", noisy)
    array_files.write(prepared, pairs.find_splits(folder))
    return prepared


def options_for(data_dir, workdir, **changes):
    values = {
        "data_dir": str(data_dir), "workdir": str(workdir), "epochs": 2,
        "batch_size": 8, "image_size": 16, "log_every": 1, "ema_decay": 0.9,
    }  # fmt: skip
    return train_config.TrainConfig(**(values | changes))


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def started(tmp_path, commands):
    """Starts commands side by side, their output in files; kills them at the end."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_cpu_multi_thread_eigen=false"
    environment = os.environ | {"XLA_FLAGS": flags}
    running = []
    try:
        for number, command in enumerate(commands):
            with (tmp_path / f"output{number}").open("w") as output:
                running.append(
                    subprocess.Popen(
                        [sys.executable, *command],
                        stdout=output,
                        stderr=output,
                        env=environment,
                    )
                )
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def read_output(tmp_path, number):
    return (tmp_path / f"output{number}").read_text(errors="replace")


def work_together(tmp_path, count, options, measured=None):
    coordinator = f"localhost:{free_port()}"
    commands = [
        [
            "-c", WORK,
            json.dumps(
                {"coordinator": coordinator, "processes": count, "process": number}
            ),
            json.dumps(dataclasses.asdict(options)),
            json.dumps(measured),
        ]
        for number in range(count)
    ]  # fmt: skip
    with started(tmp_path, commands) as running:
        for number, process in enumerate(running):
            assert process.wait(timeout=240) == 0, read_output(tmp_path, number)


def read_log(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def alone(data_dir, tmp_path_factory):
    """A run of one process."""
    workdir = tmp_path_factory.mktemp("alone")
    run.train(options_for(data_dir, workdir))
    return workdir


@pytest.fixture(scope="module")
def together(data_dir, tmp_path_factory):
    """The same run, started by two processes, finished and evaluated by four."""
    workdir = tmp_path_factory.mktemp("together") / "run"
    work_together(workdir.parent, 2, options_for(data_dir, workdir, epochs=1))
    measured = {"workdir": str(workdir), "split": "all", "cases": 1, "batch_size": 1}
    work_together(workdir.parent, 4, options_for(data_dir, workdir), measured)
    return workdir


@pytest.mark.slow
def test_losses_equal_those_of_one_process(alone, together):
    ours, theirs = read_log(together), read_log(alone)
    lines = [(row["step"], row["split"]) for row in ours]
    assert lines == [(row["step"], row["split"]) for row in theirs]
    assert len(lines) == len(set(lines)) == 4 + 2
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one["psnr"] == pytest.approx(other["psnr"], abs=1e-3)


@pytest.mark.slow
def test_evaluation_counts_every_image_once(together):
    """One process evaluates the run of four and gets the same numbers."""
    written = {
        path.stem: json.loads(path.read_text())
        for path in (together / "evaluation").glob("*.json")
    }
    assert {split: found["count"] for split, found in written.items()} == COUNTS
    tables = {path.name: path for path in (together / "evaluation").glob("*.csv")}
    names = [line.split(",")[0] for line in tables["test.csv"].read_text().split("\n")]
    assert names == ["name", *(f"test_{number}" for number in range(6)), ""]
    for split in COUNTS:
        assert len(list((together / "evaluation" / split).glob("*.png"))) == 3
    again = evaluate.evaluate(
        evaluate.EvaluateOptions(workdir=str(together), split="all", cases=0)
    )
    for split, found in written.items():
        for side in ("input", "restored"):
            for metric, value in found[side].items():
                assert value == pytest.approx(again[split][side][metric], rel=1e-5)


def train_command(data_dir, workdir, coordinator, number, count=2):
    return [
        "-m", "restoration.train", f"--data_dir={data_dir}", f"--workdir={workdir}",
        "--epochs=100000", "--batch_size=8", "--image_size=16", "--log_every=1",
        "--evaluate_every=100000", f"--coordinator={coordinator}",
        f"--processes={count}", f"--process={number}",
    ]  # fmt: skip


@contextlib.contextmanager
def training_pair(data_dir, tmp_path):
    """Two processes that are training."""
    workdir = tmp_path / "run"
    coordinator = f"localhost:{free_port()}"
    commands = [
        train_command(data_dir, workdir, coordinator, number) for number in (0, 1)
    ]
    with started(tmp_path, commands) as running:
        log = workdir / "metrics.jsonl"
        deadline = time.monotonic() + 240
        while not (log.is_file() and log.stat().st_size):
            for number, process in enumerate(running):
                assert process.poll() is None, read_output(tmp_path, number)
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_others_stop_when_a_process_dies(data_dir, tmp_path, dying):
    with training_pair(data_dir, tmp_path) as running:
        running[dying].kill()
        code = running[1 - dying].wait(timeout=30)
    assert code not in (0, None)
    output = read_output(tmp_path, 1 - dying)
    assert "another process has stopped" in output or "another task died" in output


@pytest.mark.slow
def test_sigterm_for_one_process_stops_all(data_dir, tmp_path):
    with training_pair(data_dir, tmp_path) as running:
        running[1].send_signal(signal.SIGTERM)
        for number, process in enumerate(running):
            assert process.wait(timeout=60) == 0, read_output(tmp_path, number)
    assert "run it again to go on" in read_output(tmp_path, 0)
    assert "run it again to go on" not in read_output(tmp_path, 1)  # not the writer
    last = read_log(tmp_path / "run")[-1]["step"]
    folders = (tmp_path / "run" / "checkpoints").iterdir()
    saved = [int(path.name) for path in folders if path.name.isdecimal()]
    assert max(saved) >= last > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 2}, "needs --coordinator=HOST:PORT"),
        ({"processes": 2, "coordinator": "auto"}, "needs --coordinator=HOST:PORT"),
        ({"coordinator": "host"}, "must be HOST:PORT"),
        ({"coordinator": "host:99999"}, "must be HOST:PORT"),
        ({"coordinator": "h:1", "processes": 2, "process": 2}, "must be below"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(errors.InputError, match=message):
        processes.ProcessOptions(**options)


def test_a_process_works_alone():
    with processes.joined(processes.ALONE):
        assert processes.is_writer()
        assert processes.share([1, 2, 3]) == [1, 2, 3]
        assert processes.gather({"a": 1}) == [{"a": 1}]
        assert processes.make_any()(True) is True
    with pytest.raises(errors.InputError, match="unchanged"), processes.leaving():
        raise errors.InputError("unchanged")


def test_launchers_are_detected():
    assert processes._launched({"SLURM_STEP_NUM_TASKS": "4"})
    assert processes._launched({"OMPI_COMM_WORLD_SIZE": "2"})
    assert not processes._launched({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"})
    assert not processes._launched({})


def test_exit_message_names_the_process_at_fault():
    code, text = processes._exit_message(
        RuntimeError("Gloo all-reduce: closed by peer")
    )
    assert code == 1 and "another process has stopped" in text
    code, text = processes._exit_message(errors.InputError("a.png: damaged"))
    assert code == 2 and text.startswith("error: a.png: damaged")
    code, text = processes._exit_message(ZeroDivisionError("ours"))
    assert code == 1 and "Traceback" not in text.splitlines()[-1] and "ours" in text
