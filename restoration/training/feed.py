"""Feeds a training run: batches from a stream, from arrays, or drawn on the device.

Pairs from files and pairs kept on the device are drawn alike (`sampling`), and so are
training pairs replaced that cannot be read (`bad_pairs`). Drawn pairs follow from the
seed and the step's number alone. Whatever the feed, a step's batch depends on its
number and the data, so that a resumed run goes on exactly.
"""

import concurrent.futures
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import psutil

from restoration.base import errors
from restoration.data import (
    arrays,
    bad_pairs,
    drawn_pairs,
    pairs,
    sampling,
    sources,
)
from restoration.devices import backend, processes, sharding
from restoration.training import guard, provenance, step, train_config, validation

# On an accelerator at most so many steps go into one compiled call.
_STEPS_A_CALL = 1000

# Of a device's free memory so much may hold training pairs.
_SHARE = 0.6


class TrainStep(Protocol):
    """See `step.make_train_step`."""

    def __call__(
        self, state: step.TrainState, batch: step.Batch
    ) -> tuple[step.TrainState, dict[str, Any]]:
        """Returns the new state and the step's metrics."""


class Advance(Protocol):
    """Does training steps."""

    def __call__(
        self, state: step.TrainState, *, limit: int
    ) -> tuple[step.TrainState, dict[str, Any], int]:
        """Does the next steps, one at least.

        Args:
          state: after the steps so far.
          limit: steps at most.

        Returns:
          The new state, the metrics, (steps,) or a scalar of one step, and how many
          steps were done.
        """


class MakeRun(Protocol):
    """Puts a step and the feed's batches together."""

    def __call__(
        self, *, train_step: TrainStep, mesh: jax.sharding.Mesh, start: int, total: int
    ) -> Advance:
        """Returns what does the steps.

        Args:
          train_step: a pure function.
          mesh: of the devices.
          start: the first step to be done, from 0.
          total: steps of the whole run.
        """


class Describe(Protocol):
    """Identifies data, for a run's record."""

    def __call__(self) -> dict[str, Any]:
        """Returns "fingerprint", "pairs" by split, and more that JSON can hold."""


class Clock(Protocol):
    """Measures what batches cost that are made on the host."""

    def __call__(self) -> Mapping[str, float]:
        """Returns seconds so far in this process, by what they were spent on."""


class Feed(NamedTuple):
    """Where batches come from.

    Attributes:
      count: training pairs of an epoch.
      names: of the training pairs; none where they are drawn.
      make_run: puts a step and the batches together.
      make_validate: makes the measuring of weights; None without validation pairs.
      bad: training pairs that cannot be read; grows while batches are drawn.
      describe: identifies the data, for the run's record.
      fixed: whether a resumed run must have the very same data.
      clock: what is logged as shares of the time; None where nothing is measured.
    """

    count: int
    names: Sequence[str]
    make_run: MakeRun
    make_validate: validation.MakeValidate | None
    bad: bad_pairs.Bad
    describe: Describe
    fixed: bool = False
    clock: Clock | None = None


def total_steps(options: train_config.RunConfig, count: int) -> int:
    """Returns how many steps a run has whose epoch has so many pairs."""
    each = sampling.steps_per_epoch(count, options.batch_size)
    return options.steps or options.epochs * each


def open_feed(options: train_config.TrainConfig) -> Feed:
    """Opens the data that a run's options name.

    Args:
      options: of the run.

    Returns:
      The feed.

    Raises:
      InputError: when it cannot be opened, or has no training pairs.
    """
    if options.clean:
        return drawn_feed(options)
    opened, splits = _open(options)
    members = pairs.require(splits, "train", options.data_dir)
    bad: bad_pairs.Bad = {}
    describe = functools.partial(provenance.describe_data, options.data_dir, splits)
    if options.cache == "device" and _fits(opened, members):
        data = _read_all(options, opened, splits, bad)
        names = [member.name for member in members]
        return _array_feed(options, data, names, bad, describe)
    return _stream_feed(options, opened, splits, bad, describe)


def _open(options: train_config.TrainConfig) -> tuple[sources.Source, dict[str, tuple]]:
    opened = sources.open_source(options.data_dir)
    return opened, pairs.sample(opened.splits, options.fraction, seed=options.seed)


def array_feed(
    options: train_config.TrainConfig, data: Mapping[str, arrays.PairArrays]
) -> Feed:
    """Feeds pairs that are given as arrays.

    Args:
      options: of the run.
      data: "train" and, unless there are none, "validation".

    Returns:
      The feed; the pairs are named by their numbers.

    Raises:
      InputError: for arrays that are no pairs, or smaller than the crops.
    """
    for members in data.values():
        arrays.check(members, image_size=options.image_size)
    names = [f"{number:06d}" for number in range(len(data["train"].input))]
    describe = functools.partial(provenance.describe_arrays, data)
    return _array_feed(options, data, names, {}, describe)


def drawn_feed(
    options: train_config.TrainConfig, data: drawn_pairs.Data | None = None
) -> Feed:
    """Feeds pairs drawn on the device from clean pictures; see `drawn_pairs`.

    Some of the pictures are held out; damage drawn on them, always the same, is what
    weights are measured by.

    Args:
      options: of the run.
      data: what to draw from; by default what `options.clean` and `overlays` name.

    Returns:
      The feed; an epoch has as many pairs as there are pieces of pictures.

    Raises:
      InputError: for folders without usable pictures, and for more of them than fit
        in the memory of a device.
    """
    data = data or drawn_pairs.load(options)
    needed, free = data.material.pieces.nbytes, _free_memory()
    if needed > _SHARE * free:
        raise errors.InputError(
            f"--clean={options.clean}: its pieces need {needed / 1e9:.1f} GB, of "
            f"{free / 1e9:.1f} GB free at most {100 * _SHARE:.0f} % are taken; give "
            "fewer pictures"
        )
    count = len(data.material.pieces)
    recipe = drawn_pairs.recipe_of(options)
    rise = options.severity_rise * total_steps(options, count)
    # Not the key itself, of which the weights are drawn.
    root = jax.random.fold_in(jax.random.key(options.seed), 1)

    def take(material: drawn_pairs.Material, number: jax.Array) -> step.Batch:
        key = jax.random.fold_in(root, number)
        scale = jax.numpy.minimum(1.0, (number + 1) / rise) if rise else 1.0
        return drawn_pairs.draw_pairs(
            key, material, recipe, options.batch_size, scale=scale
        )

    return Feed(
        count=count,
        names=(),
        make_run=resident_run(options, data.material, take, np.int32),
        make_validate=validation.of_drawn(options, data.held_out),
        bad={},
        describe=lambda: data.described,
        fixed=True,
    )


def draws(options: train_config.TrainConfig, names: Sequence[str], number: int) -> Any:
    """Returns what step `number`, from 0, draws; see `sampling.batch_draws`."""
    return sampling.batch_draws(
        seed=options.seed,
        step=number,
        count=len(names),
        batch_size=options.batch_size,
        augment=options.augment,
    )


def batch_names(
    options: train_config.TrainConfig, feed: Feed, number: int
) -> list[str]:
    """Returns the names of the pairs that a step was given, replaced ones replaced."""
    if not feed.names:
        return [f"drawn for step {number + 1} with --seed={options.seed}"]
    return [
        feed.names[bad_pairs.next_good(index, len(feed.names), feed.bad)]
        for index in draws(options, feed.names, number).index.tolist()
    ]


def replaced(
    options: train_config.TrainConfig, feed: Feed, number: int
) -> list[list[str]]:
    """Returns which pairs of a step were replaced, in this process's share.

    Args:
      options: of the run.
      feed: its batches of that step were drawn.
      number: of the step, from 0.

    Returns:
      [name, name of the pair that replaces it] each.
    """
    if not feed.bad:
        return []
    share = options.batch_size // processes.count()
    first = processes.index() * share
    drawn = draws(options, feed.names, number).index[first : first + share].tolist()
    return [
        [
            feed.names[index],
            feed.names[bad_pairs.next_good(index, len(feed.names), feed.bad)],
        ]
        for index in drawn
        if index in feed.bad
    ]


def _fits(opened: sources.Source, members: Sequence[Any]) -> bool:
    """Returns whether the training pairs fit in a device's memory; warns if not."""
    needed, free = _bytes_needed(opened, members), _free_memory()
    if not any(processes.gather(needed > _SHARE * free)):
        return True
    logging.warning(
        "--cache=device: %d training pairs need %.1f GB, of %.1f GB free at most "
        "%.0f %% are taken; streaming them instead",
        len(members), needed / 1e9, free / 1e9, 100 * _SHARE,
    )  # fmt: skip
    return False


def _bytes_needed(opened: sources.Source, members: Sequence[Any]) -> int:
    """Returns how many bytes pairs fill that are all as large as the first."""
    first = next(opened.evaluation_batches(members[:1], batch_size=1))
    return len(members) * 2 * first["input"].nbytes


def _free_memory() -> int:
    """Returns the bytes free on a device; of a CPU, those of the host."""
    free = backend.free_memory(jax.local_devices()[0])
    return psutil.virtual_memory().available if free is None else free


def _read_all(
    options: train_config.TrainConfig,
    opened: sources.Source,
    splits: Mapping[str, Sequence[Any]],
    bad: bad_pairs.Bad,
) -> dict[str, arrays.PairArrays]:
    """Reads training and validation pairs; bad training pairs are replaced."""
    members = splits["train"]

    def read(chosen: Sequence[Any]) -> None:
        for _ in opened.evaluation_batches(chosen, batch_size=options.batch_size):
            pass

    try:
        data = {"train": sources.read_all(opened, members)}
    except errors.InputError:
        if options.bad_pairs == "stop":
            raise
        bad_pairs.find(read, members, bad)
        good = [
            members[bad_pairs.next_good(index, len(members), bad)]
            for index in range(len(members))
        ]
        data = {"train": sources.read_all(opened, good)}
    if splits["validation"]:
        data["validation"] = sources.read_all(opened, splits["validation"])
    return data


def _stream_feed(
    options: train_config.TrainConfig,
    opened: sources.Source,
    splits: Mapping[str, Sequence[Any]],
    bad: bad_pairs.Bad,
    describe: Describe,
) -> Feed:
    members = splits["train"]

    def batches(start: int, total: int) -> Iterator[dict[str, np.ndarray]]:
        return opened.train_batches(
            members,
            image_size=options.image_size,
            batch_size=options.batch_size,
            seed=options.seed,
            start_step=start,
            total_steps=total,
            augment=options.augment,
            process=(processes.index(), processes.count()),
            bad=bad if options.bad_pairs == "skip" else None,
        )

    make_validate = None
    if splits["validation"]:
        share = functools.partial(
            sources.evaluation_share,
            opened,
            splits["validation"],
            batch_size=options.batch_size,
        )
        make_validate = validation.of_pairs(share)
    names = [member.name for member in members]
    return Feed(
        count=len(names),
        names=names,
        make_run=streamed_run(options, batches),
        make_validate=make_validate,
        bad=bad,
        describe=describe,
    )


def _array_feed(
    options: train_config.TrainConfig,
    data: Mapping[str, arrays.PairArrays],
    names: Sequence[str],
    bad: bad_pairs.Bad,
    describe: Describe,
) -> Feed:
    for members in data.values():
        arrays.check(members, image_size=options.image_size)
    make_validate = None
    if "validation" in data:
        share = functools.partial(
            sources.array_share, data["validation"], batch_size=options.batch_size
        )
        make_validate = validation.of_pairs(share)
    return Feed(
        count=len(names),
        names=names,
        make_run=resident_run(
            options,
            data["train"],
            lambda members, drawn: arrays.take_crops(
                members, drawn, options.image_size
            ),
            functools.partial(draws, options, names),
        ),
        make_validate=make_validate,
        bad=bad,
        describe=describe,
    )


class HostBatches(Protocol):
    """Batches that are made on the host."""

    def __call__(self, start: int, total: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields this process's rows of the batches of steps start to total - 1."""


def streamed_run(options: train_config.RunConfig, batches: HostBatches) -> MakeRun:
    """Returns the `make_run` of a feed whose batches are made on the host.

    Args:
      options: of the run.
      batches: gives them; what a step sees must follow from its number.
    """

    def make_run(
        *, train_step: TrainStep, mesh: jax.sharding.Mesh, start: int, total: int
    ) -> Advance:
        split = sharding.split_batch(mesh)
        whole = sharding.replicated(mesh)
        compiled = guard.compile_protected(
            train_step, skip=_skips(options), whole=whole, rest=(split,)
        )
        waiting, position = batches(start, total), itertools.count(start)

        def advance(state: step.TrainState, *, limit: int) -> tuple:
            del limit
            batch = {
                name: jax.make_array_from_process_local_data(split, rows)
                for name, rows in next(waiting).items()
            }
            return *compiled(state, np.int32(next(position)), batch), 1

        return advance

    return make_run


def draw_ahead(
    draw: Callable[[int], dict[str, np.ndarray]],
) -> tuple[HostBatches, Clock]:
    """Makes batches in a thread: the next one while a step is computed.

    Args:
      draw: gives a step's batch by its number, from 0; whatever was drawn before.

    Returns:
      The batches, and the clock: "drawing", seconds of a core that drawing took;
      "waiting", seconds in which the run waited for it.
    """
    spent = {"drawing": 0.0, "waiting": 0.0}

    def timed(number: int) -> dict[str, np.ndarray]:
        begun = time.thread_time()
        batch = draw(number)
        spent["drawing"] += time.thread_time() - begun
        return batch

    def batches(start: int, total: int) -> Iterator[dict[str, np.ndarray]]:
        with concurrent.futures.ThreadPoolExecutor(1, "draw") as thread:
            coming = thread.submit(timed, start)
            for number in range(start, total):
                begun = time.monotonic()
                batch = coming.result()
                spent["waiting"] += time.monotonic() - begun
                if number + 1 < total:
                    coming = thread.submit(timed, number + 1)
                yield batch

    return batches, lambda: dict(spent)


class Take(Protocol):
    """Makes batches on the device; a pure function."""

    def __call__(self, resident: Any, drawn: Any) -> step.Batch:
        """Returns a step's batch.

        Args:
          resident: what lies on the device for the whole run.
          drawn: what the host draws for the step.
        """


def resident_run(
    options: train_config.RunConfig,
    resident: Any,
    take: Take,
    draw: Callable[[int], Any],
) -> MakeRun:
    """Returns the `make_run` of a feed whose batches are made on the device.

    Args:
      options: of the run.
      resident: arrays on the host, put onto all devices for the whole run.
      take: makes a step's batch of them, inside the step's program.
      draw: gives what `take` needs for the step of a number, from 0: arrays, or the
        number itself.
    """

    def make_run(
        *, train_step: TrainStep, mesh: jax.sharding.Mesh, start: int, total: int
    ) -> Advance:
        del total
        split, whole = sharding.split_batch(mesh), sharding.replicated(mesh)
        placed = sharding.replicate(resident, mesh)

        def one(state: Any, resident: Any, drawn: Any) -> tuple:
            batch = take(resident, drawn)
            return train_step(state, jax.lax.with_sharding_constraint(batch, split))

        def many(state: Any, numbers: Any, resident: Any, drawn: Any) -> tuple:
            protected = guard.protect(one, skip=_skips(options))
            return jax.lax.scan(
                lambda s, x: protected(s, x[0], resident, x[1]), state, (numbers, drawn)
            )

        # A convolution inside a loop leaves XLA's fast path on a CPU; on an
        # accelerator one call for many steps saves the dispatch.
        most = 1 if backend.is_cpu() else _STEPS_A_CALL
        if most == 1:
            compiled = guard.compile_protected(
                one, skip=_skips(options), whole=whole, rest=(whole, whole)
            )
        else:
            compiled = jax.jit(many, out_shardings=(whole, whole), donate_argnums=0)
        position = itertools.count(start)

        def advance(state: step.TrainState, *, limit: int) -> tuple:
            steps = [next(position) for _ in range(min(most, limit))]
            drawn = [draw(number) for number in steps]
            if most == 1:
                return *compiled(state, np.int32(steps[0]), placed, drawn[0]), 1
            stacked = jax.tree.map(_stack, *drawn)
            return *compiled(state, np.int32(steps), placed, stacked), len(steps)

        return advance

    return make_run


def _skips(options: train_config.RunConfig) -> bool:
    return options.bad_numbers == "skip"


def _stack(*rows: np.ndarray) -> np.ndarray:
    return np.stack(rows)
