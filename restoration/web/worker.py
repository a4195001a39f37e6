"""The process that restores what the page asks for, one file after the other.

It calls the functions of `python -m restoration.restore`, so that its files are those
of the command, byte for byte. It takes lines of JSON on its standard input and answers
with lines on its standard output. When the input ends without a farewell, the server
was killed: then it deletes the folder of the uploads and ends.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from etils import epy

from restoration.base import errors
from restoration.devices import backend
from restoration.film import container
from restoration.images import picture, preview
from restoration.inference import batch, film, film_jobs, jobs
from restoration.web import films, store

with epy.lazy_imports():
    from restoration.inference import engine, restore_file
    from restoration.models import pretrained

# Seconds between two messages of progress.
_EVERY = 0.2

# Seconds between two looks at how full the disk is, while a film is restored.
_LOOK_EVERY = 5.0

# Seconds in which the work has to notice that the server is gone.
_GRACE = 5.0

# The share of the time that finding damage takes.
_FINDING = 0.4

# The share that the first pass over a film takes.
_LOOKING = 0.1

_STAGES = {"finder": "finding", "filler": "filling", "network": "restoring"}


class CancelledError(BaseException):
    """The work is not wanted any more. No `except Exception` stops it."""


class Report(Protocol):
    """Takes how far the work is; what it raises ends the work."""

    def __call__(
        self, stage: str, share: float, frames: tuple[int, int] | None = None
    ) -> None:
        """Takes what is being done, the share that is done, and a film's frames.

        Args:
          stage: such as "restoring".
          share: of the work that is done.
          frames: done in this stage, and all or 0 where nobody knows yet.
        """


@dataclasses.dataclass(frozen=True)
class Task:
    """One picture or film to restore.

    Attributes:
      key: its name among the page's pictures.
      source: the uploaded file.
      target: the file to write; of a film without its ending, which the codec decides.
      name: what the user calls the file.
      options: fields of `batch.RestoreOptions`, of a film of `film_jobs.Settings`.
      total: the most that all files of the page may take, bytes.
    """

    key: str
    source: pathlib.Path
    target: pathlib.Path
    name: str
    options: dict[str, Any]
    total: int


@dataclasses.dataclass
class Wanted:
    """What the server asked for and has not taken back.

    Attributes:
      tasks: in order; None ends the process.
      cancelled: keys of tasks that are not wanted any more.
    """

    tasks: queue.Queue
    cancelled: set[str] = dataclasses.field(default_factory=set)
    ended: bool = False

    def check(self, key: str) -> None:
        """Raises CancelledError where a task is not wanted any more."""
        if self.ended or key in self.cancelled:
            raise CancelledError


class _Watched:
    """A network of an engine that reports every block of rows."""

    def __init__(self, network: "engine.Network", report: Callable[[int], None]):
        self._network, self._report = network, report
        self.grid, self.shrink = network.grid, network.shrink
        self.prepare = network.prepare

    def strips(self, *args: Any, **options: Any) -> Iterator[Any]:
        for block in self._network.strips(*args, **options):
            self._report(len(block))
            yield block


def watched(used: "engine.Engine", rows: int, report: Report) -> "engine.Engine":
    """Returns an engine that reports how far it is.

    Args:
      used: restores.
      rows: of all pages of the picture.
      report: is called for every block of rows.
    """
    done = {"finding": 0, "filling": 0, "restoring": 0}

    def counting(stage: str) -> Callable[[int], None]:
        def count(number: int) -> None:
            done[stage] += number
            # Filling is done on the way.
            found, restored = done["finding"] / rows, done["restoring"] / rows
            share = _FINDING * found + (1 - _FINDING) * restored
            report(stage, min(1.0, share if done["finding"] else restored))

        return count

    networks = {
        name: _Watched(getattr(used, name), counting(stage))
        for name, stage in _STAGES.items()
        if getattr(used, name)
    }
    return dataclasses.replace(used, **networks)


@functools.lru_cache(maxsize=3)
def _engine(model: str, keep_color: bool, device: str) -> "engine.Engine":
    return batch.load_engine(
        batch.RestoreOptions(
            input=(), output="", model=model, keep_color=keep_color, device=device
        )
    )


def restore(task: Task, device: str, report: Report) -> dict[str, Any]:
    """Restores one file as the command does, and prepares it to be looked at.

    Args:
      task: what to restore.
      device: where to compute.
      report: is called with how far it is.

    Returns:
      The fields of the answer: `error`, or `file`, the name of the result, `notes`,
      `levels`, and `damage` where a mask of damage was written.
    """
    report("starting", 0.0)
    if container.is_film(task.source.name):
        return _restore_film(task, report)
    return _restore_picture(task, device, report)


def _restore_film(task: Task, report: Report) -> dict[str, Any]:
    looked = 0.0

    def watch(stage: str, done: int, frames: int) -> None:
        nonlocal looked
        share = min(1.0, done / frames) if frames else 0.0
        if stage == "looking":
            share *= _LOOKING
        else:
            share = _LOOKING + (1 - _LOOKING) * share
        if share == 1.0:
            stage = "finishing"
        if stage == "finishing" or time.monotonic() - looked > _LOOK_EVERY:
            looked = time.monotonic()
            # At the end what was written so far is written once more, joined.
            more = store.used(task.target.parent) if stage == "finishing" else 0
            store.check_room(task.source.parents[1], more, task.total)
        report(stage, share, (done, frames))

    job = film_jobs.Job(task.source, task.target)
    (done,) = film.restore([job], film_jobs.Settings(**task.options), watch)
    if done.error:
        return {"error": done.error}
    return {
        "file": done.output.name,
        "notes": list(done.notes),
        "seconds": done.seconds,
        "levels": films.write_levels(
            done.output.with_name("after.levels.tif"), done.output
        ),
    }


def _restore_picture(task: Task, device: str, report: Report) -> dict[str, Any]:
    options = batch.RestoreOptions(
        input=(str(task.source),),
        output=str(task.target.parent),
        device=device,
        **task.options,
    )
    used = _engine(options.model, options.keep_color, device)
    with contextlib.suppress(errors.InputError):  # `restore_file` will say so
        found = picture.inspect(task.source, max_pixels=options.max_pixels)
        rows = sum(page.height for page in found.pages)
        used = watched(used, rows, report)
    name = pathlib.PurePosixPath(task.name)
    job = jobs.Job(task.source, task.target, pathlib.PurePosixPath(name.name))
    done = restore_file.restore_file(job, used, batch.settings_of(options))
    if done.error:
        return {"error": done.error}
    report("finishing", 1.0)
    folder = task.target.parent
    held = preview.orientation(found)
    answer = {
        "file": task.target.name,
        "notes": list(done.notes),
        "seconds": done.seconds,
        "levels": preview.write_levels(
            folder / "after.levels.tif", picture.inspect(task.target), held=held
        ),
    }
    mask = folder / f"{job.beside}_damage.png"
    if mask.is_file():
        answer["share"] = done.damaged_share[0]
        answer["damage"] = preview.write_levels(
            folder / "damage.levels.tif", picture.inspect(mask), held=held
        )
    return answer


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yields lines; unbuffered, so that a thread may wait here when Python ends."""
    rest = b""
    while data := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _listen(
    lines: Iterator[bytes], wanted: Wanted, folder: pathlib.Path, said: threading.Event
) -> None:
    """Takes what the server asks for; cleans up behind a server that was killed."""
    for line in lines:
        message = json.loads(line)
        if "task" in message:
            fields = message["task"]
            wanted.tasks.put(
                Task(
                    **{
                        **fields,
                        "source": pathlib.Path(fields["source"]),
                        "target": pathlib.Path(fields["target"]),
                    }
                )
            )
        elif "cancel" in message:
            wanted.cancelled.add(message["cancel"])
        elif "end" in message:
            said.set()
            break
    wanted.ended = True
    wanted.tasks.put(None)
    if not said.is_set():
        time.sleep(0.1)
        store.remove(folder)
        threading.Timer(_GRACE, _leave, [folder]).start()


def _leave(folder: pathlib.Path) -> None:
    store.remove(folder)
    os._exit(1)


def serve(
    restore_one: Callable[[Task, str, Report], dict[str, Any]],
    start: Callable[[str], dict],
) -> None:
    """Answers a server until it says farewell or is gone.

    Args:
      restore_one: restores one task, such as `restore`.
      start: makes ready on a device and returns the fields of the first answer.
    """
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    # Ctrl-C in a terminal reaches the whole group; the server says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = _lines(0)
    setup = json.loads(next(lines))
    folder, device = pathlib.Path(setup["folder"]), setup["device"]
    wanted, said = Wanted(queue.Queue()), threading.Event()
    arguments = (lines, wanted, folder, said)
    threading.Thread(target=_listen, args=arguments, daemon=True).start()

    def answer(**fields: Any) -> None:
        with contextlib.suppress(OSError):  # the server is gone, and `_listen` knows
            answers.write(json.dumps(fields) + "\n")

    try:
        answer(event="ready", **start(device))
    except errors.InputError as error:
        answer(event="refused", error=str(error))
        return
    while task := wanted.tasks.get():
        last = 0.0

        def report(
            stage: str,
            share: float,
            frames: tuple[int, int] | None = None,
            *,
            task: Task = task,
        ) -> None:
            nonlocal last
            wanted.check(task.key)
            if time.monotonic() - last > _EVERY or stage in ("starting", "finishing"):
                last = time.monotonic()
                answer(
                    event="progress",
                    key=task.key,
                    stage=stage,
                    share=share,
                    frames=frames,
                )

        try:
            answer(event="done", key=task.key, **restore_one(task, device, report))
        except CancelledError:
            answer(event="cancelled", key=task.key)
        except errors.InputError as error:
            answer(event="done", key=task.key, error=str(error))
        wanted.cancelled.discard(task.key)
    if not said.is_set():
        store.remove(folder)


def make_ready(device: str) -> dict:
    """Loads the model that is used by default; returns what there is to choose."""
    backend.keep_freed_memory(large=False)
    backend.cache_compilations()
    used = _engine("", False, device)
    return {
        "models": pretrained.shipped(),
        "device": used.device,
        "finds": used.finder is not None,
    }


if __name__ == "__main__":
    serve(restore, make_ready)
