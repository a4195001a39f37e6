"""Tells in one line that a disk is full."""

import contextlib
import errno
import os
from collections.abc import Iterator

from restoration.base import errors

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Libraries that write files pass on the system's words, not its numbers.
_WORDS = tuple(os.strerror(code) for code in _CODES)


def is_full(error: BaseException) -> bool:
    """Returns whether an error says that a disk, quota or file size is used up."""
    if isinstance(error, OSError) and error.errno in _CODES:
        return True
    return any(words in str(error) for words in _WORDS)


@contextlib.contextmanager
def told_when_full(folder: str | os.PathLike) -> Iterator[None]:
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
