"""Lists what a finder takes for damage on clean pictures, for it to learn better.

    python -m experiments.pretrain.hard_crops --finder finder.safetensors \
        --clean CLEAN --out hard.json

`pretrain_masks --hard hard.json` then cuts clean crops around these places, which are
damaged as often as others. The pictures must be the same and `--sources` too, since
they are named by number. `--old` lists also what is found on the pictures made to look
old (`harm`).
"""

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
from etils import epy

from experiments.pretrain import sources
from restoration.base import cli, config, errors, files
from restoration.data import clean_pictures
from restoration.devices import backend

with epy.lazy_imports():
    import cv2

    from experiments.pretrain import finder_quality, harm
    from restoration.models import finder, pretrained

# Pictures are seen in pieces of this side, which one compiled program computes.
_SIDE = 384

# Of a piece so many places at most, no nearer to each other than this, pixels.
_MOST, _APART = 4, 96

# How pictures are made to look old follows from this seed.
_SEED = 7711


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `python -m experiments.pretrain.hard_crops`."""

    finder: str = config.option(help="weights file of a finder")
    clean: str = config.option(help="folder of clean pictures, or a packed file")
    out: str = config.option(help="JSON file to write")
    sources: str = config.option(
        "",
        help="JSON list of what may be used, with licences; all: every picture; by "
        "default experiments/pretrain_sources.json",
    )
    threshold: float = config.option(
        0.5, help="what is found counts from here", minimum=0.0, maximum=1.0
    )
    old: bool = config.option(
        False, help="list what is found on pictures made to look old too"
    )


def _starts(length: int) -> list[int]:
    """Returns where pieces begin that cover a side."""
    last = max(0, length - _SIDE)
    return sorted({min(start, last) for start in range(0, length, _SIDE)})


def pieces(
    picture: np.ndarray, number: int, *, old: bool
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields pieces that cover a picture, and where they begin: row, column.

    Args:
      picture: float32 (height, width, 3) in [0, 1].
      number: of the picture, which decides how it is made to look old.
      old: whether its middle comes again, made to look old.
    """
    shown = [picture, harm.make_old(picture, number, seed=_SEED)] if old else [picture]
    for image in shown:
        above, before = (
            (whole - part) // 2
            for whole, part in zip(picture.shape[:2], image.shape[:2], strict=True)
        )
        for top in _starts(image.shape[0]):
            for left in _starts(image.shape[1]):
                piece = image[top : top + _SIDE, left : left + _SIDE]
                yield above + top, before + left, piece


def places(found: np.ndarray, threshold: float) -> list[tuple[float, int, int]]:
    """Returns where most was found falsely.

    Args:
      found: (height, width), how likely each pixel is damaged.
      threshold: what is found counts from here.

    Returns:
      (amount, row, column) of the worst places, worst first.
    """
    blurred = cv2.blur(
        np.where(found > threshold, found, 0).astype(np.float32), (17, 17)
    )
    rows = []
    while len(rows) < _MOST:
        row, column = np.unravel_index(np.argmax(blurred), blurred.shape)
        amount = float(blurred[row, column])
        if amount < 0.02:
            break
        rows.append((amount, int(row), int(column)))
        blurred[
            max(0, row - _APART) : row + _APART,
            max(0, column - _APART) : column + _APART,
        ] = 0
    return rows


def main(options: Options) -> None:
    """Entry point."""
    backend.cache_compilations()
    name, parameters = pretrained.load(options.finder)
    if name != finder.NAME:
        raise errors.InputError(
            f"--finder={options.finder}: weights of {name}, not of a finder"
        )
    listed = sources.read_sources(options.sources or sources.SOURCES)
    pictures = sources.find(options.clean, listed)
    worst = []
    for number, (file, data) in enumerate(pictures.items()):
        picture = clean_pictures.decode(file, data).astype(np.float32) / 255
        for top, left, piece in pieces(picture, number, old=options.old):
            found = finder_quality.find(parameters, piece)
            worst += [
                (amount, number, top + row, left + column)
                for amount, row, column in places(found, options.threshold)
            ]
    worst.sort(reverse=True)
    rows = [list(row[1:]) for row in worst]
    files.write_text(options.out, json.dumps(rows) + "\n")
    print(f"{options.out}: {len(rows)} places on {len(pictures)} pictures")


if __name__ == "__main__":
    cli.run(main, Options)
