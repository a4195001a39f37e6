"""How the tiles of an image lie: their size, context and overlap."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from restoration.base import errors
from restoration.models import apply

# Cores overlap by so many pixels, unless told otherwise.
OVERLAP = 16


# Above so many bytes a strip is large, and smaller ones are looked for.
_STRIP = 96 * 2**20


@dataclasses.dataclass(frozen=True)
class Grid:
    """How tiles lie.

    Attributes:
      tile: height and width of what the model sees, pixels.
      context: pixels of it on each side that only give context.
      overlap: pixels over which neighbouring cores are blended.
      stride: the grid of the model's pooling, on which tiles begin.
      batch: tiles computed at once.
    """

    tile: tuple[int, int]
    context: int
    overlap: int
    stride: int
    batch: int

    @property
    def core(self) -> tuple[int, int]:
        """Height and width of the part of a tile that is used, pixels."""
        height, width = self.tile
        return height - 2 * self.context, width - 2 * self.context

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where in a tile its core lies."""
        height, width = self.tile
        return (
            slice(self.context, height - self.context),
            slice(self.context, width - self.context),
        )


def make_grid(
    model: Any,
    *,
    tile: tuple[int, int],
    overlap: int = OVERLAP,
    batch: int = 1,
    context: int = 0,
    radius: int = 0,
) -> Grid:
    """Returns the grid of a model's tiles.

    Args:
      model: Flax module.
      tile: height and width of what the model sees, multiples of its grid.
      overlap: pixels over which neighbouring tiles are blended.
      batch: tiles computed at once.
      context: pixels of context on each side of a tile; no less than the model's
        halo is taken.
      radius: pixels of context that what is done after the model needs, such as a
        `preserve.Rule`.

    Returns:
      The grid.

    Raises:
      InputError: for a tile that does not fit the model.
    """
    stride = model.stride
    context = max(apply.margin(model), apply.on_grid(context, stride))
    context += apply.on_grid(radius, stride)
    least = apply.on_grid(2 * context + overlap + stride, stride)
    for side in tile:
        if side % stride or side < least:
            raise errors.InputError(
                f"--tile={side}: must be a multiple of {stride} and at least {least}"
            )
    return Grid(tile, context, overlap, stride, batch)


def halved(grid: Grid) -> Grid | None:
    """Returns a grid that needs about half the memory, or None below the least."""
    if grid.batch > 1:
        return dataclasses.replace(grid, batch=grid.batch // 2)
    height, width = (side // 2 // grid.stride * grid.stride for side in grid.tile)
    if min(height, width) - 2 * grid.context - grid.overlap < grid.stride:
        return None
    return dataclasses.replace(grid, tile=(height, width))


def core_starts(grid: Grid, size: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Returns where cores begin, down and across."""
    down, across = (
        starts(length, core=core, overlap=grid.overlap, stride=grid.stride)
        for length, core in zip(size, grid.core, strict=True)
    )
    return down, across


def computed(grid: Grid, size: tuple[int, int]) -> int:
    """Returns the pixels that tiles compute of an image of a height and width."""
    down, across = core_starts(grid, size)
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


def starts(length: int, *, core: int, overlap: int, stride: int) -> list[int]:
    """Returns where the cores begin that cover `length` pixels.

    They lie on the model's pooling grid, the last one as far back as the grid
    allows, and neighbours share at least `overlap` pixels.

    Args:
      length: pixels to cover.
      core: pixels a core covers.
      overlap: pixels that neighbours share at least, less than core.
      stride: the pooling grid.

    Returns:
      Ascending multiples of `stride`, from 0.
    """
    step = (core - overlap) // stride * stride
    last = max(0, -(-(length - core) // stride) * stride)
    return [*range(0, last, step), last]
