"""Restoring images of any size through tiles of one static shape.

A pixel's result depends on no more than the model's halo around it, so a tile's
inner part, its core, is exactly what the whole image would give. Cores overlap
by a ramp and are blended with a smooth window, which hides what differs in
models that are not exactly local. Beyond its borders an image is continued by
reflection, so that the result does not depend on where tiles lie.

Images pass through as strips: rows come in, restored rows go out, and only
about one row of tiles is in memory.

A model that sees far needs large tiles, so there are a few shapes of them, and each
image takes the one that computes least, unless its strip would be large.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from restoration import backend, errors

# Cores overlap by so many pixels, unless told otherwise.
RAMP = 16

# Changes of lightness wider than about this many pixels are tone, as far as they are no
# larger than this, of 1: what is, is dirt that was filled.
_TONE_RADIUS, _TONE = 32, 0.1

# The same where colours may change: it costs the film track 0.09 dB, and halves what is
# falsely shaded on prints (docs/quality.md).
_FAINT_TONE = 0.05

# Changes of colour wider than about this many pixels are wide: on the film track
# without them PSNR falls by 0.01 dB, and on prints they are blotches (docs/quality.md).
_COLOR_RADIUS = 14

# What a grey value is made of, as in Rec. 601.
_LUMA = (0.299, 0.587, 0.114)

# Pixels of the rows that are handed on at once.
_PIXELS = 1 << 18

# Rows of a strip that are moved at once.
_MOVED = 16

# Above so many bytes a strip is large, and smaller ones are looked for.
_STRIP = 96 * 2**20


@dataclasses.dataclass(frozen=True)
class Grid:
    """How tiles lie.

    Attributes:
      tile: height and width of what the model sees, pixels.
      around: pixels of it on each side that only give context.
      ramp: pixels over which neighbouring cores are blended.
      multiple: the grid of the model's pooling, on which tiles begin.
      batch: tiles computed at once.
    """

    tile: tuple[int, int]
    around: int
    ramp: int
    multiple: int
    batch: int

    @property
    def core(self) -> tuple[int, int]:
        """Height and width of the part of a tile that is used, pixels."""
        height, width = self.tile
        return height - 2 * self.around, width - 2 * self.around

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where in a tile its core lies."""
        height, width = self.tile
        return (
            slice(self.around, height - self.around),
            slice(self.around, width - self.around),
        )


class Keeping(NamedTuple):
    """What of the images stays though the model would change it.

    Attributes:
      apply: of images and restored ones, such as `keeping_color`.
      radius: pixels around one that its result depends on, beyond the model's halo.
    """

    apply: Callable[[jnp.ndarray, jnp.ndarray], jnp.ndarray]
    radius: int


def _on_grid(pixels: int, multiple: int) -> int:
    return -(-pixels // multiple) * multiple


def margin(model: Any) -> int:
    """Returns the model's halo, rounded up to the grid of its pooling."""
    return _on_grid(model.halo, model.multiple)


def make_grid(
    model: Any,
    *,
    tile: tuple[int, int],
    ramp: int = RAMP,
    batch: int = 1,
    overlap: int = 0,
    keeping: Keeping | None = None,
) -> Grid:
    """Returns the grid of a model's tiles.

    Args:
      model: Flax module.
      tile: height and width of what the model sees, multiples of its grid.
      ramp: pixels over which neighbouring tiles are blended.
      batch: tiles computed at once.
      overlap: pixels of context on each side of a tile; no less than the model's
        halo is taken.
      keeping: what will be kept, which needs context of its own.

    Returns:
      The grid.

    Raises:
      InputError: for a tile that does not fit the model.
    """
    multiple = model.multiple
    around = max(margin(model), _on_grid(overlap, multiple))
    around += _on_grid(keeping.radius, multiple) if keeping else 0
    least = _on_grid(2 * around + ramp + multiple, multiple)
    for side in tile:
        if side % multiple or side < least:
            raise errors.InputError(
                f"--tile={side}: must be a multiple of {multiple} and at least {least}"
            )
    return Grid(tile, around, ramp, multiple, batch)


def halved(grid: Grid) -> Grid | None:
    """Returns a grid that needs about half the memory, or None below the least."""
    if grid.batch > 1:
        return dataclasses.replace(grid, batch=grid.batch // 2)
    height, width = (side // 2 // grid.multiple * grid.multiple for side in grid.tile)
    if min(height, width) - 2 * grid.around - grid.ramp < grid.multiple:
        return None
    return dataclasses.replace(grid, tile=(height, width))


def _starts(grid: Grid, size: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Returns where cores begin, down and across."""
    down, across = (
        starts(length, core=core, ramp=grid.ramp, multiple=grid.multiple)
        for length, core in zip(size, grid.core, strict=True)
    )
    return down, across


def computed(grid: Grid, size: tuple[int, int]) -> int:
    """Returns the pixels that tiles compute of an image of a height and width."""
    down, across = _starts(grid, size)
    batches = -(-len(down) * len(across) // grid.batch)
    return batches * grid.batch * grid.tile[0] * grid.tile[1]


def choose(grids: Sequence[Grid], size: tuple[int, int]) -> Grid:
    """Returns the grid that suits an image best.

    Args:
      grids: one or more.
      size: the image's height and width.

    Returns:
      The one that computes the fewest pixels; where its strip takes much memory, the
      one with the smallest strip among those that compute at most a tenth more.
    """

    def strip(grid: Grid) -> int:
        return grid.core[0] * max(size[1], grid.core[1]) * 3 * 4

    pixels = {grid: computed(grid, size) for grid in grids}
    fewest = min(pixels, key=pixels.__getitem__)
    if strip(fewest) <= _STRIP:
        return fewest
    fast = [grid for grid in grids if pixels[grid] <= 1.1 * pixels[fewest]]
    return min(fast, key=strip)


def apply(model: Any, parameters: Any, images: jnp.ndarray) -> jnp.ndarray:
    """Applies a model, on a CPU in pieces of a batch that stay in its caches.

    Args:
      model: Flax module.
      parameters: its parameters.
      images: float (batch, height, width, 3).

    Returns:
      What the model gives for the whole batch.
    """
    batch, devices = images.shape[0], jax.device_count()
    if batch % devices:
        return model.apply(parameters, images)
    count = backend.pieces(batch // devices, max(images.shape[1:3]))
    # Strided, so that each piece keeps all devices busy.
    parts = [model.apply(parameters, images[first::count]) for first in range(count)]
    return jnp.stack(parts, axis=1).reshape(batch, *parts[0].shape[1:])


def restore_whole(model: Any, parameters: Any, images: jnp.ndarray) -> jnp.ndarray:
    """Restores a batch of images at once; jittable.

    Args:
      model: Flax module.
      parameters: its parameters.
      images: float (batch, height, width, 3) in [0, 1].

    Returns:
      float32 of the same shape, in [0, 1].
    """
    around = margin(model)
    height, width = images.shape[1:3]
    edges = ((0, 0), (around, around), (around, around), (0, 0))
    padded = jnp.pad(images, edges, mode="symmetric")
    restored = apply(model, parameters, padded)
    restored = restored[:, around : around + height, around : around + width]
    return jnp.clip(restored, 0, 1)


def starts(length: int, *, core: int, ramp: int, multiple: int) -> list[int]:
    """Returns where the cores begin that cover `length` pixels.

    They lie on the model's pooling grid, the last one as far back as the grid
    allows, and neighbours share at least `ramp` pixels.

    Args:
      length: pixels to cover.
      core: pixels a core covers.
      ramp: pixels that neighbours share at least, less than core.
      multiple: the pooling grid.

    Returns:
      Ascending multiples of `multiple`, from 0.
    """
    stride = (core - ramp) // multiple * multiple
    last = max(0, -(-(length - core) // multiple) * multiple)
    return [*range(0, last, stride), last]


def window(core: int, ramp: int) -> np.ndarray:
    """Returns blending weights along one axis: raised cosine over each ramp.

    Args:
      core: pixels a core covers.
      ramp: pixels that rise, and fall.

    Returns:
      float32 (core,), above 0.
    """
    rise = np.sin(np.pi / 2 * (np.arange(ramp) + 0.5) / max(1, ramp)) ** 2
    weights = np.ones(core, np.float32)
    weights[:ramp] *= rise.astype(np.float32)
    weights[core - ramp :] *= rise[::-1].astype(np.float32)
    return weights


def mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Returns the places inside 0 to length - 1 that reflection puts at `places`."""
    places = np.mod(places, 2 * length)
    return np.minimum(places, 2 * length - 1 - places)


def _box(images: jnp.ndarray, radius: int, axis: int) -> jnp.ndarray:
    """Returns running means over 2 radius + 1 pixels, the edges continued."""
    edges = [(0, 0)] * images.ndim
    edges[axis] = (radius + 1, radius)
    sums = jnp.cumsum(jnp.pad(images, edges, mode="edge"), axis=axis)
    span, length = 2 * radius + 1, images.shape[axis]
    high = jax.lax.slice_in_dim(sums, span, span + length, axis=axis)
    return (high - jax.lax.slice_in_dim(sums, 0, length, axis=axis)) / span


def _wide(changes: jnp.ndarray, radius: int) -> jnp.ndarray:
    """Returns what is wide in changes; it comes from `radius` pixels around."""
    for axis in (1, 2, 1, 2):
        changes = _box(changes, radius // 2, axis)
    return changes


def _luma(changes: jnp.ndarray) -> jnp.ndarray:
    return jnp.sum(changes * jnp.array(_LUMA), -1, keepdims=True)


def _tone(luma: jnp.ndarray, limit: float) -> jnp.ndarray:
    return _wide(jnp.clip(luma, -limit, limit), _TONE_RADIUS)


def keeping_color(images: jnp.ndarray, restored: jnp.ndarray) -> jnp.ndarray:
    """Returns the images with the restored structure, their colour and tone.

    Of the change only its luma counts, without what is wider than some 32 pixels and
    no larger than a tenth of white, and it is added to red, green and blue alike.

    Args:
      images: float (batch, height, width, 3) before.
      restored: the same images after.

    Returns:
      float of the same shape, not clipped.
    """
    luma = _luma(restored - images)
    return images + luma - _tone(luma, _TONE)


def keeping_shades(images: jnp.ndarray, restored: jnp.ndarray) -> jnp.ndarray:
    """Returns the restored images without what is wide and only shades or tints.

    Which colours and tones a picture has as a whole, a network does not see in a tile.
    Changes of colour wider than some 14 pixels are taken out, and of changes of
    lightness what is wider than some 32 pixels and no larger than a twentieth of white.

    Args:
      images: float (batch, height, width, 3) before.
      restored: the same images after.

    Returns:
      float of the same shape, not clipped.
    """
    change = restored - images
    luma = _luma(change)
    color = _wide(change - luma, _COLOR_RADIUS)
    return restored - color - _tone(luma, _FAINT_TONE)


COLOR = Keeping(keeping_color, _TONE_RADIUS)
SHADES = Keeping(keeping_shades, _TONE_RADIUS)


def make_compute(
    model: Any, grid: Grid, *, keeping: Keeping | None = None
) -> Callable[[Any, np.ndarray], jnp.ndarray]:
    """Returns compute(parameters, tiles), jitted: the restored cores of tiles.

    Args:
      model: Flax module.
      grid: how tiles lie.
      keeping: what of the images stays.

    Returns:
      A function of parameters and float (batch, *tile, 3) that gives float32
      (batch, *core, 3) in [0, 1].
    """

    @jax.jit
    def compute(parameters: Any, tiles: jnp.ndarray) -> jnp.ndarray:
        restored = model.apply(parameters, tiles)
        if keeping:
            restored = keeping.apply(tiles, jnp.clip(restored, 0, 1))
        return jnp.clip(restored[:, *grid.inner], 0, 1).astype(jnp.float32)

    return compute


_Placed = tuple[int, int, np.ndarray]


def _cut(
    blocks: Iterable[np.ndarray],
    grid: Grid,
    size: tuple[int, int],
    prepare: Callable[[np.ndarray], np.ndarray],
) -> Iterator[_Placed]:
    """Yields (top, left, tile) row by row of tiles, reading no further than needed."""
    height, width = size
    blocks, band, first, have = iter(blocks), collections.deque(), 0, 0
    down, across = (np.arange(-grid.around, side - grid.around) for side in grid.tile)
    tops, lefts = _starts(grid, size)
    columns = [(left, mirrored(left + across, width)) for left in lefts]
    for top in tops:
        rows = mirrored(top + down, height)
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


def _computed(
    tiles: Iterable[_Placed], compute: Callable[[np.ndarray], Any], grid: Grid
) -> Iterator[_Placed]:
    """Yields (top, left, core); a batch is computed while the next is cut."""
    tiles, running = iter(tiles), collections.deque()

    def finished() -> Iterator[_Placed]:
        group, cores = running.popleft()
        for (top, left, _), core in zip(group, np.asarray(cores), strict=False):
            yield top, left, core

    while group := list(itertools.islice(tiles, grid.batch)):
        stacked = np.zeros((grid.batch, *grid.tile, 3), np.float32)
        for place, (_, _, tile) in enumerate(group):
            stacked[place] = tile
        if running:  # two at once would take the program's memory twice
            jax.block_until_ready(running[-1][1])
        running.append((group, compute(stacked)))
        if len(running) > 1:
            yield from finished()
    while running:
        yield from finished()


def _summed(weights: np.ndarray, places: Sequence[int]) -> np.ndarray:
    """Returns the sum of the windows that begin at some places along one axis."""
    total = np.zeros(places[-1] + len(weights), np.float32)
    for start in places:
        total[start : start + len(weights)] += weights
    return total


def _blended(
    cores: Iterable[_Placed], grid: Grid, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yields finished rows of blended cores, float32 (rows, width, 3)."""
    (height, width), (core_height, core_width) = size, grid.core
    windows = [window(core, grid.ramp) for core in grid.core]
    weights = (windows[0][:, None] * windows[1][None, :])[..., None]
    down, across = map(_summed, windows, _starts(grid, size))
    strip, current = np.zeros((core_height, len(across), 3), np.float32), 0

    def rows(count: int) -> Iterator[np.ndarray]:
        step = max(1, _PIXELS // width)
        for begin in range(0, count, step):
            end = min(begin + step, count)
            weight = down[current + begin : current + end, None] * across[:width]
            yield strip[begin:end, :width] / weight[..., None]

    for top, left, core in cores:
        if top != current:
            yield from rows(top - current)
            kept = current + core_height - top
            # By and by: at once NumPy would put a copy of all in between.
            for first in range(0, kept, _MOVED):
                last = min(first + _MOVED, kept)
                strip[first:last] = strip[first + top - current : last + top - current]
            strip[kept:] = 0
            current = top
        strip[:, left : left + core_width] += core * weights
    yield from rows(height - current)


def restore_strips(
    compute: Callable[[np.ndarray], Any],
    blocks: Iterable[np.ndarray],
    grid: Grid,
    size: tuple[int, int],
    *,
    prepare: Callable[[np.ndarray], np.ndarray] = lambda tile: tile,
) -> Iterator[np.ndarray]:
    """Restores an image that comes and goes in rows.

    Args:
      compute: float32 tiles (batch, *tile, 3) to restored cores (batch, *core, 3),
        as `make_compute` gives them.
      blocks: the image's rows from the top, arrays (rows, width, channels).
      grid: how tiles lie.
      size: the image's height and width.
      prepare: makes of a tile of the blocks' values float RGB in [0, 1].

    Yields:
      Restored rows from the top, float32 (rows, width, 3) in [0, 1].
    """
    tiles = _cut(blocks, grid, size, prepare)
    yield from _blended(_computed(tiles, compute, grid), grid, size)


def make_restore(
    model: Any, *, tile: int, ramp: int = RAMP, batch: int = 1
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Returns restore(parameters, image) for images of any size.

    Args:
      model: Flax module.
      tile: side of the tiles that the model sees, a multiple of its grid.
      ramp: pixels over which neighbouring tiles are blended.
      batch: tiles computed at once.

    Returns:
      A function of parameters and a float image (height, width, 3) in [0, 1]
      that gives the restored image, float32 of the same shape. It compiles once.

    Raises:
      InputError: for a tile that does not fit the model.
    """
    grid = make_grid(model, tile=(tile, tile), ramp=ramp, batch=batch)
    compute = make_compute(model, grid)

    def restore(parameters: Any, image: np.ndarray) -> np.ndarray:
        rows = restore_strips(
            lambda tiles: compute(parameters, tiles),
            [np.asarray(image, np.float32)],
            grid,
            image.shape[:2],
        )
        return np.concatenate(list(rows))

    return restore
