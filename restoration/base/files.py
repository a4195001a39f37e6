"""Files written whole or not at all, and one line when the disk is full."""

import contextlib
import errno
import os
import pathlib
import secrets
from collections.abc import Iterator

from restoration.base import errors

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Libraries that write files pass on the system's words, not its numbers.
_WORDS = tuple(os.strerror(code) for code in _CODES)


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike, *, flush: bool = False
) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path` that replaces it when all went well.

    The temporary name keeps the suffix, since libvips picks the format by it.

    Args:
      path: the file to write; its folder is made where it is missing.
      flush: whether the content has to be on the disk before the name is, so that a
        power failure leaves the old file or the new one.

    Yields:
      The temporary path; it is removed if the block raises.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        yield temporary
        if flush:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str, *, flush: bool = False) -> None:
    """Writes a text file whole or not at all; see `replacing`."""
    with replacing(path, flush=flush) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def is_full(error: BaseException) -> bool:
    """Returns whether an error says that a disk, quota or file size is used up."""
    if isinstance(error, OSError) and error.errno in _CODES:
        return True
    return any(words in str(error) for words in _WORDS)


@contextlib.contextmanager
def explain_full_disk(folder: str | os.PathLike) -> Iterator[None]:
    """Turns errors of a full disk into one line.

    Args:
      folder: what is written to.

    Yields:
      Nothing.

    Raises:
      InputError: when the disk is full; other errors are left as they are.
    """
    try:
        yield
    except errors.InputError:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        raise errors.InputError(
            f"{folder}: no space left on the disk; make room and run the same command "
            "again: it goes on from the last checkpoint"
        ) from None
