"""A model with its weights on a device, ready to restore strips of a picture."""

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epy

from restoration import models
from restoration.base import errors
from restoration.devices import backend
from restoration.inference import layout, preserve, tiling
from restoration.models import apply, pretrained

with epy.lazy_imports():
    from restoration.training import trained

# Of a device's free memory so much is used.
_SHARE = 0.8

# The used part of a tile is so many times as wide as what surrounds it, or the model
# would compute little that is used. `nafnet_s` restores a megapixel in one tile.
_CORE_TO_CONTEXT = 8.5


@dataclasses.dataclass(frozen=True)
class Weights:
    """Which weights are used.

    Attributes:
      model: its name.
      parameters: the model's.
      sha256: of them.
      grader: parameters of `grader.Grader`, which goes before the shipped models; a
        run's network is used as it was trained, alone.
      grader_sha256: of these, or "".
    """

    model: str
    parameters: Any
    sha256: str
    grader: Any = None
    grader_sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Engine:
    """What restores strips.

    Attributes:
      weights: the model's.
      device: its name.
      restore: of an image's rows, (height, width) and `prepare`, as
        `tiling.restore_strips` takes them, the restored rows.
      shrink: makes the tiles need half the memory from now on; returns whether
        they could be.
      grid: of a picture's (height, width), how its tiles lie.
      grader: parameters of `grader.Grader` on the device, or None where color and
        tone stay as they are.
    """

    weights: Weights
    device: str
    restore: Callable[..., Iterator[np.ndarray]]
    shrink: Callable[[], bool]
    grid: Callable[[tuple[int, int]], layout.Grid]
    grader: Any = None


def _digest(parameters: Any) -> str:
    """Returns the SHA-256 of all parameters, by name."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(parameters)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def load_weights(model: str, workdir: str) -> Weights:
    """Loads shipped weights, or the best of a training run.

    Args:
      model: a name of shipped weights, or "" for the best ones.
      workdir: a training run, or "".

    Returns:
      The weights; for shipped ones the SHA-256 is that of their file.

    Raises:
      InputError: for an unknown model or unusable weights.
    """
    if workdir:
        run, parameters, _ = trained.load_trained(workdir)
        return Weights(run.model, parameters, _digest(parameters))
    name, parameters = pretrained.load_shipped(model)
    # Loading has held the file to its card.
    card = pretrained.find_shipped(model).with_suffix(".json")
    digest = pretrained.read_card(card)["sha256"]
    return Weights(name, parameters, digest, *pretrained.load_grader())


def _automatic(
    model: Any, device: Any, *, context: int, preserved: preserve.Rule | None
) -> list[layout.Grid]:
    """Returns tiles of the device's usual size, more and larger for a far sight."""
    side, batch = backend.tiles(device)
    context = max(apply.margin(model), context)
    kept = preserved.radius if preserved else 0

    def suited(pixels: int) -> int:
        return int((_CORE_TO_CONTEXT + 2) * pixels) + layout.OVERLAP

    # A model that sees no further takes one shape, which is compiled once.
    shapes = [(side + 2 * kept, side + 2 * kept)]
    if suited(context) > side:
        large = suited(context) + 2 * kept
        # For most pictures, for small ones, and for those too wide for a high strip;
        # the last is no smaller than the first, so that it is not taken without need.
        shapes = [(large, large), (large / 2, large / 2), (large / 1.2, large * 1.21)]
    stride = model.stride
    return [
        layout.make_grid(
            model,
            tile=tuple(-(-int(pixels) // stride) * stride for pixels in shape),
            batch=batch,
            context=context,
            preserved=preserved,
        )
        for shape in shapes
    ]


def _needed(program: Any) -> int:
    """Returns the bytes of device memory that a compiled program takes."""
    memory = program.memory_analysis()
    return (
        memory.temp_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes
    )


def make_engine(
    weights: Weights,
    *,
    tile: str = "auto",
    context: str = "auto",
    keep_color: bool = False,
    device: str = "auto",
) -> Engine:
    """Returns what restores pictures with some weights.

    Args:
      weights: from `load_weights`.
      tile: side of the tiles in pixels, or "auto": chosen for the device, the size
        of the picture and, where JAX knows it, the device's free memory.
      context: pixels of context around each tile's used part, or "auto": as far as
        the model sees.
      keep_color: whether color and tone stay as they were.
      device: "auto", "cpu", "gpu" or "tpu".

    Returns:
      The engine.

    Raises:
      InputError: for a tile or context that does not fit the model or a device that
        is not there; of the engine's `restore`, for a device without the memory for
        a single tile.
    """
    place = backend.device(device)
    model = models.get_model(weights.model)
    least = 0 if context == "auto" else int(context)
    if context != "auto" and least < model.halo:
        raise errors.InputError(
            f"--context={context}: {weights.model} sees {model.halo} pixels far; "
            "give at least as many, or auto"
        )
    # With shipped weights, colors and shades are the grader's to change.
    graded = preserve.SHADES if weights.grader else None
    preserved = preserve.COLOR if keep_color else graded
    kept = {"context": least, "preserved": preserved}
    if tile == "auto":
        chosen = _automatic(model, place, **kept)
    else:
        side, batch = int(tile), backend.tiles(place)[1]
        chosen = [layout.make_grid(model, tile=(side, side), batch=batch, **kept)]
    parameters = jax.device_put(weights.parameters, place)
    # What changes: the shapes in use, smaller after each shortage, and the programs
    # that pictures needed so far.
    grids, programs = list(chosen), {}
    # Two pictures at once would compile the same program twice.
    compiling = threading.Lock()

    def compiled(grid: layout.Grid) -> Any:
        tiles = jax.ShapeDtypeStruct(
            (grid.batch, *grid.tile, 3),
            np.float32,
            sharding=jax.sharding.SingleDeviceSharding(place),
        )
        compute = tiling.make_compute(model, grid, preserved=preserved)
        return compute.lower(parameters, tiles).compile()

    def grid_of(size: tuple[int, int]) -> layout.Grid:
        return layout.choose(grids, size)

    def shrink() -> bool:
        smaller = [less for grid in grids if (less := layout.halved(grid))]
        grids[:] = smaller or grids
        return bool(smaller)

    def prepared(size: tuple[int, int]) -> tuple[layout.Grid, Any]:
        while (grid := grid_of(size)) not in programs:
            free = backend.free_memory(place)
            program = compiled(grid)
            if free is None or _needed(program) <= _SHARE * free:
                programs[grid] = program
            elif not shrink():
                raise errors.InputError(
                    f"{place}: {free / 1e6:.0f} MB are free, too little for one tile; "
                    "free some or choose --device cpu"
                )
        return grid, programs[grid]

    def restore(
        blocks: Iterable[np.ndarray],
        size: tuple[int, int],
        prepare: Callable[[np.ndarray], np.ndarray],
    ) -> Iterator[np.ndarray]:
        with compiling:
            grid, program = prepared(size)

        def compute(tiles: np.ndarray) -> Any:
            return program(parameters, jax.device_put(tiles, place))

        yield from tiling.restore_strips(compute, blocks, grid, size, prepare=prepare)

    grader = None if keep_color else jax.device_put(weights.grader, place)
    return Engine(weights, str(place), restore, shrink, grid_of, grader)
