"""Lists the files of a paired folder and groups them into pairs."""

import heapq
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from restoration.audit import finding
from restoration.base import errors
from restoration.data import pairs
from restoration.images import frames


class Unit(NamedTuple):
    """The files with one stem in one split: usually one input and one output."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class PairName(NamedTuple):
    """The split of a pair ("" if the folder is not split) and its stem."""

    split: str
    stem: str


def pair_name(path: str) -> PairName:
    """Returns the split and stem of a file, from its path below the data folder."""
    head, _, rest = path.rpartition(".")[0].partition("/")
    if head in pairs.SPLITS:
        return PairName(head, rest.partition("/")[2])
    return PairName("", rest)


def side_of(path: str) -> str:
    """Returns "input" or "output", the side of a file."""
    parts = path.split("/")
    return parts[parts[0] in pairs.SPLITS]


def is_link(path: str) -> bool:
    """Returns whether a path is a symbolic link."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def find_sides(data_dir: str | os.PathLike) -> tuple[tuple[str, str], ...]:
    """Finds the folders of inputs and outputs, below the data folder.

    Args:
      data_dir: a paired folder, split or not.

    Returns:
      For each split (input, output), as paths relative to data_dir.

    Raises:
      InputError: if a folder is missing or a symbolic link, or there are split folders
        beside `input/`.
    """
    root = os.fspath(data_dir)
    if not os.path.isdir(root):
        raise errors.InputError(f"{root}: no such folder; check --data_dir")
    splits = [""]
    if pairs.is_split(root):
        if os.path.isdir(os.path.join(root, "input")):
            raise errors.InputError(
                f"{root}: contains both input/ and split folders; keep one layout"
            )
        splits = [s for s in pairs.SPLITS if os.path.isdir(os.path.join(root, s))]
    sides = tuple(
        tuple(f"{split}/{side}".lstrip("/") for side in ("input", "output"))
        for split in splits
    )
    for folder in (*splits, *itertools.chain.from_iterable(sides)):
        path = os.path.join(root, folder)
        if folder and is_link(path):
            raise errors.InputError(
                f"{path}: a symbolic link, which clean does not follow; use the "
                "folder itself"
            )
        if not os.path.isdir(path):
            raise errors.InputError(
                f"{path}: no such folder; a paired folder contains input/ and output/ "
                "(python -m restoration.degrade makes one from clean images)"
            )
    return sides


def list_side(root: str, folder: str) -> tuple[list[str], list[finding.Finding]]:
    """Returns the images below a folder, and findings on its other files."""
    names, findings, waiting = [], [], [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(os.path.join(root, here)) as entries:
                for entry in entries:
                    name = f"{here}/{entry.name}"
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    elif entry.is_symlink() and not entry.is_file():
                        kind = "to a folder" if entry.is_dir() else "to nothing"
                        findings.append(finding.Finding(name, "link", f"a link {kind}"))
                    elif entry.is_file() and frames.is_image(entry.name):
                        names.append(name)
                    else:
                        detail = f"not one of {' '.join(frames.SUFFIXES)}"
                        findings.append(finding.Finding(name, "not_image", detail))
        except OSError as error:
            raise errors.InputError(
                f"{os.path.join(root, here)}: cannot be listed ({error.strerror}); "
                "nothing was changed"
            ) from None
    return names, findings


def _stem(path: str, folder: str) -> str:
    return path[len(folder) + 1 : path.rindex(".")]


def match(sides: tuple[str, str], listed: Sequence[list[str]]) -> Iterator[Unit]:
    """Groups the files of one split by stem, in order."""
    keyed = []
    for side, (folder, names) in enumerate(zip(sides, listed, strict=True)):
        names.sort(key=lambda name, folder=folder: (_stem(name, folder), name))
        keyed.append(
            # Defaults bind now; a closure would see the last folder and side.
            map(lambda n, f=folder, s=side: (_stem(n, f), s, n), names)
        )
    for _, group in itertools.groupby(heapq.merge(*keyed), key=lambda item: item[0]):
        members = list(group)
        yield Unit(
            tuple(name for _, side, name in members if side == 0),
            tuple(name for _, side, name in members if side == 1),
        )
