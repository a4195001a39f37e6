"""Pairs of frames: matching inputs with targets, splits, samples, reading.

A paired folder contains `input/` (degraded) and `output/` (clean), or `train/`,
`validation/` and `test/` with these two in each. The two images of a pair have the same
path below their folder, except for the suffix.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import logging
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from restoration.base import errors
from restoration.images import frames

SPLITS = ("train", "validation", "test")

# Upper bounds of the splits' parts of the hash range, in the order of SPLITS.
_BOUNDS = (0.8, 0.9, 1.0)

# Number of pairs read ahead of the one in use.
_AHEAD = 32


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Pair:
    """A degraded frame and its clean target. Small, since there may be millions.

    Attributes:
      name: the path below `input/` without suffix, with forward slashes.
      clip: the shot that the frame belongs to, see `clip_of`.
      folder: that contains `input/` and `output/`.
      suffixes: of the input and the output file.
    """

    name: str
    clip: str
    folder: str
    suffixes: tuple[str, str]

    @property
    def input(self) -> pathlib.Path:
        """The file of the degraded frame."""
        return pathlib.Path(self.folder, "input", self.name + self.suffixes[0])

    @property
    def output(self) -> pathlib.Path:
        """The file of the clean frame."""
        return pathlib.Path(self.folder, "output", self.name + self.suffixes[1])


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A pair of a prepared dataset.

    Attributes:
      name: as in `Pair`.
      clip: as in `Pair`.
      split: that contains the pair.
      index: of the pair in its split, from 0.
    """

    name: str
    clip: str
    split: str
    index: int


def is_inside(name: Any) -> bool:
    """Returns whether a name, joined to a folder, stays below that folder.

    Names from an index or a journal are checked before a file is read or written.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    return not name.startswith("/") and ".." not in name.split("/")


def records(
    names: Mapping[str, Sequence[str]], clips: Mapping[str, Sequence[str]]
) -> dict[str, tuple[Record, ...]]:
    """Returns the records of each split from their names and clips, in order.

    Raises:
      ValueError: if a name leads out of its folder, or the lists differ in length.
    """
    for name in itertools.chain.from_iterable(names[split] for split in SPLITS):
        if not is_inside(name):
            raise ValueError(f"the name {name!r} leads out of its folder")
    return {
        split: tuple(
            Record(name, sys.intern(clip), split, index)
            for index, (name, clip) in enumerate(
                zip(names[split], clips[split], strict=True)
            )
        )
        for split in SPLITS
    }


def clip_of(name: str) -> str:
    """Returns the clip of a frame: its name without the last `_number`.

    Without a number, the clip is the frame's sub-folder, or else its name.
    """
    match = re.fullmatch(r"(.+)_\d+", name, re.DOTALL)
    if match:
        return match[1]
    return name.rpartition("/")[0] or name


def is_split(data_dir: str | os.PathLike) -> bool:
    """Returns whether a paired folder is already split."""
    return any((pathlib.Path(data_dir) / split).is_dir() for split in SPLITS)


def _suffixes(folder: pathlib.Path) -> dict[str, str]:
    """Returns the suffix of each image file in a folder, by stem."""
    found: dict[str, str] = {}
    for path in frames.list_images(folder):
        stem, dot, suffix = path.rpartition(".")
        suffix = sys.intern(dot + suffix)
        if found.setdefault(stem, suffix) is not suffix:
            raise errors.InputError(
                f"{folder / stem}{found[stem]} and {folder / path}: have the same "
                "name; remove one"
            )
    return found


def match(folder: str | os.PathLike) -> tuple[Pair, ...]:
    """Matches `input/` with `output/` of one folder.

    Args:
      folder: a folder that contains `input/` and `output/`.

    Returns:
      The pairs, ordered by name. Files without a partner are ignored (`clean` moves
      them away).

    Raises:
      InputError: when one of the two folders is missing, or two files of one
        folder share a stem.
    """
    folder = pathlib.Path(folder)
    for side in ("input", "output"):
        if not (folder / side).is_dir():
            raise errors.InputError(
                f"{folder / side}: no such folder; a paired folder contains input/ and "
                "output/ (python -m restoration.degrade makes one from clean images)"
            )
    degraded, clean = _suffixes(folder / "input"), _suffixes(folder / "output")
    root = os.fspath(folder)
    return tuple(
        Pair(name, sys.intern(clip_of(name)), root, (degraded[name], clean[name]))
        for name in sorted(degraded.keys() & clean.keys())
    )


def hash_fraction(text: str) -> float:
    """Returns a number in [0, 1) that depends only on the text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def split_by_clip(pairs: Iterable[Pair]) -> dict[str, tuple[Pair, ...]]:
    """Splits pairs 80/10/10 so that no clip is in two splits.

    A clip's split depends only on the hash of its name, so that it does not change when
    files are added. If a split would be empty, it gets the clip with the nearest hash
    from the largest split. If there are fewer than three clips, frames are split
    instead of clips, since a split would be empty otherwise.

    Args:
      pairs: pairs in any order.

    Returns:
      The pairs of each split, ordered by name.
    """
    pairs = sorted(pairs)
    clips = {pair.clip for pair in pairs}
    unit = {pair: pair.clip for pair in pairs}
    if 0 < len(clips) < len(SPLITS) <= len(pairs):
        logging.warning(
            "only %d clips: frames are split, so splits may contain near copies",
            len(clips),
        )
        unit = {pair: pair.name for pair in pairs}
    split_of = {
        name: next(
            split
            for split, bound in zip(SPLITS, _BOUNDS, strict=True)
            if hash_fraction(name) < bound
        )
        for name in sorted(set(unit.values()))
    }
    for split in reversed(SPLITS):
        members = {s: [n for n in split_of if split_of[n] == s] for s in SPLITS}
        largest = max(SPLITS, key=lambda s: len(members[s]))
        if not members[split] and len(members[largest]) > 1:
            edge = max if SPLITS.index(split) > SPLITS.index(largest) else min
            split_of[edge(members[largest], key=hash_fraction)] = split
    return {
        split: tuple(pair for pair in pairs if split_of[unit[pair]] == split)
        for split in SPLITS
    }


def find_splits(data_dir: str | os.PathLike) -> dict[str, tuple[Pair, ...]]:
    """Finds the pairs of a paired folder, split or not.

    Args:
      data_dir: the folder.

    Returns:
      The pairs of train, validation and test, each ordered by name.

    Raises:
      InputError: if the folder is missing, has split folders beside `input/`, or has no
        pairs.
    """
    data_dir = pathlib.Path(data_dir)
    if not data_dir.is_dir():
        raise errors.InputError(f"{data_dir}: no such folder; check --data_dir")
    if is_split(data_dir):
        if (data_dir / "input").is_dir():
            raise errors.InputError(
                f"{data_dir}: contains both input/ and split folders; keep one layout"
            )
        splits = {
            split: match(data_dir / split) if (data_dir / split).is_dir() else ()
            for split in SPLITS
        }
    else:
        splits = split_by_clip(match(data_dir))
    if not any(splits.values()):
        raise errors.InputError(
            f"{data_dir}: no pairs; the two images of a pair have the same name in "
            "input/ and output/"
        )
    return splits


def sample(
    splits: Mapping[str, Sequence[Any]], fraction: float, *, seed: int
) -> dict[str, tuple]:
    """Draws the seed report's samples: a fraction of all pairs.

    The fraction applies to the pairs of all splits together: 2, 12 and 32 % of 31,801
    pairs are 636, 3,816 and 10,176. A smaller sample is a subset of a larger one with
    the same seed. The first three pairs drawn are from three splits, so that no split
    is empty if that can be avoided.

    Args:
      splits: pairs or records of each split; anything with a `name`.
      fraction: in (0, 1].
      seed: another seed draws another sample.

    Returns:
      The sampled pairs of each split, ordered by name.

    Raises:
      InputError: if the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise errors.InputError(f"--fraction={fraction}: must be above 0, at most 1")

    def rank(item: tuple[str, str]) -> float:
        return hash_fraction(f"{seed}/{item[0]}/{item[1]}")

    if fraction == 1:
        return {split: tuple(members) for split, members in splits.items()}
    ranked = sorted(
        ((split, member.name) for split in splits for member in splits[split]),
        key=rank,
    )
    firsts = {}
    for item in ranked:
        firsts.setdefault(item[0], item)
    leading = list(firsts.values())
    ordered = leading + [item for item in ranked if item not in leading]
    chosen = set(ordered[: max(1, round(fraction * len(ordered)))])
    return {
        split: tuple(m for m in members if (split, m.name) in chosen)
        for split, members in splits.items()
    }


def fingerprint(splits: Mapping[str, tuple[Pair, ...]]) -> str:
    """Returns a hash of the pairs' names and of their files' sizes and times.

    Args:
      splits: pairs of each split.

    Returns:
      A SHA-256 in hex.
    """
    found = hashlib.sha256()
    for split, members in splits.items():
        for pair in members:
            values = [split, pair.name, pair.clip]
            for path in (pair.input, pair.output):
                status = os.stat(path)
                values += [status.st_size, status.st_mtime_ns]
            found.update(repr(values).encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Reads both frames of a pair.

    Args:
      pair: the pair.

    Returns:
      Degraded and clean frame, uint8 (height, width, 3) each.

    Raises:
      InputError: if a file cannot be read, or the frames differ in size.
    """
    degraded, clean = (
        frames.to_uint8(frames.read(path)) for path in (pair.input, pair.output)
    )
    if degraded.shape != clean.shape:
        raise errors.InputError(
            f"{pair.input} and {pair.output}: differ in size; remove the pair, or move "
            "it away with python -m restoration.clean"
        )
    return degraded, clean


def read_ahead(
    members: Iterable[Pair],
) -> Iterator[tuple[Pair, np.ndarray, np.ndarray]]:
    """Reads pairs in order, on all cores, ahead of the one in use.

    Args:
      members: the pairs.

    Yields:
      Each pair with its degraded and clean frame, see `read`.

    Raises:
      InputError: if a pair cannot be read.
    """
    coming = iter(members)
    waiting: collections.deque = collections.deque()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            while True:
                for pair in itertools.islice(coming, _AHEAD - len(waiting)):
                    waiting.append((pair, pool.submit(read, pair)))
                if not waiting:
                    return
                pair, future = waiting.popleft()
                yield pair, *future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def require(
    splits: Mapping[str, tuple], split: str, data_dir: str | os.PathLike
) -> tuple:
    """Returns the members of one split; raises InputError if it is empty."""
    if split not in SPLITS:
        raise errors.InputError(f"--split={split}: choose one of {', '.join(SPLITS)}")
    if not splits[split]:
        counts = ", ".join(f"{name} {len(splits[name])}" for name in SPLITS)
        raise errors.InputError(
            f"{data_dir}: the {split} split is empty ({counts}); add pairs"
        )
    return splits[split]
