"""Moves files into a folder beside them and back, whatever interrupts it.

A journal lies in that folder, one JSON object a line. A plan of moves is written
and flushed to disk before its first move, and each move can be told apart from
the files themselves: not begun, half done, done. So a run that was killed can be
finished or undone at any time. Nothing is ever deleted or overwritten.
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

# What a finding tells.
_TOLD = {"reason", "severity", "detail", "partner", "other"}

# File systems without hard links answer with one of these.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclasses.dataclass(frozen=True)
class Move:
    """One file that moves; paths below the data folder.

    Attributes:
      source: where it belongs.
      target: where it goes.
      sha256: of its content; of a symbolic link, of where it leads.
      findings: what is wrong with it, for the report: a JSON object each.
    """

    source: str
    target: str
    sha256: str
    findings: tuple[dict[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Journal:
    """What the journal tells.

    Attributes:
      moves: of all plans, in order.
      pending: how many moves of the last plan may not have been carried out.
      undoing: whether an undo was begun and not finished.
      made_folder: whether the folder was made by us.
    """

    moves: tuple[Move, ...] = ()
    pending: int = 0
    undoing: bool = False
    made_folder: bool = True


@contextlib.contextmanager
def locked(root: str) -> Iterator[None]:
    """Holds a paired folder for one run; raises InputError where another does."""
    try:
        descriptor = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise errors.InputError(f"{root}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.InputError(
                f"{root}: another run of restoration.clean is at work there; wait "
                "for it"
            ) from None
        except OSError:
            # Some network file systems have no locks.
            pass
        yield
    finally:
        os.close(descriptor)


def fingerprint(path: str) -> str:
    """Returns the SHA-256 of a file, or of where a symbolic link leads."""
    if os.path.islink(path):
        return hashlib.sha256(b"link to " + os.fsencode(os.readlink(path))).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The journal.


def read_journal(root: str) -> Journal | None:
    """Reads the journal of a paired folder; None where there is none."""
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
    # A last line without its end was being written when the run was killed; no
    # move follows before the line is complete.
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


def _planned(told: dict[str, Any]) -> Move:
    """Returns a move as the journal tells it.

    Raises:
      ValueError: when it leads out of the data folder, is no move, or has letters
        that no file's name can hold.
    """
    source, target = told["source"], told["target"]
    for path in (source, target):
        os.fsencode(path)
        if not pairs.is_inside(path):
            raise ValueError(f"{path!r} leads out of the folder")
    if not target.startswith(f"{FOLDER}/"):
        raise ValueError(f"{target!r} does not lie in {FOLDER}")
    findings = tuple(told["findings"])
    for found in findings:
        if not isinstance(found, dict) or set(found) != _TOLD:
            raise ValueError(f"{found!r} is no finding")
        if not all(isinstance(value, str) for value in found.values()):
            raise ValueError(f"{found!r} is no finding")
        os.fsencode("".join(found.values()))
        for path in (found["partner"], found["other"]):
            if path and not pairs.is_inside(path):
                raise ValueError(f"{path!r} leads out of the folder")
    return Move(source, target, str(told["sha256"]), findings)


def _append(root: str, record: dict[str, Any]) -> None:
    """Adds a line to the journal and waits until it is on the disk."""
    path = os.path.join(root, JOURNAL)
    line = json.dumps(record).encode("ascii") + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "r+b") as file:
        data = file.read()
        # Cuts off a line whose writing was killed.
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
        # Not every file system can; the moves remain recoverable.
        pass
    finally:
        os.close(descriptor)


def start(root: str) -> None:
    """Makes the folder and its journal where there are none.

    Raises:
      InputError: when that is impossible or the place is taken.
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
    """Opens one of REPORTS to be written whole or not at all."""
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


# Moving.


def _make_folders(root: str, folder: str) -> None:
    """Makes the folders of a path below root, never through a symbolic link."""
    path = root
    for part in folder.split("/"):
        path = os.path.join(path, part)
        try:
            os.mkdir(path)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise OSError(errno.ENOTDIR, "not a folder, or a link", path) from None


def _rename(source: str, target: str) -> None:
    """Renames a file; raises FileExistsError where the target exists."""
    try:
        # A link fails where the target exists, which a rename would replace.
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
    """Moves a file, or finishes moving it; returns what went wrong, or ""."""
    here, there = os.path.join(root, source), os.path.join(root, target)
    try:
        if not os.path.lexists(here):
            return "" if os.path.lexists(there) else f"{source!r}: it is gone"
        if os.path.lexists(there):
            if not os.path.samestat(os.lstat(here), os.lstat(there)):
                return f"{source!r}: {target!r} is in the way"
            # The two names of a half-done move.
            os.unlink(here)
            return ""
        _make_folders(root, os.path.dirname(target))
        _rename(here, there)
    except OSError as error:
        return f"{source!r}: {error.strerror or error}"
    return ""


def lies_aside(root: str, move: Move) -> bool:
    """Returns whether a file that was moved is still where it was moved to."""
    return os.path.lexists(os.path.join(root, move.target))


def _is_changed(root: str, path: str, move: Move) -> bool:
    """Returns whether a file is there and is not what the journal says."""
    try:
        return fingerprint(os.path.join(root, path)) != move.sha256
    except FileNotFoundError:
        return False


def _carry_out(root: str, plan: Sequence[Move], *, late: bool) -> tuple[str, ...]:
    """Carries out the last plan of the journal; returns what went wrong."""
    failures = {}
    for move in plan:
        try:
            # What was changed since the plan was made is for the next audit.
            if late and _is_changed(root, move.source, move):
                failure = f"{move.source!r}: changed since the run that was killed"
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
    """Carries out the moves that a killed run left undone.

    Returns:
      One line for each that failed.
    """
    return _carry_out(root, journal.moves[-journal.pending :], late=True)


def free_target(root: str, source: str, taken: set[str]) -> str:
    """Returns where a file goes: a name that is neither used nor in `taken`."""
    stem, suffix = os.path.splitext(f"{FOLDER}/{source}")
    target, number = stem + suffix, 2
    while target in taken or os.path.lexists(os.path.join(root, target)):
        target, number = f"{stem}.{number}{suffix}", number + 1
    return target


def set_aside(root: str, moves: Sequence[Move]) -> tuple[str, ...]:
    """Moves files, after the plan is on the disk.

    Args:
      root: the data folder, for which `start` was called.
      moves: what goes where.

    Returns:
      One line for each that failed.

    Raises:
      InputError: when the plan cannot be written; nothing was moved then.
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
    """Removes the folder, its journal and reports, after all was put back.

    Files in the folder that are not ours stay, and it with them.
    """
    folder = os.path.join(root, FOLDER)
    # The journal goes last: while it is there the undo can be repeated.
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
    """Puts back all files that were moved, of all runs, last first.

    A file that is no longer what was moved, or whose place is taken, stays.

    Args:
      root: the data folder.
      journal: what was moved.

    Returns:
      How many files were put back, and one line for each that was not.
    """
    # On a full disk this fails; then a killed undo merely has to be asked for again.
    with contextlib.suppress(OSError):
        _append(root, {"kind": "undo"})
    count, failures = 0, []
    for move in reversed(journal.moves):
        if not lies_aside(root, move):
            if not os.path.lexists(os.path.join(root, move.source)):
                failures.append(f"{move.target!r}: it is gone")
            continue
        try:
            changed = _is_changed(root, move.target, move)
        except OSError as error:
            failures.append(f"{move.target!r}: {error.strerror}")
            continue
        if changed:
            failures.append(f"{move.target!r}: changed since it was moved; it stays")
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
