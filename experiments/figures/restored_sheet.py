"""Degrades clean images, restores them with shipped weights, and shows them in rows.

    python -m experiments.figures.restored_sheet --clean FOLDER --out docs/restored.jpg

The weights must not have been trained on these images. They are degraded by
`restoration.damage`, like the training images, and restored by the code of `restore`.
"""

import dataclasses
import pathlib
import tempfile

import numpy as np
from etils import epy

from experiments.figures import damage_sheet
from experiments.pretrain import quality
from restoration.base import cli, config, errors
from restoration.devices import backend
from restoration.images import frames

with epy.lazy_imports():
    import jax

    from restoration import damage
    from restoration.inference import engine


@dataclasses.dataclass(frozen=True)
class SheetOptions:
    """Options of `python -m experiments.figures.restored_sheet`."""

    clean: str = config.option(help="folder of clean images")
    out: str = config.option("docs/restored.jpg", short="o", help="image to write")
    model: str = config.option("", short="n", help="shipped model; default: the best")
    count: int = config.option(3, help="images shown, the first by name", minimum=1)
    size: int = config.option(320, help="side of each image, pixels", minimum=64)
    severity: float = config.option(0.5, help="severity of the damage", minimum=0.0)
    seed: int = config.option(1, help="seed of the damage", minimum=0)

    def __post_init__(self):
        """Checks limits."""
        config.check(self)


def sheet(options: SheetOptions) -> np.ndarray:
    """Returns the sheet, float (height, width, 3) in [0, 1].

    Raises:
      InputError: if the folder has no images.
    """
    folder = pathlib.Path(options.clean)
    names = list(frames.list_images(folder))[: options.count]
    if not names:
        raise errors.InputError(f"{folder}: no images; check --clean")
    wear = jax.jit(
        lambda key, image: damage.damage(
            key, image, severity=options.severity, kinds=damage.PHOTO
        )[0]
    )
    cells = []
    with tempfile.TemporaryDirectory() as scratch:
        degraded, done = pathlib.Path(scratch) / "worn", pathlib.Path(scratch) / "done"
        truths = []
        for number, name in enumerate(names):
            truths.append(damage_sheet.square(frames.read(folder / name), options.size))
            key = jax.random.fold_in(jax.random.key(options.seed), number)
            frames.write(
                degraded / f"{number:03d}.png", np.asarray(wear(key, truths[-1]))
            )
        used = engine.make_engine(engine.load_weights(options.model, ""))
        results = quality.restore_folder(used, degraded, done)
        for (source, result), target in zip(results, truths, strict=True):
            pictures = {"worn": frames.read(source), "restored": frames.read(result)}
            for name, image in pictures.items():
                psnr = quality.score(image, target)["psnr"]
                cells.append(damage_sheet.label(image, f"{name}, {psnr:.1f} dB"))
            cells.append(damage_sheet.label(target, "true"))
    return damage_sheet.grid(cells, 3)


def main(options: SheetOptions) -> None:
    """Entry point."""
    backend.keep_freed_memory(large=False)
    backend.cache_compilations()
    frames.write(options.out, sheet(options))
    print(options.out)


if __name__ == "__main__":
    cli.run(main, SheetOptions)
