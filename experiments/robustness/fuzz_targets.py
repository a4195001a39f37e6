"""Hostile inputs for everything that reads any (`experiments.robustness.fuzz`).

A target takes an empty folder, prepares what it needs in it, and returns the function
that tries one input. That returns whether the input was taken, and raises InputError
where it was refused.
"""

import contextlib
import csv
import dataclasses
import html.parser
import importlib
import itertools
import json
import os
import pathlib
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags
from etils import epy

from experiments.robustness import fuzz_bombs, fuzz_restore
from restoration import clean, report
from restoration.audit import quarantine
from restoration.base import cli, config, errors
from restoration.data import array_files, pairs, records, sources
from restoration.images import frames
from restoration.reports import training_run
from restoration.training import train_config

with epy.lazy_imports():
    import h5py
    from scipy import io

    from experiments.transfer import denoisers, keras_weights
    from restoration import models, prepare
    from restoration.audit import survey
    from restoration.data import input_pipeline
    from restoration.inference import batch, jobs, restore_file
    from restoration.models import pretrained

COMMANDS = (
    "train", "evaluate", "restore", "report", "clean", "degrade", "prepare", "extract",
)  # fmt: skip

# Inputs of the warm-up, in which modules are imported and caches filled.
WARM = 5

# Seconds that a command which imports JAX may take.
COMMAND_TIMEOUT = 120

# Values that stand where others are expected.
_STRANGE = (
    None, True, -1, 0, 10**400, -(10**30), 1e308, float("nan"), float("inf"), "", "\0",
    "../../../outside/x", "/tmp/outside", "a" * 5000, "<script>alert(1)</script>",
    "\ud800", [], {}, [[]], [None], {"a": {}}, "1e999", "💣", ["x"] * 100, 2**63,
)  # fmt: skip

_ODD_FLAGS = ("--no", "-i", "-o", "--help=x", "--flagfile=", "--verbosity=", "--x", "")

# Names that would be markup, or lead elsewhere, if they were not taken as text.
NAMES = (
    "<script>document.title='ran'<script>", "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>", "' onmouseover='alert(1)", "&lt;b&gt;&#x3c;i>",
    "{{ 7*7 }}", "{% raw %}", "</style><script>1", "-->", "a\nb", "a\tb", "\u202egnp",
    "javascript:alert(1)", "%00", "..", "-rf", "$(id)", "`id`", "A\u0308", "\udcff",
)  # fmt: skip


class UnsafeError(Exception):
    """A hostile input had a result that it should not have."""


# A target is a function that takes an empty folder, prepares files in it, and returns a
# function that tries one input. The latter returns whether the input was accepted, or
# raises InputError if it was refused.
Attempt = Callable[[np.random.Generator], bool]


def _any_of(generator: np.random.Generator, values: Sequence[Any]) -> Any:
    return values[int(generator.integers(len(values)))]


def mutated(value: Any, generator: np.random.Generator) -> Any:
    """Returns a JSON value with a part of it replaced, added or removed."""
    if generator.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return _any_of(generator, _STRANGE)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = _any_of(generator, keys)
    changed = value.copy()
    kind = generator.random()
    if kind < 0.15:
        del changed[key]
    elif kind < 0.25 and isinstance(changed, dict):
        changed[str(_any_of(generator, NAMES))] = _any_of(generator, _STRANGE)
    else:
        changed[key] = mutated(changed[key], generator)
    return changed


def mutated_json(value: Any, generator: np.random.Generator) -> bytes:
    """Returns JSON that was changed as a value or as text."""
    if generator.random() < 0.02:
        return b"[" * int(generator.integers(1, 200_000))
    if generator.random() < 0.6:
        value = mutated(value, generator)
    data = json.dumps(value).encode()
    if generator.random() < 0.4:
        data = fuzz_restore.damaged(data, generator)
    return data


def _picture(height: int = 40, width: int = 48) -> np.ndarray:
    """Returns an image, by default of the size of the damaged ones."""
    down = np.linspace(0, 0.5, height, dtype=np.float32)
    across = np.linspace(0, 0.5, width, dtype=np.float32)
    return np.dstack([np.add.outer(down, across)] * 3)


def _paired_folder(folder: pathlib.Path, names: Sequence[str]) -> None:
    for side in ("input", "output"):
        for name in names:
            frames.write(folder / side / f"{name}.png", _picture())


def _damaged_file(
    path: pathlib.Path, generator: np.random.Generator, kind: str
) -> None:
    intact = fuzz_restore.originals(kind)
    path.write_bytes(fuzz_restore.damaged(_any_of(generator, intact), generator))


def _config(folder: pathlib.Path) -> Attempt:
    """`config.json` of a run."""
    del folder
    options = train_config.TrainConfig(data_dir="d", workdir="w")
    values = json.loads(config.to_json(options))

    def attempt(generator: np.random.Generator) -> bool:
        text = mutated_json(values, generator).decode(errors="replace")
        config.from_json(text, train_config.TrainConfig, source="config.json")
        return True

    return attempt


def _frames(folder: pathlib.Path) -> Attempt:
    """Pictures, as `degrade`, `report`, `prepare` and `pairs` read them."""
    folder.mkdir()

    def attempt(generator: np.random.Generator) -> bool:
        kind = _any_of(generator, fuzz_restore.FORMATS)
        path = folder / f"a.{kind}"
        _damaged_file(path, generator, kind)
        if frames.read(path).shape[2] != 3:
            raise UnsafeError("not RGB")
        return True

    return attempt


def _pairs(folder: pathlib.Path) -> Attempt:
    """A paired folder of hostile names, one picture of it damaged."""

    def attempt(generator: np.random.Generator) -> bool:
        names = [_any_of(generator, NAMES) for _ in range(3)]
        with _emptied(folder):
            _paired_folder(folder, [f"{name}_{i}" for i, name in enumerate(names)])
            splits = pairs.find_splits(folder)
            members = [member for found in splits.values() for member in found]
            kind = _any_of(generator, fuzz_restore.FORMATS)
            _damaged_file(_any_of(generator, members).input, generator, kind)
            pairs.fingerprint(splits)
            for member in members:
                pairs.read(member)
        return True

    return attempt


def _clean(folder: pathlib.Path) -> Attempt:
    """`clean` of a folder of damaged pictures and hostile names; then its undo."""

    def attempt(generator: np.random.Generator) -> bool:
        with _emptied(folder):
            _paired_folder(folder, ["a_1", "a_2", _any_of(generator, NAMES)])
            for path in sorted(folder.rglob("*.png"))[::2]:
                _damaged_file(path, generator, _any_of(generator, ("png", "jpg")))
            before = _listing(folder)
            options = clean.CleanOptions(str(folder), tensorflow=False, workers=1)
            clean.clean(options)
            page = folder / quarantine.FOLDER / "report.html"
            check_page(page.read_text(encoding="utf-8"))
            clean.clean(dataclasses.replace(options, undo=True))
            if _listing(folder) != before:
                raise UnsafeError("undo did not put everything back")
        return True

    return attempt


def _journal(folder: pathlib.Path) -> Attempt:
    """The journal of `clean`, from which it puts files back."""
    finding = dict.fromkeys(("reason", "severity", "detail", "partner", "other"), "")
    moves = [
        {
            "source": f"input/{name}",
            "target": f"{quarantine.FOLDER}/input/{name}",
            "sha256": "",
            "findings": [finding],
        }
        for name in ("a.png", "b.png")
    ]

    def attempt(generator: np.random.Generator) -> bool:
        with _emptied(folder):
            _paired_folder(folder, ["c_1"])
            aside = folder / quarantine.FOLDER / "input"
            aside.mkdir(parents=True)
            for move in moves:
                (folder / move["target"]).write_bytes(b"moved")
                move["sha256"] = quarantine.fingerprint(str(folder / move["target"]))
            lines = [
                {"kind": "start", "version": 1, "made_folder": True},
                {"kind": "plan", "moves": moves},
                {"kind": "done", "failed": []},
            ]
            number = int(generator.integers(len(lines)))
            data = [json.dumps(line).encode() for line in lines]
            data[number] = mutated_json(lines[number], generator).replace(b"\n", b" ")
            (folder / quarantine.JOURNAL).write_bytes(b"\n".join(data) + b"\n")
            clean.clean(
                clean.CleanOptions(str(folder), undo=bool(generator.random() < 0.7),
                                   tensorflow=False, workers=1)
            )  # fmt: skip
        return True

    return attempt


def _weights(folder: pathlib.Path) -> Attempt:
    """Weights as safetensors, and their card."""
    folder.mkdir()
    source = pretrained.find_shipped("")
    data = source.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    card = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
    path = folder / "weights.safetensors"

    def attempt(generator: np.random.Generator) -> bool:
        kind = generator.random()
        path.with_suffix(".json").unlink(missing_ok=True)
        changed = data
        if kind < 0.4:
            changed = fuzz_restore.damaged(data[: 8 + length], generator) + rest
        elif kind < 0.8:
            text = mutated_json(header, generator)
            claimed = len(text)
            if generator.random() < 0.2:
                claimed = _any_of(generator, (0, 1, 2**31, 2**63 - 1, 2**64 - 1))
            changed = claimed.to_bytes(8, "little") + text + rest
        else:
            path.with_suffix(".json").write_bytes(mutated_json(card, generator))
        path.write_bytes(changed)
        name, _ = pretrained.load(path)
        if name not in models.MODELS:
            raise UnsafeError(name)
        return True

    return attempt


def _arrays(folder: pathlib.Path) -> Attempt:
    """Pairs prepared as arrays: the index and the `.npy` files."""
    _paired_folder(folder / "film", [f"a{i}_1" for i in range(6)])
    prepared = folder / "prepared"
    prepared.mkdir()
    array_files.write(prepared, pairs.find_splits(folder / "film"))
    paths = [*sorted(prepared.rglob("*.npy")), prepared / array_files.INDEX]
    intact = {path: path.read_bytes() for path in paths}
    index = json.loads(intact[prepared / array_files.INDEX])

    def attempt(generator: np.random.Generator) -> bool:
        for path, data in intact.items():
            path.write_bytes(data)
        if generator.random() < 0.6:
            (prepared / array_files.INDEX).write_bytes(mutated_json(index, generator))
        else:
            path = _any_of(generator, paths)
            head, rest = intact[path][:128], intact[path][128:]
            path.write_bytes(fuzz_restore.damaged(head, generator) + rest)
        opened = sources.open_source(prepared)
        for members in opened.splits.values():
            for member in members:
                # `evaluate` writes to such paths.
                out = os.path.normpath(folder / "evaluation" / f"{member.name}.png")
                if not out.startswith(f"{folder}/evaluation/"):
                    raise UnsafeError(out)
            if members:
                sources.read_all(opened, members)
        return True

    return attempt


def _tfrecord(folder: pathlib.Path) -> Attempt:
    """Pairs prepared as TFRecord: its JSON files and its records."""
    _paired_folder(folder / "film", [f"a{i}_1" for i in range(6)])
    prepared = prepare.prepare(
        prepare.PrepareOptions(data_dir=str(folder / "film"), out=str(folder / "p"))
    ).folder
    paths = sorted(path for path in prepared.iterdir() if path.is_file())
    intact = {path: path.read_bytes() for path in paths}

    def attempt(generator: np.random.Generator) -> bool:
        for path, data in intact.items():
            path.write_bytes(data)
        path = _any_of(generator, paths)
        if path.suffix == ".json" and generator.random() < 0.7:
            path.write_bytes(mutated_json(json.loads(intact[path]), generator))
        else:
            path.write_bytes(fuzz_restore.damaged(intact[path], generator))
        builder = records.open_dataset(prepared)
        for split, members in records.members(builder).items():
            if members:
                read = records.make_read(builder, split)
                for member in members:
                    read(member.index)
        return True

    return attempt


def _run_folder(folder: pathlib.Path, generator: np.random.Generator) -> None:
    """Writes the files of `train` and `evaluate`, with a part of them changed."""
    _paired_folder(folder / "film", ["a_1", "b_1", "c_1"])
    sides = {
        side: {"mse": 0.01, "psnr": 20.0, "ssim": 0.5} for side in ("input", "restored")
    }
    settings = train_config.TrainConfig(data_dir=str(folder / "film"), workdir="w")
    evaluation = {
        "model": "basic", "split": "test", "count": 1, "step": 9, "parameters": 29507,
        "protocol": training_run.PROTOCOL, **sides,
    }  # fmt: skip
    rows = [
        {"step": step, "epoch": step / 2, "split": split, "loss": 0.1, "psnr": 20.0,
         "ssim": 0.5, "images_per_second": 9.0}
        for step in (1, 2) for split in ("train", "validation")
    ]  # fmt: skip
    splits = pairs.find_splits(folder / "film")
    name = splits["test"][0].name
    files = {
        "config.json": json.loads(config.to_json(settings)),
        "evaluation/test.json": evaluation,
        "metrics.jsonl": rows,
    }
    hostile = _any_of(generator, (*files, "csv", "csv"))
    (folder / "evaluation" / "test").mkdir(parents=True)
    for path, value in files.items():
        data = json.dumps(value).encode()
        if path == hostile:
            data = mutated_json(value, generator)
        if path == "metrics.jsonl":
            data = data.strip(b"[]").replace(b"}, {", b"}\n{")
        (folder / path).write_bytes(data)
    frames.write(folder / "evaluation" / "test" / f"{name}.png", _picture())
    with (folder / "evaluation" / "test.csv").open(
        "w", encoding="utf-8", errors="replace", newline=""
    ) as file:
        writer = csv.writer(file)
        metrics = [f"{side}_{metric}" for side in sides for metric in sides[side]]
        writer.writerow(["name", *metrics])
        row = [name, 0.01, 20, 0.5, 0.01, 21, 0.6]
        if hostile == "csv":
            row[int(generator.integers(len(row)))] = _any_of(
                generator, (*NAMES, *_STRANGE, "../../outside/x", "/etc/passwd")
            )
        writer.writerow(row)


def _report(folder: pathlib.Path) -> Attempt:
    """`report` of a run whose files were changed."""

    def attempt(generator: np.random.Generator) -> bool:
        with _emptied(folder):
            _run_folder(folder, generator)
            page = report.report(training_run.ReportOptions(workdir=str(folder)))
            check_page(page.read_text(encoding="utf-8"))
        return True

    return attempt


def _names(folder: pathlib.Path) -> Attempt:
    """Pages of pictures whose names, captions and title are markup."""

    def attempt(generator: np.random.Generator) -> bool:
        with _emptied(folder):
            chosen = [_any_of(generator, NAMES) for _ in range(2)]
            letters = generator.choice(list(string.printable.replace("/", "")), 12)
            chosen.append("".join(letters).replace("\0", ""))
            kept = {name.lstrip(".") for name in chosen} - {""}
            for name in kept:
                for side in ("before", "after"):
                    frames.write(folder / side / f"{name}.png", _picture())
                text = _any_of(generator, NAMES).encode("utf-8", "replace")
                (folder / "before" / f"{name}.txt").write_bytes(text)
            options = training_run.ReportOptions(
                before=str(folder / "before"),
                after=str(folder / "after"),
                title=str(_any_of(generator, NAMES)),
            )
            check_page(report.report(options).read_text(encoding="utf-8"))
        return True

    return attempt


def _flags(folder: pathlib.Path) -> Attempt:
    """Command lines, up to the options that they give."""
    folder.mkdir()
    classes = [options_of(name) for name in COMMANDS]

    def attempt(generator: np.random.Generator) -> bool:
        chosen = _any_of(generator, classes)
        values = flags.FlagValues()
        cli.define_flags(chosen, values)
        values.set_gnu_getopt(True)
        line = ["command", *random_flags(chosen, generator, [str(folder)])]
        cli.parse(line, chosen, values)
        return True

    return attempt


def _commands(folder: pathlib.Path) -> Attempt:
    """Whole commands, each a process: no traceback, and errors of one line."""
    work = folder / "work"
    _paired_folder(work / "film", ["a_1", "b_1"])
    (work / "empty").mkdir()
    (work / "text.png").write_text("no picture")
    (work / "noise.bin").write_bytes(bytes(range(256)))
    frames.write(work / "small.png", _picture(4, 4))
    paths = [str(path) for path in sorted(work.iterdir())]
    paths += [str(work / "missing"), "/proc/self/mem", "/dev/null", str(work / "x/y/z")]
    environment = os.environ | {"HOME": str(folder), "TMPDIR": str(folder)}

    def attempt(generator: np.random.Generator) -> bool:
        name = _any_of(generator, COMMANDS)
        line = random_flags(options_of(name), generator, paths)
        # Mostly a required option is missing.
        run = subprocess.run(
            [sys.executable, "-m", f"restoration.{name}", *line],
            capture_output=True, timeout=COMMAND_TIMEOUT, cwd=work, env=environment,
        )  # fmt: skip
        said = run.stderr.decode(errors="replace")
        if "Traceback" in said or run.returncode not in (0, 1, 2):
            last = (said.strip().splitlines() or [""])[-1]
            raise UnsafeError(f"{name} {line}: {run.returncode}, {last}")
        if run.returncode == 2:
            wrong = [part for part in said.splitlines() if part.startswith("error: ")]
            if len(wrong) != 1:
                raise UnsafeError(f"{name} {line}: {said[-300:]}")
            raise errors.InputError(wrong[0])
        return True

    return attempt


def options_of(command: str) -> type:
    """Returns the options dataclass of a command."""
    elsewhere = {
        "train": train_config.TrainConfig,
        "restore": batch.RestoreOptions,
        "report": training_run.ReportOptions,
    }
    if command in elsewhere:
        return elsewhere[command]
    module = importlib.import_module(f"restoration.{command}")
    return getattr(module, f"{command.capitalize()}Options")


def random_flags(
    options_class: type, generator: np.random.Generator, paths: Sequence[str]
) -> list[str]:
    """Returns flags, most of which exist, with values, some of which are valid."""
    values = (
        "", "0", "1", "-1", "2", "nan", "inf", "-inf", "1e400", "9" * 400, "0x10",
        "true", "auto", "cpu", "basic", "mse", "💣", "é" * 300, "..", "a b", "'", "\\",
        "99999999999", "--", "-", "=", "png",
    )  # fmt: skip
    fields = dataclasses.fields(options_class)
    line = []
    for field in fields:
        required = field.default is dataclasses.MISSING
        if not (required and generator.random() < 0.9) and generator.random() > 0.12:
            continue
        value = _any_of(generator, paths if generator.random() < 0.6 else values)
        choices = field.metadata["choices"]
        if choices and generator.random() < 0.7:
            value = _any_of(generator, choices)
        line.append(f"--{field.name}={value}")
    for _ in range(int(generator.integers(0, 3))):
        odd = _any_of(generator, _ODD_FLAGS)
        line.append(odd + _any_of(generator, (*values, *paths)))
    order = generator.permutation(len(line))
    # Arguments of a process cannot contain zero bytes.
    return [line[number].replace("\0", "") for number in order]


def _keras_file(folder: pathlib.Path) -> Attempt:
    """Keras's HDF5 weights, damaged."""
    folder.mkdir()
    path = folder / "weights.h5"
    with h5py.File(path, "w", track_order=True) as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"stem_conv", b"top_conv"]
        for layer in ("stem_conv", "top_conv"):
            kernel = np.zeros((3, 3, 3, 32), np.float32)
            group.create_dataset(f"{layer}/{layer}/kernel:0", data=kernel)
        group["elsewhere"] = h5py.ExternalLink("/tmp/outside.h5", "/x")
    return _damaged_weights(path, keras_weights.load_efficientnet)


def _matlab_file(folder: pathlib.Path) -> Attempt:
    """MATLAB files of denoisers, damaged."""
    folder.mkdir()
    path = folder / "net.mat"
    layers = np.empty((1, 2), object)
    for number in range(2):
        weights = np.empty((1, 2), object)
        weights[0, 0] = np.zeros((3, 3, 1, 8), np.float32)
        weights[0, 1] = np.zeros((8, 1), np.float32)
        layers[0, number] = {"weights": weights, "type": "conv"}
    io.savemat(path, {"net": {"layers": layers}})
    return _damaged_weights(path, denoisers.load)


def _damaged_weights(path: pathlib.Path, load: Callable) -> Attempt:
    intact = path.read_bytes()

    def attempt(generator: np.random.Generator) -> bool:
        path.write_bytes(fuzz_restore.damaged(intact, generator))
        load(path)
        return True

    return attempt


def _bombs(folder: pathlib.Path) -> Attempt:
    """Small files that claim to be or decompress to gigabytes, one after the other."""
    folder.mkdir()
    plain = [("plain.png", fuzz_bombs.plain())] * WARM
    tried = itertools.chain(plain, itertools.cycle(fuzz_bombs.bombs().items()))
    restorer = fuzz_restore.identity()

    def attempt(generator: np.random.Generator) -> bool:
        del generator
        name, data = next(tried)
        path = folder / name
        path.write_bytes(data)
        refused = 0
        target = folder / "out" / f"{path.stem}.tif"
        job = jobs.Job(path, target, pathlib.PurePosixPath(name))
        settings = restore_file.Settings(
            overwrite=True, ext="tif", max_pixels=4_000_000
        )
        refused += bool(restore_file.restore_file(job, restorer, settings).error)
        for read in (frames.read, frames.size):
            with _counted() as count:
                read(path)
            refused += count[0]
        seen = survey.look(str(folder), name, tensorflow=True)
        refused += seen.image is None
        try:
            input_pipeline.decode(data).numpy()
        except input_pipeline.tensorflow().errors.OpError:
            refused += 1
        if name == "plain.png":
            return True
        if not refused:
            raise UnsafeError(f"{name}: read by all")
        raise errors.InputError(f"{name}: refused by {refused} readers")

    return attempt


@contextlib.contextmanager
def _counted() -> Iterator[list[int]]:
    count = [0]
    try:
        yield count
    except errors.InputError:
        count[0] += 1


@contextlib.contextmanager
def _emptied(folder: pathlib.Path) -> Iterator[None]:
    """Makes a folder that exists while the context lasts."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        os.rename(made, folder)
        try:
            yield
        finally:
            os.rename(folder, made)


def _listing(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class _Markup(html.parser.HTMLParser):
    """Collects what a browser might run: scripts, handlers, links."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.scripts, self.risks = 0, []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.scripts += tag == "script"
        for name, value in attributes:
            leads = name in ("src", "href", "action", "formaction", "xlink:href")
            fine = (value or "#").startswith(("data:image/jpeg;base64,", "#"))
            if name.startswith("on") or (leads and not fine):
                self.risks.append(f"{tag} {name}={value}")
        if tag in ("iframe", "object", "embed", "base", "link", "form", "marquee"):
            self.risks.append(tag)


def check_page(text: str) -> None:
    """Raises UnsafeError if a page contains scripts or links that are not its own."""
    markup = _Markup()
    markup.feed(text)
    if markup.risks or markup.scripts != 1:
        raise UnsafeError(f"{markup.scripts} scripts, {markup.risks[:3]}")


TARGETS: dict[str, Callable[[pathlib.Path], Attempt]] = {
    "config": _config,
    "frames": _frames,
    "pairs": _pairs,
    "clean": _clean,
    "journal": _journal,
    "weights": _weights,
    "keras": _keras_file,
    "matlab": _matlab_file,
    "arrays": _arrays,
    "tfrecord": _tfrecord,
    "report": _report,
    "names": _names,
    "flags": _flags,
    "commands": _commands,
    "bombs": _bombs,
}
