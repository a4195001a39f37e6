"""The log of a training run, `metrics.jsonl`: one JSON object a line.

`step` is the number of steps done, `split` what the line is about: "train" (means
over the steps since the line before), "validation", "replaced" (training pairs that
could not be read) or "bad numbers" (a step that was left out).
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from restoration.base import config, files

NAME = "metrics.jsonl"

# Sums over no steps; see `add`.
EMPTY: Mapping[str, Any] = {"steps": 0, "skipped": 0, "totals": {}}


@contextlib.contextmanager
def open_log(
    workdir: pathlib.Path, start: int, *, writer: bool = True
) -> Iterator[Any]:
    """Opens the log of a run for appending; drops what came after `start`.

    A run that was killed may have logged steps that no checkpoint holds; they
    are done again, and must not stand twice.

    Args:
      workdir: the run's folder.
      start: number of steps done.
      writer: whether anything is written at all.

    Yields:
      The file.
    """
    if not writer:
        with open(os.devnull, "a", encoding="utf-8") as nowhere:
            yield nowhere
        return
    path = workdir / NAME
    kept = [row for row in read(path) if row["step"] <= start]
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    with path.open("a", encoding="utf-8") as file:
        yield file


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of a log, but for those that a kill has cut."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                row = config.parse(line)
                if isinstance(row, dict) and isinstance(row.get("step"), int):
                    rows.append(row)
    return rows


def write(
    file: Any, done: int, steps_per_epoch: int, split: str, values: Mapping[str, Any]
) -> None:
    """Appends a line.

    Args:
      file: see `open_log`.
      done: number of steps done.
      steps_per_epoch: makes the epoch of it.
      split: what the line is about.
      values: the rest of the line.
    """
    row = {"step": done, "epoch": round(done / steps_per_epoch, 4), "split": split}
    append(file, row | dict(values))


def append(file: Any, row: Mapping[str, Any]) -> None:
    """Appends a line as it is; `step` must be in it."""
    file.write(json.dumps(row) + "\n")
    file.flush()


def flush(file: Any) -> None:
    """Makes sure that what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def add(
    sums: Mapping[str, Any], values: Mapping[str, np.ndarray], bad: np.ndarray
) -> dict[str, Any]:
    """Adds the metrics of some steps to sums, one after the other.

    In that order and in float64, so that a run that was resumed between two lines
    of its log gives the same means to the last bit.

    Args:
      sums: `EMPTY`, or what this function returned; JSON can hold it.
      values: metrics, (steps,) each.
      bad: bool (steps,), those that are left out.

    Returns:
      The new sums.
    """
    totals = dict(sums["totals"])
    for name, steps in values.items():
        total = totals.get(name, 0.0)
        for value in steps[~bad].tolist():
            total += value
        totals[name] = total
    skipped = int(bad.sum())
    return {
        "steps": sums["steps"] + len(bad) - skipped,
        "skipped": sums["skipped"] + skipped,
        "totals": totals,
    }


def means(sums: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Returns the mean of each metric, and how many steps were left out, if any."""
    steps = sums["steps"]
    found: dict[str, float | int | None] = {
        name: total / steps if steps else None for name, total in sums["totals"].items()
    }
    return found | ({"skipped": sums["skipped"]} if sums["skipped"] else {})
