"""Gives readers inputs that are guided towards code that was not reached yet.

    pip install '.[fuzz]'
    python -m experiments.robustness.fuzz_guided --runs=20000

atheris (libFuzzer) sees which branches of this package an input takes, keeps those that
take new ones and changes them further. A target ends at its first finding: an error
that is not one line of `InputError`, a part of a result, a hang or a gigabyte more.
`experiments.robustness.fuzz` tries more kinds of input, without that sight.
"""

import dataclasses
import gc
import importlib.util
import json
import multiprocessing
import os
import pathlib
import re
import tempfile
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.robustness import fuzz as unguided
from experiments.robustness import fuzz_restore
from restoration.audit import quarantine
from restoration.base import cli, config, errors, files
from restoration.data import array_files, pairs
from restoration.images import frames
from restoration.models import pretrained
from restoration.reports import run_files
from restoration.training import train_config

# Seconds after which an input hangs, and the memory that a process may have, MB.
_PATIENCE, _MEMORY = 30, 4000

# Exit codes of libFuzzer.
_ENDS = {0: "none", 70: "hung", 71: "memory", 77: "surprised"}

# The longest input, bytes.
_LONGEST = 4096

Target = tuple[list[bytes], Callable[[bytes], Any]]


@dataclasses.dataclass(frozen=True)
class GuidedOptions:
    """Options of `python -m experiments.robustness.fuzz_guided`."""

    runs: int = config.option(20000, help="inputs for each target", minimum=1)
    seed: int = config.option(1, help="seed of the inputs", minimum=1)
    target: tuple[str, ...] = config.option((), help="these alone; repeatable")
    out: str = config.option(
        "experiments/results/fuzz_guided.json", help="JSON file", short="o"
    )


class FoundError(Exception):
    """A damaged image that was not refused properly."""


def _config(folder: pathlib.Path) -> Target:
    """`config.json` of a run."""
    del folder
    seed = config.to_json(train_config.TrainConfig(data_dir="d", workdir="w")).encode()
    return [seed], lambda data: config.from_json(
        data.decode(errors="replace"), train_config.TrainConfig, source="config.json"
    )


def _journal(folder: pathlib.Path) -> Target:
    """The journal of `clean`."""
    move = {
        "source": "input/a.png",
        "target": f"{quarantine.FOLDER}/input/a.png",
        "sha256": "0" * 64,
        "findings": [],
    }
    lines = [
        {"kind": "start", "version": 1, "made_folder": True},
        {"kind": "plan", "moves": [move]},
        {"kind": "done", "failed": []},
    ]
    seed = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    path = folder / quarantine.JOURNAL
    path.parent.mkdir(parents=True)

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        quarantine.read_journal(str(folder))

    return [seed], attempt


def _metrics(folder: pathlib.Path) -> Target:
    """The log of a run, as `report` reads it."""
    line = {"step": 5, "split": "train", "loss": 0.1, "psnr": 20.0}

    def attempt(data: bytes) -> None:
        (folder / "metrics.jsonl").write_bytes(data)
        run_files.read_metrics(folder)

    return [json.dumps(line).encode() + b"\n"], attempt


def _prepared(folder: pathlib.Path) -> pathlib.Path:
    """Writes a few pairs as arrays."""
    generator = np.random.default_rng(0)
    for side in ("input", "output"):
        for name in ("a_1", "b_1", "c_1"):
            picture = generator.random((8, 8, 3)).astype("float32")
            frames.write(folder / "film" / side / f"{name}.png", picture)
    prepared = folder / "prepared"
    prepared.mkdir()
    array_files.write(prepared, pairs.find_splits(folder / "film"))
    return prepared


def _index(folder: pathlib.Path) -> Target:
    """The index of pairs that were prepared as arrays."""
    prepared = _prepared(folder)
    path = prepared / array_files.INDEX

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        array_files.open_arrays(prepared)

    return [path.read_bytes()], attempt


def _array(folder: pathlib.Path) -> Target:
    """An `.npy` file of pairs that were prepared as arrays."""
    prepared = _prepared(folder)
    path = next(prepared.rglob("input.npy"))

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        array_files.open_arrays(prepared)

    return [path.read_bytes()], attempt


def _weights(folder: pathlib.Path) -> Target:
    """The header of weights as safetensors."""
    whole = (pretrained.FOLDER / "basic.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    path = folder / "weights.safetensors"

    def attempt(data: bytes) -> None:
        path.write_bytes(len(data).to_bytes(8, "little") + data + whole[8 + length :])
        pretrained.load(path)

    return [whole[8 : 8 + length]], attempt


def _picture(kind: str) -> Callable[[pathlib.Path], Target]:
    """Returns the target of a picture format: `restore`, file to file."""

    def target(folder: pathlib.Path) -> Target:
        restorer = fuzz_restore.identity()

        def attempt(data: bytes) -> None:
            source = folder / f"damaged.{kind}"
            outcome = fuzz_restore.try_one(data, source, restorer)
            if outcome.partial or outcome.surprised:
                raise FoundError(outcome.line or "a part of a result")

        return fuzz_restore.originals(kind), attempt

    return target


TARGETS: dict[str, Callable[[pathlib.Path], Target]] = {
    "config": _config,
    "journal": _journal,
    "metrics": _metrics,
    "index": _index,
    "array": _array,
    "weights": _weights,
    **{f"restore {kind}": _picture(kind) for kind in fuzz_restore.FORMATS},
}


def _watch_branches() -> None:
    """Makes atheris trace the branches of this package's functions."""
    import atheris

    for found in gc.get_objects():
        if isinstance(found, types.FunctionType) and str(found.__module__).startswith(
            "restoration"
        ):
            atheris.instrument_func(found)


def _steered(name: str, options: GuidedOptions, folder: str) -> None:
    """Tries inputs of a target until libFuzzer ends this process."""
    import atheris

    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    work, corpus = pathlib.Path(folder) / "work", pathlib.Path(folder) / "corpus"
    work.mkdir()
    corpus.mkdir()
    seeds, attempt = TARGETS[name](work)
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            attempt(data)
        except errors.InputError as error:
            if "\n" in str(error):
                raise

    _watch_branches()
    limits = (f"-timeout={_PATIENCE}", f"-rss_limit_mb={_MEMORY}")
    atheris.Setup(
        [
            "fuzz", f"-runs={options.runs}", f"-seed={options.seed}", *limits,
            f"-max_len={max(_LONGEST, *map(len, seeds))}", "-print_final_stats=1",
            f"-artifact_prefix={folder}/", str(corpus),
        ],
        one,
    )  # fmt: skip
    atheris.Fuzz()


def _last_number(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


def fuzz(name: str, options: GuidedOptions) -> dict[str, Any]:
    """Tries guided inputs on one target, in a process of its own.

    Args:
      name: of TARGETS.
      options: how many inputs, and their seed.

    Returns:
      `tried`; `branches` reached by the inputs at the start and at the end; `kept`
      inputs that reached new ones; `finding`, "none" or what ended the target, with
      the end of the log as `example`.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("spawn").Process(
            target=_steered, args=(name, options, folder)
        )
        process.start()
        process.join()
        log = (pathlib.Path(folder) / "log").read_text(errors="replace")
    begun = re.search(r"INITED\s+cov: (\d+)", log)
    finding = _ENDS.get(process.exitcode, f"ended with {process.exitcode}")
    return {
        "tried": _last_number(r"stat::number_of_executed_units:\s+(\d+)", log),
        "branches": [
            int(begun[1]) if begun else 0,
            _last_number(r" cov: (\d+)", log),
        ],
        "kept": _last_number(r"stat::new_units_added:\s+(\d+)", log),
        "finding": finding,
        "example": "" if finding == "none" else log[-1500:],
    }


def main(options: GuidedOptions) -> int:
    """Tries all targets and writes the counts; returns 1 after a finding."""
    if importlib.util.find_spec("atheris") is None:
        raise errors.InputError("atheris is not installed; pip install '.[fuzz]'")
    names: Sequence[str] = options.target or tuple(TARGETS)
    for name in names:
        if name not in TARGETS:
            raise errors.InputError(f"--target={name}: choose of {', '.join(TARGETS)}")
    # The counts of other targets are kept.
    results = {}
    if options.target:
        results = unguided.earlier_counts(options.out, options.seed)
    for name in names:
        results[name] = fuzz(name, options)
        print(name, results[name], flush=True)
    counts = {
        "seed": options.seed,
        "tried": sum(counts["tried"] for counts in results.values()),
        "targets": results,
    }
    files.write_text(options.out, json.dumps(counts, indent=1) + "\n")
    return int(any(counts["finding"] != "none" for counts in results.values()))


if __name__ == "__main__":
    cli.run(main, GuidedOptions)
