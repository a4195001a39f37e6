"""What differs between CPU, GPU and TPU, in one place.

JAX is imported only when a device is asked for.
"""

import ctypes
import platform

# glibc's names for mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8

# A CPU's caches hold the feature maps of about this many pixels.
_CPU_PIXELS = 2 * 128 * 128


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory instead of returning it to the system.

    XLA allocates its buffers anew each step. One heap for all threads that is
    never given back took page faults from 47,000 to a hundred a step of the basic
    model (16 images of 128×128), and a sixth of the time. A higher threshold for
    mmap alone did not: glibc ignores values above 32 MiB. Elsewhere than on glibc
    nothing is done. Call it before threads start.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_MAX, 0)
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


def tiles() -> tuple[int, int]:
    """Returns (side, number) of the tiles that restoring computes at once."""
    return (256, 1) if is_cpu() else (512, 16)
