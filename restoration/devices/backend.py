"""Differences between CPU, GPU and TPU. Functions that need JAX import it."""

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

# Age in seconds beyond which a process's folder of compiled programs is abandoned.
_STALE = 7 * 86400

# The feature maps of about this many pixels fit into a CPU's caches.
_CPU_PIXELS = 2 * 128 * 128


def keep_freed_memory(*, large: bool = True) -> None:
    """Makes glibc keep freed memory instead of returning it to the system.

    XLA allocates its buffers anew each step, and returning them costs page faults.
    Raising the mmap threshold alone does not help: glibc ignores values above 32 MiB.
    Call this before threads start. Without glibc it does nothing.

    Args:
      large: also keep buffers above 32 MiB. True suits training, whose buffers have
        the same sizes in every step. The buffers of an image's tiles have different
        sizes and would fragment the heap to twice the memory in use.
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
    """Returns whether JAX's default device is the CPU."""
    import jax

    return jax.default_backend() == "cpu"


def compiler_options(device: Any) -> dict[str, Any]:
    """Returns options for `jax.jit` with which a network is ready sooner on a CPU.

    LLVM's first level of optimization and, in JAX 0.10, no emitters of fusions: the
    finder, the filler and `nafnet_s` compile in half the time, run as fast and give
    the same bits. What the user sets in XLA_FLAGS stays.

    Args:
      device: the device that is compiled for.
    """
    import jax

    chosen = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    if device.platform != "cpu" or chosen:
        return {}
    options: dict[str, Any] = {"xla_backend_optimization_level": 1}
    if jax.__version_info__[:2] == (0, 10):
        options["xla_cpu_use_fusion_emitters"] = False
    return options


def microbatches(batch_size: int, image_size: int) -> int:
    """Returns the number of equal microbatches to split a batch into.

    On a CPU, microbatches that stay in the cache are faster than one large batch. An
    accelerator computes the whole batch at once.

    Args:
      batch_size: images per step on one device.
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
    """Returns the side of a tile in pixels, and how many tiles make a batch.

    Args:
      device: a JAX device; None for the default one.
    """
    cpu = is_cpu() if device is None else device.platform == "cpu"
    return (192, 1) if cpu else (512, 16)


def device(kind: str) -> Any:
    """Returns the JAX device to compute on.

    Args:
      kind: "auto", "cpu", "gpu" or "tpu".

    Raises:
      InputError: if there is no such device.
    """
    import jax

    if kind == "cpu":
        # Otherwise JAX would reserve most of the memory of a GPU that it finds.
        jax.config.update("jax_platforms", "cpu")
    try:
        return jax.local_devices(backend=None if kind == "auto" else kind)[0]
    except RuntimeError:
        raise errors.InputError(
            f"--device={kind}: JAX finds no {kind.upper()} here; choose auto or cpu, "
            "or install JAX for it (README)"
        ) from None


def free_memory(device: Any) -> int | None:
    """Returns the free memory of a device in bytes, or None if JAX does not know it."""
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an XLA error means that the device is out of memory."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _machine() -> str:
    """Returns a name for the CPU's instruction set, which compiled programs need."""
    text = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        text += next((line for line in lines if line.startswith("flags")), "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _cache_folder() -> pathlib.Path | None:
    """Returns the user's folder for programs of this machine, None if not writable."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    shared = pathlib.Path(root) / "film-restoration" / "xla" / _machine()
    try:
        shared.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return shared if os.access(shared, os.W_OK) else None


def program_folder() -> pathlib.Path | None:
    """Returns the folder of traced programs; None where none are cached.

    It lies in the folder of compiled programs, so that JAX_COMPILATION_CACHE_DIR, if
    set, moves both. Nothing is kept before `cache_compilations` is called.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:
        return None
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    root = pathlib.Path(given) if given else _cache_folder()
    return root and root / "traced"


def cache_compilations() -> None:
    """Caches compiled programs on disk, in the user's cache folder.

    JAX writes entries in place and never replaces a damaged one. So each process works
    on its own folder: existing entries are linked into it at the start, and new ones
    are renamed into the shared folder at the end. JAX_COMPILATION_CACHE_DIR, if set,
    is used instead. If the cache folder is not writable, nothing is cached.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    shared = _cache_folder()
    if shared is None:
        return
    try:
        own = pathlib.Path(tempfile.mkdtemp(prefix=".run-", dir=shared))
    except OSError:
        return
    known = set()
    for entry in shared.iterdir():
        # Left by a process that was killed.
        abandoned = entry.name.startswith(".run-") and entry.is_dir()
        if abandoned and time.time() - entry.stat().st_mtime > _STALE:
            shutil.rmtree(entry, ignore_errors=True)
        if entry.is_file():
            known.add(entry.name)
            with contextlib.suppress(OSError):
                os.link(entry, own / entry.name)
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # XLA's own caches would make the folder's name part of every entry's key.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    atexit.register(_publish, own, shared, known)


def _publish(own: pathlib.Path, shared: pathlib.Path, known: set[str]) -> None:
    with contextlib.suppress(OSError):
        for entry in own.iterdir():
            if entry.name not in known and entry.is_file():
                os.replace(entry, shared / entry.name)
    shutil.rmtree(own, ignore_errors=True)
