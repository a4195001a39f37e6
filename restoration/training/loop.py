"""The loop of a training run: steps, and what happens between them."""

import collections
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import tqdm

from restoration.devices import processes
from restoration.training import (
    checkpoint,
    feed,
    guard,
    run_log,
    step,
    train_config,
    validation,
)


@dataclasses.dataclass(frozen=True)
class Events:
    """After which steps to log, evaluate and save; the last step does all.

    Attributes:
      options: of the run.
      steps_per_epoch: batches an epoch.
      total_steps: of the run.
    """

    options: train_config.RunConfig
    steps_per_epoch: int
    total_steps: int

    @property
    def _log_every(self) -> int:
        return self.options.log_every or self.steps_per_epoch

    @property
    def _evaluate_every(self) -> int:
        return self.options.evaluate_every * self.steps_per_epoch

    def _due(self, done: int, interval: int) -> bool:
        return done % interval == 0 or done == self.total_steps

    def logs(self, done: int) -> bool:
        """Returns whether a line is logged after so many steps."""
        return self._due(done, self._log_every)

    def evaluates(self, done: int) -> bool:
        """Returns whether weights are measured then."""
        count = self.options.evaluations
        if not count:
            return self._due(done, self._evaluate_every)
        # Of the stops total * n // count, n from 1 on, the first that is not before.
        number = -(-done * count // self.total_steps)
        return number > 0 and self.total_steps * number // count == done

    def saves(self, done: int) -> bool:
        """Returns whether a checkpoint is saved then."""
        if self.options.checkpoint_every:
            return self._due(done, self.options.checkpoint_every)
        return self.evaluates(done)

    def any(self, done: int) -> bool:
        """Returns whether anything of these happens then."""
        return self.logs(done) or self.evaluates(done) or self.saves(done)

    def next_after(self, done: int) -> int:
        """Returns the next step with an event."""
        intervals = [self._log_every]
        intervals += [self.options.checkpoint_every or self.total_steps]
        coming = [(done // interval + 1) * interval for interval in intervals]
        count = self.options.evaluations
        if not count:
            coming.append((done // self._evaluate_every + 1) * self._evaluate_every)
        else:
            number = done * count // self.total_steps + 1
            while self.total_steps * number // count <= done:
                number += 1
            coming.append(self.total_steps * number // count)
        return min(self.total_steps, *coming)


class Log(Protocol):
    """Takes the lines of a run's log; see `run_log.open_log`."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a line; `step`, `epoch` and `split` are in it."""

    def flush(self) -> None:
        """Makes sure that what was written is on the disk."""


class Export(Protocol):
    """Takes weights that were measured, for use elsewhere."""

    def __call__(
        self, *, step: int, parameters: Any, figures: Mapping[str, float]
    ) -> object:
        """Writes them.

        Args:
          step: number of steps done.
          parameters: the weights that count, see `evaluated_parameters`.
          figures: what was measured of them.
        """


class Job(NamedTuple):
    """What a training run works with.

    Attributes:
      options: of the run.
      source: of the batches.
      steps_per_epoch: batches an epoch.
      total_steps: of the run.
      advance: does steps.
      validate: measures weights; None without validation pairs.
      export: is given the weights that were measured; None for nothing.
      manager: of the checkpoints.
      log: takes the lines of the log.
      bar: shows the progress.
      is_stopped: returns whether a signal, or the time, asks to stop.
    """

    options: train_config.RunConfig
    source: feed.Feed
    steps_per_epoch: int
    total_steps: int
    advance: feed.Advance
    validate: validation.Validate | None
    export: Export | None
    manager: checkpoint.Manager
    log: Log
    bar: tqdm.tqdm
    is_stopped: Callable[[], bool]


class Ended(NamedTuple):
    """How a loop ended.

    Attributes:
      state: after the last step.
      step: number of steps done.
      figures: of the last evaluation, None without one.
      evaluated: the step of it.
    """

    state: step.TrainState
    step: int
    figures: dict[str, float] | None
    evaluated: int | None


class _Since(NamedTuple):
    """Where a training line of the log begins.

    Attributes:
      step: number of steps done.
      time: of the monotonic clock.
      spent: by the feed's clock.
    """

    step: int
    time: float
    spent: Mapping[str, float]


def _now(job: Job, done: int) -> _Since:
    spent = job.source.clock() if job.source.clock else {}
    return _Since(done, time.monotonic(), spent)


class _Pending(NamedTuple):
    """Metrics and events of steps that no line of the log holds yet.

    Attributes:
      sums: of the metrics since the last training line.
      rows: further lines: number of the step, what it is about, the rest.
      bad: the first bad step, where such a step stops the run.
    """

    sums: Mapping[str, Any]
    rows: tuple[tuple[int, str, dict], ...] = ()
    bad: guard.BadStep | None = None


def train(job: Job, state: step.TrainState) -> Ended:
    """Trains until the end or a signal, then saves.

    Args:
      job: what to do.
      state: to go on from.

    Returns:
      The state and what was measured last.

    Raises:
      InputError: at bad numbers that stop the run, bad data, a full disk.
    """
    due = Events(job.options, job.steps_per_epoch, job.total_steps)
    pending = _Pending(checkpoint.read_note(job.manager) or run_log.EMPTY)
    calls: collections.deque = collections.deque()
    done = saved = int(state.step)
    figures = evaluated = None
    since = _now(job, done)
    while done < job.total_steps and not job.is_stopped():
        state, values, count = job.advance(state, limit=due.next_after(done) - done)
        calls.append((done, values))
        done += count
        job.bar.update(count)
        # Between events one call stays in flight, so that no device need wait.
        pending = _settle(job, state, pending, calls, waiting=0 if due.any(done) else 1)
        if due.logs(done):
            pending = _log_means(job, pending, done, since)
            since = _now(job, done)
        score = None
        if job.validate and due.evaluates(done):
            figures, evaluated = _validate(job, state, done), done
            score = validation.score(figures)
            since = _now(job, done)
        if due.saves(done):
            _save(job, state, score, pending)
            saved = done
    pending = _settle(job, state, pending, calls, waiting=0)
    if saved < done:
        _save(job, state, None, pending)
    return Ended(state, done, figures, evaluated)


def _settle(
    job: Job, state: Any, pending: _Pending, calls: collections.deque, *, waiting: int
) -> _Pending:
    """Takes in the metrics of calls, but of the last few; stops at bad numbers."""
    while len(calls) > waiting:
        pending = _take_in(job, pending, *calls.popleft())
        if pending.bad:
            names = feed.batch_names(job.options, job.source, pending.bad.number)
            _save(job, state, None, _write_rows(job, pending))
            job.manager.wait_until_finished()
            raise guard.stop(job.options.workdir, pending.bad, names)
    return pending if waiting else _write_rows(job, pending)


def _take_in(
    job: Job, pending: _Pending, first: int, values: Mapping[str, Any]
) -> _Pending:
    """Adds the metrics of some steps, and notes what was unusual about them."""
    values = {n: np.atleast_1d(v) for n, v in jax.device_get(dict(values)).items()}
    bad = guard.bad_steps(first, values)
    stop = bad[0] if bad and job.options.bad_numbers == "stop" else None
    if stop:  # the steps after it have done nothing
        values = {n: steps[: stop.number - first] for n, steps in values.items()}
    flags = values.pop("bad")
    rows = list(pending.rows)
    for number in range(first, first + len(flags)):
        if pairs := feed.replaced(job.options, job.source, number):
            rows.append((number, "replaced", {"pairs": pairs}))
    for one in [] if stop else bad:
        names = feed.batch_names(job.options, job.source, one.number)
        logging.warning("skipped %s", guard.describe(one, names))
        numbers = {"loss": str(one.loss), "gradient_norm": str(one.gradient_norm)}
        rows.append((one.number, "bad numbers", numbers | {"pairs": names}))
    return _Pending(run_log.add(pending.sums, values, flags), tuple(rows), stop)


def _write_rows(job: Job, pending: _Pending) -> _Pending:
    """Logs what was unusual, of all processes."""
    found = {json.dumps(row) for part in processes.gather(pending.rows) for row in part}
    rows = sorted(map(json.loads, found), key=lambda row: (*row[:2], str(row[2])))
    for number, split, values in rows:
        _log(job, number + 1, split, values)
    return pending._replace(rows=())


def _log_means(job: Job, pending: _Pending, done: int, since: _Since) -> _Pending:
    """Logs the means of the metrics and the speed; the sums begin anew."""
    means, now = run_log.means(pending.sums), _now(job, done)
    seconds = now.time - since.time
    speed = round((done - since.step) * job.options.batch_size / seconds, 2)
    shares = {
        f"{name}_share": round((spent - since.spent[name]) / seconds, 4)
        for name, spent in now.spent.items()
    }
    line = means | {"images_per_second": speed} | shares
    _log(job, done, "train", line)
    shown = {n: f"{means[n]:.5g}" for n in ("loss", "psnr") if means.get(n) is not None}
    job.bar.set_postfix(shown)
    return pending._replace(sums=run_log.EMPTY)


def _log(job: Job, done: int, split: str, values: Mapping[str, Any]) -> None:
    """Writes a line about the steps so far."""
    epoch = round(done / job.steps_per_epoch, 4)
    job.log.write({"step": done, "epoch": epoch, "split": split, **values})


def evaluated_parameters(
    options: train_config.RunConfig, state: step.TrainState
) -> Any:
    """Returns the weights that count: the averaged ones where they are kept."""
    return state.average if options.ema_decay else state.parameters


def _validate(job: Job, state: step.TrainState, done: int) -> dict[str, float]:
    """Measures the weights, logs the numbers and gives them away."""
    parameters = evaluated_parameters(job.options, state)
    figures = job.validate(parameters)
    _log(job, done, "validation", figures)
    if (score := validation.score(figures)) is not None:
        job.bar.set_description(f"train (validation {score:.2f})")
    if job.export and processes.is_writer():
        job.export(step=done, parameters=parameters, figures=figures)
    return figures


def _save(job: Job, state: Any, psnr: float | None, pending: _Pending) -> None:
    """Starts saving; the log is on the disk before the checkpoint is."""
    if processes.is_writer():
        job.log.flush()
    checkpoint.save(job.manager, state, psnr, pending.sums)
