"""Which clean pictures may train what is shipped, and under which licences."""

import dataclasses
import fnmatch
import hashlib
import importlib.util
import pathlib
import zipfile

import numpy as np

from restoration.base import config, errors
from restoration.data import clean_pictures

SOURCES = str(pathlib.Path(__file__).parents[1] / "pretrain_sources.json")

# Photographs of scikit-image's wheel that show what photographs do.
_WHEEL = "scikit-image/"
_PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Source:
    """Pictures of one origin that may be used.

    Attributes:
      pattern: of their names, as a shell matches.
      name: what they are.
      licence: its name, or where it stands.
    """

    pattern: str
    name: str
    licence: str


def read_sources(path: str) -> tuple[Source, ...]:
    """Reads the list of origins.

    Args:
      path: a JSON list of objects with the attributes of `Source`; "all" stands
        for every picture, of an unstated licence.

    Returns:
      The origins.

    Raises:
      InputError: for a missing or malformed file.
    """
    if path == "all":
        return (Source("*", "all pictures of the folder", "not stated"),)
    try:
        rows = config.parse(pathlib.Path(path).read_text(encoding="utf-8"))
        return tuple(Source(**row) for row in rows)
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; check --sources") from None
    except (ValueError, TypeError) as error:
        raise errors.InputError(
            f"{path}: not a list of sources ({error}); see "
            "experiments/pretrain_sources.json"
        ) from None


def _of_the_wheel() -> clean_pictures.Files:
    found = importlib.util.find_spec("skimage")
    if found is None:
        raise errors.InputError(
            "scikit-image's photographs are among --sources, and it is not installed; "
            "pip install '.[dev]', or leave them out of --sources"
        )
    folder = pathlib.Path(found.origin).parent / "data"
    return {_WHEEL + name: (folder / name).read_bytes() for name in _PHOTOGRAPHS}


def find(data_dir: str, sources: tuple[Source, ...]) -> clean_pictures.Files:
    """Returns the files of the pictures that may be used.

    Args:
      data_dir: a folder or a packed file.
      sources: origins; one that names scikit-image takes its photographs from the
        installed wheel, unless they are packed.

    Returns:
      The files by name, in order.

    Raises:
      InputError: where no picture is of these origins.
    """
    files = clean_pictures.read_files(data_dir, inside=clean_pictures.PICTURES)
    named = any(source.pattern.startswith(_WHEEL) for source in sources)
    if named and not any(name.startswith(_WHEEL) for name in files):
        files |= _of_the_wheel()
    used = {
        name: data
        for name, data in files.items()
        if any(fnmatch.fnmatch(name, source.pattern) for source in sources)
    }
    if not used:
        raise errors.InputError(
            f"{data_dir}: no picture is of --sources; --sources=all takes every one"
        )
    return used


def fingerprint(*parts: str | np.ndarray) -> str:
    """Returns a SHA-256 of arrays, and of words between them."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            digest.update(repr((part.shape, str(part.dtype))).encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def counts(names: list[str], sources: tuple[Source, ...]) -> list[dict]:
    """Returns, for a card, each origin that is used and how many pictures it gave."""
    found = []
    for source in sources:
        count = len(fnmatch.filter(names, source.pattern))
        if count:
            found.append(
                {"name": source.name, "licence": source.licence, "pictures": count}
            )
    return found


def pack(
    path: str, pictures: clean_pictures.Files, overlays: clean_pictures.Files
) -> None:
    """Writes pictures and overlays into one file, their bytes as they are."""
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for folder, files in (
                (clean_pictures.PICTURES, pictures),
                (clean_pictures.OVERLAYS, overlays),
            ):
                for name, data in files.items():
                    archive.writestr(folder + name, data)
    except OSError as error:
        raise errors.InputError(f"{path}: {error.strerror}; check --pack") from None
