"""Which films a command restores, with what options, and where the results go."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from restoration.base import config, errors
from restoration.film import container
from restoration.inference import jobs


@dataclasses.dataclass(frozen=True)
class FilmOptions:
    """Options of `python -m restoration.restore` that concern films."""

    sequence: bool = config.option(
        False, help="a folder of numbered PNG, TIFF or DPX pictures is one film"
    )
    frame_rate: float = config.option(
        24.0, help="of a --sequence that is written as a film", minimum=0.1
    )
    codec: str = config.option(
        "auto",
        help="of restored films; auto: ffv1 for lossless films, else h264",
        choices=("auto", *container.CODECS),
    )
    deinterlace: bool | None = config.option(
        None, help="make whole frames of interlaced ones (bwdif); --nodeinterlace: not"
    )
    stabilize: bool = config.option(False, help="take out the weave of the gate")
    deflicker: bool = config.option(False, help="take out flicker")
    denoise: bool = config.option(
        False, help="average films over time, along the motion: less grain"
    )
    film_finder: str = config.option(
        "auto",
        help="what finds damage in films; auto: the network where its weights are",
        choices=("auto", "network", "spikes"),
    )

    def __post_init__(self):
        """Checks choices."""
        config.check(self)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a film is restored: what it takes of both commands' options.

    Attributes:
      blind: whether damage is looked for; else only `damage` is filled.
      damage: mask film, or folder of them by the films' names, or "".
      save_damage: whether a film of the masks is written.
      compare: whether a film of both is written, for the page.
      sensitivity: 0 to 1, how readily something counts as damage.
      overwrite: whether results that exist are replaced.
      skip_existing: whether films with a result are passed over.
      sequence: see `FilmOptions`, as what follows.
    """

    blind: bool = True
    damage: str = ""
    save_damage: bool = False
    compare: bool = False
    sensitivity: float = 0.5
    overwrite: bool = False
    skip_existing: bool = False
    sequence: bool = False
    frame_rate: float = 24.0
    codec: str = "auto"
    deinterlace: bool | None = None
    stabilize: bool = False
    deflicker: bool = False
    denoise: bool = False
    film_finder: str = "auto"


def settings_of(*options: Any) -> Settings:
    """Returns the settings that options dataclasses hold, by their names."""
    names = [field.name for field in dataclasses.fields(Settings)]
    return Settings(
        **{
            name: getattr(option, name)
            for option in options
            for name in names
            if hasattr(option, name)
        }
    )


@dataclasses.dataclass(frozen=True)
class Job:
    """One film to restore.

    Attributes:
      source: the file, or the folder of a sequence.
      stem: the result's path without its ending, which depends on the codec.
    """

    source: pathlib.Path
    stem: pathlib.Path


def stems(
    films: Sequence[tuple[pathlib.PurePath, str]], *, suffix: str
) -> list[pathlib.PurePath]:
    """Returns the paths of films' results, without the endings that codecs decide.

    Args:
      films: of each the path below the folder that was named, without its ending, and
        the ending; "" for the folder of a sequence.
      suffix: written after each name.

    Returns:
      The paths; where `reel.mov` and `reel.mkv` lie together they name the kind.
    """
    end = f"_{suffix}" if suffix else ""
    counts = collections.Counter(path for path, _ in set(films))
    return [
        path.with_name(
            f"{path.name}{ending.replace('.', '_') if counts[path] > 1 else ''}{end}"
        )
        for path, ending in films
    ]


def divide(
    inputs: Sequence[str],
    output: str,
    *,
    suffix: str,
    recursive: bool,
    sequence: bool,
) -> tuple[list[Job], tuple[str, ...]]:
    """Divides what a command names into films and the rest.

    Args:
      inputs: files and folders; films in folders count too.
      output: the folder for the results.
      suffix: written after each name.
      recursive: whether to look into sub-folders.
      sequence: whether folders are films.

    Returns:
      The films, and the inputs that pictures are to be looked for in.

    Raises:
      InputError: where two films would have the same result, or a film's result is
        named as a file.
    """
    end = f"_{suffix}" if suffix else ""
    found, rest = {}, []
    results = pathlib.Path(output).resolve()
    for given in inputs:
        path = pathlib.Path(given)
        if path.is_dir() and sequence:
            found[path.resolve()] = (path, pathlib.Path(path.resolve().name), "")
        elif path.is_dir():
            inside = [
                film
                for film in sorted(path.rglob("*") if recursive else path.iterdir())
                if container.is_film(film.name)
                and film.is_file()
                and not any(p.startswith(".") for p in film.relative_to(path).parts)
                and not _is_result(film, path, results, end)
            ]
            for film in inside:
                name = film.relative_to(path).with_suffix("")
                found[film.resolve()] = (film, name, film.suffix)
            if not inside or next(jobs.walk(path, recursive=recursive), None):
                rest.append(given)
        elif container.is_film(path.name) and path.exists():
            found[path.resolve()] = (path, pathlib.Path(path.stem), path.suffix)
        else:
            rest.append(given)
    a_film = container.is_film(output) and not pathlib.Path(output).is_dir()
    if found and (a_film or jobs.names_file(output)):
        raise errors.InputError(
            f"{output}: films are written into a folder, since the codec decides their "
            "ending; give -o a folder"
        )
    names = stems([film[1:] for film in found.values()], suffix=suffix)
    films = [
        Job(source, pathlib.Path(output) / name)
        for (source, *_), name in zip(found.values(), names, strict=True)
    ]
    taken: dict[pathlib.Path, pathlib.Path] = {}
    for job in films:
        if job.stem in taken:
            raise errors.InputError(
                f"{job.source} and {taken[job.stem]}: both would be restored to "
                f"{job.stem}; restore them to different folders"
            )
        taken[job.stem] = job.source
    return films, tuple(rest)


def _is_result(
    film: pathlib.Path, folder: pathlib.Path, results: pathlib.Path, end: str
) -> bool:
    """Whether a film that was come upon is what an earlier run wrote."""
    if folder.resolve().is_relative_to(results):
        names = (end, f"{end}_damage", f"{end}_compare")
        return bool(end) and film.stem.endswith(names)
    return film.resolve().is_relative_to(results)
