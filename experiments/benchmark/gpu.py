"""Measures training and inference on a GPU, compared with PyTorch and device limits.

    python -m experiments.benchmark gpu

Both frameworks compute the same networks (`torch_models`) in bfloat16: ours like `train
--bfloat16`, PyTorch in channels_last memory under autocast, compiled, with fused Adam.
PyTorch is optional; without it, only ours is measured. The device's limits are measured
first, by a large copy and a large matrix product; `roofline` counts what the networks
need.

Then come damage on the device, the finder's and the filler's training steps, and table
1 of the report at full size, whose rows lie in the folder `tables` beside the file.

Each result is written at once. The same command continues with the missing ones, if
code and device are the same; after `--minutes` it begins none. Neither TensorFlow nor
libvips is needed.
"""

import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import tqdm
from etils import epy

from experiments.benchmark import gpu_cases, interleaved
from restoration.base import files
from restoration.training import provenance

with epy.lazy_imports():
    from experiments.benchmark import damage
    from experiments.tables import tables

# Models whose programs are compiled at the same time, the most important first.
_WAVES = (("basic", "nafnet_s"), ("advanced", "nafnet_m"), ("dncnn",))
_QUICK_WAVES = (("basic",),)

# Each number is the median of some rounds of some seconds.
_ROUNDS, _SECONDS = 3, 0.5
_QUICK_ROUNDS, _QUICK_SECONDS = 1, 0.1


def _measured(programs: dict[str, tuple[str, str]], quick: bool) -> dict[str, Any]:
    """Measures programs, given as (program, model), alternately."""
    # Several processes share the device's memory.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    running = {
        label: interleaved.start(
            "experiments.benchmark.gpu_cases",
            [*arguments, *(["quick"] if quick else [])],
            environment,
        )
        for label, arguments in programs.items()
    }
    return interleaved.measure_and_stop(
        running,
        rounds=_QUICK_ROUNDS if quick else _ROUNDS,
        seconds=_QUICK_SECONDS if quick else _SECONDS,
    )


def _measured_alone(program: str, quick: bool) -> dict[str, dict[str, Any]]:
    """Measures a program by itself; returns a row for each case.

    Raises:
      RuntimeError: if a case failed.
    """
    found = {
        case: rows[program]
        for case, rows in _measured({program: (program, "-")}, quick).items()
    }
    for case, row in found.items():
        if "error" in row:
            raise RuntimeError(f"{program}, {case}: {row['error']}")
    return found


def has_torch() -> bool:
    """Returns whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def _shares(
    cost: dict[str, float] | None, images: float, limits: dict[str, Any]
) -> dict[str, float] | None:
    """Returns a speed as shares of the device's limits.

    Args:
      cost: of a batch.
      images: batches per second.
      limits: bytes and operations per second.
    """
    if cost is None:
        return None
    return {
        "operations": cost["operations"],
        "bytes": cost["bytes"],
        "compute_ms": 1000 * cost["operations"] / limits["operations_per_second"],
        "memory_ms": 1000 * cost["bytes"] / limits["bytes_per_second"],
        "compute_share": images * cost["operations"] / limits["operations_per_second"],
        "memory_share": images * cost["bytes"] / limits["bytes_per_second"],
    }


def make_row(
    rows: dict[str, dict[str, Any]], batch: int, limits: dict[str, Any]
) -> dict[str, Any]:
    """Returns the JSON file's entry for a case.

    Args:
      rows: of each program, from `interleaved.measure`.
      batch: number of images.
      limits: `bytes_per_second` and `operations_per_second` of the device.

    Returns:
      `images_per_second` and `rounds` by program; `ratio_to_torch`; `floor` and
      `program`: bytes and operations of a batch, their times in milliseconds at the
      device's limits, and the shares of these limits that are reached;
      `share_of_limit`, the larger share of the floor; and `errors`, if any.
    """
    good = {name: row for name, row in rows.items() if "error" not in row}
    speeds = {name: row["per_second"] for name, row in good.items()}
    found: dict[str, Any] = {
        "batch": batch,
        "images_per_second": speeds,
        "rounds": {name: row["rounds"] for name, row in good.items()},
    }
    if failed := {n: row["error"] for n, row in rows.items() if "error" in row}:
        found["errors"] = failed
    if "ours" in good:
        batches = speeds["ours"] / batch
        for kind in ("floor", "program"):
            found[kind] = _shares(good["ours"].get(kind), batches, limits)
        found["milliseconds"] = 1000 / batches
        floor = found["floor"]
        found["share_of_limit"] = max(floor["compute_share"], floor["memory_share"])
    if "torch" in good:
        found["torch_compiled"] = good["torch"]["compiled"]
    if {"ours", "torch"} <= set(good):
        found["ratio_to_torch"] = speeds["ours"] / speeds["torch"]
    return found


def _measure_wave(
    wave: tuple[str, ...], quick: bool, limits: dict[str, Any]
) -> dict[str, Any]:
    """Measures networks; returns rows named MODEL WHAT SIDE."""
    kinds = ("ours", "torch") if has_torch() else ("ours",)
    programs = {f"{kind} {name}": (kind, name) for name in wave for kind in kinds}
    measured = _measured(programs, quick)
    found: dict[str, Any] = {}
    for name in wave:
        for case, every in measured.items():
            rows = {k: every[f"{k} {name}"] for k in kinds if f"{k} {name}" in every}
            what, _, side = case.rpartition(" ")
            same = measured.get(f"{gpu_cases.TRAIN} {side}", {}).get(f"torch {name}")
            if what == gpu_cases.BARE and rows and same:
                rows["torch"] = same  # PyTorch's only step computes no metrics
            if rows:
                # The case "start" of a program that failed has no side.
                size = gpu_cases.batch_size(int(side), quick) if what else 0
                found[f"{name} {case}"] = make_row(rows, size, limits)
    return found


def _measure_limits(quick: bool) -> dict[str, Any]:
    rows = _measured_alone("limits", quick)
    copy, product = rows["copy"], rows["product"]
    return {
        "device": copy["device"],
        "platform": copy["platform"],
        "bytes_per_second": copy["per_second"],
        "operations_per_second": product["per_second"],
    }


def _measure_input(quick: bool) -> dict[str, Any]:
    """Measures steps with input; `waiting_share` is the share of time spent waiting."""
    found: dict[str, Any] = {}
    for case, row in _measured_alone("input", quick).items():
        name, _, what = case.partition(" ")
        found.setdefault(name, {})[what] = row["per_second"]
    for speeds in found.values():
        alone = speeds["one batch"]
        speeds["waiting_share"] = {
            what: max(0.0, 1 - speeds[what] / alone) for what in ("device", "npy")
        }
    return found


def _measure_masks(quick: bool) -> dict[str, Any]:
    """Measures training steps of the finder and the filler, pairs per second."""
    return {
        case: {"pairs_per_second": row["per_second"], **row["sizes"]}
        for case, row in _measured_alone("masks", quick).items()
    }


# Of a dry run: pairs of all splits, their side and those of a step.
_QUICK_TABLE = {"pairs": 500, "image_size": 16, "batch_size": 8}


def _table_1(quick: bool, out: str) -> dict[str, Any]:
    """Trains the rows of the report's first table; they are files of their own.

    Returns:
      PSNR of the test split, of the input and restored, and the seconds of each row.
    """
    folder = pathlib.Path(out).with_name("tables")
    options = tables.TablesOptions(
        table="1",
        seeds=1,
        results=str(folder),
        workdir=str(folder / "work"),
        **(_QUICK_TABLE if quick else {}),
    )
    rows = [row for row in tables.lines_of(tables.tables(options))
            if row["split"] == "test"]  # fmt: skip
    return {
        f"{row['model']}, {row['epochs']} epochs, {row['pairs']} pairs": {
            "input_psnr": row["psnr_input"],
            "psnr": row["psnr_ours"],
            "seconds": row["seconds_ours"],
        }
        for row in rows
    }


# Modules that determine the rows, besides the package.
_FILES = (
    "gpu",
    "gpu_cases",
    "damage",
    "roofline",
    "torch_models",
    "interleaved",
)


def _code() -> str:
    """Returns a hash of the measured code and of the measuring code."""
    digest = hashlib.sha256(provenance.code()["sources"].encode())
    for name in _FILES:
        digest.update(pathlib.Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


def _kept(out: str, same: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of a file if it has the same configuration, else {}."""
    path = pathlib.Path(out)
    if not path.is_file():
        return {}
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}  # cut off: nothing to keep
    return before if all(before.get(k) == v for k, v in same.items()) else {}


def _whole(rows: dict[str, Any], name: str) -> bool:
    """Returns whether a model was measured completely, in PyTorch too if installed."""
    own = [row for case, row in rows.items() if case.startswith(f"{name} ")]
    wanted = {"share_of_limit"} | ({"ratio_to_torch"} if has_torch() else set())
    return bool(own) and all(wanted <= set(row) for row in own)


def _rounded(found: Any) -> Any:
    """Rounds all numbers in a JSON value to four digits."""
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_rounded(value) for value in found]
    return float(f"{found:.4g}") if isinstance(found, float) else found


def _tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the result of a part, or its error as text so that others go on."""
    try:
        return work()
    except RuntimeError as error:
        return {"error": str(error)}


def measure(quick: bool, out: str, minutes: float = 0.0) -> dict[str, Any]:
    """Measures all models, the damage, the masks' networks, the input, and table 1.

    Args:
      quick: one small model, small images and one short round, as a test.
      minutes: after which nothing more is begun; 0: all is done.
      out: JSON file; its results of the same code and device are kept, and each new
        result is written at once.

    Returns:
      `limits` of the device; `rows` by model, task and side (`make_row`); `damage`;
      `masks`; `input`; `table 1`; `torch`, its version; `code`; `left`, what there was
      no time for.
    """
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    limits = _rounded(_measure_limits(quick))
    same = {"quick": quick, "code": _code(), "device": limits["device"]}
    kept = _kept(out, same)
    limits = kept.get("limits", limits)  # those of the rows that are kept
    found: dict[str, Any] = {
        "benchmark": "gpu",
        **same,
        "torch": provenance.packages(["torch"]).get(
            "torch", "not installed: only ours is measured"
        ),
        "limits": limits,
        "rows": kept.get("rows", {}),
    }
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    for wave in _QUICK_WAVES if quick else _WAVES:
        missing = tuple(name for name in wave if not _whole(found["rows"], name))
        if missing:
            work = functools.partial(_measure_wave, missing, quick, limits)
            parts.append(("rows", work))
    found["rows"] = {k: row for k, row in found["rows"].items() if "errors" not in row}
    others = {
        "damage": lambda: _tried(lambda: damage.measure(quick)),
        "masks": lambda: _tried(lambda: _measure_masks(quick)),
        "input": lambda: _tried(lambda: _measure_input(quick)),
    }
    for number, (name, work) in enumerate(others.items(), 1):
        if "error" not in kept.get(name, {"error": "missing"}):
            found[name] = kept[name]
        else:
            parts.insert(number, (name, work))  # after the first models
    if "table 1" in kept:
        found["table 1"] = kept["table 1"]
    else:
        parts.append(("table 1", lambda: _table_1(quick, out)))
    for number, (name, work) in enumerate(tqdm.tqdm(parts, unit="part")):
        if time.monotonic() > end:
            left = list(dict.fromkeys(name for name, _ in parts[number:]))
            return found | {"left": left}
        found[name] = found.get(name, {}) | _rounded(work())
        files.write_text(out, json.dumps(found, indent=1) + "\n")
    return found
