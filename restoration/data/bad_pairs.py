"""Replaces training pairs that cannot be read.

A bad pair is replaced by the next pair in the list of training pairs that can be read.
The pairs of a step then depend only on its number and the files, not on when the damage
was found, so that a resumed run gives the same results.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from restoration.base import errors

# Why pairs cannot be read, by their indices in the list of training pairs.
Bad = dict[int, str]


def next_good(index: int, count: int, bad: Bad) -> int:
    """Returns the index, or the next one that is not known to be bad.

    Args:
      index: in a list of pairs.
      count: the list's length.
      bad: the bad pairs known so far; not all of the list.
    """
    while index in bad:
        index = (index + 1) % count
    return index


def add(bad: Bad, index: int, names: Sequence[str], reason: str) -> None:
    """Adds a pair that cannot be read, and logs a warning.

    Args:
      bad: the pair is added to it.
      index: of the pair.
      names: of all training pairs.
      reason: one line.

    Raises:
      InputError: if more than half of the pairs are bad.
    """
    if index in bad:
        return
    bad[index] = reason
    if 2 * len(bad) > len(names):
        raise errors.InputError(
            f"{len(bad)} of {len(names)} training pairs cannot be read, the last is "
            f"{names[index]} ({reason}); check the data: "
            "python -m restoration.clean --dry_run"
        )
    logging.warning(
        "training pair %s cannot be read (%s); replaced by %s",
        names[index],
        reason,
        names[next_good(index, len(names), bad)],
    )


def reading(
    read: Callable[[int], Any], names: Sequence[str], bad: Bad | None
) -> Callable[[int], Any]:
    """Returns a function that reads pairs and replaces bad ones.

    Args:
      read: reads the pair of an index; raises InputError if it cannot be read.
      names: of the pairs.
      bad: bad pairs are added to it; None: the first error is raised.

    Returns:
      A function like `read`.
    """
    if bad is None:
        return read

    def read_good(index: int) -> Any:
        while True:
            good = next_good(index, len(names), bad)
            try:
                return read(good)
            except errors.InputError as error:
                add(bad, good, names, str(error))

    return read_good


def find(
    read_all: Callable[[Sequence[Any]], object], members: Sequence[Any], bad: Bad
) -> None:
    """Finds the bad pairs among pairs that are read together, by bisection.

    Args:
      read_all: reads some members; raises InputError if one of them cannot be read.
      members: all training pairs.
      bad: bad pairs are added to it.
    """
    names = [member.name for member in members]
    waiting = [(0, len(members))]
    while waiting:
        first, end = waiting.pop()
        try:
            read_all(members[first:end])
        except errors.InputError as error:
            if end - first == 1:
                add(bad, first, names, str(error))
                continue
            middle = (first + end) // 2
            waiting += [(middle, end), (first, middle)]
