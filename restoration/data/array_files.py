"""Prepared pairs as memory-mapped uint8 arrays, without TensorFlow.

A folder holds `index.json` and, for each split, `SPLIT/input.npy` and
`SPLIT/output.npy`, uint8 (count, height, width, 3), in the order of `pairs`.
"""

import contextlib
import json
import os
import pathlib
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

import google_crc32c
import numpy as np

from restoration.base import config, errors
from restoration.data import arrays, pairs

INDEX = "index.json"
_FORMAT = "paired arrays 1"

# Errors that numpy raises at a damaged header, which it parses as Python literals.
_NO_ARRAY = (
    OSError, ValueError, MemoryError, RecursionError, SyntaxError, OverflowError,
    tokenize.TokenError,
)  # fmt: skip


class Opened(NamedTuple):
    """Prepared arrays.

    Attributes:
      folder: that contains them.
      records: the pair of each row, by split.
      arrays: memory-mapped, by split; empty splits are left out.
      checksums: CRC-32C of each row's input and output, by split.
      fingerprint: of the paired folder, see `pairs.fingerprint`.
    """

    folder: pathlib.Path
    records: dict[str, tuple[pairs.Record, ...]]
    arrays: dict[str, arrays.PairArrays]
    checksums: dict[str, list[list[int]]]
    fingerprint: str


@contextlib.contextmanager
def _new_array(path: pathlib.Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """Opens an .npy file to which rows are written one after the other.

    A memory map is not used: writing to one kills the process if the disk is full.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def _write_split(
    folder: pathlib.Path, members: Sequence[pairs.Pair], done: Callable[[], object]
) -> list[list[int]]:
    """Writes both arrays of a split; returns the checksums of their rows."""
    folder.mkdir()
    shape = pairs.read(members[0])[0].shape
    checksums = []
    with (
        contextlib.closing(pairs.read_ahead(members)) as reading,
        _new_array(folder / "input.npy", (len(members), *shape)) as degraded_file,
        _new_array(folder / "output.npy", (len(members), *shape)) as clean_file,
    ):
        for pair, degraded, clean in reading:
            if degraded.shape != shape:
                raise errors.InputError(
                    f"{pair.input}: {degraded.shape[1]}×{degraded.shape[0]} pixels, "
                    f"{members[0].input} has {shape[1]}×{shape[0]}; arrays need equal "
                    "sizes, --format=tfrecord does not"
                )
            rows = degraded.tobytes(), clean.tobytes()
            degraded_file.write(rows[0])
            clean_file.write(rows[1])
            checksums.append([google_crc32c.value(row) for row in rows])
            done()
    return checksums


def write(
    folder: pathlib.Path,
    splits: Mapping[str, Sequence[pairs.Pair]],
    done: Callable[[], object] = lambda: None,
) -> None:
    """Writes the pairs of a folder as arrays.

    Args:
      folder: an empty folder.
      splits: pairs of each split; all images of a split have the same size.
      done: called after each pair.

    Raises:
      InputError: if a file cannot be read or has another size.
      OSError: if the disk is full.
    """
    checksums = {
        split: _write_split(folder / split, members, done) if members else []
        for split, members in splits.items()
    }
    index = {
        "form": _FORMAT,
        "fingerprint": pairs.fingerprint(splits),
        "names": {split: [p.name for p in splits[split]] for split in pairs.SPLITS},
        "clips": {split: [p.clip for p in splits[split]] for split in pairs.SPLITS},
        "checksums": checksums,
    }
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _checksums(
    stored: Mapping[str, list], records: Mapping[str, Sequence[pairs.Record]]
) -> dict[str, list[list[int]]]:
    """Returns two checksums per record; raises ValueError if the numbers differ."""
    for split, rows in records.items():
        found = np.asarray(stored[split], np.uint32).reshape(-1, 2)
        if len(found) != len(rows):
            raise ValueError(f"{len(found)} checksums for {len(rows)} pairs of {split}")
    return {split: list(stored[split]) for split in records}


def _open_array(path: pathlib.Path, count: int) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except _NO_ARRAY as error:
        raise errors.InputError(
            f"{path}: cannot be read ({error}); prepare it again"
        ) from None
    images = array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3
    if not images or len(array) != count:
        raise errors.InputError(
            f"{path}: {array.dtype} {array.shape} instead of {count} uint8 images; "
            "prepare it again"
        )
    return array


def open_arrays(folder: str | os.PathLike) -> Opened:
    """Opens prepared arrays; the pixels stay on disk.

    Args:
      folder: written by `write`.

    Returns:
      The arrays with their pairs and checksums.

    Raises:
      InputError: if a file is missing, cut off or damaged.
    """
    folder = pathlib.Path(folder)
    try:
        index = config.parse((folder / INDEX).read_text(encoding="utf-8"))
        if index["form"] != _FORMAT:
            raise ValueError(f"its format is {index['form']!r}, not {_FORMAT!r}")
        records = pairs.records(index["names"], index["clips"])
        checksums = _checksums(index["checksums"], records)
        fingerprint = index["fingerprint"]
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    ) as error:  # fmt: skip
        raise errors.InputError(
            f"{folder / INDEX}: cannot be read ({error}); prepare it again"
        ) from None
    opened = {
        split: arrays.PairArrays(
            _open_array(folder / split / "input.npy", len(rows)),
            _open_array(folder / split / "output.npy", len(rows)),
        )
        for split, rows in records.items()
        if rows
    }
    for split, (degraded, clean) in opened.items():
        if degraded.shape != clean.shape:
            raise errors.InputError(
                f"{folder / split}: arrays of shapes {degraded.shape} and "
                f"{clean.shape}; prepare it again"
            )
    return Opened(folder, records, opened, checksums, fingerprint)


def read_rows(opened: Opened, split: str, rows: Sequence[int]) -> arrays.PairArrays:
    """Reads pairs into memory and verifies their checksums.

    Args:
      opened: see `open_arrays`.
      split: of the pairs.
      rows: indices of the pairs in the split's arrays.

    Returns:
      Their images, uint8 (len(rows), height, width, 3) each.

    Raises:
      InputError: if a row is damaged; names the file.
    """
    degraded, clean = (side[np.asarray(rows)] for side in opened.arrays[split])
    for number, row in enumerate(rows):
        expected = opened.checksums[split][row]
        for side, images, checksum in zip(
            ("input", "output"), (degraded, clean), expected, strict=True
        ):
            if google_crc32c.value(images[number].tobytes()) != checksum:
                raise errors.InputError(
                    f"{opened.folder / split / side}.npy: damaged at row {row}; put "
                    "back a good copy, or prepare it again"
                )
    return arrays.PairArrays(degraded, clean)
