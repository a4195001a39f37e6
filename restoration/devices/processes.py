"""Several processes that work together, on one host or many.

Each process runs the same command with its own number, reads its own share of the
images and computes on its own devices. Only process 0 writes logs and results. Without
`--coordinator` and without a launcher, a process works alone.

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

# Environment variables in which launchers give the number of tasks they started. JAX
# finds the tasks' numbers and addresses itself.
_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")

# Seconds without a heartbeat until a process counts as dead, and seconds to wait for
# all processes to start.
_HEARTBEAT_TIMEOUT = 15
_START_TIMEOUT = 300

# Errors of XLA and Orbax that mean that another process failed.
_OTHER_PROCESS_FAILED = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|another task|heartbeat|barrier"
    r"|coordination|unavailable|aborted|deadline_exceeded|socket closed",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class ProcessOptions:
    """Options of commands that several processes can run together."""

    coordinator: str = config.option(
        "",
        help="HOST:PORT of process 0, to run several processes together; auto: ask the "
        "TPU pod or Kubernetes (tasks of srun and mpirun find each other)",
    )
    processes: int = config.option(
        1, help="number of processes, with --coordinator=HOST:PORT", minimum=1
    )
    process: int = config.option(0, help="number of this process, from 0", minimum=0)

    def __post_init__(self):
        """Checks the limits, and that the three options fit together."""
        config.check(self)
        if self.process >= self.processes:
            raise errors.InputError(
                f"--process={self.process}: must be below --processes={self.processes}"
            )
        if self.processes > 1 and self.coordinator in ("", "auto"):
            raise errors.InputError(
                f"--processes={self.processes}: needs --coordinator=HOST:PORT, the "
                "address of process 0"
            )
        if self.coordinator in ("", "auto"):
            return
        port = self.coordinator.rpartition(":")[2]
        if not re.fullmatch(r".+:\d{1,5}", self.coordinator) or int(port) > 65535:
            raise errors.InputError(
                f"--coordinator={self.coordinator}: must be HOST:PORT or auto"
            )


ALONE = ProcessOptions()


def _launched(environment: Mapping[str, str]) -> bool:
    """Returns whether a launcher started this process as one of several."""
    return any(
        environment.get(name, "").isdecimal() and int(environment[name]) > 1
        for name in _TASKS
    )


def _connect(options: ProcessOptions) -> None:
    given = options.coordinator not in ("", "auto")
    try:
        jax.distributed.initialize(
            coordinator_address=options.coordinator if given else None,
            num_processes=options.processes if given else None,
            process_id=options.process if given else None,
            cluster_detection_method="deactivate" if given else None,
            initialization_timeout=_START_TIMEOUT,
            heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise errors.InputError(
            f"--coordinator={options.coordinator or 'auto'}: the processes did not "
            f"find each other ({_line(error)}); start all of them, with the same "
            "HOST:PORT of process 0"
        ) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


@contextlib.contextmanager
def joined(options: ProcessOptions = ALONE) -> Iterator[None]:
    """Connects this process to the others while the context lasts.

    Must be entered before JAX is asked for its devices.

    Args:
      options: from the command line.

    Yields:
      Nothing; see `count` and `index`.

    Raises:
      InputError: if the others are not found or have another number of devices.
    """
    if not options.coordinator and not _launched(os.environ):
        yield
        return
    _connect(options)
    with leaving():
        if jax.device_count() != count() * jax.local_device_count():
            raise errors.InputError(
                f"process {index()} has {jax.local_device_count()} of "
                f"{jax.device_count()} devices; give all processes the same number"
            )
        yield
        jax.distributed.shutdown()


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Ends this process at once when an error leaves the context.

    Applies only if several processes work together. The interpreter and Orbax wait
    for the other processes when they shut down; if one of those has failed, that
    wait would never end. The others notice that this process is gone.
    """
    try:
        yield
    except BaseException as error:
        if count() == 1:
            raise
        code, text = _exit_message(error)
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)
        os._exit(code)


def _exit_message(error: BaseException) -> tuple[int, str]:
    """Returns the exit code and the message of a process that an error ends."""
    me = f"process {index()} of {count()}"
    if isinstance(error, errors.InputError):
        return 2, f"error: {error} ({me})"
    if isinstance(error, KeyboardInterrupt):
        return 130, f"interrupted ({me})"
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1, f"left ({me})"
    if isinstance(error, RuntimeError | ValueError) and _OTHER_PROCESS_FAILED.search(
        str(error)
    ):
        return 1, (
            f"error: {me} stops, since another process has stopped or cannot be "
            f"reached ({_line(error)}); see the other's message, then start all again: "
            "they continue from the last checkpoint"
        )
    return 1, "".join(traceback.format_exception(error)) + f"error: {me} failed"


def count() -> int:
    """Returns the number of processes that work together."""
    return jax.process_count()


def index() -> int:
    """Returns the number of this process, from 0."""
    return jax.process_index()


def is_writer() -> bool:
    """Returns whether this process writes the logs and results."""
    return index() == 0


def share(members: Sequence[Any]) -> Sequence[Any]:
    """Returns the part of a sequence that this process reads: every `count()`-th item.

    The processes' shares together hold each item once. Their lengths differ by at most
    one; a share may be empty.
    """
    return members[index() :: count()]


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes. Every process must call it.

    Args:
      value: this process's value; anything that JSON can hold.

    Returns:
      A list of one value per process, in their order, the same in every process.
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
    """Waits until all processes have made this call.

    Args:
      name: of the barrier, the same in every process.
    """
    if count() > 1:
        multihost_utils.sync_global_devices(name)


def make_any() -> Callable[[bool], bool]:
    """Returns a function that returns whether any process passed True to it.

    All processes must call it equally often. Each call returns the answer to the call
    before it, so that the host need not wait for the devices. A process that works
    alone gets the answer at once.
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
