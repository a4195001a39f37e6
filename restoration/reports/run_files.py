"""Reads and checks the files of a training run for a page."""

import pathlib
from typing import Any

from restoration.base import config, errors
from restoration.data import pairs
from restoration.evaluation import scores

# Errors raised by a line that is not a metrics record.
_NOT_A_RECORD = (ValueError, KeyError, TypeError, OverflowError)

# Charts cannot show larger numbers.
_LIMIT = 1e300


def read(path: pathlib.Path, remedy: str) -> str:
    """Reads a text file; raises InputError with the remedy if that fails."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise errors.InputError(f"{path}: not UTF-8 text; {remedy}") from None
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; {remedy}") from None


def read_object(path: pathlib.Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object from a file; raises InputError if that fails."""
    try:
        values = config.parse(read(path, remedy))
    except ValueError as error:
        raise errors.InputError(f"{path}: not JSON ({error}); {remedy}") from None
    if not isinstance(values, dict):
        raise errors.InputError(f"{path}: not a JSON object; {remedy}")
    return values


def number(value: Any, where: str, remedy: str) -> float:
    """Returns a value as float; raises InputError if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise errors.InputError(
            f"{where} is {value!r}, not a number; {remedy}"
        ) from None


def train_command(workdir: pathlib.Path) -> str:
    """Returns the remedy for a workdir without a run: the command to train."""
    return f"run: python -m restoration.train --workdir {workdir} --data_dir DIR"


def evaluate_command(workdir: pathlib.Path, split: str) -> str:
    """Returns the remedy for a missing evaluation: the command to evaluate."""
    return f"run: python -m restoration.evaluate --workdir {workdir} --split {split}"


def read_metrics(workdir: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Reads the metrics that a run has logged.

    Args:
      workdir: the run's folder, with metrics.jsonl.

    Returns:
      Records by split, ordered by step. If two records have the same step, the later
      one is used, since a killed run repeats steps when it resumes.

    Raises:
      InputError: if the file is missing or a line cannot be read. The last line is
        ignored instead, since a killed run may have cut it off.
    """
    path = workdir / "metrics.jsonl"
    remedy = train_command(workdir)
    try:
        lines = path.read_bytes().rstrip().split(b"\n")
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; {remedy}") from None
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = config.parse(line)
            found.setdefault(record["split"], {})[float(record["step"])] = record
        except _NOT_A_RECORD as error:
            if number == len(lines):
                break
            raise errors.InputError(
                f"{path}, line {number}: not a metrics record ({error!r}); "
                "delete that line, or train again in an empty workdir"
            ) from None
    return {
        split: [records[step] for step in sorted(records)]
        for split, records in found.items()
    }


def read_evaluation(workdir: pathlib.Path, split: str) -> dict[str, Any]:
    """Reads the means over one split; raises InputError if a metric is missing."""
    path = workdir / "evaluation" / f"{split}.json"
    remedy = evaluate_command(workdir, split)
    found = read_object(path, remedy)
    for key in ("count", "input", "restored"):
        if key not in found:
            raise errors.InputError(f"{path}: no {key!r}; {remedy}")
    for side in ("input", "restored"):
        side_values = found[side] if isinstance(found[side], dict) else {}
        found[side] = {
            metric: number(side_values.get(metric), f"{path}: {side} {metric}", remedy)
            for metric in scores.METRICS
        }
    return found


def read_scores(workdir: pathlib.Path, split: str) -> list[scores.Score]:
    """Reads the metrics of each image of one split, in the file's order."""
    path = workdir / "evaluation" / f"{split}.csv"
    remedy = evaluate_command(workdir, split)
    found = scores.from_csv(read(path, remedy), source=str(path), remedy=remedy)
    for score in found:
        if not pairs.is_inside(score.name):
            raise errors.InputError(
                f"{path}: the name {score.name!r} leads out of its folder; {remedy}"
            )
    return found


def finite(value: Any) -> bool:
    """Returns whether a value is a number that a chart or table can show."""
    return isinstance(value, int | float) and -_LIMIT < value < _LIMIT
