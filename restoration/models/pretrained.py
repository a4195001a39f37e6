"""Weights as safetensors files, including those shipped with the package.

`restoration/weights/` holds a file for each model, and beside it its card: a JSON
object with training data, recipe, scores, limits and the file's SHA-256. Numbers are
stored in 32 or 16 bits, and are float32 in memory.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from restoration import models
from restoration.base import config, errors, files
from restoration.models import (
    efficientnet_lite,
    filler,
    film_finder,
    finder,
    grader,
)

FOLDER = pathlib.Path(__file__).parents[1] / "weights"

# The model of each weights file. `restore` uses the first shipped one if no model is
# named: the best model that restores an image in seconds on a CPU. `nafnet_m` is
# better still, but needs an accelerator.
SHIPPED = {
    "nafnet_s": "nafnet_s",
    "nafnet_m": "nafnet_m",
    "advanced": "advanced_residual",
    "basic": "basic_residual",
}

# What is stored beside the restoration networks, and the shapes of its parameters.
_OTHERS = {
    grader.NAME: grader.abstract_parameters,
    finder.NAME: finder.abstract_parameters,
    filler.NAME: filler.abstract_parameters,
    film_finder.NAME: film_finder.abstract_parameters,
    efficientnet_lite.NAME: efficientnet_lite.abstract_parameters,
}

_DTYPES = ("F32", "F16")


def _named(parameters: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(parameters)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def save(
    path: str | os.PathLike,
    model_name: str,
    parameters: Any,
    card: dict[str, Any],
    *,
    dtype: Any = np.float32,
) -> None:
    """Writes weights and, beside them, their card, with the file's SHA-256.

    Args:
      path: the `.safetensors` file; the card has the suffix `.json`.
      model_name: a name of `models.MODELS`, or `NAME` of `finder`, `filler`, `grader`,
        `film_finder` or `efficientnet_lite`.
      parameters: nested dict of arrays.
      card: fields of the card.
      dtype: of the stored numbers, np.float32 or np.float16.
    """
    path = pathlib.Path(path)
    tensors = {
        name: np.asarray(leaf, dtype) for name, leaf in _named(parameters).items()
    }
    data = safetensors.numpy.save(tensors, metadata={"model": model_name})
    files.write_bytes(path, data)
    card = {"model": model_name, **card, "sha256": hashlib.sha256(data).hexdigest()}
    files.write_text(path.with_suffix(".json"), json.dumps(card, indent=1) + "\n")


def read_card(path: pathlib.Path) -> dict[str, Any]:
    """Reads the card of weights.

    Args:
      path: the `.json` file beside the weights.

    Returns:
      The fields given to `save`, with model and SHA-256.

    Raises:
      InputError: if the file is missing, malformed or has no SHA-256.
    """
    try:
        card = config.parse(path.read_text(encoding="utf-8"))
        str(card["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.InputError(
            f"{path}: not a card of weights ({error}); get the file again"
        ) from None
    return card


def load(path: str | os.PathLike) -> tuple[str, Any]:
    """Reads weights and checks every name, shape and dtype.

    Shapes of the package's own files are not computed again, which would take a
    second: their cards hold the files' SHA-256, and the package's tests their shapes.

    Args:
      path: a file that `save` wrote. If its card is beside it, the SHA-256 is checked.

    Returns:
      The model's name and its parameters, float32.

    Raises:
      InputError: if the file is missing or damaged, or does not fit the model.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; check the path") from None
    card = path.with_suffix(".json")
    if card.is_file():
        expected = read_card(card)["sha256"]
        if hashlib.sha256(data).hexdigest() != expected:
            raise errors.InputError(
                f"{path}: differs from the SHA-256 in {card.name}; get the file again"
            )
    try:
        tensors = safetensors.numpy.load(data)
        header = config.parse(data[8 : 8 + int.from_bytes(data[:8], "little")])
        model_name = header.pop("__metadata__")["model"]
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise errors.InputError(
            f"{path}: not a weights file ({error}); get the file again"
        ) from None
    odd = {n: t["dtype"] for n, t in header.items() if t["dtype"] not in _DTYPES}
    if odd:
        raise errors.InputError(
            f"{path}: numbers must be {' or '.join(_DTYPES)}, found {odd}"
        )
    leaves = {name: np.asarray(tensors[name], np.float32) for name in sorted(tensors)}
    if not (card.is_file() and path.parent == FOLDER):
        _check_shapes(path, model_name, leaves)
    if not all(np.isfinite(leaf).all() for leaf in leaves.values()):
        raise errors.InputError(f"{path}: some numbers are not finite")
    return model_name, traverse_util.unflatten_dict(leaves, sep="/")


def _check_shapes(
    path: pathlib.Path, model_name: str, leaves: dict[str, np.ndarray]
) -> None:
    """Raises InputError for names or shapes that are not the model's."""
    if model_name in _OTHERS:
        like = _OTHERS[model_name]()
    else:
        like = models.abstract_parameters(models.get_model(model_name))
    expected = {name: leaf.shape for name, leaf in _named(like).items()}
    found = {name: leaf.shape for name, leaf in leaves.items()}
    if expected != found:
        wrong = sorted(
            f"{name} {found.get(name, 'missing')} for {expected.get(name, 'nothing')}"
            for name in expected.keys() | found.keys()
            if expected.get(name) != found.get(name)
        )
        raise errors.InputError(
            f"{path}: not weights of {model_name}: {'; '.join(wrong[:5])}"
        )


def shipped() -> list[str]:
    """Returns the names of the shipped weights, the default first."""
    return [name for name in SHIPPED if (FOLDER / f"{name}.safetensors").is_file()]


def find_shipped(name: str) -> pathlib.Path:
    """Returns the file of shipped weights.

    Args:
      name: of `shipped()`; "" for the default.

    Raises:
      InputError: if there are no shipped weights of that name.
    """
    names = shipped()
    if (name and name not in names) or not names:
        raise errors.InputError(
            f"no weights of model {name!r} are shipped; choose one of "
            f"{', '.join(names) or 'none'}, or train and give --workdir"
        )
    return FOLDER / f"{name or names[0]}.safetensors"


def load_part(name: str, path: str | os.PathLike = "") -> tuple[Any, Any, str]:
    """Loads a finder or a filler.

    Args:
      name: `finder.NAME` or `filler.NAME`.
      path: the weights' file, the shipped one by default.

    Returns:
      The Flax module, its parameters and the SHA-256 of their file.

    Raises:
      InputError: for weights that are missing, damaged or of something else.
    """
    modules = {finder.NAME: finder.Finder, filler.NAME: filler.Filler}
    path = pathlib.Path(path or FOLDER / f"{name}.safetensors")
    digest = read_card(path.with_suffix(".json"))["sha256"]
    found, parameters = load(path)
    if found != name:
        raise errors.InputError(f"{path}: weights of {found}, not of a {name}")
    return modules[name](), parameters, digest


def load_grader() -> tuple[Any, str]:
    """Loads the shipped weights of `grader.Grader`.

    Returns:
      Its parameters and the SHA-256 of their file.

    Raises:
      InputError: if the weights are missing, damaged or of another model.
    """
    path = FOLDER / f"{grader.NAME}.safetensors"
    digest = read_card(path.with_suffix(".json"))["sha256"]
    found, parameters = load(path)
    if found != grader.NAME:
        raise errors.InputError(f"{path}: weights of {found}; install again")
    return parameters, digest


def load_shipped(name: str) -> tuple[str, Any]:
    """Loads shipped weights by name.

    Args:
      name: of `shipped()`; "" for the default.

    Returns:
      The name of their model (see `SHIPPED`) and its parameters.

    Raises:
      InputError: if there are no shipped weights of that name, or they belong to
        another model, or their card is missing.
    """
    path = find_shipped(name)
    card = read_card(path.with_suffix(".json"))
    found, parameters = load(path)
    if not found == card.get("model") == SHIPPED[path.stem]:
        raise errors.InputError(
            f"{path}: weights of {found}, card of {card.get('model')}; install again"
        )
    return found, parameters
