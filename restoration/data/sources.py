"""Where pairs come from: a paired folder, prepared records, or prepared arrays.

All three give the same pairs in the same order, and the same batches for the same
seed; `--data_dir` may name any of them.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from etils import epy

from restoration.base import errors
from restoration.data import bad_pairs, pairs
from restoration.devices import processes

with epy.lazy_imports():
    from restoration.data import array_files, arrays, input_pipeline, records


class TrainBatches(Protocol):
    """Gives training batches; see `input_pipeline.train_batches`."""

    def __call__(
        self,
        members: Sequence[Any],
        /,
        *,
        image_size: int,
        batch_size: int,
        seed: int,
        start_step: int,
        total_steps: int,
        augment: bool,
        process: tuple[int, int] = (0, 1),
        bad: bad_pairs.Bad | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields {"input", "output"}, this process's rows of each step's batch."""


class EvaluationBatches(Protocol):
    """Gives whole pictures; see `input_pipeline.evaluation_batches`."""

    def __call__(
        self, members: Sequence[Any], /, *, batch_size: int
    ) -> Iterator[dict[str, Any]]:
        """Yields {"input", "output", "mask", "name"}, every pair once."""


class Source(NamedTuple):
    """Pairs, and how they are read. Members have a `name` and a `clip`.

    Attributes:
      splits: the members of train, validation and test, in order.
      train_batches: gives the batches of some members to train on.
      evaluation_batches: gives some members whole, to be measured.
    """

    splits: Mapping[str, tuple]
    train_batches: TrainBatches
    evaluation_batches: EvaluationBatches


def _folder(folder: pathlib.Path) -> Source:
    return Source(
        pairs.find_splits(folder),
        lambda chosen, **o: input_pipeline.train_batches(
            input_pipeline.file_reader(chosen), **o
        ),
        lambda chosen, **o: input_pipeline.evaluation_batches(
            input_pipeline.file_reader(chosen), **o
        ),
    )


def _records(folder: pathlib.Path) -> Source:
    builder = records.open_dataset(folder)
    return Source(
        records.members(builder),
        functools.partial(records.train_batches, builder),
        lambda chosen, **o: input_pipeline.evaluation_batches(
            records.record_reader(builder, chosen), **o
        ),
    )


def _arrays(folder: pathlib.Path) -> Source:
    opened = array_files.open_arrays(folder)

    def train_batches(
        chosen: Sequence[pairs.Record], *, bad: object = None, **options: Any
    ) -> Iterator[dict]:
        del bad  # memory-mapped rows can always be read
        degraded, clean = opened.arrays[chosen[0].split]
        indices = [record.index for record in chosen]
        return arrays.train_batches(
            lambda number: (degraded[indices[number]], clean[indices[number]]),
            [record.name for record in chosen],
            **options,
        )

    def evaluation_batches(
        chosen: Sequence[pairs.Record], *, batch_size: int
    ) -> Iterator[dict]:
        for start in range(0, len(chosen), batch_size):
            part = chosen[start : start + batch_size]
            rows = array_files.read_rows(
                opened, part[0].split, [record.index for record in part]
            )
            batch = arrays.pad_batch(rows._asdict(), min(batch_size, len(chosen)))
            yield batch | {"name": [record.name for record in part]}

    return Source(opened.records, train_batches, evaluation_batches)


def find_prepared(
    folder: pathlib.Path,
) -> list[tuple[pathlib.Path, Callable[[pathlib.Path], Source]]]:
    """Finds prepared datasets in a folder, or the one that it is.

    Args:
      folder: what `--data_dir` or `prepare --out` names.

    Returns:
      Each one's folder, and the function that opens it.
    """
    found = [
        (path.parent, _records)
        for pattern in ("dataset_info.json", "paired_frames/*/*/dataset_info.json")
        for path in sorted(folder.glob(pattern))
        if ".incomplete" not in path.parent.name
        and not path.parent.name.startswith("incomplete.")
    ]
    found += [
        (path.parent, _arrays)
        for pattern in ("index.json", "arrays/index.json")
        for path in folder.glob(pattern)
    ]
    return found


def open_source(data_dir: str | os.PathLike) -> Source:
    """Opens a paired folder, or what `prepare` made of one.

    Args:
      data_dir: the folder.

    Returns:
      Its pairs and how they are read.

    Raises:
      InputError: when it is missing, damaged, empty, or holds several datasets.
    """
    folder = pathlib.Path(data_dir)
    prepared = find_prepared(folder)
    if len(prepared) > 1:
        paths = " or ".join(os.fspath(path) for path, _ in prepared)
        raise errors.InputError(f"{folder}: several prepared datasets; name {paths}")
    for path, opener in prepared:
        return opener(path)
    return _folder(folder)


def evaluation_share(
    source: Source, members: Sequence[Any], *, batch_size: int
) -> Iterator[dict]:
    """Returns evaluation batches of this process's share of some pairs.

    Args:
      source: see `open_source`.
      members: which pairs, the same in all processes.
      batch_size: see `input_pipeline.evaluation_batches`.

    Returns:
      The batches; none where there are fewer pairs than processes.
    """
    mine = processes.share(members)
    if not mine:
        return iter(())
    return source.evaluation_batches(mine, batch_size=batch_size)


def array_share(data: "arrays.PairArrays", *, batch_size: int) -> Iterator[dict]:
    """Does what `evaluation_share` does with pairs that are held as arrays."""
    numbers = processes.share(range(len(data.input)))
    if not numbers:
        return iter(())
    return arrays.evaluation_batches(
        arrays.PairArrays(*(processes.share(side) for side in data)),
        batch_size=batch_size,
        names=[f"{number:06d}" for number in numbers],
    )


def read_all(source: Source, members: Sequence[Any]) -> "arrays.PairArrays":
    """Reads pairs of one size into arrays on the host.

    Args:
      source: see `open_source`.
      members: which pairs.

    Returns:
      uint8 (len(members), height, width, 3) each.

    Raises:
      InputError: when they differ in size, or one cannot be read.
    """
    whole = None
    filled = 0
    for batch in source.evaluation_batches(members, batch_size=16):
        count = int(batch["mask"].sum())
        shape = batch["input"].shape[1:]
        if whole is None:
            whole = arrays.PairArrays(
                *(np.empty((len(members), *shape), np.uint8) for _ in range(2))
            )
        if whole.input.shape[1:] != shape:
            raise errors.InputError(
                f"{batch['name'][0]} has {shape[1]}×{shape[0]} pixels, others "
                f"{whole.input.shape[2]}×{whole.input.shape[1]}; --cache=device needs "
                "pairs of one size, drop it"
            )
        for side in ("input", "output"):
            getattr(whole, side)[filled : filled + count] = batch[side][:count]
        filled += count
    return whole
