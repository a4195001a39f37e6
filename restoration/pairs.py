"""Pairs of frames: matching inputs with outputs, splits, the seed's samples.

A paired folder holds `input/` (worn) and `output/` (clean), or `train/`,
`validation/` and `test/` with these two inside each. The two images of a pair
have the same path below their folder, suffix aside.
"""

import dataclasses
import hashlib
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Mapping

from restoration import errors, frames

SPLITS = ("train", "validation", "test")

# Shares of the hash range, in the order of SPLITS.
_BOUNDS = (0.8, 0.9, 1.0)


@dataclasses.dataclass(frozen=True, order=True)
class Pair:
    """A worn frame and its clean counterpart.

    Attributes:
      name: the path below `input/` without suffix, POSIX form.
      clip: the shot it belongs to, see `clip_of`.
      input: file of the worn frame.
      output: file of the clean frame.
    """

    name: str
    clip: str
    input: pathlib.Path
    output: pathlib.Path


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


def stems(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the image files of a folder by stem (relative path, no suffix)."""
    found: dict[str, list[pathlib.Path]] = {}
    for name in frames.list_images(folder):
        found.setdefault(name[: name.rindex(".")], []).append(folder / name)
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
    sides = {}
    for side in ("input", "output"):
        if not (folder / side).is_dir():
            raise errors.InputError(
                f"{folder / side}: no such folder; a paired folder holds input/ and "
                "output/ (python -m restoration.degrade makes one from clean images)"
            )
        sides[side] = stems(folder / side)
        for paths in sides[side].values():
            if len(paths) > 1:
                raise errors.InputError(
                    f"{paths[0]} and {paths[1].name}: same name twice; remove one"
                )
    return tuple(
        Pair(name, clip_of(name), sides["input"][name][0], sides["output"][name][0])
        for name in sorted(sides["input"].keys() & sides["output"].keys())
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
    splits: Mapping[str, tuple[Pair, ...]], fraction: float, *, seed: int
) -> dict[str, tuple[Pair, ...]]:
    """Draws the seed report's samples: a fraction of all pairs.

    The fraction applies to the pairs of all splits together and the splits
    inherit what falls to them: 2, 12 and 32 % of 31,801 pairs are 636, 3,816
    and 10,176. A smaller sample lies inside a larger one of the same seed, and
    the first three places go to three splits, so that none is empty needlessly.

    Args:
      splits: pairs of each split.
      fraction: in (0, 1].
      seed: another seed draws another sample.

    Returns:
      The sampled pairs of each split, ordered by name.

    Raises:
      InputError: for a fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise errors.InputError(f"--fraction={fraction}: must be above 0, at most 1")

    def rank(item: tuple[str, Pair]) -> float:
        return hash_fraction(f"{seed}/{item[0]}/{item[1].name}")

    ranked = sorted(
        ((split, pair) for split in splits for pair in splits[split]), key=rank
    )
    firsts = {}
    for item in ranked:
        firsts.setdefault(item[0], item)
    leading = list(firsts.values())
    ordered = leading + [item for item in ranked if item not in leading]
    chosen = set(ordered[: max(1, round(fraction * len(ordered)))])
    return {
        split: tuple(pair for pair in splits[split] if (split, pair) in chosen)
        for split in splits
    }


def require(
    splits: Mapping[str, tuple[Pair, ...]], split: str, data_dir: str | os.PathLike
) -> tuple[Pair, ...]:
    """Returns the pairs of one split; raises InputError when there are none."""
    if split not in SPLITS:
        raise errors.InputError(f"--split={split}: choose one of {', '.join(SPLITS)}")
    if not splits[split]:
        counts = ", ".join(f"{name} {len(splits[name])}" for name in SPLITS)
        raise errors.InputError(
            f"{data_dir}: the {split} split is empty ({counts}); add pairs"
        )
    return splits[split]
