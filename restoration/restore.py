"""Restores photographs.

python -m restoration.restore -i photo.jpg folder -o restored
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np
import tqdm
from etils import epy

from restoration import backend, cli, config, errors, frames

with epy.lazy_imports():
    from restoration import checkpoint, models, pretrained, tiling


@dataclasses.dataclass(frozen=True)
class RestoreOptions:
    """Options of `python -m restoration.restore`."""

    input: tuple[str, ...] = config.option(
        help="images and folders; further arguments too", short="i", positional=True
    )
    output: str = config.option(help="folder for the restored images", short="o")
    model: str = config.option(
        "", help="a shipped model; by default the best one", short="n"
    )
    workdir: str = config.option("", help="a training run to use instead")
    tile: str = config.option("auto", help="side of the tiles, pixels", short="t")
    suffix: str = config.option("restored", help="written after each name")
    ext: str = config.option(
        "auto", help="format to write; auto keeps each image's own",
        choices=("auto", "png", "jpg", "tif", "webp"),
    )  # fmt: skip
    recursive: bool = config.option(False, help="look into sub-folders too")
    overwrite: bool = config.option(False, help="replace files that exist")

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        if self.model and self.workdir:
            raise errors.InputError("give --model or --workdir, not both")
        if self.tile != "auto" and not self.tile.isdigit():
            raise errors.InputError(f"--tile={self.tile}: auto or a number of pixels")


@dataclasses.dataclass(frozen=True)
class Restored:
    """What became of one image: `error` is empty when `output` was written."""

    input: pathlib.Path
    output: pathlib.Path
    error: str = ""


def find_images(options: RestoreOptions) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Returns each image to restore with the file to write.

    Args:
      options: `input`, `output`, `suffix`, `ext` and `recursive` are read.

    Returns:
      (image, output file) in the order of the command line.

    Raises:
      InputError: for a path that does not exist or a folder without images.
    """
    found = []
    for given in options.input:
        path = pathlib.Path(given)
        if path.is_dir():
            names = list(frames.list_images(path, recursive=options.recursive))
            if not names:
                raise errors.InputError(
                    f"{path}: no images ({', '.join(frames.SUFFIXES)}); "
                    "--recursive looks into sub-folders"
                )
            found.extend((path / name, pathlib.PurePosixPath(name)) for name in names)
        elif path.exists():
            found.append((path, pathlib.PurePosixPath(path.name)))
        else:
            raise errors.InputError(f"{path}: no such file or folder")
    folder = pathlib.Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise errors.InputError(f"{folder}: not a folder; choose another -o")
    end = f"_{options.suffix}" if options.suffix else ""
    pairs = []
    for path, relative in found:
        ext = relative.suffix if options.ext == "auto" else f".{options.ext}"
        pairs.append((path, folder / relative.parent / f"{relative.stem}{end}{ext}"))
    return pairs


def load_restorer(options: RestoreOptions) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that restores a float image (height, width, 3).

    Args:
      options: `model`, `workdir` and `tile` are read.

    Returns:
      The function; the result is float32 of the same shape, in [0, 1].

    Raises:
      InputError: for an unknown model or unusable weights.
    """
    if options.workdir:
        run, parameters, _ = checkpoint.load_trained(options.workdir)
        name = run.model
    else:
        name, parameters = pretrained.load_shipped(options.model)
    tile, batch = backend.tiles()
    restore = tiling.make_restore(
        models.get_model(name),
        tile=tile if options.tile == "auto" else int(options.tile),
        batch=batch,
    )
    return lambda image: restore(parameters, image)


def restore(options: RestoreOptions) -> list[Restored]:
    """Restores images; one that fails does not stop the others.

    Args:
      options: what to restore.

    Returns:
      What became of each image, in order.

    Raises:
      InputError: when nothing can be started.
    """
    jobs = find_images(options)
    restorer = load_restorer(options)
    results: list[Restored] = []
    written: set[pathlib.Path] = set()
    for source, target in tqdm.tqdm(jobs, unit="image", desc="restore"):
        try:
            if target in written:
                raise errors.InputError(
                    f"{source}: another image was restored to {target}; "
                    "restore it to another folder"
                )
            if target.exists() and not options.overwrite:
                raise errors.InputError(f"{target}: exists; --overwrite replaces it")
            frames.write(target, restorer(frames.read(source)), like=source)
            written.add(target)
            results.append(Restored(source, target))
        except errors.InputError as error:
            results.append(Restored(source, target, str(error)))
    return results


def report_failures(results: Sequence[Restored]) -> int:
    """Prints what was written and what failed; returns the exit code."""
    for result in results:
        if result.error:
            print(f"error: {result.error}", file=sys.stderr)
        else:
            print(result.output)
    return int(any(result.error for result in results))


def main(options: RestoreOptions) -> int:
    """Entry point."""
    backend.keep_freed_memory()
    return report_failures(restore(options))


if __name__ == "__main__":
    cli.run(main, RestoreOptions)
