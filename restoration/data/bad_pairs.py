"""Training pairs that cannot be read, and what is taken in their place.

A pair is replaced by the next one, in the list of training pairs, that can be read.
What a step sees then depends on its number and the files alone, not on when the
damage was found, so that a resumed run goes on exactly.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from restoration.base import errors

# Why pairs cannot be read, by their places in the list of training pairs.
Bad = dict[int, str]


def next_good(place: int, count: int, bad: Bad) -> int:
    """Returns a place, or the next one that is not known to be bad.

    Args:
      place: in a list of pairs.
      count: the list's length.
      bad: some of the list, not all.
    """
    while place in bad:
        place = (place + 1) % count
    return place


def add(bad: Bad, place: int, names: Sequence[str], reason: str) -> None:
    """Notes a pair that cannot be read, and warns.

    Args:
      bad: is added to.
      place: of the pair.
      names: of all training pairs.
      reason: one line.

    Raises:
      InputError: when it is more than every second pair.
    """
    if place in bad:
        return
    bad[place] = reason
    if 2 * len(bad) > len(names):
        raise errors.InputError(
            f"{len(bad)} of {len(names)} training pairs cannot be read, the last is "
            f"{names[place]} ({reason}); look at the data: "
            "python -m restoration.clean --dry_run"
        )
    logging.warning(
        "the training pair %s cannot be read (%s); %s takes its place",
        names[place],
        reason,
        names[next_good(place, len(names), bad)],
    )


def reading(
    read: Callable[[int], Any], names: Sequence[str], bad: Bad | None
) -> Callable[[int], Any]:
    """Returns a function that reads pairs and passes over bad ones.

    Args:
      read: reads the pair at a place; InputError when it cannot.
      names: of the pairs.
      bad: is added to; None: an error stops.

    Returns:
      A function like `read`.
    """
    if bad is None:
        return read

    def read_good(place: int) -> Any:
        while True:
            good = next_good(place, len(names), bad)
            try:
                return read(good)
            except errors.InputError as error:
                add(bad, good, names, str(error))

    return read_good


def find(
    read_all: Callable[[Sequence[Any]], object], members: Sequence[Any], bad: Bad
) -> None:
    """Finds the pairs that cannot be read among many that are read together.

    Halves what fails until single pairs are left, so that a few bad ones cost a few
    readings of everything.

    Args:
      read_all: reads some members; InputError when one of them cannot be read.
      members: all training pairs.
      bad: is added to.
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
