"""How the tiles of an image lie: their size, context and overlap."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from restoration.base import errors
from restoration.inference import preserve
from restoration.models import apply

# Cores overlap by so many pixels, unless told otherwise.
RAMP = 16


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


def make_grid(
    model: Any,
    *,
    tile: tuple[int, int],
    ramp: int = RAMP,
    batch: int = 1,
    overlap: int = 0,
    keeping: preserve.Keeping | None = None,
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
    around = max(apply.margin(model), apply.on_grid(overlap, multiple))
    around += apply.on_grid(keeping.radius, multiple) if keeping else 0
    least = apply.on_grid(2 * around + ramp + multiple, multiple)
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


def core_starts(grid: Grid, size: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Returns where cores begin, down and across."""
    down, across = (
        starts(length, core=core, ramp=grid.ramp, multiple=grid.multiple)
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
