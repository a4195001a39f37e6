"""The files that a training run leaves, read and checked for a page."""

import pathlib
from typing import Any

from etils import epy

from restoration.base import config, errors
from restoration.data import pairs
from restoration.evaluation import scores

with epy.lazy_imports():
    pass


# What a line that is no metrics record raises.
_NOT_A_RECORD = (ValueError, KeyError, TypeError, OverflowError)


# Larger numbers stand in no file that was not tampered with.
_LIMIT = 1e300


def read(path: pathlib.Path, remedy: str) -> str:
    """Returns a text file; raises InputError with the remedy where it cannot."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise errors.InputError(f"{path}: not UTF-8 text; {remedy}") from None
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; {remedy}") from None


def read_object(path: pathlib.Path, remedy: str) -> dict[str, Any]:
    """Returns a file's JSON object; raises InputError where it holds none."""
    try:
        values = config.parse(read(path, remedy))
    except ValueError as error:
        raise errors.InputError(f"{path}: not JSON ({error}); {remedy}") from None
    if not isinstance(values, dict):
        raise errors.InputError(f"{path}: not a JSON object; {remedy}")
    return values


def number(value: Any, where: str, remedy: str) -> float:
    """Returns a value as float; raises InputError where it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise errors.InputError(
            f"{where} is {value!r}, not a number; {remedy}"
        ) from None


def train_command(workdir: pathlib.Path) -> str:
    """Returns the remedy for a workdir without a run: how to train."""
    return f"run: python -m restoration.train --workdir {workdir} --data_dir DIR"


def evaluate_command(workdir: pathlib.Path, split: str) -> str:
    """Returns the remedy for a run that was not measured: how to evaluate."""
    return f"run: python -m restoration.evaluate --workdir {workdir} --split {split}"


def read_metrics(workdir: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Reads the metrics that a run logged.

    Args:
      workdir: the run's folder, with metrics.jsonl.

    Returns:
      Records by split, ordered by step. Of two records of one step the later
      counts: a run that was killed repeats steps when it resumes.

    Raises:
      InputError: for a missing file, and for a line that cannot be read unless
        it is the last, which a kill may have cut.
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
    """Reads the averages over one split, checked to hold every metric."""
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
    """Reads the metrics of each picture of one split, in the file's order."""
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
    """Whether a value is a number that a chart or a table can show."""
    return isinstance(value, int | float) and -_LIMIT < value < _LIMIT
