"""Writes frames of films as PNG, or pairs of frames of a film and its remaster.

    python -m restoration.extract -i film.mkv -o FRAMES
    python -m restoration.extract -i worn.mkv --remaster remaster.mkv -o DATA

Frames are written to a sub-folder with the film's name, as `shot0003_0000123.png`: a
shot is a clip, and the last number is the frame's number in the film. Frames are
written as a player shows them: rotated as the header says, with square pixels
(--nosquare keeps the stored ones), 8-bit full-range RGB. Films are decoded twice, the
first time to find cuts.

With --remaster, DATA is a paired folder: `input/` contains the degraded frames, cropped
but otherwise unchanged, `output/` the remastered frames, aligned with them.
`NAME.alignment.html`, `.csv` and `.json` report the matched frames, their geometry and
their likeness. The exit code is 1 if a film is broken, ends early or does not match.
"""

import dataclasses
import pathlib
import sys
import tempfile

import numpy as np

from restoration.base import cli, config, errors
from restoration.film import footage, remaster, video
from restoration.images import frames
from restoration.reports import alignment_page


@dataclasses.dataclass(frozen=True)
class ExtractOptions:
    """Options of `python -m restoration.extract`."""

    input: tuple[str, ...] = config.option(
        help="films; also given as plain arguments", short="i", positional=True
    )
    output: str = config.option(help="folder for the frames", short="o")
    remaster: str | None = config.option(
        None, help="the remaster of the one film given with -i: write pairs"
    )
    every: int = config.option(
        12, help="write every n-th frame of each shot", minimum=1
    )
    per_shot: int = config.option(
        0, help="write this many frames of each shot; 0: every n-th", minimum=0
    )
    cuts: bool = config.option(
        True, help="divide each film at its cuts; --nocuts: one clip per film"
    )
    square: bool = config.option(
        True, help="stretch pixels that are not square; --nosquare: as stored"
    )
    min_likeness: float = config.option(
        0.5,
        help="with --remaster: drop pairs with a lower correlation",
        minimum=0.0,
        maximum=1.0,
    )
    overwrite: bool = config.option(False, help="replace files that exist")

    def __post_init__(self):
        """Checks the limits, and that no two films have the same output folder."""
        config.check(self)
        if self.remaster is not None and len(self.input) != 1:
            raise errors.InputError(
                f"--remaster: needs exactly one film with -i, got {len(self.input)}; "
                "run once for each pair of films"
            )
        names = {}
        for path in map(pathlib.Path, self.input):
            other = names.setdefault(path.stem, path)
            if other is not path:
                raise errors.InputError(
                    f"{other} and {path}: both would be written to {path.stem}/; "
                    "rename one or extract to another folder"
                )


def _write_frames(options: ExtractOptions, path: str) -> tuple[str, tuple[str, ...]]:
    """Writes the frames of one film; returns a line of results, and the failures."""
    film = video.describe(path, square=options.square)
    _warn(film)
    with tempfile.TemporaryDirectory() as folder:
        seen = footage.look_through(film, pathlib.Path(folder), cuts=options.cuts)
    targets = {
        number: pathlib.Path(options.output)
        / f"{footage.frame_name(film, index, number)}.png"
        for index, shot in enumerate(seen.shots)
        for number in footage.chosen(
            range(shot.start, shot.end), options.every, options.per_shot
        )
    }
    if not options.overwrite:
        footage.refuse_existing(targets.values())
    written = 0
    found = video.pick(film, targets)
    for frame in footage.progress(found, len(targets), f"write {film.path.name}"):
        frames.write(targets[frame.number], video.to_rgb(frame) / np.float32(255))
        written += 1
    done = (
        f"{film.path}: {len(seen.seconds)} frames, shots: {len(seen.shots)}, "
        f"frames written: {written}"
    )
    return done, tuple(filter(None, [seen.failure]))


def _warn(film: video.Film) -> None:
    for line in film.warnings:
        print(f"warning: {line}", file=sys.stderr)


def _write_pairs(options: ExtractOptions, path: str) -> tuple[str, tuple[str, ...]]:
    """Writes pairs of a film and its remaster; returns the same as `_write_frames`."""
    degraded = video.describe(path, square=options.square)
    clean = video.describe(options.remaster, square=options.square)
    _warn(degraded)
    _warn(clean)
    folder = pathlib.Path(options.output)
    if not options.overwrite:
        footage.refuse_existing(alignment_page.paths(folder, degraded))
    pair_options = remaster.PairOptions(
        output=folder,
        every=options.every,
        per_shot=options.per_shot,
        cuts=options.cuts,
        min_likeness=options.min_likeness,
        overwrite=options.overwrite,
    )
    paired = remaster.write_pairs(degraded, clean, pair_options)
    page = alignment_page.write(folder, paired)
    matched = sum(len(shot.matches) for shot in paired.shots)
    kept = sum(bool(result.name) for result in paired.results.values())
    done = (
        f"{degraded.path}: {matched} of {len(paired.degraded.seconds)} frames matched; "
        f"{kept} pairs written, {len(paired.results) - kept} dropped; see {page}"
    )
    return done, tuple(filter(None, [paired.degraded.failure, paired.target.failure]))


def extract(options: ExtractOptions) -> tuple[list[str], list[str]]:
    """Writes frames or pairs of frames. A bad film does not stop the others.

    Args:
      options: from the command line.

    Returns:
      A line for each finished film, and a line for each failure.

    Raises:
      InputError: if PyAV, a film or the output folder cannot be used; nothing is
        written then.
    """
    video.require_pyav()
    folder = pathlib.Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise errors.InputError(f"{folder}: not a folder; choose another -o")
    for path in (*options.input, *([options.remaster] if options.remaster else ())):
        if not pathlib.Path(path).is_file():
            raise errors.InputError(f"{path}: no such file; check the path")
    done, failed = [], []
    work = _write_pairs if options.remaster else _write_frames
    for path in options.input:
        try:
            result, failures = work(options, path)
        except errors.InputError as error:
            failed.append(str(error))
            continue
        done.append(result)
        failed.extend(failures)
    return done, failed


def main(options: ExtractOptions) -> int:
    """Entry point."""
    done, failed = extract(options)
    for line in done:
        print(line)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    cli.run(main, ExtractOptions)
