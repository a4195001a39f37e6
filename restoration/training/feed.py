"""Feeds a training run: batches from a stream, or from pairs kept on the device.

Both draw the same pairs, crops and flips (`sampling`), and both replace training
pairs that cannot be read (`replacing`).
"""

import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import psutil
from etils import epy

from restoration.base import errors
from restoration.data import bad_pairs, pairs, sampling, sources
from restoration.devices import backend, processes
from restoration.training import provenance, train_config

with epy.lazy_imports():
    import jax

    from restoration.data import arrays
    from restoration.devices import sharding
    from restoration.training import guard

# On an accelerator at most so many steps go into one compiled call.
_STEPS_A_CALL = 1000

# Of a device's free memory so much may hold training pairs.
_SHARE = 0.6


class Feed(NamedTuple):
    """Where batches come from.

    Attributes:
      names: of the training pairs.
      make_run: (train step, mesh, start, total) -> run, which takes the state
        and a number of steps at most and returns state, metrics, steps done.
      validation: gives an iterator of evaluation batches; None without pairs.
      bad: training pairs that cannot be read; grows while batches are drawn.
      describe: gives what identifies the data, for the run's record.
    """

    names: Sequence[str]
    make_run: Callable
    validation: Callable[[], Iterator] | None
    bad: bad_pairs.Bad
    describe: Callable[[], dict[str, Any]]


def open_feed(options: train_config.TrainConfig) -> Feed:
    """Opens the data that a run's options name.

    Args:
      options: of the run.

    Returns:
      The feed.

    Raises:
      InputError: when it cannot be opened, or has no training pairs.
    """
    opened, splits = _open(options)
    members = pairs.require(splits, "train", options.data_dir)
    bad: bad_pairs.Bad = {}
    told = functools.partial(provenance.describe_data, options.data_dir, splits)
    if options.cache == "device" and _fits(opened, members):
        data = _read_all(options, opened, splits, bad)
        names = [member.name for member in members]
        return _array_feed(options, data, names, bad, told)
    return _stream_feed(options, opened, splits, bad, told)


def describe(options: train_config.TrainConfig) -> dict[str, Any]:
    """Returns what identifies the data that a run's options name."""
    return provenance.describe_data(options.data_dir, _open(options)[1])


def _open(options: train_config.TrainConfig) -> tuple[sources.Source, dict[str, tuple]]:
    opened = sources.open_source(options.data_dir)
    return opened, pairs.sample(opened.splits, options.fraction, seed=options.seed)


def array_feed(
    options: train_config.TrainConfig, data: "Mapping[str, arrays.PairArrays]"
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
    told = functools.partial(provenance.describe_arrays, data)
    return _array_feed(options, data, names, {}, told)


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
    return [
        feed.names[bad_pairs.next_good(place, len(feed.names), feed.bad)]
        for place in draws(options, feed.names, number).index.tolist()
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
      [name, name of the pair in its place] each.
    """
    if not feed.bad:
        return []
    share = options.batch_size // processes.count()
    first = processes.index() * share
    places = draws(options, feed.names, number).index[first : first + share].tolist()
    return [
        [
            feed.names[place],
            feed.names[bad_pairs.next_good(place, len(feed.names), feed.bad)],
        ]
        for place in places
        if place in feed.bad
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
) -> dict[str, "arrays.PairArrays"]:
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
            members[bad_pairs.next_good(place, len(members), bad)]
            for place in range(len(members))
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
    told: Callable[[], dict[str, Any]],
) -> Feed:
    members = splits["train"]

    def make_run(train_step: Callable, mesh: Any, start: int, total: int) -> Callable:
        split = sharding.split_batch(mesh)
        whole = sharding.replicated(mesh)
        compiled = guard.compile_protected(
            train_step, skip=_skips(options), whole=whole, rest=(split,)
        )
        batches = opened.train_batches(
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
        position = itertools.count(start)

        def run(state: Any, limit: int) -> tuple:
            del limit
            batch = {
                name: jax.make_array_from_process_local_data(split, rows)
                for name, rows in next(batches).items()
            }
            return *compiled(state, np.int32(next(position)), batch), 1

        return run

    validation = None
    if splits["validation"]:

        def validation() -> Iterator:
            return sources.evaluation_share(
                opened, splits["validation"], batch_size=options.batch_size
            )

    names = [member.name for member in members]
    return Feed(names, make_run, validation, bad, told)


def _array_feed(
    options: train_config.TrainConfig,
    data: "Mapping[str, arrays.PairArrays]",
    names: Sequence[str],
    bad: bad_pairs.Bad,
    told: Callable[[], dict[str, Any]],
) -> Feed:
    for members in data.values():
        arrays.check(members, image_size=options.image_size)

    def make_run(train_step: Callable, mesh: Any, start: int, total: int) -> Callable:
        split, whole = sharding.split_batch(mesh), sharding.replicated(mesh)
        resident = sharding.replicate(data["train"], mesh)

        def one(state: Any, resident: Any, drawn: sampling.Draws) -> tuple:
            batch = arrays.take_crops(resident, drawn, options.image_size)
            return train_step(state, jax.lax.with_sharding_constraint(batch, split))

        def many(state: Any, numbers: Any, resident: Any, drawn: Any) -> tuple:
            protected = guard.protect(one, skip=_skips(options))
            return jax.lax.scan(
                lambda s, x: protected(s, x[0], resident, x[1]), state, (numbers, drawn)
            )

        # A convolution inside a loop leaves XLA's fast path on a CPU; on an
        # accelerator one call for many steps saves the dispatch.
        limit = 1 if backend.is_cpu() else _STEPS_A_CALL
        if limit == 1:
            compiled = guard.compile_protected(
                one, skip=_skips(options), whole=whole, rest=(whole, whole)
            )
        else:
            compiled = jax.jit(many, out_shardings=(whole, whole), donate_argnums=0)
        position = itertools.count(start)

        def run(state: Any, wanted: int) -> tuple:
            steps = [next(position) for _ in range(min(limit, wanted))]
            drawn = [draws(options, names, number) for number in steps]
            if limit == 1:
                return *compiled(state, np.int32(steps[0]), resident, drawn[0]), 1
            stacked = jax.tree.map(_stack, *drawn)
            return *compiled(state, np.int32(steps), resident, stacked), len(steps)

        return run

    validation = None
    if "validation" in data:

        def validation() -> Iterator:
            return sources.array_share(
                data["validation"], batch_size=options.batch_size
            )

    return Feed(names, make_run, validation, bad, told)


def _skips(options: train_config.TrainConfig) -> bool:
    return options.bad_numbers == "skip"


def _stack(*rows: np.ndarray) -> np.ndarray:
    return np.stack(rows)
