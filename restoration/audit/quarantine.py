"""Moves files aside and back, safely even if the process is killed.

The folder for the files contains a journal, one JSON object per line. A plan of moves
is written and flushed to disk before its first move, and the files themselves show
whether a move is not started, half done or done. So a killed run can be finished or
undone at any time. Nothing is ever deleted or overwritten.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from restoration.base import config, errors
from restoration.data import pairs

FOLDER = "Disregard"
JOURNAL = f"{FOLDER}/journal.jsonl"
REPORTS = ("report.csv", "report.html")

# The keys of a finding in the journal.
_FINDING_KEYS = {"reason", "severity", "detail", "partner", "other"}

# Errors of file systems without hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclasses.dataclass(frozen=True)
class Move:
    """One file to move. Paths are relative to the data folder.

    Attributes:
      source: the file's original path.
      target: its path after the move.
      sha256: of its content; of a symbolic link, of its target.
      findings: the findings on it, for the report, as JSON objects.
    """

    source: str
    target: str
    sha256: str
    findings: tuple[dict[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Journal:
    """The content of a journal.

    Attributes:
      moves: of all plans, in order.
      pending: number of moves of the last plan that may not be done.
      undoing: whether an undo was started and not finished.
      made_folder: whether this program made the folder.
    """

    moves: tuple[Move, ...] = ()
    pending: int = 0
    undoing: bool = False
    made_folder: bool = True


@contextlib.contextmanager
def locked(root: str) -> Iterator[None]:
    """Locks a paired folder for one run; raises InputError if another run has it."""
    try:
        descriptor = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise errors.InputError(f"{root}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.InputError(
                f"{root}: another run of restoration.clean works on it; wait for its "
                "end"
            ) from None
        except OSError:
            # Some network file systems have no locks.
            pass
        yield
    finally:
        os.close(descriptor)


def fingerprint(path: str) -> str:
    """Returns the SHA-256 of a file's content, or of a symbolic link's target."""
    if os.path.islink(path):
        return hashlib.sha256(b"link to " + os.fsencode(os.readlink(path))).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_journal(root: str) -> Journal | None:
    """Reads the journal of a paired folder; None if there is none."""
    path = os.path.join(root, JOURNAL)
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.InputError(
            f"{path}: {error.strerror}; nothing was moved"
        ) from None
    # An incomplete last line was being written when the run was killed. No file was
    # moved for it yet.
    moves: list[Move] = []
    pending, undoing, made_folder = 0, False, True
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = config.parse(line)
            kind = record["kind"]
            if kind == "start":
                made_folder = record["made_folder"]
            elif kind == "plan":
                planned = [_planned(move) for move in record["moves"]]
                moves += planned
                pending = len(planned)
            elif kind == "done":
                pending = 0
                moves = [move for move in moves if move.target not in record["failed"]]
            elif kind == "undone":
                pending = 0
                moves = [move for move in moves if move.target in record["left"]]
            undoing = kind == "undo" or (undoing and kind != "undone")
        except (ValueError, TypeError, KeyError) as error:
            raise errors.InputError(
                f"{path}: line {number} is damaged ({error}); nothing was moved"
            ) from None
    return Journal(tuple(moves), pending, undoing, made_folder)


def _planned(record: dict[str, Any]) -> Move:
    """Returns a move from its JSON object.

    Raises:
      ValueError: if it is malformed, leads out of the data folder, or has characters
        that cannot be in a file's name.
    """
    source, target = record["source"], record["target"]
    for path in (source, target):
        os.fsencode(path)
        if not pairs.is_inside(path):
            raise ValueError(f"{path!r} leads out of the folder")
    if not target.startswith(f"{FOLDER}/"):
        raise ValueError(f"{target!r} is not in {FOLDER}")
    findings = tuple(record["findings"])
    for found in findings:
        if not isinstance(found, dict) or set(found) != _FINDING_KEYS:
            raise ValueError(f"{found!r} is not a finding")
        if not all(isinstance(value, str) for value in found.values()):
            raise ValueError(f"{found!r} is not a finding")
        os.fsencode("".join(found.values()))
        for path in (found["partner"], found["other"]):
            if path and not pairs.is_inside(path):
                raise ValueError(f"{path!r} leads out of the folder")
    return Move(source, target, str(record["sha256"]), findings)


def _append(root: str, record: dict[str, Any]) -> None:
    """Adds a line to the journal and waits until it is on the disk."""
    path = os.path.join(root, JOURNAL)
    line = json.dumps(record).encode("ascii") + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "r+b") as file:
        data = file.read()
        # Cuts off an incomplete line of a killed run.
        start = data.rfind(b"\n") + 1
        file.truncate(start)
        file.seek(start)
        try:
            file.write(line)
            file.flush()
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(start)
            raise
    _sync_folder(os.path.dirname(path))


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Not supported by every file system; the moves remain recoverable.
        pass
    finally:
        os.close(descriptor)


def start(root: str) -> None:
    """Makes the folder and its journal if they do not exist.

    Raises:
      InputError: if that fails, or the folder has reports of another origin.
    """
    folder = os.path.join(root, FOLDER)
    try:
        made = not os.path.lexists(folder)
        _make_folders(root, FOLDER)
        if os.path.lexists(os.path.join(root, JOURNAL)):
            return
        for name in REPORTS:
            if os.path.lexists(os.path.join(folder, name)):
                raise errors.InputError(
                    f"{os.path.join(folder, name)}: not written by "
                    "restoration.clean; move it away (nothing was changed)"
                )
        _append(root, {"kind": "start", "version": 1, "made_folder": made})
    except OSError as error:
        raise errors.InputError(
            f"{folder}: cannot be made ({error.strerror}); nothing was moved"
        ) from None


def _temporary(name: str) -> str:
    # One name, unlike `files.replacing`: what a killed run leaves is known as ours.
    return f".{name}.tmp"


@contextlib.contextmanager
def writing(root: str, name: str) -> Iterator[TextIO]:
    """Opens one of REPORTS for writing; replaces the old one if all goes well."""
    folder = os.path.join(root, FOLDER)
    temporary = os.path.join(folder, _temporary(name))
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(folder, name))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _make_folders(root: str, folder: str) -> None:
    """Makes the folders of a path below root; never follows a symbolic link."""
    path = root
    for part in folder.split("/"):
        path = os.path.join(path, part)
        try:
            os.mkdir(path)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise OSError(errno.ENOTDIR, "not a folder, or a link", path) from None


def _rename(source: str, target: str) -> None:
    """Renames a file; raises FileExistsError if the target exists."""
    try:
        # Unlike a rename, a link does not replace an existing target.
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", target) from None
        os.rename(source, target)
        return
    os.unlink(source)


def _move(root: str, source: str, target: str) -> str:
    """Moves a file, or finishes moving it; returns an error message, or ""."""
    here, there = os.path.join(root, source), os.path.join(root, target)
    try:
        if not os.path.lexists(here):
            return "" if os.path.lexists(there) else f"{source!r}: no longer exists"
        if os.path.lexists(there):
            if not os.path.samestat(os.lstat(here), os.lstat(there)):
                return f"{source!r}: {target!r} exists already"
            # A half-done move: both names are the same file.
            os.unlink(here)
            return ""
        _make_folders(root, os.path.dirname(target))
        _rename(here, there)
    except OSError as error:
        return f"{source!r}: {error.strerror or error}"
    return ""


def lies_aside(root: str, move: Move) -> bool:
    """Returns whether a moved file is still at its target."""
    return os.path.lexists(os.path.join(root, move.target))


def _is_changed(root: str, path: str, move: Move) -> bool:
    """Returns whether a file exists and differs from the one in the journal."""
    try:
        return fingerprint(os.path.join(root, path)) != move.sha256
    except FileNotFoundError:
        return False


def _carry_out(root: str, plan: Sequence[Move], *, late: bool) -> tuple[str, ...]:
    """Carries out the last plan of the journal; returns a line for each failure."""
    failures = {}
    for move in plan:
        try:
            # A file that was changed after the plan must be audited again.
            if late and _is_changed(root, move.source, move):
                failure = f"{move.source!r}: was changed after the run was killed"
            else:
                failure = _move(root, move.source, move.target)
        except OSError as error:
            failure = f"{move.source!r}: {error.strerror}"
        if failure:
            failures[move.target] = failure
    lines = list(failures.values())
    try:
        _append(root, {"kind": "done", "failed": list(failures)})
    except OSError as error:
        lines.append(f"{JOURNAL!r}: {error.strerror}")
    return tuple(lines)


def finish(root: str, journal: Journal) -> tuple[str, ...]:
    """Carries out the remaining moves of a killed run.

    Returns:
      One line for each failure.
    """
    return _carry_out(root, journal.moves[-journal.pending :], late=True)


def free_target(root: str, source: str, taken: set[str]) -> str:
    """Returns the target of a file: a path that is neither used nor in `taken`."""
    stem, suffix = os.path.splitext(f"{FOLDER}/{source}")
    target, number = stem + suffix, 2
    while target in taken or os.path.lexists(os.path.join(root, target)):
        target, number = f"{stem}.{number}{suffix}", number + 1
    return target


def set_aside(root: str, moves: Sequence[Move]) -> tuple[str, ...]:
    """Writes the plan to disk, then moves the files.

    Args:
      root: the data folder, for which `start` was called.
      moves: the plan.

    Returns:
      One line for each failure.

    Raises:
      InputError: if the plan cannot be written; nothing was moved then.
    """
    if not moves:
        return ()
    try:
        plan = [dataclasses.asdict(move) for move in moves]
        _append(root, {"kind": "plan", "moves": plan})
    except OSError as error:
        raise errors.InputError(
            f"{os.path.join(root, JOURNAL)}: {error.strerror}; nothing was moved; make "
            "room there and run again"
        ) from None
    return _carry_out(root, moves, late=False)


def _close(root: str, journal: Journal) -> None:
    """Removes the folder with its journal and reports, after everything was put back.

    If the folder contains other files, they and the folder stay.
    """
    folder = os.path.join(root, FOLDER)
    # The journal is removed last, so that a killed undo can be repeated.
    unfinished = (_temporary(name) for name in REPORTS)
    for name in (*unfinished, *REPORTS, os.path.basename(JOURNAL)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    made = {os.path.dirname(move.target) for move in journal.moves}
    for path in sorted(made, key=len, reverse=True):
        while path and path != FOLDER:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(root, path))
            path = os.path.dirname(path)
    if journal.made_folder:
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def put_back(root: str, journal: Journal) -> tuple[int, tuple[str, ...]]:
    """Puts back the files that all runs moved, the last one first.

    A file stays if it was changed, or if its original path is used again.

    Args:
      root: the data folder.
      journal: of the data folder.

    Returns:
      The number of files put back, and one line for each that was not.
    """
    # Fails if the disk is full. Then a killed undo is not finished automatically.
    with contextlib.suppress(OSError):
        _append(root, {"kind": "undo"})
    count, failures = 0, []
    for move in reversed(journal.moves):
        if not lies_aside(root, move):
            if not os.path.lexists(os.path.join(root, move.source)):
                failures.append(f"{move.target!r}: no longer exists")
            continue
        try:
            changed = _is_changed(root, move.target, move)
        except OSError as error:
            failures.append(f"{move.target!r}: {error.strerror}")
            continue
        if changed:
            failures.append(f"{move.target!r}: was changed after the move, so it stays")
            continue
        failure = _move(root, move.target, move.source)
        failures += [failure] if failure else []
        count += not failure
    left = [move.target for move in journal.moves if lies_aside(root, move)]
    if left:
        with contextlib.suppress(OSError):
            _append(root, {"kind": "undone", "left": left})
    else:
        _close(root, journal)
    return count, tuple(failures)
