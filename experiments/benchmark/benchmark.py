"""Measures speed and memory, compared with their limits.

    python -m experiments.benchmark data --data_dir=FOLDER
    python -m experiments.benchmark cpu
    python -m experiments.benchmark masks
    python -m experiments.benchmark start
    python -m experiments.benchmark restore
    python -m experiments.benchmark growth
    python -m experiments.benchmark gpu --minutes=9
    python -m experiments.benchmark damage
    python -m experiments.benchmark film --data_dir=FOLDER

Each thing measured runs in a process of its own; memory is that of the process and
its children together, sampled. `--quick` takes a few hundred pairs.
"""

import dataclasses
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import tqdm
from etils import epy

from restoration.base import config, errors, files
from restoration.training import provenance

with epy.lazy_imports():
    from experiments.benchmark import (
        cpu as benchmark_cpu,
    )
    from experiments.benchmark import (
        damage,
        film,
        gpu,
        growth,
        layers,
        masks,
        restore,
        start,
    )
    from restoration import clean, degrade, prepare
    from restoration.data import pairs, sources
    from restoration.devices import backend
    from restoration.images import frames

# Crops and batches of the measured pipelines.
_CROP, _BATCH = 128, 64
# Packages that determine the speed, besides Python.
_PACKAGES = ("jax", "tensorflow-cpu", "tensorflow-datasets", "pillow", "pyvips")

# Batches before a measurement, and seconds of it.
_WARM, _SECONDS = 5, 20.0


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
    """Options of `python -m experiments.benchmark`."""

    what: tuple[str, ...] = config.option(
        help="what to measure: data, cpu, layers, masks, start, restore, growth, gpu, "
        "damage or film",
        positional=True,
    )
    data_dir: str = config.option(
        "",
        help="clean photographs to make pairs of; or, with --pairs=0, the pairs; film: "
        "the benchmark's folder",
    )
    pairs: int = config.option(31_801, help="pairs to make; 0: --data_dir holds them")
    out: str = config.option(
        "", short="o", help="JSON file; default: experiments/results/WHAT.json"
    )
    scratch: str = config.option(
        "", help="folder for working files; default: a temporary one"
    )
    quick: bool = config.option(False, help="318 pairs, short runs, marked as quick")
    model: tuple[str, ...] = config.option(
        (), help="restore: these shipped models alone, the others stay in the file"
    )
    frames: int = config.option(
        0, help="film: the first so many frames of each clip; 0: all", minimum=0
    )
    workers: int = config.option(1, help="film: ways measured at once", minimum=1)
    peer_python: str = config.option(
        "", help="film: a Python with VapourSynth, to measure SpotLess beside"
    )
    other_python: str = config.option(
        "", help="cpu, masks: a Python with another JAX, to measure ours in too"
    )
    minutes: float = config.option(
        0.0, help="gpu: begin nothing after so long; 0: do all", minimum=0.0
    )
    step: str = config.option("", help="for its own subprocesses")

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        if len(self.what) != 1 or self.what[0] not in _BENCHMARKS:
            raise errors.InputError(
                f"{' '.join(self.what)}: choose one of {', '.join(_BENCHMARKS)}"
            )


@dataclasses.dataclass(frozen=True)
class Usage:
    """Time and memory used by a process and its children.

    Attributes:
      seconds: from start to end.
      cpu_seconds: of all cores.
      peak_bytes: highest sampled memory that is not backed by files.
      result: the JSON object that it printed last.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    result: dict[str, Any]


def _memory(process: psutil.Process) -> int:
    """Returns the memory of a process and its children that is not backed by files.

    Pages of memory-mapped data and of libraries belong to the system's cache.
    """
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            info = one.memory_info()
            total += info.rss - info.shared
        except psutil.Error:
            continue
    return total


def measure(command: list[str]) -> Usage:
    """Runs a command that prints a JSON object last.

    Args:
      command: the program and its arguments.

    Returns:
      The time and memory that it used.

    Raises:
      InputError: if it fails; contains the end of its output.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        running = subprocess.Popen(command, stdout=out, stderr=err)
        peaks = [0]

        def watch() -> None:
            process = psutil.Process(running.pid)
            while running.poll() is None:
                try:
                    peaks[0] = max(peaks[0], _memory(process))
                except psutil.Error:
                    return
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = running.wait()
        seconds = time.monotonic() - start
        watcher.join()
        out.seek(0)
        err.seek(0)
        lines = out.read().decode().strip().splitlines()
        if code:
            tail = err.read().decode(errors="replace")[-400:]
            raise errors.InputError(f"{' '.join(command)}: exit {code}: {tail}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = sum(
        getattr(after, name) - getattr(before, name)
        for name in ("ru_utime", "ru_stime")
    )
    return Usage(seconds, used, peaks[0], json.loads(lines[-1]))


def machine() -> dict[str, Any]:
    """Returns the machine and the versions in use."""
    return {
        "processor": provenance.processor(),
        "cores": provenance.cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "packages": provenance.packages(_PACKAGES),
    }


# The steps that run in processes of their own.


def _step_clean(folder: str) -> dict[str, Any]:
    start = time.monotonic()
    summary = clean.clean(clean.CleanOptions(data_dir=folder, dry_run=True))
    return {"pairs": summary.pairs, "seconds": time.monotonic() - start}


def _step_prepare(folder: str, out: str, form: str, encoding: str) -> dict[str, Any]:
    start = time.monotonic()
    done = prepare.prepare(
        prepare.PrepareOptions(
            data_dir=folder, out=out, format=form, encoding=encoding, overwrite=True
        )
    )
    size = sum(p.stat().st_size for p in done.folder.rglob("*") if p.is_file())
    return {
        "pairs": sum(done.counts.values()),
        "seconds": time.monotonic() - start,
        "bytes": size,
    }


def _step_pipeline(folder: str, seconds: str) -> dict[str, Any]:
    """Draws training batches for some seconds."""
    backend.keep_freed_memory()
    start = time.monotonic()
    source = sources.open_source(folder)
    batches = source.train_batches(
        source.splits["train"], image_size=_CROP, batch_size=_BATCH, seed=0,
        start_step=0, total_steps=10**6, augment=True,
    )  # fmt: skip
    for _ in range(_WARM):
        next(batches)
    opened = time.monotonic() - start
    start, cpu, count = time.monotonic(), time.process_time(), 0
    while time.monotonic() - start < float(seconds):
        next(batches)
        count += _BATCH
    passed = time.monotonic() - start
    return {
        "pairs": count,
        "seconds": passed,
        "cores": (time.process_time() - cpu) / passed,
        "seconds_to_start": opened,
    }


def _step_decode(folder: str, reader: str) -> dict[str, Any]:
    """Decodes files one after the other on one core, the limit of the audit."""
    members = next(m for m in pairs.find_splits(folder).values() if m)[:300]
    _DECODERS[reader](members[0].input)  # imports what it needs
    start = time.process_time()
    for pair in members:
        for path in (pair.input, pair.output):
            _DECODERS[reader](path)
    used = (time.process_time() - start) / (2 * len(members))
    return {"milliseconds": 1000 * used}


def _with_pillow(path: pathlib.Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _with_tensorflow(path: pathlib.Path) -> None:
    from restoration.data import input_pipeline

    input_pipeline.decode(path.read_bytes())


_DECODERS: dict[str, Callable] = {
    "pillow": _with_pillow,
    "libvips": lambda path: frames.read(path),  # without libvips the rest runs
    "tensorflow": _with_tensorflow,
}
_STEPS: dict[str, Callable] = {
    "clean": _step_clean,
    "prepare": _step_prepare,
    "pipeline": _step_pipeline,
    "decode": _step_decode,
}


def _run_step(name: str, *arguments: str) -> Usage:
    step = json.dumps([name, *map(str, arguments)])
    command = [sys.executable, "-m", "experiments.benchmark", "data", f"--step={step}"]
    return measure(command)


def _row(usage: Usage) -> dict[str, float]:
    result = usage.result
    return {
        "pairs": result["pairs"],
        "pairs_per_second": round(result["pairs"] / result["seconds"], 1),
        "cores": round(result.get("cores", usage.cpu_seconds / usage.seconds), 2),
        "peak_mb": round(usage.peak_bytes / 1e6),
    }


# The data benchmark.


def _make_pairs(options: BenchmarkOptions, count: int, folder: pathlib.Path) -> None:
    """Makes pairs of 256×256 from clean photographs, with `degrade`."""
    sources_folder = folder.with_name("clean")
    images = sorted(frames.list_images(options.data_dir))
    large = [
        name
        for name in images
        if min(frames.size(pathlib.Path(options.data_dir, name))) >= 256
    ]
    if not large:
        raise errors.InputError(f"{options.data_dir}: no image of 256×256 or more")
    # The number of pairs must be a multiple of the number of photographs.
    used = max(n for n in range(1, len(large) + 1) if count % n == 0)
    sources_folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(large[:used]):
        suffix = pathlib.Path(name).suffix
        shutil.copy(
            pathlib.Path(options.data_dir, name),
            sources_folder / f"photo-{number:05d}{suffix}",
        )
    failed = degrade.degrade(
        degrade.DegradeOptions(
            input=(str(sources_folder),), output=str(folder), crop_size=256,
            variants=count // used, kinds=_KINDS,
        )
    )  # fmt: skip
    if failed:
        raise errors.InputError(failed[0])


def _subset(folder: pathlib.Path, count: int, small: pathlib.Path) -> None:
    """Copies the first pairs of a folder into another."""
    for pair in pairs.match(folder)[:count]:
        for side, path in (("input", pair.input), ("output", pair.output)):
            target = small / side / path.relative_to(folder / side)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


# Damage of the pairs, which does not matter for the speed of reading.
_KINDS = ("grain", "dust", "scratches")

# The prepared formats, and whether to prepare the whole folder instead of a tenth.
_FORMATS = {
    "TFRecord, pixels": ("tfrecord", "raw", True),
    "TFRecord, files": ("tfrecord", "files", False),
    "ArrayRecord, pixels": ("array_record", "raw", False),
    "npy": ("npy", "raw", True),
}


def _measure_folder(
    folder: pathlib.Path, formats: dict[str, tuple], seconds: float, bar: Any
) -> dict[str, Any]:
    """Measures clean, prepare and the pipelines for one paired folder."""

    def run(label: str, *step: str) -> dict[str, float]:
        bar.set_description(label)
        row = _row(_run_step(*step))
        bar.update()
        return row

    rows: dict[str, Any] = {
        "clean": run("clean", "clean", folder),
        "prepare": {},
        "pipeline": {"folder, PNG": run("folder", "pipeline", folder, seconds)},
    }
    out = folder.with_name("prepared")
    for label, (format_, encoding, _) in formats.items():
        shutil.rmtree(out, ignore_errors=True)
        usage = _run_step("prepare", folder, out, format_, encoding)
        bar.update()
        rows["prepare"][label] = _row(usage) | {
            "gigabytes": round(usage.result["bytes"] / 1e9, 2)
        }
        rows["pipeline"][label] = run(label, "pipeline", out, seconds)
    shutil.rmtree(out, ignore_errors=True)
    return rows


def measure_data(options: BenchmarkOptions) -> dict[str, Any]:
    """Measures cleaning, preparing and reading of pairs.

    Args:
      options: from the command line.

    Returns:
      The content of `--out`, without the machine.

    Raises:
      InputError: if there is nothing to measure.
    """
    if not options.data_dir:
        raise errors.InputError(
            "--data_dir: give a folder of photographs of at least 256×256 pixels"
        )
    count = 318 if options.quick else options.pairs
    seconds = 2.0 if options.quick else _SECONDS
    with tempfile.TemporaryDirectory(dir=options.scratch or None) as scratch:
        folder = pathlib.Path(options.data_dir)
        if count:
            folder = pathlib.Path(scratch, "pairs")
            _make_pairs(options, count, folder)
        found = sum(map(len, pairs.find_splits(folder).values()))
        small = pathlib.Path(scratch, "tenth")
        _subset(folder, found // 10, small / "pairs")
        whole = pathlib.Path(scratch, "whole", "pairs")
        whole.parent.mkdir()
        whole.symlink_to(folder.resolve(), target_is_directory=True)
        decode = {}
        for reader in _DECODERS:
            usage = _run_step("decode", folder, reader)
            decode[reader] = round(usage.result["milliseconds"], 2)
        runs = {}
        large = {label: form for label, form in _FORMATS.items() if form[2]}
        sets = ((found // 10, small / "pairs", _FORMATS), (found, whole, large))
        with tqdm.tqdm(total=sum(2 + 2 * len(f) for *_, f in sets), unit="run") as bar:
            for name, one, formats in sets:
                runs[str(name)] = _measure_folder(one, formats, seconds, bar)
    return {
        "pairs": found,
        "kinds": list(_KINDS),
        "crop": _CROP,
        "batch": _BATCH,
        "decode_ms": decode,
        "runs": runs,
    }


_BENCHMARKS: dict[str, Callable[[BenchmarkOptions], dict[str, Any]]] = {
    "data": measure_data,
    "cpu": lambda options: benchmark_cpu.measure(options.quick, options.other_python),
    "layers": lambda options: layers.measure(options.quick),
    "masks": lambda options: masks.measure(options.quick, options.other_python),
    "start": lambda options: start.measure(options.quick),
    "growth": lambda options: growth.measure(
        options.quick, pathlib.Path(_out(options))
    ),
    "restore": lambda options: restore.measure(
        options.quick, options.model, _measured_models(options)
    ),
    "gpu": lambda options: gpu.measure(options.quick, _out(options), options.minutes),
    "damage": lambda options: damage.measure(options.quick),
    "film": lambda options: film.measure(
        options.data_dir,
        options.quick,
        options.frames,
        options.workers,
        options.peer_python,
    ),
}


def _out(options: BenchmarkOptions) -> str:
    return options.out or f"experiments/results/{options.what[0]}.json"


def _measured_models(options: BenchmarkOptions) -> dict[str, Any]:
    """Returns the file's results of models that are not measured now."""
    path = pathlib.Path(_out(options))
    if not options.model or not path.is_file():
        return {}
    before = json.loads(path.read_text(encoding="utf-8"))
    if (before["quick"], before["machine"]) != (options.quick, machine()):
        raise errors.InputError(
            f"{path}: of another machine, or other versions; measure all models, "
            "without --model"
        )
    return before["models"]


def main(options: BenchmarkOptions) -> None:
    """Entry point."""
    if options.step:
        name, *arguments = json.loads(options.step)
        print(json.dumps(_STEPS[name](*arguments)))
        return
    what = options.what[0]
    found = _BENCHMARKS[what](options)
    result = {"benchmark": what, "quick": options.quick, "machine": machine()} | found
    files.write_text(_out(options), json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
