"""Restoring images of any size through tiles of one static shape.

A pixel's result depends on no more than the model's halo around it, so a tile's
inner part, its core, is exactly what the whole image would give. Cores overlap
by a ramp and are blended with a smooth window, which hides what differs in
models that are not exactly local. Beyond its borders an image is continued by
reflection, as far as the model sees or, where a grid's `edge` is less, nearly so: a
tile at the image's edge is then used for more, and less is computed twice.

Images pass through as strips: rows come in, restored rows go out, and only
about one row of tiles is in memory.

A model that sees far needs large tiles, so there are a few shapes of them, and each
image takes the one that computes least, unless its strip would be large.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from restoration.inference import layout

# Pixels of the rows that are handed on at once.
_PIXELS = 1 << 18

# Rows of a strip that are moved at once.
_MOVED = 16


def window(core: int, overlap: int) -> np.ndarray:
    """Returns blending weights along one axis: raised cosine over each ramp.

    Args:
      core: pixels a core covers.
      overlap: pixels that rise, and fall.

    Returns:
      float32 (core,), above 0.
    """
    rise = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(1, overlap)) ** 2
    weights = np.ones(core, np.float32)
    weights[:overlap] *= rise.astype(np.float32)
    weights[core - overlap :] *= rise[::-1].astype(np.float32)
    return weights


def mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Returns the places inside 0 to length - 1 that reflection puts at `places`."""
    places = np.mod(places, 2 * length)
    return np.minimum(places, 2 * length - 1 - places)


def make_compute(
    apply: Callable[[Any, jnp.ndarray], jnp.ndarray], grid: layout.Grid
) -> Callable[[Any, np.ndarray], jnp.ndarray]:
    """Returns compute(parameters, tiles), jitted: what a network gives inside tiles.

    Args:
      apply: of parameters and float tiles (batch, *tile, channels in), float
        (batch, *tile, channels out).
      grid: how tiles lie.

    Returns:
      A function of parameters and tiles that gives their inner parts, see
      `Grid.inner`, float32 (batch, height, width, channels out) in [0, 1].
    """

    @jax.jit
    def compute(parameters: Any, tiles: jnp.ndarray) -> jnp.ndarray:
        inner = apply(parameters, tiles)[:, *grid.inner]
        return jnp.clip(inner, 0, 1).astype(jnp.float32)

    return compute


# Rows and columns of a tile that are used, and the tile or its inner part.
_Placed = tuple[layout.Core, layout.Core, np.ndarray]


def _cut(
    blocks: Iterable[np.ndarray],
    grid: layout.Grid,
    size: tuple[int, int],
    prepare: Callable[[np.ndarray], np.ndarray],
) -> Iterator[_Placed]:
    """Yields tiles, row by row of them, reading no further than needed."""
    height, width = size
    blocks, band, first, have = iter(blocks), collections.deque(), 0, 0
    down, across = map(np.arange, grid.tile)
    tops, lefts = layout.cores(grid, size)
    columns = [(left, mirrored(left.start - left.first + across, width))
               for left in lefts]  # fmt: skip
    for top in tops:
        rows = mirrored(top.start - top.first + down, height)
        while have <= rows.max():
            band.append(next(blocks))
            have += len(band[-1])
        # The blocks stay apart, as they came: joined they would take memory twice.
        while first + len(band[0]) <= rows.min():
            first += len(band.popleft())
        for left, places in columns:
            begin, end = places.min(), places.max() + 1
            joined = np.concatenate([block[:, begin:end] for block in band])
            tile = joined[(rows - first)[:, None], places - begin]
            yield top, left, prepare(tile)


def _used(core: layout.Core, border: int) -> slice:
    """Returns where a core lies in a tile's inner part."""
    return slice(core.first - border, core.first - border + core.length)


def _computed(
    tiles: Iterable[_Placed],
    compute: Callable[[np.ndarray], Any],
    grid: layout.Grid,
    changes: Callable[[np.ndarray], bool],
) -> Iterator[_Placed]:
    """Yields cores; a batch is computed while the next is cut."""
    tiles, running = iter(tiles), collections.deque()

    def used(down: layout.Core, across: layout.Core, inner: np.ndarray) -> np.ndarray:
        return inner[_used(down, grid.border), _used(across, grid.border)]

    def finished() -> Iterator[_Placed]:
        group, inner = running.popleft()
        for (down, across, _), part in zip(group, np.asarray(inner), strict=False):
            yield down, across, used(down, across, part)

    while group := list(itertools.islice(tiles, grid.batch)):
        stacked = np.zeros((grid.batch, *group[0][2].shape), np.float32)
        for number, (_, _, tile) in enumerate(group):
            stacked[number] = tile
        if running:  # two at once would take the program's memory twice
            jax.block_until_ready(running[-1][1])
        inner = stacked[:, *grid.inner]
        shown = zip(group, inner, strict=False)
        if any(changes(used(down, across, part)) for (down, across, _), part in shown):
            inner = compute(stacked)
        running.append((group, inner))
        if len(running) > 1:
            yield from finished()
    while running:
        yield from finished()


def _summed(cores: Sequence[layout.Core], overlap: int) -> np.ndarray:
    """Returns the sum of the windows of cores along one axis."""
    total = np.zeros(cores[-1].start + cores[-1].length, np.float32)
    for core in cores:
        total[core.start : core.start + core.length] += window(core.length, overlap)
    return total


def _blended(
    cores: Iterable[_Placed], grid: layout.Grid, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yields finished rows of blended cores, float32 (rows, width, channels)."""
    height, width = size
    tops, lefts = layout.cores(grid, size)
    down, across = (_summed(found, grid.overlap) for found in (tops, lefts))
    cores = iter(cores)
    first_core = next(cores)
    strip_height = max(top.length for top in tops)
    strip = np.zeros((strip_height, len(across), first_core[2].shape[-1]), np.float32)
    current = 0

    def rows(count: int) -> Iterator[np.ndarray]:
        step = max(1, _PIXELS // width)
        for begin in range(0, count, step):
            end = min(begin + step, count)
            weight = down[current + begin : current + end, None] * across[:width]
            yield strip[begin:end, :width] / weight[..., None]

    for top, left, core in itertools.chain([first_core], cores):
        if top.start != current:
            yield from rows(top.start - current)
            kept = current + strip_height - top.start
            # By and by: at once NumPy would put a copy of all in between.
            for first in range(0, kept, _MOVED):
                last = min(first + _MOVED, kept)
                moved = slice(first + top.start - current, last + top.start - current)
                strip[first:last] = strip[moved]
            strip[kept:] = 0
            current = top.start
        vertical, horizontal = (
            window(part.length, grid.overlap) for part in (top, left)
        )
        weights = (vertical[:, None] * horizontal[None, :])[..., None]
        place = slice(left.start, left.start + left.length)
        strip[: top.length, place] += core * weights
    yield from rows(height - current)


def restore_strips(
    compute: Callable[[np.ndarray], Any],
    blocks: Iterable[np.ndarray],
    grid: layout.Grid,
    size: tuple[int, int],
    *,
    prepare: Callable[[np.ndarray], np.ndarray] = lambda tile: tile,
    changes: Callable[[np.ndarray], bool] = lambda core: True,
) -> Iterator[np.ndarray]:
    """Takes an image through a network; it comes and goes in rows.

    Args:
      compute: float32 tiles (batch, *tile, channels in) to their inner parts, as
        `make_compute` gives them.
      blocks: the image's rows from the top, arrays (rows, width, bands).
      grid: how tiles lie.
      size: the image's height and width.
      prepare: makes of a tile of the blocks' values what the network is shown, float
        (*tile, channels in) in [0, 1].
      changes: whether the network changes a core that it is shown; others are
        handed on without computing, so channels out are channels in.

    Yields:
      Rows from the top, float32 (rows, width, channels out) in [0, 1].
    """
    tiles = _cut(blocks, grid, size, prepare)
    yield from _blended(_computed(tiles, compute, grid, changes), grid, size)


def make_restore(
    model: Any, *, tile: int, overlap: int = layout.OVERLAP, batch: int = 1
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Returns restore(parameters, image) for images of any size.

    Args:
      model: Flax module.
      tile: side of the tiles that the model sees, a multiple of its grid.
      overlap: pixels over which neighbouring tiles are blended.
      batch: tiles computed at once.

    Returns:
      A function of parameters and a float image (height, width, 3) in [0, 1]
      that gives the restored image, float32 of the same shape. It compiles once.

    Raises:
      InputError: for a tile that does not fit the model.
    """
    grid = layout.make_grid(model, tile=(tile, tile), overlap=overlap, batch=batch)
    compute = make_compute(model.apply, grid)

    def restore(parameters: Any, image: np.ndarray) -> np.ndarray:
        rows = restore_strips(
            lambda tiles: compute(parameters, tiles),
            [np.asarray(image, np.float32)],
            grid,
            image.shape[:2],
        )
        return np.concatenate(list(rows))

    return restore
