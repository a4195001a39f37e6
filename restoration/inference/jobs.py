"""Which pictures a command line names, and where each one's result goes."""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from restoration.base import errors
from restoration.images import picture

# Folders in which programs and network drives keep copies, thumbnails and rubbish.
_FOREIGN = {
    "@eadir", "@__thumb", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",
    "$recycle.bin", "recycler", "system volume information", "__macosx", "lost+found",
    "ipod photo cache", "thumbnails", "thumbs", "temporary items",
    "network trash folder",
}  # fmt: skip

# Folders by suffix: previews of Lightroom and Capture One.
_FOREIGN_SUFFIXES = (".lrdata", ".cocatalog", ".cosessiondb")

# What the ending of a result that is named as a file stands for, as --ext has it.
_FORMATS = {
    ".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".tif": "tif", ".tiff": "tif",
    ".webp": "webp",
}  # fmt: skip

_FOREIGN_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db", "picasa.ini"}


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture to restore.

    Attributes:
      source: the picture.
      target: the file to write.
      relative: the picture's path below the folder that was named, or its name.
      beside: what the names of files beside the target begin with; by default the
        target's name without its suffix.
    """

    source: pathlib.Path
    target: pathlib.Path
    relative: pathlib.PurePosixPath
    beside: str = ""

    def __post_init__(self):
        """Fills in the default."""
        if not self.beside:
            object.__setattr__(self, "beside", self.target.stem)


class Named(NamedTuple):
    """A picture as its result's name depends on it.

    Attributes:
      relative: its path below the folder that was named, or its name.
      folder: that folder's name.
      extension: of the result, with its dot.
    """

    relative: pathlib.PurePosixPath
    folder: str
    extension: str


def is_picture(name: str) -> bool:
    """Returns whether a name is a picture's, though perhaps of no format we read."""
    suffix = pathlib.PurePath(name).suffix.lower()
    known = suffix in picture.SUFFIXES or suffix in picture.REFUSED
    return known and not name.startswith(".")


def _is_foreign(name: str) -> bool:
    """Returns whether a folder holds no pictures of its owner's."""
    name = name.lower()
    hidden = name.startswith(".")
    return hidden or name in _FOREIGN or name.endswith(_FOREIGN_SUFFIXES)


def _is_file(entry: os.DirEntry) -> bool:
    """Returns whether something is a file; a link that leads nowhere is none."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _files(folder: pathlib.Path, *, recursive: bool) -> Iterator[pathlib.PurePosixPath]:
    """Yields all files of a folder, in order, as paths relative to it."""
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise errors.InputError(f"{folder}: {error.strerror}; check the path") from None
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            if recursive and not _is_foreign(entry.name):
                for path in _files(pathlib.Path(entry.path), recursive=True):
                    yield pathlib.PurePosixPath(entry.name) / path
        elif _is_file(entry):
            yield pathlib.PurePosixPath(entry.name)


def walk(folder: pathlib.Path, *, recursive: bool) -> Iterator[pathlib.PurePosixPath]:
    """Yields the pictures of a folder, in order, as paths relative to it.

    Symbolic links to folders are not followed; hidden folders, and those in which
    programs and network drives keep thumbnails and deleted files, are passed over.

    Raises:
      InputError: when a folder cannot be read.
    """
    for path in _files(folder, recursive=recursive):
        if is_picture(path.name):
            yield path


def passed_over(
    inputs: Iterable[str], output: str, *, recursive: bool
) -> dict[str, int]:
    """Counts the files in folders that are no pictures that are read.

    Args:
      inputs: pictures and folders.
      output: the folder for the results, whose files do not count.
      recursive: whether to look into sub-folders.

    Returns:
      How many by suffix, in lower case, the most frequent first.
    """
    counts, results = collections.Counter(), pathlib.Path(output).resolve()
    for folder in {pathlib.Path(given).resolve() for given in inputs}:
        if not folder.is_dir():
            continue
        for path in _files(folder, recursive=recursive):
            inside = (folder / path).parent.is_relative_to(results)
            hidden = path.name.startswith(".") or path.name.lower() in _FOREIGN_FILES
            if not (inside or hidden or is_picture(path.name)):
                counts[path.suffix.lower() or "no suffix"] += 1
    return dict(counts.most_common())


_Found = tuple[pathlib.Path, pathlib.PurePosixPath, str]


def _named(
    inputs: Sequence[str], output: pathlib.Path, suffix: str, recursive: bool
) -> Iterator[_Found]:
    """Yields (picture, relative path, folder's name) of each input, no result twice."""
    results = output.resolve()
    for given in inputs:
        path = pathlib.Path(given)
        if path.is_dir():
            count = 0
            for relative in walk(path, recursive=recursive):
                found = path / relative
                if _is_result(found, path, results, suffix):
                    continue
                count += 1
                yield found, relative, path.resolve().name
            if not count:
                raise errors.InputError(
                    f"{path}: no images ({', '.join(picture.SUFFIXES)}); "
                    "--recursive looks into sub-folders"
                )
        elif path.exists():
            yield path, pathlib.PurePosixPath(path.name), path.resolve().parent.name
        else:
            raise errors.InputError(f"{path}: no such file or folder")


def _is_result(
    found: pathlib.Path, folder: pathlib.Path, results: pathlib.Path, suffix: str
) -> bool:
    """Whether a picture that was come upon is what an earlier run wrote."""
    inside = found.parent.resolve().is_relative_to(results)
    if folder.resolve().is_relative_to(results):
        # Originals and results lie together: names distinguish them.
        ending = rf".*_{re.escape(suffix)}((\.\w+)?_(difference|damage)(_\d+)?)?"
        return bool(suffix) and re.fullmatch(ending, found.stem) is not None
    return inside


def _candidates(named: Named, end: str) -> list[pathlib.PurePosixPath]:
    """Returns the names that a result may have, the plainest first."""
    relative, folder, extension = named
    plain = relative.with_name(f"{relative.stem}{end}{extension}")
    kind = relative.suffix.removeprefix(".")
    longer = relative.with_name(f"{relative.stem}_{kind}{end}{extension}")
    return [plain, longer, folder / plain, folder / longer]


def result_names(
    pictures: Sequence[Named], *, suffix: str
) -> list[pathlib.PurePosixPath]:
    """Returns a name for each picture's result, so that no two are alike.

    Pictures that would share a name all take their longer one, so that names do not
    depend on the order. Only pictures of the same path in folders of the same name
    are left with the same name.

    Args:
      pictures: their names.
      suffix: written after each name.

    Returns:
      Paths relative to the folder of the results.
    """
    end = f"_{suffix}" if suffix else ""
    options = [_candidates(named, end) for named in pictures]
    names = [candidates[0] for candidates in options]
    for step in range(1, len(options[0]) if options else 0):
        counts = collections.Counter(names)
        shared = [index for index, name in enumerate(names) if counts[name] > 1]
        if not shared:
            break
        for index in shared:
            names[index] = options[index][step]
    return names


def names_file(output: str) -> bool:
    """Returns whether an output is a picture's file rather than a folder."""
    path = pathlib.Path(output)
    return path.suffix.lower() in picture.SUFFIXES and not path.is_dir()


def folder_of(output: str) -> pathlib.Path:
    """Returns the folder that results are written to."""
    return pathlib.Path(output).parent if names_file(output) else pathlib.Path(output)


def format_of(output: str, ext: str) -> str:
    """Returns the format to write, as `find`'s `ext`, where an output may say it."""
    ending = pathlib.Path(output).suffix.lower()
    return _FORMATS.get(ending, ext) if names_file(output) else ext


def _to_file(inputs: Sequence[str], output: str, ext: str) -> Job:
    """Returns the job of the one picture whose result is named as a file."""
    target = pathlib.Path(output)
    if len(inputs) != 1 or pathlib.Path(inputs[0]).is_dir():
        raise errors.InputError(
            f"{target}: a file's name, for more than one picture; give -o a folder"
        )
    source = pathlib.Path(inputs[0])
    if not source.exists():
        raise errors.InputError(f"{source}: no such file or folder")
    if source.resolve() == target.resolve():
        raise errors.InputError(
            f"{source}: the result would replace it; choose another -o"
        )
    ending, own = target.suffix.lower(), source.suffix.lower()
    if ending not in _FORMATS and ending != own:
        raise errors.InputError(
            f"{target}: only a picture of that kind becomes one; choose another "
            f"ending: {', '.join(_FORMATS)}"
        )
    if ext not in ("auto", format_of(output, "auto")):
        raise errors.InputError(f"{target}: of another format than --ext={ext}")
    return Job(source, target, pathlib.PurePosixPath(source.name))


def find(
    inputs: Iterable[str], output: str, *, suffix: str, ext: str, recursive: bool
) -> list[Job]:
    """Returns the pictures to restore, in the order of the command line.

    A picture that is named twice is restored once. What lies in the output folder,
    where that is inside an input folder, is no input.

    Args:
      inputs: pictures and folders.
      output: the folder for the results; sub-folders are kept. For one picture also
        the result's file.
      suffix: written after each name.
      ext: format of the results, "auto" for each picture's own.
      recursive: whether to look into sub-folders.

    Returns:
      The jobs; no two have the same target.

    Raises:
      InputError: for a path that does not exist, a folder without images, results
        that would replace their originals or one another.
    """
    if names_file(output):
        return [_to_file(list(inputs), output, ext)]
    folder = pathlib.Path(output)
    if folder.exists() and not folder.is_dir():
        raise errors.InputError(f"{folder}: not a folder; choose another -o")
    found = {}
    for item in _named(list(inputs), folder, suffix, recursive):
        found.setdefault(item[0].resolve(), item)
    jobs = _with_results(list(found.values()), folder, suffix=suffix, ext=ext)
    taken = {}
    for job in jobs:
        target = job.target.parent.resolve() / job.target.name
        if target in found:
            raise errors.InputError(
                f"{job.source}: the result would replace {found[target][0]}; "
                "choose another -o or --suffix"
            )
        if target in taken:
            raise errors.InputError(
                f"{job.source} and {taken[target]}: both would be restored to "
                f"{job.target}; restore them to different folders"
            )
        taken[target] = job.source
    return jobs


def _with_results(
    items: Sequence[_Found], folder: pathlib.Path, *, suffix: str, ext: str
) -> list[Job]:
    """Returns the jobs of pictures, each with a result's name of its own."""
    names = result_names(
        [
            Named(relative, name, relative.suffix if ext == "auto" else f".{ext}")
            for _, relative, name in items
        ],
        suffix=suffix,
    )
    stems = collections.Counter(name.with_suffix("") for name in names)
    return [
        # Files beside `a.jpg` and `a.png` would share their names.
        Job(
            source,
            folder / name,
            relative,
            name.name if stems[name.with_suffix("")] > 1 else name.stem,
        )
        for (source, relative, _), name in zip(items, names, strict=True)
    ]


def folders(root: str, output: str, *, recursive: bool) -> Iterator[str]:
    """Yields the folders to restore, as paths below the root, the root itself first.

    Args:
      root: the folder that was named.
      output: the folder for the results; what lies in it is passed over.
      recursive: whether sub-folders count.

    Raises:
      InputError: when a folder cannot be read.
    """
    results = pathlib.Path(output).resolve()

    def below(relative: str) -> Iterator[str]:
        yield relative
        try:
            with os.scandir(os.path.join(root, relative)) as entries:
                names = sorted(
                    entry.name
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                    and not _is_foreign(entry.name)
                )
        except OSError as error:
            raise errors.InputError(
                f"{os.path.join(root, relative)}: {error.strerror}; check the path"
            ) from None
        for name in names if recursive else ():
            path = os.path.join(relative, name)
            if pathlib.Path(root, path).resolve() != results:
                yield from below(path)

    yield from below("")


def find_in_folder(
    root: str, relative: str, output: str, *, suffix: str, ext: str
) -> list[Job]:
    """Returns the pictures of one folder, without its sub-folders.

    Within a folder results have the names that `find` gives them, so that a million
    folders can be listed by as many workers.

    Args:
      root: the folder that was named.
      relative: the folder to list, below the root.
      output: the folder for the results; sub-folders are kept.
      suffix: written after each name.
      ext: format of the results, "auto" for each picture's own.
    """
    folder, below = pathlib.Path(root, relative), pathlib.PurePosixPath(relative)
    results = pathlib.Path(output).resolve()
    items = [
        (folder / name, below / name, pathlib.Path(root).resolve().name)
        for name in walk(folder, recursive=False)
        if not _is_result(folder / name, folder, results, suffix)
    ]
    return _with_results(items, pathlib.Path(output), suffix=suffix, ext=ext)
