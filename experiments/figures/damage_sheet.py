"""Draws every kind of damage at three severities on real photographs.

    python -m experiments.figures.damage_sheet --out docs/damage.jpg

With `--reference FOLDER` pictures of real damage stand below for comparison.
"""

import dataclasses
import pathlib

import numpy as np
import skimage
import tqdm
from etils import epy
from PIL import Image, ImageDraw, ImageFont

from restoration.base import cli, config, errors
from restoration.devices import backend
from restoration.images import frames

with epy.lazy_imports():
    import jax

    from restoration import damage

SEVERITIES = (0.5, 1.0, 3.0)
PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")

_LABEL = 18
_GAP = 4
_COLUMNS = 3
_DRAWS = 24


@dataclasses.dataclass(frozen=True)
class SheetOptions:
    """Options of `python -m experiments.figures.damage_sheet`."""

    out: str = config.option("docs/damage.jpg", short="o", help="picture to write")
    reference: str = config.option("", help="folder of real damage to put below")
    size: int = config.option(144, help="side of each cell, pixels", minimum=64)
    seed: int = config.option(1, help="another seed, other damage", minimum=0)

    def __post_init__(self):
        """Checks limits."""
        config.check(self)


def label(image: np.ndarray, text: str) -> np.ndarray:
    """Puts a line of text above a picture, float (height, width, 3)."""
    strip = Image.new("RGB", (image.shape[1], _LABEL), "white")
    font = ImageFont.load_default(size=12)
    ImageDraw.Draw(strip).text((1, 2), text, fill="black", font=font)
    return np.vstack([np.asarray(strip, np.float32) / 255, image])


def grid(cells: list[np.ndarray], columns: int) -> np.ndarray:
    """Lays pictures of one size out row by row on white."""
    blank = np.ones_like(cells[0])
    cells = cells + [blank] * (-len(cells) % columns)
    edges = ((0, _GAP), (0, _GAP), (0, 0))
    cells = [np.pad(cell, edges, constant_values=1) for cell in cells]
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return np.vstack(rows)


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Cuts the largest central square and scales it to `size` pixels."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    cut = frames.to_uint8(image[top : top + side, left : left + side])
    scaled = Image.fromarray(cut).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(scaled, np.float32) / 255


def damage_cells(options: SheetOptions) -> list[np.ndarray]:
    """Returns a cell a kind: the kind at each of `SEVERITIES`, side by side."""
    folder = pathlib.Path(skimage.__file__).parent / "data"
    photographs = [frames.read(folder / name) for name in PHOTOGRAPHS]
    photographs = [square(image, options.size) for image in photographs]
    cells = []
    for number, kind in enumerate(tqdm.tqdm(damage.KINDS, unit="kind")):
        image = photographs[number % len(photographs)]
        draw = jax.jit(
            lambda key, image, severity, kind=kind: damage.damage(
                key, image, severity=severity, kinds=(kind,)
            )[0]
        )
        first = jax.random.fold_in(jax.random.key(options.seed), number)
        # Not every image gets this kind of damage; show one that does.
        keys = jax.random.split(first, _DRAWS)
        change = [np.abs(draw(key, image, 1.0) - image).mean() for key in keys]
        key = keys[int(np.argsort(change)[-2])]
        degraded = [np.asarray(draw(key, image, s)) for s in SEVERITIES]
        title = kind.replace("_", " ")
        cells.append(
            np.hstack(
                [
                    label(picture, f"{title} {severity:g}")
                    for picture, severity in zip(degraded, SEVERITIES, strict=True)
                ]
            )
        )
    return cells


def sheet(options: SheetOptions) -> np.ndarray:
    """Returns the sheet, float (height, width, 3) in [0, 1].

    Args:
      options: sizes, seed and the folder of real damage.

    Returns:
      The picture.

    Raises:
      InputError: for a folder of real damage without pictures.
    """
    top = grid(damage_cells(options), _COLUMNS)
    if not options.reference:
        return top
    folder = pathlib.Path(options.reference)
    names = list(frames.list_images(folder))
    if not names:
        raise errors.InputError(f"{folder}: no images; check --reference")
    columns = top.shape[1] // (options.size + _GAP)
    below = grid(
        [
            label(square(frames.read(folder / name), options.size), name)
            for name in names[: 4 * columns]
        ],
        columns,
    )
    below = np.pad(
        below, ((0, 0), (0, top.shape[1] - below.shape[1]), (0, 0)), constant_values=1
    )
    return np.vstack([top, below])


def main(options: SheetOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    frames.write(options.out, sheet(options))
    print(options.out)


if __name__ == "__main__":
    cli.run(main, SheetOptions)
