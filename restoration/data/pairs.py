"""Pairs of frames: matching inputs with outputs, splits, the seed's samples.

A paired folder holds `input/` (worn) and `output/` (clean), or `train/`,
`validation/` and `test/` with these two inside each. The two images of a pair
have the same path below their folder, suffix aside.
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

# Shares of the hash range, in the order of SPLITS.
_BOUNDS = (0.8, 0.9, 1.0)

# Pairs that are read ahead of the one in use, so that memory stays bounded.
_AHEAD = 32


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Pair:
    """A worn frame and its clean counterpart; small, for millions of them.

    Attributes:
      name: the path below `input/` without suffix, POSIX form.
      clip: the shot it belongs to, see `clip_of`.
      folder: the folder that holds `input/` and `output/`.
      suffixes: of the worn and the clean file.
    """

    name: str
    clip: str
    folder: str
    suffixes: tuple[str, str]

    @property
    def input(self) -> pathlib.Path:
        """The file of the worn frame."""
        return pathlib.Path(self.folder, "input", self.name + self.suffixes[0])

    @property
    def output(self) -> pathlib.Path:
        """The file of the clean frame."""
        return pathlib.Path(self.folder, "output", self.name + self.suffixes[1])


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A pair of a prepared dataset: no files of its own, but a place.

    Attributes:
      name: as in `Pair`.
      clip: as in `Pair`.
      split: where it lies.
      place: which pair of its split it is, from 0.
    """

    name: str
    clip: str
    split: str
    place: int


def is_inside(name: Any) -> bool:
    """Returns whether a name stays below any folder that it is joined to.

    Names from an index or a journal are asked before a file is read or written there.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    return not name.startswith("/") and ".." not in name.split("/")


def records(
    names: Mapping[str, Sequence[str]], clips: Mapping[str, Sequence[str]]
) -> dict[str, tuple[Record, ...]]:
    """Returns the records of each split from their names and clips, in order.

    Raises:
      ValueError: for a name that leads out of its folder, and for lists that do not
        fit together.
    """
    for name in itertools.chain.from_iterable(names[split] for split in SPLITS):
        if not is_inside(name):
            raise ValueError(f"the name {name!r} leads out of its folder")
    return {
        split: tuple(
            Record(name, sys.intern(clip), split, place)
            for place, (name, clip) in enumerate(
                zip(names[split], clips[split], strict=True)
            )
        )
        for split in SPLITS
    }


def clip_of(name: str) -> str:
    """Returns the clip of a frame: the name before its last `_number`.

    A name without a number stands for itself; in a sub-folder, for the folder.
    """
    match = re.fullmatch(r"(.+)_\d+", name, re.DOTALL)
    if match:
        return match[1]
    return name.rpartition("/")[0] or name


def is_split(data_dir: str | os.PathLike) -> bool:
    """Returns whether a paired folder is already split."""
    return any((pathlib.Path(data_dir) / split).is_dir() for split in SPLITS)


def _suffixes(folder: pathlib.Path) -> dict[str, str]:
    """Returns the suffix of each image file of a folder by its stem."""
    found: dict[str, str] = {}
    for path in frames.list_images(folder):
        stem, dot, suffix = path.rpartition(".")
        suffix = sys.intern(dot + suffix)
        if found.setdefault(stem, suffix) is not suffix:
            raise errors.InputError(
                f"{folder / stem}{found[stem]} and {folder / path}: same name twice; "
                "remove one"
            )
    return found


def match(folder: str | os.PathLike) -> tuple[Pair, ...]:
    """Matches `input/` with `output/` of one folder, ordered by name.

    Args:
      folder: a folder that holds `input/` and `output/`.

    Returns:
      The pairs; files without a partner are passed over (`clean` moves them).

    Raises:
      InputError: when one of the two folders is missing, or two files of one
        folder share a stem.
    """
    folder = pathlib.Path(folder)
    for side in ("input", "output"):
        if not (folder / side).is_dir():
            raise errors.InputError(
                f"{folder / side}: no such folder; a paired folder holds input/ and "
                "output/ (python -m restoration.degrade makes one from clean images)"
            )
    degraded, clean = _suffixes(folder / "input"), _suffixes(folder / "output")
    root = os.fspath(folder)
    return tuple(
        Pair(name, sys.intern(clip_of(name)), root, (degraded[name], clean[name]))
        for name in sorted(degraded.keys() & clean.keys())
    )


def hash_fraction(text: str) -> float:
    """Returns a number in [0, 1) that depends on the text alone."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def split_by_clip(pairs: Iterable[Pair]) -> dict[str, tuple[Pair, ...]]:
    """Splits pairs 80/10/10 so that no clip lies in two splits.

    A clip's split follows from the hash of its name alone, so it stays where it
    is when files are added. When a split would be empty, the fullest one gives
    it the clip that lies nearest. With fewer than three clips frames are split
    instead of clips, since anything else leaves a split empty.

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
            "only %d clips: splitting by frame, neighbours may be near copies",
            len(clips),
        )
        unit = {pair: pair.name for pair in pairs}
    homes = {
        name: next(
            split
            for split, bound in zip(SPLITS, _BOUNDS, strict=True)
            if hash_fraction(name) < bound
        )
        for name in sorted(set(unit.values()))
    }
    for split in reversed(SPLITS):
        members = {s: [n for n in homes if homes[n] == s] for s in SPLITS}
        fullest = max(SPLITS, key=lambda s: len(members[s]))
        if not members[split] and len(members[fullest]) > 1:
            edge = max if SPLITS.index(split) > SPLITS.index(fullest) else min
            homes[edge(members[fullest], key=hash_fraction)] = split
    return {
        split: tuple(pair for pair in pairs if homes[unit[pair]] == split)
        for split in SPLITS
    }


def find_splits(data_dir: str | os.PathLike) -> dict[str, tuple[Pair, ...]]:
    """Finds the pairs of a paired folder, split or not.

    Args:
      data_dir: the folder.

    Returns:
      The pairs of train, validation and test, each ordered by name.

    Raises:
      InputError: when the folder is missing, is both split and not, or holds
        no pair.
    """
    data_dir = pathlib.Path(data_dir)
    if not data_dir.is_dir():
        raise errors.InputError(f"{data_dir}: no such folder; check --data_dir")
    if is_split(data_dir):
        if (data_dir / "input").is_dir():
            raise errors.InputError(
                f"{data_dir}: holds both input/ and split folders; keep one form"
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

    The fraction applies to the pairs of all splits together and the splits
    inherit what falls to them: 2, 12 and 32 % of 31,801 pairs are 636, 3,816
    and 10,176. A smaller sample lies inside a larger one of the same seed, and
    the first three places go to three splits, so that none is empty needlessly.

    Args:
      splits: members of each split, each with a `name`: pairs, or what stands
        for them in a prepared dataset.
      fraction: in (0, 1].
      seed: another seed draws another sample.

    Returns:
      The sampled pairs of each split, ordered by name.

    Raises:
      InputError: for a fraction outside (0, 1].
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
            told = [split, pair.name, pair.clip]
            for path in (pair.input, pair.output):
                status = os.stat(path)
                told += [status.st_size, status.st_mtime_ns]
            found.update(repr(told).encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Reads both frames of a pair.

    Args:
      pair: which.

    Returns:
      Worn and clean frame, uint8 (height, width, 3) each.

    Raises:
      InputError: naming the file that cannot be read, or both files when they
        differ in size.
    """
    degraded, clean = (
        frames.to_uint8(frames.read(path)) for path in (pair.input, pair.output)
    )
    if degraded.shape != clean.shape:
        raise errors.InputError(
            f"{pair.input} and {pair.output}: a pair of different sizes; remove it, "
            "or move it away with python -m restoration.clean"
        )
    return degraded, clean


def read_ahead(
    members: Iterable[Pair],
) -> Iterator[tuple[Pair, np.ndarray, np.ndarray]]:
    """Reads pairs in order, on all cores, some ahead of the one that is asked for.

    Args:
      members: the pairs.

    Yields:
      Each pair with its worn and clean frame, see `read`.

    Raises:
      InputError: for the first pair that cannot be read.
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
    """Returns the members of one split; raises InputError when there are none."""
    if split not in SPLITS:
        raise errors.InputError(f"--split={split}: choose one of {', '.join(SPLITS)}")
    if not splits[split]:
        counts = ", ".join(f"{name} {len(splits[name])}" for name in SPLITS)
        raise errors.InputError(
            f"{data_dir}: the {split} split is empty ({counts}); add pairs"
        )
    return splits[split]
