"""Weights of Keras's EfficientNetB0 from HDF5 files.

Reads files of `model.save("x.h5")`, with the weights in the group "model_weights", and
of the older `save_weights`, with the weights at the root, by layer names. Only arrays
are read: no configuration is run, nothing is unpickled, and links to other files are
not followed. Users download the ImageNet weights themselves, see the README; they need
`efficientnet.Encoder(imagenet=True)`.
"""

import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epy

from restoration.base import errors

with epy.lazy_imports():
    import h5py
    import jax
    import jax.numpy as jnp

    from experiments.transfer import efficientnet

# Keras's name of a weight, and its collection and name in Flax.
_OURS = {
    "kernel": ("params", "kernel"),
    "depthwise_kernel": ("params", "kernel"),
    "bias": ("params", "bias"),
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
    "mean": ("batch_stats", "mean"),
    "variance": ("batch_stats", "var"),
}

# Weights that the encoder does not need: the classifier, and the number of images
# behind the statistics of the colors.
_UNUSED = re.compile(r"predictions/.*|normalization/count")


def load_efficientnet(path: str | os.PathLike) -> Any:
    """Reads the weights of EfficientNetB0, checking every name and shape.

    Args:
      path: an `.h5` file, with or without the classifier.

    Returns:
      The parameters of `efficientnet.Encoder`: "params" and "batch_stats", float32.

    Raises:
      InputError: if the file is missing, damaged or of another network.
    """
    path = pathlib.Path(path)
    try:
        with h5py.File(path, "r") as file:
            return _load(file, str(path))
    except FileNotFoundError:
        raise errors.InputError(f"{path}: no such file; check the path") from None
    except errors.InputError:
        raise
    # The type of h5py's error depends on the damage.
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise errors.InputError(
            f"{path}: not an HDF5 file, or damaged ({error}); get the file again"
        ) from None


def _load(file: "h5py.File", source: str) -> Any:
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    like = jax.eval_shape(efficientnet.Encoder().init, jax.random.key(0), images)
    found = _named(_datasets(file, source), source)
    _check(found, like, source)
    parameters = {
        collection: {
            layer: {name: _read(found[collection, layer, name]) for name in weights}
            for layer, weights in by_layer.items()
        }
        for collection, by_layer in like.items()
    }
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters)):
        raise errors.InputError(f"{source}: some numbers are not finite")
    return parameters


def _datasets(file: "h5py.File", source: str) -> dict[str, "h5py.Dataset"]:
    """Returns the arrays of a file by layer and weight, such as "stem_conv/kernel"."""
    group = file.get("model_weights", file)
    if not isinstance(group, h5py.Group) or "layer_names" not in group.attrs:
        raise errors.InputError(
            f"{source}: no Keras weights by layer; write them with model.save('x.h5')"
        )
    found: dict[str, h5py.Dataset] = {}

    def add(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, *_, weight = path.split("/")
            # Keras numbers the layers of a second network: "normalization_1".
            layer = re.sub(r"^normalization_\d+$", "normalization", layer)
            found[f"{layer}/{weight.partition(':')[0]}"] = item

    group.visititems(add)
    return found


def _named(
    datasets: Mapping[str, "h5py.Dataset"], source: str
) -> dict[tuple[str, str, str], "h5py.Dataset"]:
    """Returns the arrays by Flax collection, layer and name."""
    found, unknown = {}, []
    for path, dataset in datasets.items():
        layer, weight = path.split("/")
        if _UNUSED.fullmatch(path):
            continue
        if weight in _OURS:
            collection, name = _OURS[weight]
            found[collection, layer, name] = dataset
        else:
            unknown.append(f"{path} is unknown")
    _refuse(unknown, source)
    return found


def _check(
    found: Mapping[tuple[str, str, str], "h5py.Dataset"], like: Any, source: str
) -> None:
    """Raises InputError unless the arrays have the names and shapes of `like`."""
    wanted = {
        (collection, layer, name): leaf.shape
        for collection, by_layer in like.items()
        for layer, weights in by_layer.items()
        for name, leaf in weights.items()
    }
    given = {key: _shape(dataset) for key, dataset in found.items()}
    _refuse(
        (
            f"{'/'.join(key)} {given.get(key, 'missing')} for "
            f"{wanted.get(key, 'nothing')}"
            for key in sorted(wanted.keys() | given.keys())
            if wanted.get(key) != given.get(key)
        ),
        source,
    )
    _refuse(
        (
            f"{'/'.join(key)} of {dataset.dtype}"
            for key, dataset in found.items()
            if dataset.dtype.kind != "f"
        ),
        source,
    )


def _refuse(wrong: Iterable[str], source: str) -> None:
    wrong = list(wrong)
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise errors.InputError(
            f"{source}: not weights of EfficientNetB0: {'; '.join(wrong[:5])}{more}"
        )


def _is_depthwise(dataset: "h5py.Dataset") -> bool:
    """Returns whether an array is a depthwise kernel.

    Its shape is (height, width, channels, 1) in Keras and (height, width, 1, channels)
    in Flax.
    """
    return "dwconv" in dataset.name and dataset.ndim == 4


def _shape(dataset: "h5py.Dataset") -> tuple[int, ...]:
    shape = dataset.shape
    return (*shape[:2], shape[3], shape[2]) if _is_depthwise(dataset) else shape


def _read(dataset: "h5py.Dataset") -> np.ndarray:
    """Reads an array as float32, a depthwise kernel with Flax's layout."""
    values = np.asarray(dataset[()], np.float32)
    return values.swapaxes(2, 3) if _is_depthwise(dataset) else values
