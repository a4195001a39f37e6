"""Recipes: the options of a training run in a JSON file, with what is known of it.

    {"about": "what it is for",
     "base": "film",
     "options": {"steps": 12000, "seed": 1},
     "machine": "2 cores", "hours": 1.7, "result": "what came out"}

`base`, where there is one, names the recipe whose options these add to; `machine`,
`hours` and `result` are for people.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from restoration.base import config, errors

# Recipes that are installed with the package.
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "recipes"

_KEYS = {"about", "base", "options", "machine", "hours", "result"}

# Recipes that name each other as their base end here.
_DEEPEST = 20


def names(folders: Sequence[pathlib.Path] = (FOLDER,)) -> list[str]:
    """Returns the names of the recipes in some folders."""
    return sorted(path.stem for folder in folders for path in folder.glob("*.json"))


def _find(name: str, folders: Sequence[pathlib.Path]) -> pathlib.Path:
    if name.endswith(".json"):
        return pathlib.Path(name)
    for folder in folders:
        if name in names([folder]):
            return folder / f"{name}.json"
    raise errors.InputError(
        f"--recipe={name}: choose {', '.join(names(folders))}, or give a .json file"
    )


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = config.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; check --recipe") from None
    except ValueError as error:
        raise errors.InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict) or not isinstance(found.get("options"), dict):
        raise errors.InputError(f'{path}: not a recipe, it has no "options"')
    if unknown := sorted(set(found) - _KEYS):
        raise errors.InputError(
            f"{path}: unknown {unknown[0]!r}; a recipe has {', '.join(sorted(_KEYS))}"
        )
    return found


def options(name: str, folders: Sequence[pathlib.Path] = (FOLDER,)) -> dict[str, Any]:
    """Returns the options of a recipe, those of its base among them.

    Args:
      name: of a recipe in one of the folders, or a `.json` file; a base that is named
        in a file may lie beside it.
      folders: where names are looked for, in order.

    Returns:
      Values by the names of options; whether they are options, and of the right
      types, is for `cli` to say.

    Raises:
      InputError: for recipes that are missing or malformed.
    """
    layers: list[dict[str, Any]] = []
    base: Any = name
    while base:
        path = _find(str(base), folders)
        found = _read(path)
        layers.insert(0, found["options"])
        base, folders = found.get("base"), (path.parent, *folders)
        if len(layers) > _DEEPEST:
            raise errors.InputError(f"{path}: its bases name each other")
    return {key: value for layer in layers for key, value in layer.items()}
