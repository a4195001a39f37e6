"""Checkpoints of a training run; the only caller of Orbax.

A checkpoint is a folder `checkpoints/STEP`. Orbax writes it in the background, under
another name, and renames it when it is whole. Then it is sealed (see `seal`), and only
then are older ones deleted: the latest few stay, and the best by validation PSNR.

Before one is used its files are compared with the seal. A damaged one is named and
moved into `damaged/`, and the one before is used; so is one that a kill has kept from
being sealed, unless there is no other.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from restoration.base import config, errors, files
from restoration.devices import processes
from restoration.training import checksums, provenance, step, train_config

# What a kill may leave behind: Orbax' unfinished folders, and half-deleted ones.
_LEFTOVERS = ("*.orbax-checkpoint-tmp*", "*.deleted")


@dataclasses.dataclass(frozen=True)
class Manager:
    """Writes the checkpoints of a workdir; see `open_manager`.

    Attributes:
      folder: `checkpoints` in the workdir.
      keep: how many of the latest to keep, beside the best.
      fixed: the run's options that may not change, for the seals.
      writer: Orbax' own, which writes in the background.
      sealer: waits for it, seals and deletes, in a thread.
      running: what the sealer does at present, at most one thing.
    """

    folder: pathlib.Path
    keep: int
    fixed: Mapping[str, Any] | None
    writer: ocp.StandardCheckpointer
    sealer: concurrent.futures.ThreadPoolExecutor
    running: list[concurrent.futures.Future]

    def all_steps(self) -> list[int]:
        """Returns the steps of the checkpoints that are whole, in order."""
        return steps_in(self.folder)

    def wait_until_finished(self) -> None:
        """Waits until the last checkpoint is sealed; InputError if the disk is full."""
        while self.running:
            with files.explain_full_disk(self.folder.parent):
                self.running.pop().result()

    def close(self) -> None:
        """Waits likewise and frees what the manager holds."""
        try:
            self.wait_until_finished()
        finally:
            self.sealer.shutdown()
            self.writer.close()


def folder_of(workdir: str | os.PathLike) -> pathlib.Path:
    """Returns the folder of a run's checkpoints."""
    return pathlib.Path(workdir).resolve() / "checkpoints"


def steps_in(folder: pathlib.Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder that are whole, in order."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.name.isdecimal())
    return sorted(int(path.name) for path in found if path.is_dir())


def open_manager(
    workdir: str | os.PathLike, *, keep: int, fixed: Mapping[str, Any] | None = None
) -> Manager:
    """Opens the checkpoints of a workdir for writing, asynchronously.

    Moves damaged ones aside, with a warning, so that the latest is a good one.

    Args:
      workdir: the run's folder.
      keep: how many of the latest to keep, beside the best.
      fixed: the run's options that may not change, see `train_config.fixed`.

    Returns:
      The manager; close it to wait for the last write.

    Raises:
      InputError: when there are checkpoints and all are damaged.
    """
    folder = folder_of(workdir)
    logging.getLogger("absl").addFilter(_is_not_raised_too)
    if processes.is_writer():
        with files.explain_full_disk(folder.parent):
            folder.mkdir(parents=True, exist_ok=True)
        _clear(folder)
        _move_damaged(folder)
    processes.wait("checkpoints opened")
    return Manager(
        folder,
        keep,
        fixed,
        ocp.StandardCheckpointer(),
        concurrent.futures.ThreadPoolExecutor(1, "seal"),
        [],
    )


def _is_not_raised_too(record: logging.LogRecord) -> bool:
    """Returns False for errors that Orbax logs with a traceback and raises as well."""
    return not (record.exc_info and "orbax" in record.pathname)


def _clear(folder: pathlib.Path) -> None:
    """Removes what a kill or a full disk has left unfinished."""
    for pattern in _LEFTOVERS:
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _problem(path: pathlib.Path) -> str:
    """Returns what is wrong with a checkpoint; empty when it equals its seal."""
    if not checksums.is_sealed(path):
        return f"{path}: not sealed, its writing was cut short"
    try:
        checksums.verify(path)
    except errors.InputError as error:
        return str(error)
    return ""


def choose(folder: pathlib.Path, numbers: list[int]) -> tuple[int, dict[int, str]]:
    """Returns the first good checkpoint, and what is wrong with those before it.

    Args:
      folder: of the checkpoints.
      numbers: their steps, the one that is wanted most first; at least one.

    Raises:
      InputError: when all are damaged.
    """
    problems: dict[int, str] = {}
    for number in numbers:
        problem = _problem(folder / str(number))
        if not problem:
            return number, problems
        problems[number] = problem
    for number in numbers:
        if not checksums.is_sealed(folder / str(number)):
            logging.warning(
                "%s: it cannot be verified, but there is no other one; going on with "
                "it", problems.pop(number),
            )  # fmt: skip
            return number, problems
    raise errors.InputError(
        f"{folder}: no checkpoint is intact ({'; '.join(problems.values())}); put back "
        "a copy of one, or train anew in another --workdir"
    )


def _move_damaged(folder: pathlib.Path) -> None:
    """Moves what is newer than the latest good checkpoint to `damaged/`."""
    numbers = steps_in(folder)
    if not numbers:
        return
    chosen, problems = choose(folder, numbers[::-1])
    for number, problem in problems.items():
        target = folder.parent / "damaged" / str(number)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        os.replace(folder / str(number), target)
        logging.warning(
            "%s; moved to %s; going on from step %d", problem, target, chosen
        )


def save(
    manager: Manager,
    state: step.TrainState,
    psnr: float | None,
    note: Mapping[str, Any] | None = None,
) -> None:
    """Starts writing a checkpoint; one that exists for the step is kept.

    Args:
      manager: from `open_manager`.
      state: the training state.
      psnr: validation PSNR, dB, or None when it was not measured.
      note: what JSON can hold, given back by `read_note`.

    Raises:
      InputError: when the disk is full, for this checkpoint or the one before.
    """
    manager.wait_until_finished()
    number = int(state.step)
    if number in manager.all_steps():
        return
    facts = {
        "step": number,
        "psnr": psnr if psnr is not None and math.isfinite(psnr) else None,
        "note": dict(note or {}),
        "config": None if manager.fixed is None else dict(manager.fixed),
        "packages": provenance.packages(),
    }
    with files.explain_full_disk(manager.folder.parent):
        manager.writer.save(manager.folder / str(number), state)
    manager.running.append(manager.sealer.submit(_finish, manager, number, facts))


def _recorded_config(workdir: pathlib.Path) -> dict[str, Any] | None:
    path = workdir / "config.json"
    if not path.is_file():
        return None
    return config.parse(path.read_text(encoding="utf-8"))


def _finish(manager: Manager, number: int, facts: Mapping[str, Any]) -> None:
    """Waits for Orbax, seals what it has written, and deletes older checkpoints."""
    try:
        manager.writer.wait_until_finished()
        if processes.is_writer():
            checksums.write(manager.folder / str(number), dict(facts))
    except Exception:
        if processes.is_writer():
            _clear(manager.folder)
        raise
    if processes.is_writer():
        _delete_old(manager)


def _psnr(path: pathlib.Path) -> float | None:
    """Returns the validation PSNR of a checkpoint, None where it is not known."""
    try:
        return checksums.facts(path)["psnr"]
    except errors.InputError:
        return None


def by_score(folder: pathlib.Path) -> list[int]:
    """Returns the steps of the checkpoints: the best first, unmeasured ones last."""
    scores = {number: _psnr(folder / str(number)) for number in steps_in(folder)}

    def rank(number: int) -> tuple[float, int]:
        score = scores[number]
        return (-math.inf if score is None else score, number)

    return sorted(scores, key=rank, reverse=True)


def _delete_old(manager: Manager) -> None:
    kept = set(steps_in(manager.folder)[-manager.keep :])
    best = by_score(manager.folder)[0]
    if _psnr(manager.folder / str(best)) is not None:
        kept.add(best)
    for number in set(steps_in(manager.folder)) - kept:
        # A kill in the midst must not leave half of a checkpoint under its name.
        doomed = manager.folder / f"{number}.deleted"
        os.replace(manager.folder / str(number), doomed)
        shutil.rmtree(doomed)


def restore_latest(manager: Manager, like: step.TrainState) -> step.TrainState | None:
    """Returns the latest state, or None when there is none.

    Args:
      manager: from `open_manager`.
      like: a state of the same shapes, types and shardings.

    Returns:
      The state, placed as `like` is.

    Raises:
      InputError: when the checkpoint is of another run.
    """
    manager.wait_until_finished()
    numbers = manager.all_steps()
    if not numbers:
        return None
    path = manager.folder / str(numbers[-1])
    others = _other_packages(path)
    if others:
        logging.warning(
            "%s: written with other versions (%s); the run goes on, but not to the "
            "same last bit", path, ", ".join(others),
        )  # fmt: skip
    return restore(path, like)


def read_note(manager: Manager) -> dict[str, Any]:
    """Returns the note of the latest checkpoint; empty without one."""
    numbers = manager.all_steps()
    if not numbers or not checksums.is_sealed(manager.folder / str(numbers[-1])):
        return {}
    return checksums.facts(manager.folder / str(numbers[-1]))["note"]


def _other_packages(path: pathlib.Path) -> list[str]:
    """Returns in words which packages a checkpoint was written with, unlike now."""
    if not checksums.is_sealed(path):
        return []
    before, here = checksums.facts(path)["packages"], provenance.packages()
    return [
        f"{name} {version}, here {here.get(name, 'none')}"
        for name, version in before.items()
        if here.get(name) != version
    ]


def _other_config(path: pathlib.Path) -> list[str]:
    """Returns in words how a checkpoint's run differs from its workdir's."""
    before = checksums.facts(path)["config"] if checksums.is_sealed(path) else None
    after = _recorded_config(path.parent.parent)
    if before is None or after is None:
        return []
    return train_config.recorded_changes(before, after)


def shapes(path: pathlib.Path) -> Any:
    """Returns the tree of a checkpoint's arrays, their shapes and types alone.

    Args:
      path: its folder.

    Raises:
      InputError: when it cannot be read.
    """
    try:
        with contextlib.closing(ocp.StandardCheckpointer()) as reader:
            found = reader.metadata(path).item_metadata.tree
    except (ValueError, KeyError, TypeError, OSError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise errors.InputError(f"{path}: not a checkpoint ({reason})") from None
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), found
    )


def restore(path: pathlib.Path, like: Any) -> Any:
    """Reads a checkpoint.

    Args:
      path: its folder.
      like: a tree of arrays or of their shapes, with shardings.

    Returns:
      The tree, placed as `like` is.

    Raises:
      InputError: when it is of another run, model or version.
    """
    different = _other_config(path)
    if different:
        raise errors.InputError(
            f"{path}: a checkpoint of another run than config.json beside it "
            f"({', '.join(different)}); use another --workdir"
        )
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with contextlib.closing(ocp.StandardCheckpointer()) as reader:
            return reader.restore(path, abstract)
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        versions = "".join(
            f"; written with {version}" for version in _other_packages(path)
        )
        raise errors.InputError(
            f"{path}: not a checkpoint of this model, or of another version ({reason})"
            f"{versions}; use another --workdir"
        ) from None
