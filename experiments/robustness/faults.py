"""Injects faults into training runs and compares them with runs without faults.

    python -m experiments.robustness.faults kill --rounds 50
    python -m experiments.robustness.faults kill --rounds 50 --sources drawn
    python -m experiments.robustness.faults damage disk

`kill` ends real training runs with SIGKILL at random times, often while a checkpoint is
written, and continues them: the result must equal that of an uninterrupted run, bit for
bit. `damage` changes the files of the latest checkpoint, which must give a warning and
the use of the checkpoint before. `disk` lets the disk fill up.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm
from etils import epy

from restoration.base import cli, config, errors, files
from restoration.data import pairs
from restoration.images import frames
from restoration.training import provenance, train_config

with epy.lazy_imports():
    import jax

    from restoration import damage as damage_kinds
    from restoration import models, train
    from restoration.data import array_files
    from restoration.training import checkpoint, optim, repeat, step, trained

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "faults.json"

# The sources of pairs of the killed runs.
SOURCES = ("folder", "arrays", "device", "drawn")

# Kinds of damage to a checkpoint.
DAMAGES = ("bit flipped", "cut short", "emptied", "file deleted", "seal changed",
           "half written")  # fmt: skip

# Seconds after which a command hangs.
_PATIENCE = 1800

# Mounts a small disk in a name space, which needs no privilege. The command fails on
# it; then the disk grows, and the command is started again.
_SMALL_DISK = """
work=$1; out=$2; small=$3; shift 3
mount -t tmpfs -o size=${small}k tmpfs "$work" || exit 99
"$@" >"$out/said0" 2>&1; echo $? >"$out/code0"
mount -o remount,size=256m tmpfs "$work" || exit 98
"$@" >"$out/said1" 2>&1; echo $? >"$out/code1"
cp -r "$work/run" "$out/run"
"""
_OWN_SPACE = ("unshare", "--user", "--map-root-user", "--mount")


@dataclasses.dataclass(frozen=True)
class FaultOptions:
    """Options of `python -m experiments.robustness.faults`."""

    what: tuple[str, ...] = config.option(help="kill, damage, disk", positional=True)
    sources: tuple[str, ...] = config.option(
        (), help=f"of {', '.join(SOURCES)}; by default all, in turn; repeatable"
    )
    rounds: int = config.option(50, help="runs to kill or damage", minimum=1)
    seed: int = config.option(0, help="seed of moments and damage", minimum=0)
    out: str = config.option(str(RESULTS), help="JSON file", short="o")

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        for what in self.what:
            if what not in ("kill", "damage", "disk"):
                raise errors.InputError(f"{what}: choose kill, damage or disk")
        for source in self.sources:
            if source not in SOURCES:
                raise errors.InputError(
                    f"--sources={source}: choose {', '.join(SOURCES)}"
                )


def make_data(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Writes a few small pairs, the same prepared as arrays, and clean pictures.

    Args:
      folder: an empty one.

    Returns:
      The `--data_dir` of each of `SOURCES`, of the last the `--clean`.
    """
    generator = np.random.default_rng(0)
    for split, count in (("train", 14), ("validation", 3), ("test", 1)):
        for number in range(count):
            truth = generator.random((4, 4, 3)).repeat(6, 0).repeat(5, 1)
            noisy = np.clip(truth + generator.normal(0, 0.1, truth.shape), 0, 1)
            root = folder / "pairs" / split
            frames.write(root / "output" / f"{split}_{number}.png", truth)
            frames.write(root / "input" / f"{split}_{number}.png", noisy)
    prepared = folder / "arrays"
    prepared.mkdir()
    array_files.write(prepared, pairs.find_splits(folder / "pairs"))
    for name in "abcdefghijklmno":  # one is held out; an epoch has four steps
        picture = generator.random((8, 8, 3)).repeat(4, 0).repeat(4, 1)
        frames.write(folder / "clean" / f"{name}.png", picture)
    return {
        "folder": folder / "pairs",
        "arrays": prepared,
        "device": prepared,
        "drawn": folder / "clean",
    }


def run_options(
    source: str, data_dir: pathlib.Path, workdir: pathlib.Path, epochs: int
) -> train_config.TrainConfig:
    """Returns a run with everything that has a state, and checkpoints all the time.

    Lines of the log and checkpoints fall on different steps.
    """
    if source == "drawn":
        kinds = {"grain", "cast"}  # the others compile for minutes
        data = {
            "clean": str(data_dir), "piece_size": 32,
            "leave_out": ",".join(sorted(set(damage_kinds.KINDS) - kinds)),
        }  # fmt: skip
    else:
        data = {"data_dir": str(data_dir)}
    return train_config.TrainConfig(
        **data, workdir=str(workdir), epochs=epochs, batch_size=4,
        image_size=16, schedule="cosine", warmup_steps=5, clip_norm=1.0, ema_decay=0.9,
        checkpoint_every=3, log_every=5, evaluate_every=2,
        cache="device" if source == "device" else "none",
    )  # fmt: skip


def command(options: train_config.TrainConfig) -> list[str]:
    """Returns the command line of a run."""
    return [sys.executable, "-m", "restoration.train"] + [
        f"--{name}={value}"
        for name, value in dataclasses.asdict(options).items()
        if value != train_config.TrainConfig.__dataclass_fields__[name].default
    ]


@contextlib.contextmanager
def _compiled(folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """Gives the environment of a command that takes its programs from a folder."""
    with tempfile.TemporaryDirectory() as own:
        shutil.copytree(folder, own, dirs_exist_ok=True)
        yield os.environ | {
            "JAX_COMPILATION_CACHE_DIR": own,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
        }


# A run starts faster if it is forked from a process that has imported these.
_PRELOADED = ["tensorflow", "jax", "flax.linen", "optax", "orbax.checkpoint",
              "restoration.training.loop", "restoration.train"]  # fmt: skip


def _run(options: train_config.TrainConfig, compiled: str, said: str) -> None:
    """Trains in this process, which may be killed."""
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # Named in the environment too, or the command would take the user's cache.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    train.main(options)


@contextlib.contextmanager
def _started(
    options: train_config.TrainConfig, compiled: pathlib.Path, *, keep: bool = False
) -> Iterator[multiprocessing.Process]:
    """Starts a run in a process of its own, which is killed at the end of the context.

    The run uses a copy of the compiled programs, since a kill may damage one that is
    being written. With `keep`, programs that the run adds are copied back.
    """
    compiled.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory() as own:
        shutil.copytree(compiled, own, dirs_exist_ok=True)
        said = str(compiled.parent / "said")
        running = context.Process(target=_run, args=(options, own, said))
        running.start()
        try:
            yield running
        finally:
            running.kill()
            running.join()
        if keep:
            shutil.copytree(own, compiled, dirs_exist_ok=True)


def finish(options: train_config.TrainConfig, compiled: pathlib.Path) -> None:
    """Starts or continues a run and waits for its end.

    Args:
      options: of the run.
      compiled: folder of compiled programs.

    Raises:
      InputError: when it fails.
    """
    with _started(options, compiled, keep=True) as running:
        running.join(_PATIENCE)
        code = running.exitcode
    if code != 0:  # None: it hangs
        said = (compiled.parent / "said").read_text(errors="replace")
        raise errors.InputError(f"exit {code}: {said[-400:]}")


def _wait_for(running: multiprocessing.Process, seen: Callable[[], bool]) -> bool:
    """Waits until `seen` returns True; returns False if the run ends before."""
    end = time.monotonic() + _PATIENCE
    while running.is_alive() and time.monotonic() < end:
        if seen():
            return True
        time.sleep(0.001)
    return False


def _left(workdir: pathlib.Path) -> str:
    """Returns what a run was doing when it was killed."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if any("tmp" in name for name in names):
        return "writing a checkpoint"
    if any(name.endswith(".deleted") for name in names):
        return "deleting a checkpoint"
    whole = [folder / name for name in names if name.isdecimal()]
    if any(not (path / "seal.json").is_file() for path in whole):
        return "sealing a checkpoint"
    return "between checkpoints" if whole else "before the first checkpoint"


def kill_once(
    options: train_config.TrainConfig,
    compiled: pathlib.Path,
    generator: np.random.Generator,
    *,
    target: str,
) -> str:
    """Starts a run and kills it.

    Args:
      options: of the run.
      compiled: folder of compiled programs.
      generator: draws the time of the kill.
      target: "start" kills at any time after the start, "training" after the first
        checkpoint, "writing" soon after the start of writing a checkpoint.

    Returns:
      What the run was doing when it was killed; "" if it had ended before.
    """
    workdir = pathlib.Path(options.workdir)
    folder = workdir / "checkpoints"

    def writing() -> bool:
        return any(folder.glob("*.orbax-checkpoint-tmp*"))

    with _started(options, compiled) as running:
        if target == "start":
            time.sleep(generator.uniform(0, 6))
        elif _wait_for(running, lambda: any(folder.glob("*/seal.json"))):
            time.sleep(generator.uniform(0, 2))
            if target == "writing" and _wait_for(running, writing):
                time.sleep(generator.uniform(0, 0.03))
        if not running.is_alive():
            return ""
        running.kill()
        running.join()
    return _left(workdir)


def kill(
    rounds: int,
    seed: int,
    folder: pathlib.Path,
    epochs: int = 12,
    sources: Sequence[str] = SOURCES,
    on_round: Callable[[dict], object] = lambda found: None,
) -> dict:
    """Kills runs, continues them, and compares their results with uninterrupted runs.

    Args:
      rounds: number of runs; each is killed once or twice.
      seed: of the times of the kills.
      folder: an empty folder for working files.
      epochs: of each run.
      sources: how runs read their pairs, in turn.
      on_round: called with the counts after each run.

    Returns:
      "rounds"; "kills"; "killed while", the number of kills by activity; "equal", the
      number of runs that ended with the same log and state; and "different", the
      differences of the others.
    """
    data, compiled = make_data(folder), folder / "compiled"
    for source in sources:
        whole = run_options(source, data[source], folder / f"whole_{source}", epochs)
        finish(whole, compiled)
    found: dict[str, Any] = {
        "rounds": 0, "kills": 0, "killed while": {}, "equal": 0, "different": [],
    }  # fmt: skip
    for number in tqdm.trange(rounds, unit="run", desc="kill"):
        generator = np.random.default_rng((seed, number))
        source = sources[number % len(sources)]
        workdir = folder / "killed"
        options = run_options(source, data[source], workdir, epochs)
        for _ in range(1 + int(generator.random() < 0.2)):
            target = generator.choice(
                ["start", "training", "writing"], p=[0.15, 0.35, 0.5]
            )
            activity = kill_once(options, compiled, generator, target=target)
            if activity:
                found["kills"] += 1
                found["killed while"].setdefault(activity, 0)
                found["killed while"][activity] += 1
        finish(options, compiled)
        different = repeat.compare(folder / f"whole_{source}", workdir)
        found["equal"] += not different
        found["different"] += [f"round {number}: {line}" for line in different]
        found["rounds"] += 1
        on_round(found)
        shutil.rmtree(workdir)
    return found


def _damage(path: pathlib.Path, kind: str, generator: np.random.Generator) -> str:
    """Damages a checkpoint; returns the name that the warning must contain."""
    files = sorted(
        (file for file in path.rglob("*") if file.is_file() and file.stat().st_size),
        key=str,
    )
    files = [file for file in files if file.name != "seal.json"]
    file = files[int(generator.integers(len(files)))]
    name = file.relative_to(path).as_posix()
    if kind == "half written":
        # As after a crash of the system: some files and no checksums.
        (path / "seal.json").unlink()
        for lost in generator.choice(files, len(files) // 2, replace=False):
            lost.unlink()
        return "not sealed"
    if kind == "seal changed":
        file, name = path / "seal.json", "seal.json"
    data = bytearray(file.read_bytes())
    if kind in ("bit flipped", "seal changed"):
        offset = int(generator.integers(len(data)))
        if kind == "seal changed":  # white space has no meaning
            while chr(data[offset]).isspace():
                offset = int(generator.integers(len(data)))
        data[offset] ^= 1 << int(generator.integers(8))
    elif kind == "cut short":
        del data[int(generator.integers(len(data))) :]
    elif kind == "emptied":
        data.clear()
    file.write_bytes(data)
    if kind == "file deleted":
        file.unlink()
    return name


class _Warnings(logging.Handler):
    """Collects warnings."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a warning."""
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    handler = _Warnings()
    logging.getLogger().addHandler(handler)
    try:
        yield handler.lines
    finally:
        logging.getLogger().removeHandler(handler)


def _new_state(options: train_config.TrainConfig) -> Any:
    return step.init_state(
        models.get_model(options.model),
        optim.make_optimizer(options, 1),
        jax.random.key(1),
        ema=bool(options.ema_decay),
    )


def damage(rounds: int, seed: int, folder: pathlib.Path) -> dict:
    """Damages the latest checkpoint of a run and opens the run again.

    Args:
      rounds: how often, of each kind of damage.
      seed: of the damage.
      folder: an empty one, to work in.

    Returns:
      For each kind "tried", "named" (a warning named the file and the step that is
      used instead) and "restored" (that step's state, bit for bit).
    """
    data = make_data(folder)
    run = folder / "run"
    options = run_options("arrays", data["arrays"], run, 2)
    run.train(options)
    last, before = sorted(int(p.name) for p in (run / "checkpoints").iterdir())[::-1][
        :2
    ]
    copy = folder / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / str(last))
    expected = trained.digest(copy)
    found = {}
    for kind in DAMAGES:
        found[kind] = {"tried": rounds, "named": 0, "restored": 0}
        for number in tqdm.trange(rounds, unit="checkpoint", desc=kind):
            generator = np.random.default_rng((seed, DAMAGES.index(kind), number))
            shutil.rmtree(copy)
            shutil.copytree(run, copy)
            name = _damage(copy / "checkpoints" / str(last), kind, generator)
            with _warnings() as lines:
                manager = checkpoint.open_manager(copy, keep=options.keep)
                state = checkpoint.restore_latest(manager, _new_state(options))
                manager.close()
            warnings = [line for line in lines if name in line and str(before) in line]
            found[kind]["named"] += len(warnings) == 1
            same = int(state.step) == before and trained.digest(copy) == expected
            found[kind]["restored"] += same
    return found


def has_small_disks() -> bool:
    """Returns whether small disks can be mounted here without privilege."""
    if not shutil.which(_OWN_SPACE[0]):
        return False
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        return not subprocess.run([*_OWN_SPACE, *mount], capture_output=True).returncode


def _fill_disk(
    options: train_config.TrainConfig,
    environment: dict[str, str],
    out: pathlib.Path,
    kilobytes: int,
) -> list[tuple[int, str]]:
    """Trains on a disk that fills up, then with room; returns exit codes and output."""
    work = pathlib.Path(options.workdir).parent
    script = ["sh", "-c", _SMALL_DISK, "sh", str(work), str(out), str(kilobytes)]
    done = subprocess.run(
        [*_OWN_SPACE, *script, *command(options)],
        capture_output=True, text=True, timeout=2 * _PATIENCE, env=environment,
    )  # fmt: skip
    if done.returncode:
        raise errors.InputError(f"no small disk: {done.stderr[-200:]}")
    return [
        (int((out / f"code{part}").read_text()), (out / f"said{part}").read_text())
        for part in (0, 1)
    ]


def disk(rounds: int, seed: int, folder: pathlib.Path, epochs: int = 8) -> dict:
    """Lets the disk fill up during training, makes room, and continues.

    Args:
      rounds: number of runs; the disks differ in size.
      seed: of the sizes.
      folder: an empty folder for working files.
      epochs: of each run.

    Returns:
      "rounds"; "refused", the number of runs that ended with exit code 2 and one line
      with the reason; "equal", the number of runs that ended like an uninterrupted run
      after they were continued; and "different", the differences of the others.
    """
    if not has_small_disks():
        raise errors.InputError(
            "disk: no small disk can be made here (unshare and mount of util-linux, "
            "name spaces for users); try another machine"
        )
    data, compiled = make_data(folder), folder / "compiled"
    # Longer than the part before the fault, which must be a run of its own.
    whole = dataclasses.replace(
        run_options("arrays", data["arrays"], folder / "whole", epochs),
        schedule="constant",
    )
    finish(whole, compiled)
    found: dict[str, Any] = {
        "rounds": rounds,
        "refused": 0,
        "equal": 0,
        "different": [],
    }
    for number in tqdm.trange(rounds, unit="run", desc="disk"):
        generator = np.random.default_rng((seed, number))
        out = folder / f"out{number}"
        work = folder / "disk"
        for path in (out, work):
            path.mkdir(exist_ok=True)
        options = dataclasses.replace(whole, workdir=str(work / "run"))
        with _compiled(compiled) as environment:
            size = int(generator.integers(600, 1500))
            parts = _fill_disk(options, environment, out, size)
        (code, said), (again, _) = parts
        lines = [line for line in said.splitlines() if "no space left" in line]
        refused = code == 2 and len(lines) == 1 and "Traceback" not in said
        found["refused"] += refused
        different = repeat.compare(folder / "whole", out / "run")
        found["equal"] += again == 0 and not different
        if not refused or again or different:
            found["different"].append([number, code, said[-300:], again, *different])
    return found


def _keep(path: pathlib.Path, what: str, found: dict) -> None:
    """Writes counts beside those of other faults."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    results[what] = found
    results["machine"] = {
        "devices": provenance.devices(), "packages": provenance.packages(),
    }  # fmt: skip
    files.write_text(path, json.dumps(results, indent=1) + "\n")


def _is_kept(found: dict) -> bool:
    """Returns whether all rounds had the promised outcome."""
    tried = found["rounds"] if "rounds" in found else found["tried"]
    promised = ("equal", "refused", "named", "restored")
    return all(found[name] == tried for name in promised if name in found)


def main(options: FaultOptions) -> int:
    """Injects the faults and writes the counts; returns 1 after a bad outcome."""
    path = pathlib.Path(options.out)
    kept = True
    for what in options.what or ("kill", "damage", "disk"):
        name_of = what
        if what == "kill" and options.sources:
            name_of = f"kill, {' and '.join(options.sources)}"
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            if what == "kill":
                found = kill(
                    options.rounds, options.seed, folder,
                    sources=options.sources or SOURCES,
                    on_round=functools.partial(_keep, path, name_of),
                )  # fmt: skip
            else:
                work = damage if what == "damage" else disk
                found = work(options.rounds, options.seed, folder)
        _keep(path, name_of, found)
        print(name_of, found)
        parts = found.values() if what == "damage" else [found]
        kept &= all(map(_is_kept, parts))
    return int(not kept)


if __name__ == "__main__":
    cli.run(main, FaultOptions)
