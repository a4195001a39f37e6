"""Puts drawn damage of prints beside real damage, at 100 %, to compare them by eye.

    python -m experiments.figures.prints_sheet --out prints.png --real FOLDER
    python -m experiments.figures.prints_sheet --show=lookalikes --out lookalikes.png

Drawn ones are on photographs that come with scikit-image, grey, sepia and in color by
turns, blurred a little and with grain, as a scan is. Without `--real` they stand alone.
"""

import dataclasses
import functools
import pathlib
import zlib

import numpy as np
import skimage
import tqdm
from etils import epy

from experiments.figures import damage_sheet
from restoration.base import cli, config, errors
from restoration.devices import backend
from restoration.images import frames

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp
    from skimage import morphology

    from restoration import damage
    from restoration.damage import lookalikes, prints

# Photographs and the row and column of what is cut out of them.
PHOTOGRAPHS = {
    "astronaut.png": (20, 60),
    "coffee.png": (60, 160),
    "chelsea.png": (20, 100),
    "rocket.jpg": (60, 190),
    "camera.png": (60, 120),
}

# Sepia, as shares of grey; and how much of the picture's own color is left.
_SEPIA = (1.08, 0.95, 0.7)

# Of so many draws those are shown that change more than half of them do.
_DRAWS = 16


@dataclasses.dataclass(frozen=True)
class SheetOptions:
    """Options of `python -m experiments.figures.prints_sheet`."""

    out: str = config.option("prints.png", short="o", help="picture to write")
    show: str = config.option(
        "prints", help="what is drawn", choices=("prints", "lookalikes", "together")
    )
    real: str = config.option("", help="folder of real old prints, shown on top")
    size: int = config.option(256, help="side of each cell, pixels", minimum=64)
    columns: int = config.option(5, help="cells of each kind", minimum=1, maximum=12)
    severity: float = config.option(1.0, help="of what is drawn", minimum=0.0)
    seed: int = config.option(1, help="another seed, other damage", minimum=0)

    def __post_init__(self):
        """Checks limits."""
        config.check(self)


def worn_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Cuts out the square with the most small bright marks on even ground.

    Args:
      image: float (height, width, 3) in [0, 1].
      size: its side in pixels; smaller pictures are padded with white.

    Returns:
      (size, size, 3).
    """
    lacking = [max(0, size - length) for length in image.shape[:2]]
    padded = np.pad(
        image, [(0, lacking[0]), (0, lacking[1]), (0, 0)], constant_values=1.0
    )
    grey = image.mean(axis=-1)
    ground = morphology.opening(grey, morphology.disk(3))
    # Even where the ground hardly changes within 15 pixels: leaves and lace are not.
    wide = morphology.square(15)
    uneven = morphology.dilation(ground, wide) - morphology.erosion(ground, wide)
    marks = (grey - ground > 0.12) & (uneven < 0.2)
    step = max(1, size // 8)
    corners = [
        (row, column)
        for row in range(0, max(1, image.shape[0] - size + 1), step)
        for column in range(0, max(1, image.shape[1] - size + 1), step)
    ]
    worn = [
        marks[row : row + size, column : column + size].sum() for row, column in corners
    ]
    row, column = corners[int(np.argmax(worn))]
    return padded[row : row + size, column : column + size]


def real_cells(folder: str, size: int) -> list[np.ndarray]:
    """Returns a labelled crop of each picture of a folder.

    Raises:
      InputError: for a folder without pictures.
    """
    names = list(frames.list_images(folder))
    if not names:
        raise errors.InputError(f"{folder}: no images; check --real")
    return [
        damage_sheet.label(
            worn_crop(frames.read(pathlib.Path(folder) / name), size), f"real: {name}"
        )
        for name in names
    ]


def photographs(size: int) -> list[np.ndarray]:
    """Returns pictures to draw on, (size, size, 3): grey, sepia and in color."""
    folder = pathlib.Path(skimage.__file__).parent / "data"
    pictures = []
    for number, (name, (row, column)) in enumerate(PHOTOGRAPHS.items()):
        image = frames.read(folder / name)[row : row + size, column : column + size]
        image = np.pad(
            image,
            [(0, size - image.shape[0]), (0, size - image.shape[1]), (0, 0)],
            mode="reflect",
        )
        grey = 0.06 + 0.8 * image.mean(axis=-1, keepdims=True)
        toned = (grey * np.ones(3), np.clip(grey * np.array(_SEPIA), 0, 1), image)
        pictures.append(toned[number % 3].astype(np.float32))
    return pictures


def scanned(key: "jax.Array", image: "jax.Array") -> "jax.Array":
    """Returns a picture as a scanner gives it: a little soft, with grain."""
    soft = damage.blur(image, sigma=jnp.array([0.55, 0.55]), radius=2)
    noise = damage.grain_noise(key, image.shape[:2], sigma=0.6, chroma=0.2)
    return damage.grain(soft, noise=noise, strength=0.015, floor=0.5)


def drawn_cells(options: SheetOptions) -> list[np.ndarray]:
    """Returns `options.columns` labelled cells of each kind."""
    severity = options.severity
    if options.show == "prints":
        kinds = prints.KINDS
    elif options.show == "lookalikes":
        kinds = lookalikes.KINDS
    else:
        kinds = {
            f"print {number}": prints.random_print_damage for number in range(1, 5)
        }
    compiled = {
        kind: jax.jit(functools.partial(kind, severity=severity))
        for kind in set(kinds.values())
    }
    pictures = photographs(options.size)
    finish = jax.jit(scanned)
    cells = []
    for name, kind in tqdm.tqdm(kinds.items(), unit="kind"):
        draw = compiled[kind]
        first = jax.random.fold_in(
            jax.random.key(options.seed), zlib.crc32(name.encode())
        )
        keys = jax.random.split(first, max(_DRAWS, 2 * options.columns))
        drawn = []
        for number, key in enumerate(keys):
            image = pictures[number % len(pictures)]
            result = draw(key, image)
            result = result[0] if isinstance(result, tuple) else result
            changed = float(np.abs(result - image).mean())
            drawn.append((changed, number, key, np.asarray(result)))
        # Not always the strongest: each second of those that are seen well.
        seen = sorted(drawn, key=lambda one: -one[0])[: 2 * options.columns : 2]
        for _, _, key, result in sorted(seen, key=lambda one: one[1]):
            title = f"drawn: {name.replace('_', ' ')} {severity:g}"
            cells.append(damage_sheet.label(np.asarray(finish(key, result)), title))
    return cells


def sheet(options: SheetOptions) -> np.ndarray:
    """Returns the sheet, float (height, width, 3) in [0, 1].

    Raises:
      InputError: for a folder of real prints without pictures.
    """
    real = real_cells(options.real, options.size) if options.real else []
    below = damage_sheet.grid(drawn_cells(options), options.columns)
    if not real:
        return below
    return np.vstack([damage_sheet.grid(real, options.columns), below])


def main(options: SheetOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory()
    frames.write(options.out, sheet(options))
    print(options.out)


if __name__ == "__main__":
    cli.run(main, SheetOptions)
