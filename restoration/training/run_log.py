"""The log of a training run, `metrics.jsonl`: one JSON object a line.

`step` is the number of steps done, `split` what the line is about: "train" (means
over the steps since the line before), "validation", "replaced" (training pairs that
could not be read) or "bad numbers" (a step that was left out).
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from restoration.base import config, files
from restoration.training import event_files

NAME = "metrics.jsonl"

# Sums over no steps; see `add`.
EMPTY: Mapping[str, Any] = {"steps": 0, "skipped": 0, "totals": {}}


class Log:
    """Writes the lines of a run; see `open_log`."""

    def __init__(self, file: IO[str], also: Callable[[Mapping[str, Any]], object]):
        """Takes the open file, and what is given each row besides."""
        self._file, self._also = file, also

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a line; `step`, `epoch` and `split` are in it."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._also(row)

    def flush(self) -> None:
        """Makes sure that what was written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


@contextlib.contextmanager
def open_log(
    workdir: pathlib.Path, start: int, *, writer: bool = True, events: bool = False
) -> Iterator[Log]:
    """Opens the log of a run for appending; drops what came after `start`.

    A run that was killed may have logged steps that no checkpoint holds; they
    are done again, and must not stand twice.

    Args:
      workdir: the run's folder.
      start: number of steps done.
      writer: whether anything is written at all.
      events: whether TensorBoard's event files are written too; see `event_files`.

    Yields:
      What takes the lines.
    """
    if not writer:
        with open(os.devnull, "a", encoding="utf-8") as nowhere:
            yield Log(nowhere, _pass_over)
        return
    path = workdir / NAME
    kept = [row for row in read(path) if row["step"] <= start]
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    with contextlib.ExitStack() as stack:
        also = _pass_over
        if events:
            also = stack.enter_context(event_files.open_writer(workdir, kept))
        yield Log(stack.enter_context(path.open("a", encoding="utf-8")), also)


def _pass_over(row: Mapping[str, Any]) -> None:
    del row


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
