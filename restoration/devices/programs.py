"""Traced programs kept on disk, so that Python need not trace a network again.

Tracing a network takes Python as long as reading its compiled program from the disk
takes ten times. `jax.export` writes what was traced; what it is compiled to, JAX's own
cache keeps.
"""

import contextlib
import functools
import hashlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jaxlib

from restoration.base import files
from restoration.devices import backend

# The packages whose code is traced.
_TRACED = ("base", "devices", "inference", "models")

# Age in seconds beyond which a program that was not written again may go.
_STALE = 60 * 86400


@functools.cache
def _code() -> str:
    """Returns a digest of all code that can be traced, and of what traces it."""
    root = pathlib.Path(__file__).parents[1]
    digest = hashlib.sha256(f"{jax.__version__} {jaxlib.__version__}".encode())
    for package in _TRACED:
        for path in sorted((root / package).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _read(path: pathlib.Path) -> bytes | None:
    """Returns what `_write` wrote; None where it is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, program = data[:32], data[32:]
    return program if hashlib.sha256(program).digest() == digest else None


def _write(path: pathlib.Path, program: bytes) -> None:
    for old in path.parent.glob("*.jax"):
        if time.time() - old.stat().st_mtime > _STALE:
            old.unlink(missing_ok=True)
    files.write_bytes(path, hashlib.sha256(program).digest() + program)


def traced(function: Callable, name: str, *arguments: Any) -> Callable:
    """Returns a jitted function, traced before where that is possible.

    Args:
      function: jitted; the same for the same `name`, but for its code.
      name: of all that the trace depends on beside code and arguments: the network's
        options, the shapes of tiles.
      arguments: to be traced for: arrays, `jax.ShapeDtypeStruct` or trees of them.

    Returns:
      The function for these arguments' shapes and types alone. Where no folder is
      there to keep programs (`backend.program_folder`), `function` itself.
    """
    folder = backend.program_folder()
    if folder is None:
        return function
    shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), arguments)
    traced_for = (_code(), jax.default_backend(), name, str(shapes))
    key = hashlib.sha256(repr(traced_for).encode()).hexdigest()
    path = folder / f"{key}.jax"
    program = _read(path)
    if program is not None:
        return jax.jit(jax.export.deserialize(bytearray(program)).call)
    exported = jax.export.export(function)(*arguments)
    with contextlib.suppress(OSError):  # a full disk: it is traced again next time
        _write(path, bytes(exported.serialize()))
    return jax.jit(exported.call)
