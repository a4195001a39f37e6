"""The loop of a training run: steps, and what happens between them."""

import collections
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from restoration.devices import processes
from restoration.training import (
    checkpoint,
    events,
    feed,
    guard,
    run_log,
    step,
    train_config,
)


class Job(NamedTuple):
    """What a training run works with.

    Attributes:
      options: of the run.
      source: of the batches.
      steps_per_epoch: batches an epoch.
      total_steps: of the run.
      advance: takes the state and a number of steps at most; returns state, metrics,
        steps done; see `feed.Feed.make_run`.
      validate: (parameters, batches) -> means; None without validation pairs.
      manager: of the checkpoints.
      log: see `run_log.open_log`.
      bar: of tqdm.
      is_stopped: tells whether a signal asks to stop.
    """

    options: train_config.TrainConfig
    source: feed.Feed
    steps_per_epoch: int
    total_steps: int
    advance: Callable
    validate: Callable[[Any, Iterator], dict] | None
    manager: checkpoint.Manager
    log: Any
    bar: Any
    is_stopped: Callable[[], bool]


class _Told(NamedTuple):
    """What steps have told that no line of the log holds yet.

    Attributes:
      sums: of the metrics since the last training line.
      rows: further lines: number of the step, what it is about, the rest.
      bad: the first bad step, where such a step stops the run.
    """

    sums: Mapping[str, Any]
    rows: tuple[tuple[int, str, dict], ...] = ()
    bad: guard.BadStep | None = None


def train(job: Job, state: step.TrainState) -> tuple[int, float | None]:
    """Trains until the end or a signal, then saves.

    Args:
      job: what to do.
      state: to go on from.

    Returns:
      Steps done, and validation PSNR of the last evaluation, None without one.

    Raises:
      InputError: at bad numbers that stop the run, bad data, a full disk.
    """
    due = events.Events(job.options, job.steps_per_epoch, job.total_steps)
    told = _Told(checkpoint.read_note(job.manager) or run_log.EMPTY)
    calls: collections.deque = collections.deque()
    done = saved = int(state.step)
    psnr, since = None, (done, time.monotonic())
    while done < job.total_steps and not job.is_stopped():
        state, values, count = job.advance(state, due.next_after(done) - done)
        calls.append((done, values))
        done += count
        job.bar.update(count)
        # Between events one call stays in flight, so that no device need wait.
        told = _settle(job, state, told, calls, waiting=0 if due.any(done) else 1)
        if due.logs(done):
            told = _log_means(job, told, done, since)
            since = done, time.monotonic()
        measured = None
        if job.validate and due.evaluates(done):
            measured = psnr = _validate(job, state, done)
            since = done, time.monotonic()
        if due.saves(done):
            _save(job, state, measured, told)
            saved = done
    told = _settle(job, state, told, calls, waiting=0)
    if saved < done:
        _save(job, state, None, told)
    return done, psnr


def _settle(
    job: Job, state: Any, told: _Told, calls: collections.deque, *, waiting: int
) -> _Told:
    """Takes in what calls have told, but for the last few; stops at bad numbers."""
    while len(calls) > waiting:
        told = _take_in(job, told, *calls.popleft())
        if told.bad:
            names = feed.batch_names(job.options, job.source, told.bad.number)
            _save(job, state, None, _write_rows(job, told))
            job.manager.wait_until_finished()
            raise guard.stop(job.options.workdir, told.bad, names)
    return told if waiting else _write_rows(job, told)


def _take_in(job: Job, told: _Told, first: int, values: Mapping[str, Any]) -> _Told:
    """Adds the metrics of some steps, and notes what was unusual about them."""
    values = {n: np.atleast_1d(v) for n, v in jax.device_get(dict(values)).items()}
    bad = guard.bad_steps(first, values)
    stop = bad[0] if bad and job.options.bad_numbers == "stop" else None
    if stop:  # the steps after it have done nothing
        values = {n: steps[: stop.number - first] for n, steps in values.items()}
    flags = values.pop("bad")
    rows = list(told.rows)
    for number in range(first, first + len(flags)):
        if pairs := feed.replaced(job.options, job.source, number):
            rows.append((number, "replaced", {"pairs": pairs}))
    for one in [] if stop else bad:
        names = feed.batch_names(job.options, job.source, one.number)
        logging.warning("skipped %s", guard.describe(one, names))
        numbers = {"loss": str(one.loss), "gradient_norm": str(one.gradient_norm)}
        rows.append((one.number, "bad numbers", numbers | {"pairs": names}))
    return _Told(run_log.add(told.sums, values, flags), tuple(rows), stop)


def _write_rows(job: Job, told: _Told) -> _Told:
    """Logs what was unusual, of all processes."""
    found = {json.dumps(row) for part in processes.gather(told.rows) for row in part}
    rows = sorted(map(json.loads, found), key=lambda row: (*row[:2], str(row[2])))
    for number, split, values in rows:
        run_log.write(job.log, number + 1, job.steps_per_epoch, split, values)
    return told._replace(rows=())


def _log_means(job: Job, told: _Told, done: int, since: tuple[int, float]) -> _Told:
    """Logs the means of the metrics and the speed; the sums begin anew."""
    means = run_log.means(told.sums)
    images = (done - since[0]) * job.options.batch_size
    speed = round(images / (time.monotonic() - since[1]), 2)
    line = means | {"images_per_second": speed}
    run_log.write(job.log, done, job.steps_per_epoch, "train", line)
    if means["loss"] is not None:
        shown = f"{means['loss']:.5f}", f"{means['psnr']:.2f}"
        job.bar.set_postfix(loss=shown[0], psnr=shown[1])
    return told._replace(sums=run_log.EMPTY)


def _validate(job: Job, state: Any, done: int) -> float:
    """Measures and logs the validation pairs; returns their PSNR."""
    parameters = state.average if job.options.ema_decay else state.parameters
    means = job.validate(parameters, job.source.validation())
    run_log.write(job.log, done, job.steps_per_epoch, "validation", means)
    job.bar.set_description(f"train (validation {means['psnr']:.2f} dB)")
    return means["psnr"]


def _save(job: Job, state: Any, psnr: float | None, told: _Told) -> None:
    """Starts saving; the log is on the disk before the checkpoint is."""
    if processes.is_writer():
        run_log.flush(job.log)
    checkpoint.save(job.manager, state, psnr, told.sums)
