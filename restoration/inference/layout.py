"""How the tiles of an image lie: their size, context and overlap."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from restoration.base import errors
from restoration.models import apply

# Cores overlap by so many pixels, unless another number is given.
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
      edge: pixels by which the image is continued beyond its own edges, a multiple of
        the stride and at most the context; None: as many as the context.
    """

    tile: tuple[int, int]
    context: int
    overlap: int
    stride: int
    batch: int
    edge: int | None = None

    @property
    def border(self) -> int:
        """Pixels by which the image is continued beyond its edges."""
        return self.context if self.edge is None else self.edge

    @property
    def core(self) -> tuple[int, int]:
        """Height and width of what is used of a tile inside an image, pixels."""
        height, width = self.tile
        return height - 2 * self.context, width - 2 * self.context

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where in a tile everything lies that is ever used of one."""
        height, width = self.tile
        return (
            slice(self.border, height - self.border),
            slice(self.border, width - self.border),
        )


class Core(NamedTuple):
    """What is used of a tile, along one axis.

    Attributes:
      start: where it begins in the image.
      first: where it begins in the tile.
      length: pixels.
    """

    start: int
    first: int
    length: int


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


def without_context(model: Any, *, batch: int) -> Grid:
    """Returns the grid of a model that sees tiles of one size alone, `model.tile`.

    All of a tile is used, and neighbors are blended over `model.overlap` pixels. No
    tile reaches beyond a picture that is as large as a tile: each is computed alone, so
    they need not lie on the grid of the model's pooling.
    """
    return Grid((model.tile, model.tile), 0, model.overlap, 1, batch)


def halved(grid: Grid) -> Grid | None:
    """Returns a grid that needs about half the memory, or None below the least.

    Tiles without context keep their size, see `without_context`.
    """
    if grid.batch > 1:
        return dataclasses.replace(grid, batch=grid.batch // 2)
    if not grid.context:
        return None
    height, width = (side // 2 // grid.stride * grid.stride for side in grid.tile)
    if min(height, width) - 2 * grid.context - grid.overlap < grid.stride:
        return None
    return dataclasses.replace(grid, tile=(height, width))


def _cores(length: int, side: int, grid: Grid) -> list[Core]:
    """Returns the cores along an axis of so many pixels, of tiles of a side."""
    border, context = grid.border, grid.context
    inside = side - 2 * context
    # Where tiles begin, counted from the first one.
    positions = starts(
        length + 2 * border,
        core=side,
        overlap=side - inside + grid.overlap,
        stride=grid.stride,
    )
    found = []
    for position in positions:
        first = border if position == 0 else context
        last = side - (border if position == positions[-1] else context)
        found.append(Core(position - border + first, first, last - first))
    return found


def cores(grid: Grid, size: tuple[int, int]) -> tuple[list[Core], list[Core]]:
    """Returns the cores of an image of a height and width, down and across.

    A tile at the image's edge is used up to there, and needs no more context on that
    side than `border`.
    """
    down, across = (
        _cores(length, side, grid) for length, side in zip(size, grid.tile, strict=True)
    )
    return down, across


def computed(grid: Grid, size: tuple[int, int]) -> int:
    """Returns the pixels that tiles compute of an image of a height and width."""
    down, across = cores(grid, size)
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
