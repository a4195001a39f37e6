"""Metadata that every format knows, and how a file is changed in passing."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from restoration.base import files


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Metadata as bytes; empty where there is none.

    Attributes:
      exif: a TIFF structure, from its byte order mark on.
      xmp: an XML packet.
      iptc: IPTC-IIM records.
      icc: a color profile.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    icc: bytes = b""


class MalformedError(ValueError):
    """A file that is not of the format that its reader expects."""


class UnsupportedError(ValueError):
    """A sound file of a variant of its format that is not read."""


def take(file: BinaryIO, count: int) -> bytes:
    """Returns exactly `count` bytes of a file, or raises MalformedError."""
    data = file.read(count)
    if len(data) != count:
        raise MalformedError("it ends too early")
    return data


@contextlib.contextmanager
def rewriting(path: str | os.PathLike) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Gives a file to read and a file to write that then takes its place."""
    path = pathlib.Path(path)
    with (
        files.replacing(path) as changed,
        path.open("rb") as old,
        changed.open("wb") as new,
    ):
        yield old, new


def copy_rest(old: BinaryIO, new: BinaryIO) -> None:
    """Copies what remains of a file, without holding it in memory."""
    shutil.copyfileobj(old, new, 1 << 20)
