"""Networks with their weights on a device, ready to take strips of a picture."""

import contextlib
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epy

from restoration import models
from restoration.base import errors
from restoration.devices import backend, programs
from restoration.inference import layout, preserve, tiling
from restoration.models import apply, pretrained

with epy.lazy_imports():
    from restoration.training import trained

# Of a device's free memory so much is used.
_SHARE = 0.8

# The used part of a tile is so many times as wide as what surrounds it, or the model
# would compute little that is used. `nafnet_s` restores a megapixel in one tile.
_CORE_TO_CONTEXT = 8.5

# The filler's tiles, lying and standing. Each is compiled when a picture first needs
# it, so that they are few; photographs of up to some two megapixels take one tile.
_TILES = (
    (640, 640), (640, 768), (768, 960), (960, 1216), (1216, 1216), (1216, 1600),
    (2048, 2048),
)  # fmt: skip

# Pixels by which pictures are continued beyond their edges, at most. As many as a
# network sees would move no restored value by more than 0.4/255, and take twice the
# time.
_EDGE = 64

# So many tiles of the finder are computed at once at least; they are small.
_FINDER_BATCH = 4

Program = Callable[[np.ndarray], Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """A network beside the restoring one, with its shipped weights.

    Attributes:
      model: Flax module.
      parameters: the network's.
      sha256: of their file.
    """

    model: Any
    parameters: Any
    sha256: str


@dataclasses.dataclass(frozen=True)
class Weights:
    """Which weights are used.

    Attributes:
      model: the restoring network's name.
      parameters: the restoring network's.
      sha256: of them.
      grader: of `grader.Grader`, which goes before the shipped models, or None: a
        run's network is used as it was trained.
      finder: of what finds damage, or None where none is looked for.
      filler: of what fills damage, or None where none is filled.
    """

    model: str
    parameters: Any
    sha256: str
    grader: Part | None = None
    finder: Part | None = None
    filler: Part | None = None

    def digests(self) -> dict[str, str]:
        """Returns the SHA-256 of each network's weights, "" for what is not used."""
        parts = {name: getattr(self, name) for name in ("finder", "filler", "grader")}
        return {"weights_sha256": self.sha256} | {
            f"{name}_sha256": part.sha256 if part else ""
            for name, part in parts.items()
        }


class Network:
    """One network, compiled for the shapes of tiles that pictures need.

    What changes while it is used: the shapes, smaller after each shortage of memory,
    and the programs that were needed so far.
    """

    def __init__(
        self,
        compile_program: Callable[[layout.Grid], Program | None],
        grids: Sequence[layout.Grid],
    ):
        """Keeps what is needed to compile.

        Args:
          compile_program: of how tiles lie, a function of float32 tiles (batch,
            *tile, channels in) that gives cores (batch, *core, channels out); None
            where the device has too little memory for it.
          grids: shapes to choose from, the usual one first.
        """
        self._compile = compile_program
        self._grids = list(grids)
        self._programs: dict[layout.Grid, Program] = {}
        # Two pictures at once would compile the same program twice.
        self._compiling = threading.Lock()

    def grid(self, size: tuple[int, int]) -> layout.Grid:
        """Returns how the tiles of a picture of a height and width lie."""
        return layout.choose(self._grids, size)

    def shrink(self) -> bool:
        """Makes tiles need half the memory from now on; returns whether they can."""
        smaller = [less for grid in self._grids if (less := layout.halved(grid))]
        self._grids[:] = smaller or self._grids
        return bool(smaller)

    def prepare(self, size: tuple[int, int]) -> None:
        """Begins to compile, in a thread, what a picture of a size needs."""
        if self.grid(size) in self._programs:
            return

        def work() -> None:
            # What goes wrong is raised where the network is used.
            with contextlib.suppress(Exception):
                self._prepared(size)

        threading.Thread(target=work).start()

    def _prepared(self, size: tuple[int, int]) -> tuple[layout.Grid, Program]:
        with self._compiling:
            while (grid := self.grid(size)) not in self._programs:
                program = self._compile(grid)
                if program:
                    self._programs[grid] = program
                elif not self.shrink():
                    raise errors.InputError(
                        "the device's free memory is too little for one tile; free "
                        "some or choose --device cpu"
                    )
            return grid, self._programs[grid]

    def strips(
        self,
        blocks: Iterable[np.ndarray],
        size: tuple[int, int],
        prepare: Callable[[np.ndarray], np.ndarray] = lambda tile: tile,
        changes: Callable[[np.ndarray], bool] = lambda core: True,
    ) -> Iterator[np.ndarray]:
        """Yields what the network makes of an image's rows.

        Args:
          blocks: as the other arguments, see `tiling.restore_strips`.
          size: the image's height and width.
          prepare: makes of a tile's values what the network is shown.
          changes: whether a core needs computing.

        Raises:
          InputError: for a device without the memory for a single tile.
        """
        grid, program = self._prepared(size)
        yield from tiling.restore_strips(
            program, blocks, grid, size, prepare=prepare, changes=changes
        )


@dataclasses.dataclass(frozen=True)
class Engine:
    """All that restores pictures.

    Attributes:
      weights: of all networks.
      device: its name.
      network: restores: of (..., 4), RGB and where it may be changed freely, RGB.
      finder: of RGB the probability of damage, (..., 1); None where none is found.
      filler: of (..., 4), RGB and mask (`decide.decide`), RGB filled and 1 where the
        mask is above 0; None where none is filled.
      grader: parameters of `grader.Grader` on the device, or None where color and
        tone stay as they are.
      gated: whether the network is held to small changes where a mask is black.
    """

    weights: Weights | None
    device: str
    network: Network
    finder: Network | None = None
    filler: Network | None = None
    grader: Any = None
    gated: bool = False

    def prepare(self, size: tuple[int, int], *, find: bool) -> None:
        """Begins to compile what fills, restores and, if asked for, finds.

        Args:
          size: the picture's height and width.
          find: whether the finder will be used.
        """
        for network in (self.finder if find else None, self.filler, self.network):
            if network:
                network.prepare(size)

    def grid(self, size: tuple[int, int]) -> layout.Grid:
        """Returns how the restoring network's tiles lie in a picture of a size."""
        return self.network.grid(size)

    def shrink(self) -> bool:
        """Makes all tiles need half the memory; returns whether any of them can."""
        networks = [self.network, self.finder, self.filler]
        return any([network.shrink() for network in networks if network])


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
      The weights; for shipped ones the SHA-256 is that of their file. With a run come
      neither finder nor grader: its network is used as it was trained. What fills the
      damage that a user marks comes with all.

    Raises:
      InputError: for an unknown model or unusable weights.
    """
    filler = Part(*pretrained.load_part("filler"))
    if workdir:
        run, parameters, _ = trained.load_trained(workdir)
        return Weights(run.model, parameters, _digest(parameters), filler=filler)
    name, parameters = pretrained.load_shipped(model)
    # Loading has held the file to its card.
    card = pretrained.find_shipped(model).with_suffix(".json")
    digest = pretrained.read_card(card)["sha256"]
    grader = Part(None, *pretrained.load_grader())
    return Weights(name, parameters, digest, grader, _load_finder(), filler)


def _load_finder() -> Part | None:
    """Returns the finder; None as long as no weights of one are shipped."""
    if not (pretrained.FOLDER / "finder.safetensors").is_file():
        return None
    return Part(*pretrained.load_part("finder"))


def _automatic(
    model: Any, device: Any, *, context: int, radius: int
) -> list[layout.Grid]:
    """Returns tiles of the device's usual size, more and larger for a far sight."""
    side, batch = backend.tiles(device)
    context = max(apply.margin(model), context)

    def suited(pixels: int) -> int:
        return int((_CORE_TO_CONTEXT + 2) * pixels) + layout.OVERLAP

    # A model that sees no further takes one shape, which is compiled once.
    shapes = [(side + 2 * radius, side + 2 * radius)]
    if suited(context) > side:
        large = suited(context) + 2 * radius
        # For most pictures, for smaller ones, and for those too wide for a high strip;
        # the last is no smaller than the first, so that it is not taken without need.
        shapes = [
            (large, large),
            (large / 1.4, large / 1.4),
            (large / 1.75, large / 1.4),
            (large / 1.4, large / 1.75),
            (large / 2, large / 2),
            (large / 1.2, large * 1.21),
        ]
    stride = model.stride
    return [
        layout.make_grid(
            model,
            tile=tuple(apply.on_grid(int(pixels), stride) for pixels in shape),
            batch=batch,
            context=context,
            radius=radius,
        )
        for shape in shapes
    ]


def _with_edges(grids: Sequence[layout.Grid]) -> list[layout.Grid]:
    """Returns grids that continue a picture beyond its edges by `_EDGE` at most."""
    return [dataclasses.replace(grid, edge=min(grid.context, _EDGE)) for grid in grids]


def _needed(program: Any) -> int:
    """Returns the bytes of device memory that a compiled program takes."""
    memory = program.memory_analysis()
    return (
        memory.temp_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes
    )


def _compiler(
    apply_network: Callable[[Any, Any], Any],
    parameters: Any,
    device: Any,
    *,
    name: str,
    channels: int,
) -> Callable[[layout.Grid], Program | None]:
    """Returns what compiles a network for a grid, see `Network`.

    The name is the network's alone, see `programs.traced`.
    """
    held = jax.device_put(parameters, device)

    def compile_program(grid: layout.Grid) -> Program | None:
        tiles = jax.ShapeDtypeStruct(
            (grid.batch, *grid.tile, channels),
            np.float32,
            sharding=jax.sharding.SingleDeviceSharding(device),
        )
        free = backend.free_memory(device)
        compute = tiling.make_compute(apply_network, grid)
        compute = programs.traced(compute, f"{name} {grid}", held, tiles)
        options = backend.compiler_options(device)
        program = compute.lower(held, tiles).compile(compiler_options=options)
        if free is not None and _needed(program) > _SHARE * free:
            return None
        return lambda tiles: program(held, jax.device_put(tiles, device))

    return compile_program


def _both_ways(
    compile_program: Callable[[layout.Grid], Program | None],
) -> Callable[[layout.Grid], Program | None]:
    """Makes a network see tiles mirrored, too: the mean of both finds more surely."""

    def compile_both(grid: layout.Grid) -> Program | None:
        program = compile_program(grid)
        if program is None:
            return None
        return lambda tiles: (
            (program(tiles) + program(tiles[:, :, ::-1])[:, :, ::-1]) / 2
        )

    return compile_both


def _restoring(
    weights: Weights, device: Any, *, tile: str, context: str, keep_color: bool
) -> Network:
    """Returns the restoring network."""
    model = models.get_model(weights.model)
    least = 0 if context == "auto" else int(context)
    if context != "auto" and least < model.halo:
        raise errors.InputError(
            f"--context={context}: {weights.model} sees {model.halo} pixels far; "
            "give at least as many, or auto"
        )
    # With shipped weights, colors and shades are the grader's to change.
    graded = preserve.SHADES if weights.grader else None
    rule = preserve.COLOR if keep_color else graded
    # The gate, of shipped weights only, looks no further than the rules do.
    kept = {"context": least, "radius": rule.radius if rule else 0}
    if tile == "auto":
        grids = _automatic(model, device, **kept)
    else:
        side, batch = int(tile), backend.tiles(device)[1]
        grids = [layout.make_grid(model, tile=(side, side), batch=batch, **kept)]
    compile_program = _compiler(
        preserve.restoring(model, rule),
        weights.parameters,
        device,
        name=f"restoring {model!r} {rule and rule.apply.__name__}",
        channels=4,
    )
    return Network(compile_program, _with_edges(grids))


def _beside(
    part: Part,
    device: Any,
    apply_network: Callable[[Any, Any], Any],
    grids: Sequence[layout.Grid],
    *,
    channels: int,
    both_ways: bool = False,
) -> Network:
    """Returns the finder or the filler."""
    compile_program = _compiler(
        apply_network,
        part.parameters,
        device,
        name=repr(part.model),
        channels=channels,
    )
    return Network(_both_ways(compile_program) if both_ways else compile_program, grids)


def _finding(part: Part | None, device: Any) -> Network | None:
    """Returns what finds damage; None without weights."""
    if part is None:
        return None

    def find(parameters: Any, tiles: Any) -> Any:
        return jax.nn.sigmoid(part.model.apply(parameters, tiles))

    batch = max(_FINDER_BATCH, backend.tiles(device)[1])
    grid = layout.without_context(part.model, batch=batch)
    return _beside(part, device, find, [grid], channels=3, both_ways=True)


def _filling(part: Part | None, device: Any) -> Network | None:
    """Returns what fills damage; None without weights."""
    if part is None:
        return None

    def fill(parameters: Any, tiles: Any) -> Any:
        images, mask = tiles[..., :3], tiles[..., 3:]
        images = part.model.apply(parameters, images, mask)
        return jnp.concatenate([images, (mask > 0).astype(images.dtype)], axis=-1)

    stride, batch = part.model.stride, backend.tiles(device)[1]
    context = apply.on_grid(part.model.halo, stride)
    grids = [
        layout.Grid(tile, context, layout.OVERLAP, stride, batch)
        for low, high in _TILES
        for tile in sorted({(low, high), (high, low)})
    ]
    return _beside(part, device, fill, _with_edges(grids), channels=4)


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
      tile: side of the restoring network's tiles in pixels, or "auto": chosen for the
        device, the size of the picture and, where JAX knows it, the device's free
        memory.
      context: pixels of context around each of these tiles' used part, or "auto": as
        far as the model sees.
      keep_color: whether color and tone stay as they were.
      device: "auto", "cpu", "gpu" or "tpu".

    Returns:
      The engine.

    Raises:
      InputError: for a tile or context that does not fit the model or a device that
        is not there.
    """
    used = backend.device(device)
    graded = weights.grader
    return Engine(
        weights,
        str(used),
        _restoring(weights, used, tile=tile, context=context, keep_color=keep_color),
        finder=_finding(weights.finder, used),
        filler=_filling(weights.filler, used),
        grader=jax.device_put(graded.parameters, used)
        if graded and not keep_color
        else None,
        gated=weights.finder is not None,
    )
