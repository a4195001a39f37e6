"""Seals: the SHA-256 of every file of a folder, so that damage is noticed.

A seal is written when the folder is whole, and also holds facts about it. It lies in
the folder, and its own hash in it.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from restoration.base import config, errors, files

NAME = "seal.json"


def _digest(path: pathlib.Path, *, flush: bool) -> str:
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _flush_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Seals a folder: its files first reach the disk, then the seal appears whole.

    Args:
      folder: nothing may write to it any more.
      facts: what JSON can hold; kept in the seal.

    Raises:
      OSError: when the disk is full.
    """
    found = {
        path.relative_to(folder).as_posix(): _digest(path, flush=True)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {"facts": facts, "files": found}
    text = json.dumps(content | {"sha256": _own_digest(content)}, indent=1) + "\n"
    files.write_text(folder / NAME, text, flush=True)
    _flush_folder(folder)


def is_sealed(folder: pathlib.Path) -> bool:
    """Returns whether a folder has a seal, good or not."""
    return (folder / NAME).is_file()


def _read(folder: pathlib.Path) -> dict[str, Any]:
    try:
        content = config.parse((folder / NAME).read_bytes())
        expected = content.pop("sha256")
        if _own_digest(content) != expected:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise errors.InputError(f"{folder}: damaged ({NAME})") from None
    return content


def facts(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the facts of a sealed folder, without looking at its files.

    Raises:
      InputError: when the seal itself is missing or damaged.
    """
    return _read(folder)["facts"]


def verify(folder: pathlib.Path) -> None:
    """Compares every file with the seal.

    Args:
      folder: a sealed one.

    Raises:
      InputError: naming the folder and the first file that is missing or changed.
    """
    for name, expected in _read(folder)["files"].items():
        try:
            found = _digest(folder / name, flush=False)
        except OSError:
            raise errors.InputError(f"{folder}: damaged ({name} is missing)") from None
        if found != expected:
            raise errors.InputError(f"{folder}: damaged ({name} has changed)")
