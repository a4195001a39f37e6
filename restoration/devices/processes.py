"""Several processes that work as one, on one host or on many.

Each runs the same command with its own number, reads its own share of the pictures,
and computes on its own devices; process 0 alone writes logs and results. Without
`--coordinator`, and when no launcher started several, all of this does nothing.

    python -m restoration.train ... --coordinator=host0:1234 --processes=2 --process=0
    python -m restoration.train ... --coordinator=host0:1234 --processes=2 --process=1
"""

import contextlib
import dataclasses
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy

from restoration.base import config, errors

with epy.lazy_imports():
    import jax
    from jax.experimental import multihost_utils

    from restoration.devices import sharding

# Launchers tell by these how many tasks they started; their names and addresses
# JAX finds itself.
_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")

# Seconds after which a process that says nothing counts as dead, and after which one
# that never came is no longer waited for.
_SILENCE = 15
_PATIENCE = 300

# What XLA and Orbax say when it is another process that failed.
_OF_OTHERS = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|another task|heartbeat|barrier"
    r"|coordination|unavailable|aborted|deadline_exceeded|socket closed",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Which of several processes this one is: further options of a command."""

    coordinator: str = config.option(
        "",
        help="HOST:PORT of process 0, when several processes work as one; auto: what "
        "a TPU pod or Kubernetes tells (tasks of srun and mpirun find each other)",
    )
    processes: int = config.option(
        1, help="how many processes, with --coordinator=HOST:PORT", minimum=1
    )
    process: int = config.option(0, help="number of this one, from 0", minimum=0)

    def __post_init__(self):
        """Checks limits, and that the three fit together."""
        config.check(self)
        if self.process >= self.processes:
            raise errors.InputError(
                f"--process={self.process}: of {self.processes} processes the last is "
                f"{self.processes - 1}; check --processes"
            )
        if self.processes > 1 and self.coordinator in ("", "auto"):
            raise errors.InputError(
                f"--processes={self.processes}: where is process 0? "
                "give --coordinator=HOST:PORT"
            )
        if self.coordinator in ("", "auto"):
            return
        port = self.coordinator.rpartition(":")[2]
        if not re.fullmatch(r".+:\d{1,5}", self.coordinator) or int(port) > 65535:
            raise errors.InputError(
                f"--coordinator={self.coordinator}: must be HOST:PORT, or auto"
            )


ALONE = Place()


def _launched(environment: Mapping[str, str]) -> bool:
    """Returns whether a launcher started this process as one of several."""
    return any(
        environment.get(name, "").isdecimal() and int(environment[name]) > 1
        for name in _TASKS
    )


def _connect(place: Place) -> None:
    given = place.coordinator not in ("", "auto")
    try:
        jax.distributed.initialize(
            coordinator_address=place.coordinator if given else None,
            num_processes=place.processes if given else None,
            process_id=place.process if given else None,
            cluster_detection_method="deactivate" if given else None,
            initialization_timeout=_PATIENCE,
            heartbeat_timeout_seconds=_SILENCE,
        )
    except (ValueError, RuntimeError) as error:
        raise errors.InputError(
            f"--coordinator={place.coordinator or 'auto'}: the processes did not find "
            f"each other ({_line(error)}); start all of them, with the same "
            "HOST:PORT of process 0"
        ) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


@contextlib.contextmanager
def joined(place: Place = ALONE) -> Iterator[None]:
    """Joins this process to the others for as long as the context lasts.

    It must come before anything that asks JAX for its devices.

    Args:
      place: what the command line says of it.

    Yields:
      Nothing; see `count` and `index`.

    Raises:
      InputError: when the others are not found, or their devices differ in number.
    """
    if not place.coordinator and not _launched(os.environ):
        yield
        return
    _connect(place)
    with leaving():
        if jax.device_count() != count() * jax.local_device_count():
            raise errors.InputError(
                f"process {index()} has {jax.local_device_count()} of "
                f"{jax.device_count()} devices; give all processes equally many"
            )
        yield
        jax.distributed.shutdown()


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Ends this process at once when an error leaves the context.

    Of several processes alone: what the interpreter and Orbax do at the end waits
    for the others, in vain when one of them is the reason. They notice, too.
    """
    try:
        yield
    except BaseException as error:
        if count() == 1:
            raise
        code, text = _farewell(error)
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)
        os._exit(code)


def _farewell(error: BaseException) -> tuple[int, str]:
    """Returns exit code and last words of a process that an error ends."""
    me = f"process {index()} of {count()}"
    if isinstance(error, errors.InputError):
        return 2, f"error: {error} ({me})"
    if isinstance(error, KeyboardInterrupt):
        return 130, f"interrupted ({me})"
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1, f"left ({me})"
    if isinstance(error, RuntimeError | ValueError) and _OF_OTHERS.search(str(error)):
        return 1, (
            f"error: {me} stops, since another process has stopped or cannot be "
            f"reached ({_line(error)}); see what that one said, then start all again: "
            "they go on from the last checkpoint"
        )
    return 1, "".join(traceback.format_exception(error)) + f"error: {me} failed"


def count() -> int:
    """Returns how many processes work together."""
    return jax.process_count()


def index() -> int:
    """Returns the number of this process, from 0."""
    return jax.process_index()


def is_writer() -> bool:
    """Returns whether this is the process that writes logs and results."""
    return index() == 0


def share(members: Sequence[Any]) -> Sequence[Any]:
    """Returns the members that this process is to read: one in `count()`.

    The shares of all processes hold each member once; they differ in length by one
    at most, and may be empty.
    """
    return members[index() :: count()]


def gather(value: Any) -> list[Any]:
    """Returns a value of every process, in their order; all must call it.

    Args:
      value: what JSON can hold; it may differ in size.

    Returns:
      A list as long as there are processes, the same in each of them.
    """
    if count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(data)], np.int32))
    lengths = lengths.reshape(-1)
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded).reshape(count(), -1)
    return [
        json.loads(row[:length].tobytes())
        for row, length in zip(rows, lengths, strict=True)
    ]


def wait(name: str) -> None:
    """Waits until all processes have come to this place.

    Args:
      name: of the place, the same in all of them.
    """
    if count() > 1:
        multihost_utils.sync_global_devices(name)


def make_any() -> Callable[[bool], bool]:
    """Returns a function that tells whether any process was given True.

    All must call it equally often. It answers for the call before the one that is
    made, so that the host need not wait for its devices; of one process, at once.
    """
    if count() == 1:
        return bool
    mesh = sharding.make_mesh()
    split = sharding.split_batch(mesh)
    most = jax.jit(jax.numpy.max, out_shardings=sharding.replicated(mesh))
    asked: list[Any] = []

    def any_of(mine: bool) -> bool:
        flags = np.full(jax.local_device_count(), mine, np.int32)
        asked.append(most(jax.make_array_from_process_local_data(split, flags)))
        return len(asked) > 1 and bool(asked.pop(0))

    return any_of
