"""Weights as safetensors files, those shipped with the package among them.

`restoration/weights/` holds one file a model and its card, a JSON object with
training data, recipe, figures, limits and the file's SHA-256. Numbers are stored in
32 or in 16 bits; in memory they are float32.
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

from restoration import models
from restoration.base import config, errors
from restoration.models import efficientnet_lite, filler, finder, grader

FOLDER = pathlib.Path(__file__).parents[1] / "weights"

# The model of each weights file that may be shipped. Best first, of those that a CPU
# restores a picture with in seconds: what `restore` uses when no model is named.
# `nafnet_m` is better and for accelerators.
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
    """Writes weights and, beside them, their card with the file's SHA-256.

    Args:
      path: the `.safetensors` file; the card has the suffix `.json`.
      model_name: a name of `models.MODELS`, or `NAME` of `finder`, `filler`, `grader`
        or `efficientnet_lite`.
      parameters: nested dict.
      card: what to tell about the weights.
      dtype: of the stored numbers, np.float32 or np.float16.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: np.asarray(leaf, dtype) for name, leaf in _named(parameters).items()
    }
    data = safetensors.numpy.save(tensors, metadata={"model": model_name})
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    card = {"model": model_name, **card, "sha256": hashlib.sha256(data).hexdigest()}
    config.write_text(path.with_suffix(".json"), json.dumps(card, indent=1) + "\n")


def read_card(path: pathlib.Path) -> dict[str, Any]:
    """Reads a card, of which the SHA-256 at least must be there.

    Args:
      path: the `.json` file beside weights.

    Returns:
      What `save` was given, with model and SHA-256.

    Raises:
      InputError: for a file that is missing or no card.
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
    """Reads weights, checking every name, shape and type.

    Args:
      path: a file that `save` wrote; when its card is there, its SHA-256 is
        checked too.

    Returns:
      The model's name and its parameters, float32.

    Raises:
      InputError: for a file that is missing, damaged or of another model.
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
            f"{path}: numbers of another type than {', '.join(_DTYPES)}: {odd}"
        )
    if model_name in _OTHERS:
        like = _OTHERS[model_name]()
    else:
        like = models.abstract_parameters(models.get_model(model_name))
    expected = {name: leaf.shape for name, leaf in _named(like).items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(
            f"{name} {found.get(name, 'missing')} for {expected.get(name, 'nothing')}"
            for name in expected.keys() | found.keys()
            if expected.get(name) != found.get(name)
        )
        raise errors.InputError(
            f"{path}: not weights of {model_name}: {'; '.join(wrong[:5])}"
        )
    leaves = [np.asarray(tensors[name], np.float32) for name in expected]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise errors.InputError(f"{path}: holds numbers that are not finite")
    return model_name, jax.tree.unflatten(jax.tree.structure(like), leaves)


def shipped() -> list[str]:
    """Returns the names of the weights that are shipped, best first."""
    return [name for name in SHIPPED if (FOLDER / f"{name}.safetensors").is_file()]


def find_shipped(name: str) -> pathlib.Path:
    """Returns the file of shipped weights, of the best ones for an empty name.

    Raises:
      InputError: for a name without shipped weights.
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
      InputError: for weights that are missing, damaged or of something else.
    """
    path = FOLDER / f"{grader.NAME}.safetensors"
    digest = read_card(path.with_suffix(".json"))["sha256"]
    found, parameters = load(path)
    if found != grader.NAME:
        raise errors.InputError(f"{path}: weights of {found}; install again")
    return parameters, digest


def load_shipped(name: str) -> tuple[str, Any]:
    """Loads shipped weights by name; the best ones for an empty name.

    Args:
      name: of `shipped()`, or "".

    Returns:
      The name of their model (see `SHIPPED`) and its parameters.

    Raises:
      InputError: for a name without shipped weights, or where they are of another
        model or without a card.
    """
    path = find_shipped(name)
    card = read_card(path.with_suffix(".json"))
    found, parameters = load(path)
    if not found == card.get("model") == SHIPPED[path.stem]:
        raise errors.InputError(
            f"{path}: weights of {found}, card of {card.get('model')}; install again"
        )
    return found, parameters
