"""Reads networks of MatConvNet from MATLAB files older than version 7.3.

A damaged file can crash SciPy or make it ask for any amount of memory. So SciPy reads
the file in a process of its own, which returns arrays:

    python -m experiments.transfer.matlab NET.mat > arrays.npz
"""

import io
import os
import resource
import subprocess
import sys

import numpy as np

from restoration.base import errors

# Limits of the process: memory in bytes and time in seconds.
_MEMORY = 8 << 30
_TIMEOUT = 300


def read(path: str | os.PathLike) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads the convolutions of the network `net`.

    Args:
      path: the file.

    Returns:
      Kernel and bias of each, float32, in MATLAB's layout.

    Raises:
      InputError: if the file is damaged or contains no such network.
    """
    command = [sys.executable, "-m", "experiments.transfer.matlab", os.fspath(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise errors.InputError(
            f"{path}: not read after {_TIMEOUT} seconds, probably damaged; get it again"
        ) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1][:200] if done.returncode > 0 and lines else "SciPy crashed"
        raise errors.InputError(
            f"{path}: not a network of MatConvNet, or damaged ({reason}); get it again"
        )
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        count = len(arrays.files) // 2
        return [(arrays[f"kernel{n}"], arrays[f"bias{n}"]) for n in range(count)]


def _convolutions(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    from scipy.io import loadmat

    network = loadmat(path, variable_names=("net",))["net"][0, 0]
    found = []
    for layer in network["layers"].ravel():
        fields = layer[0, 0]
        if "weights" in fields.dtype.names:
            weights = fields["weights"].ravel()
            found.append(tuple(np.asarray(w, np.float32) for w in weights[:2]))
    return found


def main(path: str) -> None:
    """Writes the convolutions of a file to standard output, as `.npz`."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    found = {}
    for number, (kernel, bias) in enumerate(_convolutions(path)):
        found |= {f"kernel{number}": kernel, f"bias{number}": bias}
    data = io.BytesIO()
    np.savez(data, **found)
    sys.stdout.buffer.write(data.getvalue())


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except ImportError:
        sys.exit("pip install scipy to read files before version 7.3")
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
