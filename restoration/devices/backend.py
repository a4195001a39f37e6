"""What differs between CPU, GPU and TPU, in one place.

JAX is imported only when a device is asked for.
"""

import atexit
import contextlib
import ctypes
import hashlib
import os
import pathlib
import platform
import shutil
import tempfile
import time
from typing import Any

from restoration.base import errors

# Makes XLA choose operations on a GPU that give the same bits each time.
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"

# glibc's names for mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8

# Seconds after which a folder of compiled programs belongs to no running process.
_STALE = 7 * 86400

# A CPU's caches hold the feature maps of about this many pixels.
_CPU_PIXELS = 2 * 128 * 128


def keep_freed_memory(*, large: bool = True) -> None:
    """Makes glibc keep freed memory instead of returning it to the system.

    Args:
      large: whether buffers above 32 MiB are kept too. Training's come again and
        again; those of a picture's tiles would leave holes in the heap that nothing
        fits, up to twice the memory that is in use.

    XLA allocates its buffers anew each step. One heap for all threads that is
    never given back took page faults from 47,000 to a hundred a step of the basic
    model (16 images of 128×128), and a sixth of the time. A higher threshold for
    mmap alone did not: glibc ignores values above 32 MiB. Elsewhere than on glibc
    nothing is done. Call it before threads start.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        if large:
            libc.mallopt(_M_MMAP_MAX, 0)
        else:
            libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def is_cpu() -> bool:
    """Returns whether JAX computes on the CPU."""
    import jax

    return jax.default_backend() == "cpu"


def pieces(batch_size: int, image_size: int) -> int:
    """Returns how many equal pieces a training batch is computed in.

    On a CPU pieces that stay in the cache are faster than one large batch; an
    accelerator takes the batch whole.

    Args:
      batch_size: images a step on one device.
      image_size: side of the crops, pixels.

    Returns:
      A divisor of batch_size.
    """
    if not is_cpu():
        return 1
    fitting = max(1, _CPU_PIXELS // image_size**2)
    return min(
        n
        for n in range(1, batch_size + 1)
        if batch_size % n == 0 and batch_size // n <= fitting
    )


def tiles(device: Any = None) -> tuple[int, int]:
    """Returns (side, number) of the tiles that restoring computes at once.

    Args:
      device: a device of JAX; None is the default one.
    """
    cpu = is_cpu() if device is None else device.platform == "cpu"
    return (192, 1) if cpu else (512, 16)


def device(kind: str) -> Any:
    """Returns the device of JAX to compute on.

    Args:
      kind: "auto", "cpu", "gpu" or "tpu".

    Raises:
      InputError: when there is no such device.
    """
    import jax

    if kind == "cpu":
        # Else a GPU that is there would lend most of its memory to this process.
        jax.config.update("jax_platforms", "cpu")
    try:
        return jax.local_devices(backend=None if kind == "auto" else kind)[0]
    except RuntimeError:
        raise errors.InputError(
            f"--device={kind}: JAX finds no {kind.upper()} here; choose auto or cpu, "
            "or install JAX for it (README)"
        ) from None


def free_memory(device: Any) -> int | None:
    """Returns the free memory of a device in bytes, None where JAX does not know."""
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error of XLA says that the device's memory is used up."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _machine() -> str:
    """Returns a name for the kind of CPU; programs for another may not run."""
    text = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        text += next((line for line in lines if line.startswith("flags")), "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cache_compilations() -> None:
    """Keeps compiled programs on disk, in the user's cache folder.

    JAX writes entries in place and never replaces a damaged one, so each process
    works on a folder of its own: entries are linked into it at the start, and those
    that are new are renamed into the shared folder at the end. A folder that is set
    in the environment is used as it is; where the cache folder cannot be written,
    there is no cache.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    shared = pathlib.Path(root) / "film-restoration" / "xla" / _machine()
    try:
        shared.mkdir(parents=True, exist_ok=True)
        own = pathlib.Path(tempfile.mkdtemp(prefix=".run-", dir=shared))
    except OSError:
        return
    known = set()
    for entry in shared.iterdir():
        if entry.is_dir() and time.time() - entry.stat().st_mtime > _STALE:
            shutil.rmtree(entry, ignore_errors=True)  # of a run that was killed
        if entry.is_file():
            known.add(entry.name)
            with contextlib.suppress(OSError):
                os.link(entry, own / entry.name)
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # XLA's own caches would put the folder's name into every entry's key.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    atexit.register(_publish, own, shared, known)


def _publish(own: pathlib.Path, shared: pathlib.Path, known: set[str]) -> None:
    with contextlib.suppress(OSError):
        for entry in own.iterdir():
            if entry.name not in known and entry.is_file():
                os.replace(entry, shared / entry.name)
    shutil.rmtree(own, ignore_errors=True)
