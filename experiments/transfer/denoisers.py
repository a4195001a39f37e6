"""Published denoisers from safetensors and MATLAB files.

Reads DnCNN and FFDNet as saved by PyTorch and MatConvNet: a sequence of numbered
convolutions, each with its bias or followed by batch normalization, which is folded
into it. MATLAB files are read as arrays: old ones with SciPy (see `matlab`), those of
version 7.3, which are HDF5 files, with h5py. No code in them is run.

    model, parameters = denoisers.load("dncnn_color_blind.mat")
    clean = model.apply(parameters, noisy)
"""

import itertools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from etils import epy

from experiments.transfer import ffdnet, matlab
from restoration.base import errors
from restoration.models import dncnn

with epy.lazy_imports():
    import h5py

# PyTorch's default, used by the published networks.
_EPSILON = 1e-5

# Largest number of values in one array.
_MOST_WEIGHTS = 1 << 24

_SUFFIXES = (".safetensors", ".mat")


class DnCNN17(dncnn.DnCNN):
    """DnCNN for one noise level: 17 layers."""

    source: ClassVar[str] = "Zhang et al. 2017, DnCNN-S"
    halo: ClassVar[int] = 17
    layers: ClassVar[int] = 17


class Convolution(NamedTuple):
    """One layer.

    Attributes:
      kernel: float32 (height, width, inputs, outputs).
      bias: float32 (outputs,).
    """

    kernel: np.ndarray
    bias: np.ndarray


def load(path: str | os.PathLike, *, sigma: float | None = None) -> tuple[Any, Any]:
    """Reads a denoiser; its layers determine which one it is.

    Args:
      path: a `.safetensors` or `.mat` file.
      sigma: standard deviation of the noise, for pixels in [0, 1]. FFDNet needs it,
        DnCNN does not take it.

    Returns:
      The Flax module and its parameters, float32. A grey DnCNN maps (batch, height,
      width, 1).

    Raises:
      InputError: if the file cannot be read or contains another network, or sigma is
        missing or not applicable.
    """
    found = read(path)
    kinds = {
        _shapes(17, 1, 64, 1): DnCNN17,
        _shapes(17, 3, 64, 3): DnCNN17,
        _shapes(20, 1, 64, 1): dncnn.DnCNN,
        _shapes(20, 3, 64, 3): dncnn.DnCNN,
        _shapes(12, 13, 96, 12): ffdnet.FFDNet,
    }
    kind = kinds.get(tuple(layer.kernel.shape for layer in found))
    if kind is None:
        ends = [found[layer].kernel.shape for layer in (0, -1)]
        raise errors.InputError(
            f"{path}: {len(found)} convolutions, the first {ends[0]}, the last "
            f"{ends[1]}: not a DnCNN of 17 or 20 layers, nor the color FFDNet"
        )
    if (kind is ffdnet.FFDNet) != (sigma is not None):
        remedy = "give its sigma" if sigma is None else "DnCNN takes no sigma"
        raise errors.InputError(f"{path}: is a {kind.__name__}; {remedy}")
    model = kind() if sigma is None else kind(sigma=sigma)
    weights = {
        f"conv_{number}": {name: jnp.asarray(w) for name, w in layer._asdict().items()}
        for number, layer in enumerate(found, 1)
    }
    return model, {"params": weights}


def _shapes(depth: int, inputs: int, width: int, outputs: int) -> tuple:
    """Returns the kernels' shapes of a sequence of convolutions."""
    channels = [inputs, *[width] * (depth - 1), outputs]
    return tuple((3, 3, *ends) for ends in itertools.pairwise(channels))


def read(path: str | os.PathLike) -> list[Convolution]:
    """Reads a network that is a sequence of convolutions.

    Args:
      path: a `.safetensors` or `.mat` file.

    Returns:
      The layers in order, at least one, with channels that fit each other.

    Raises:
      InputError: if the file cannot be read or contains anything else.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise errors.InputError(
            f"{path}: weights are read from {' and '.join(_SUFFIXES)} files; PyTorch's "
            "own format can run code, convert it with safetensors.torch.save_file"
        )
    if not path.is_file():
        raise errors.InputError(f"{path}: no such file; check the path")
    is_tensors = path.suffix.lower() == ".safetensors"
    layers = _from_safetensors(path) if is_tensors else _from_matlab(path)
    _check(layers, path)
    return layers


def _check(layers: Sequence[Convolution], path: pathlib.Path) -> None:
    for number, (kernel, bias) in enumerate(layers, 1):
        if kernel.ndim != 4 or bias.shape != kernel.shape[3:]:
            raise errors.InputError(
                f"{path}: convolution {number} has a kernel of {kernel.shape} and a "
                f"bias of {bias.shape}"
            )
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise errors.InputError(f"{path}: some numbers are not finite")
    if not layers:
        raise errors.InputError(f"{path}: contains no convolution")
    for number, (one, other) in enumerate(itertools.pairwise(layers), 1):
        if one.kernel.shape[3] != other.kernel.shape[2]:
            raise errors.InputError(
                f"{path}: convolution {number} gives {one.kernel.shape[3]} channels, "
                f"the next takes {other.kernel.shape[2]}"
            )


def _from_safetensors(path: pathlib.Path) -> list[Convolution]:
    """Reads numbered layers such as `PREFIX.7.weight`, with PyTorch's kernel layout."""
    try:
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise errors.InputError(
            f"{path}: not a safetensors file, or damaged ({error}); get it again"
        ) from None
    numbered: dict[int, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        parts = re.fullmatch(r"(?:.*\.)?(\d+)\.(\w+)", name)
        if not parts:
            raise errors.InputError(
                f"{path}: {name} is not a numbered layer; only sequences of "
                "convolutions can be read"
            )
        numbered.setdefault(int(parts[1]), {})[parts[2]] = np.asarray(
            tensor, np.float32
        )
    layers: list[Convolution] = []
    for number in sorted(numbered):
        weights = numbered[number]
        if {"running_mean", "running_var"} <= weights.keys() and layers:
            layers[-1] = _folded(layers[-1], weights)
        elif {"weight"} <= weights.keys() <= {"weight", "bias"}:
            kernel = weights["weight"]
            if kernel.ndim != 4:
                raise errors.InputError(
                    f"{path}: layer {number} has weights of {kernel.shape}; it is not "
                    "a convolution"
                )
            zeros = np.zeros(len(kernel), np.float32)
            layers.append(
                Convolution(kernel.transpose(2, 3, 1, 0), weights.get("bias", zeros))
            )
        else:
            raise errors.InputError(
                f"{path}: layer {number} with {', '.join(sorted(weights))} is neither "
                "a convolution nor a batch normalization after one"
            )
    return layers


def _folded(layer: Convolution, norm: Mapping[str, np.ndarray]) -> Convolution:
    """Returns the convolution with the normalization after it folded in."""
    factor = norm["weight"] / np.sqrt(norm["running_var"] + _EPSILON)
    bias = (layer.bias - norm["running_mean"]) * factor + norm["bias"]
    return Convolution(layer.kernel * factor, bias)


def _from_matlab(path: pathlib.Path) -> list[Convolution]:
    """Reads the variable `net`, a network of MatConvNet."""
    with path.open("rb") as file:
        is_hdf5 = b"MATLAB 7.3" in file.read(128)
    try:
        pairs = _from_hdf5(path) if is_hdf5 else matlab.read(path)
    except errors.InputError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        RuntimeError,
    ) as error:
        raise errors.InputError(
            f"{path}: not a network of MatConvNet, or damaged ({error}); get it again"
        ) from None
    return [
        Convolution(_four_dimensional(kernel), np.asarray(bias, np.float32).ravel())
        for kernel, bias in pairs
    ]


def _four_dimensional(kernel: np.ndarray) -> np.ndarray:
    """Restores a kernel's last dimension, which MATLAB drops if it is 1."""
    kernel = np.asarray(kernel, np.float32)
    return kernel[..., None] if kernel.ndim == 3 else kernel


def _read(dataset: "h5py.Dataset") -> np.ndarray:
    """Reads an array; raises ValueError if it is too large, as in a damaged file."""
    if dataset.size > _MOST_WEIGHTS:
        raise ValueError(f"an array of {dataset.size:,} numbers")
    return dataset[()]


def _from_hdf5(path: pathlib.Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads a file of version 7.3, whose arrays have reversed dimensions."""
    found = []
    with h5py.File(path, "r") as file:
        for reference in np.ravel(file["net"]["layers"]):
            layer = file[reference]
            if "weights" in layer:
                weights = [_read(file[one]).T for one in np.ravel(layer["weights"])]
                found.append((weights[0], weights[1]))
    return found
