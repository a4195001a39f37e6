"""Repeats a training run from what its folder records, and compares the two."""

import dataclasses
import logging
import os
import pathlib
from typing import Any

from etils import epy

from restoration.base import errors
from restoration.training import provenance, run_log, train_config, trained

with epy.lazy_imports():
    from restoration.training import feed

# What a log says of time alone.
_TIMES = ("images_per_second", "drawing_share", "waiting_share")


def recorded(
    before: str | os.PathLike, workdir: str | os.PathLike, **moved: str
) -> train_config.TrainConfig:
    """Returns the options that repeat a run.

    Args:
      before: the run's workdir.
      workdir: of the repetition.
      **moved: where the data lie now, of `data_dir`, `clean` and `overlays` those
        that are not empty; the others lie where they did.

    Returns:
      The recorded options, with these folders.

    Raises:
      InputError: when there is no such run, or its data were in no folder.
    """
    options = train_config.load_config(before)
    if pathlib.Path(before).resolve() == pathlib.Path(workdir).resolve():
        raise errors.InputError(
            f"--workdir={workdir}: the run to repeat; give a new folder"
        )
    moved = {name: path for name, path in moved.items() if path}
    if not (moved or options.data_dir or options.clean):
        raise errors.InputError(
            f"--repeat={before}: it was trained on arrays in memory, by a program; "
            "start that program again"
        )
    return dataclasses.replace(options, workdir=str(workdir), **moved)


def warn(before: str | os.PathLike, options: train_config.RunConfig) -> None:
    """Warns of what differs by name: code, packages, devices, data.

    Args:
      before: the workdir of the run to repeat.
      options: of the repetition.

    Raises:
      InputError: when the run's record or the data cannot be read.
    """
    here = provenance.now(options, feed.open_feed(options).describe())
    for line in provenance.differences(provenance.read(before)[-1], here):
        logging.warning("--repeat: %s", line)


def _rows(workdir: str | os.PathLike, last: int) -> list[dict[str, Any]]:
    rows = run_log.read(pathlib.Path(workdir) / run_log.NAME)
    return [
        {name: value for name, value in row.items() if name not in _TIMES}
        for row in rows
        if row["step"] <= last
    ]


def compare(before: str | os.PathLike, after: str | os.PathLike) -> list[str]:
    """Compares two runs bit for bit: their logs, and the state after the last step.

    Args:
      before: workdir of one.
      after: of the other; of the two what both have done is compared.

    Returns:
      In words what differs; nothing when they are equal.

    Raises:
      InputError: when one has no usable checkpoint.
    """
    (step, state), (other_step, other_state) = map(trained.digest, (before, after))
    last = min(step, other_step)
    found = []
    rows, other_rows = _rows(before, last), _rows(after, last)
    if len(rows) != len(other_rows):
        found.append(f"{len(rows)} lines logged -> {len(other_rows)}")
    for row, other in zip(rows, other_rows, strict=False):
        if str(row) != str(other):  # as text, since NaN is unlike itself
            found.append(f"the log at step {row['step']}: {row} -> {other}")
            break
    if step == other_step and state != other_state:
        found.append(f"the state after step {step}")
    return found
