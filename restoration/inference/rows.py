"""Rows of pictures on their way: read ahead by a thread, regrouped."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

T = TypeVar("T")

# Gives blocks of rows from the top; may be called more than once.
Read = Callable[[], Iterator[np.ndarray]]


def read_ahead(blocks: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yields what another iterator yields, which a thread asks in advance.

    Args:
      blocks: any.
      depth: how many may wait.
    """
    waiting: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: tuple[str, object]) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for block in blocks:
                put(("block", block))
                if stopped.is_set():
                    return
            put(("end", None))
        except BaseException as error:  # raised in the thread that asks
            put(("error", error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stopped.set()
        thread.join()


def regrouped(blocks: Iterable[np.ndarray]) -> Callable[[int], np.ndarray]:
    """Returns a function that takes the next so many rows of all blocks."""
    blocks, rest = iter(blocks), np.empty(0)

    def take(count: int) -> np.ndarray:
        nonlocal rest
        taken = []
        while count:
            if not len(rest):
                rest = next(blocks)
            taken.append(rest[:count])
            rest, count = rest[count:], count - len(taken[-1])
        return np.concatenate(taken)

    return take


def beside(
    blocks: Iterable[np.ndarray], *others: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
    """Yields blocks with the channels of others, of their type, after their own.

    Args:
      blocks: arrays (rows, width, channels).
      *others: the same of the same picture, of blocks of any heights.
    """
    takes = [regrouped(other) for other in others]
    for block in blocks:
        more = [take(len(block)).astype(block.dtype) for take in takes]
        yield np.concatenate([block, *more], axis=-1)
