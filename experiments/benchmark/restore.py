"""Measures `restore`: speed compared with Keras, memory by image size.

python -m experiments.benchmark restore
"""

import math
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyvips
import skimage
from etils import epy

from experiments.benchmark import start
from restoration.devices import backend

with epy.lazy_imports():
    from experiments.tables import keras_reference
    from restoration import models
    from restoration.inference import engine, tiling
    from restoration.models import pretrained

# Megapixels of the images for the memory measurement, and those of a quick run.
_SIZES, _QUICK_SIZES = (25, 100, 400), (1, 4)

# Pixels of the tiles for the speed measurement, and number of repetitions.
_PIXELS, _QUICK_PIXELS, _REPEATS = 2_400_000, 150_000, 5


def _photograph() -> pyvips.Image:
    folder = pathlib.Path(skimage.__file__).parent / "data"
    return pyvips.Image.new_from_file(str(folder / "coffee.png"))[0:3]


def _large_tiff(path: pathlib.Path, megapixels: int) -> None:
    """Writes an image of repeated copies of a photograph."""
    side = round((megapixels * 1e6) ** 0.5)
    image = _photograph()
    across, down = side // image.width + 1, side // image.height + 1
    image.replicate(across, down).crop(0, 0, side, side).tiffsave(str(path))


def _restore_command(
    source: pathlib.Path, target: pathlib.Path, model: str
) -> list[str]:
    return [
        sys.executable, "-m", "restoration.restore", "-i", str(source), "-o",
        str(target), "-n", model, "--overwrite", "--device=cpu",
    ]  # fmt: skip


def measure_memory(
    folder: pathlib.Path, model: str, sizes: tuple[int, ...]
) -> list[dict[str, float]]:
    """Returns peak memory and speed of the whole command on large TIFF files."""
    figures = []
    for megapixels in sizes:
        source = folder / f"{megapixels}.tif"
        _large_tiff(source, megapixels)
        command = _restore_command(source, folder / "large", model)
        seconds, peak = start.run(command, start.environment(folder / "cache"))
        figures.append(
            {
                "megapixels": megapixels,
                "seconds": seconds,
                "megapixels_per_second": megapixels / seconds,
                "peak_bytes": peak,
            }
        )
        source.unlink()
        for path in (folder / "large").iterdir():
            path.unlink()
    return figures


def _median_seconds(call: Callable[[], Any]) -> float:
    call()  # compiles
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_speed(name: str, pixels: int) -> dict[str, Any]:
    """Returns the speed on tiles in memory, ours and Keras's.

    Both get the same tiles in batches of the same size. Only the report's networks
    exist in Keras, for residual models without the addition.

    Args:
      name: of shipped weights.
      pixels: of all tiles together, about.

    Returns:
      Megapixels of tiles per second, and the share of them in the result (the tiles'
      cores).
    """
    weights = engine.load_weights(name, "")
    used = engine.make_engine(weights)
    grid = used.grid((1000, 1000))
    height, width = grid.tile
    image = np.asarray(_photograph().numpy()[:256, :256], np.float32) / 255
    count = grid.batch * max(1, round(pixels / (grid.batch * height * width)))
    tile = np.tile(image, (-(-height // 256), -(-width // 256), 1))[:height, :width]
    tiles = np.repeat(tile[None], count, 0)
    compute = tiling.make_compute(models.get_model(weights.model).apply, grid)

    def ours() -> None:
        for first in range(0, count, grid.batch):
            np.asarray(compute(weights.parameters, tiles[first : first + grid.batch]))

    megapixels = count * height * width / 1e6
    figures = {
        "device": used.device,
        "tile": grid.tile,
        "batch": grid.batch,
        "used_share": math.prod(grid.core) / (height * width),
        "megapixels_per_second": megapixels / _median_seconds(ours),
    }
    if name in keras_reference.WIDTHS:
        reference = keras_reference.build(name)
        keras_reference.set_weights(reference, weights.parameters)
        seconds = _median_seconds(
            lambda: reference.predict(tiles, batch_size=grid.batch, verbose=0)
        )
        figures["keras_megapixels_per_second"] = megapixels / seconds
    return figures


def measure(
    quick: bool, names: Sequence[str] = (), before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Measures shipped models.

    Args:
      quick: use small images, as a test.
      names: of the models; all shipped ones by default.
      before: results of other models, which are kept.

    Returns:
      `models`: for each `speed` (tiles in memory) and `memory` (the command).
    """
    backend.keep_freed_memory(large=False)  # as the command does, for Keras too
    sizes = _QUICK_SIZES if quick else _SIZES
    found: dict[str, Any] = dict(before or {})
    for name in names or pretrained.shipped():
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            found[name] = {
                "memory": measure_memory(work, name, sizes),
                "speed": measure_speed(name, _QUICK_PIXELS if quick else _PIXELS),
            }
    return {"models": found}
