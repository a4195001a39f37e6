"""Restoring pictures in memory: the very pixels that `restore` writes."""

import contextlib
import functools
import tempfile
from typing import Any, NamedTuple

import numpy as np

from restoration.base import errors
from restoration.images import picture
from restoration.inference import engine, masks, restore_page

_DTYPES = ("uint8", "uint16", "float32")


class Restored(NamedTuple):
    """A restored picture.

    Attributes:
      image: of the shape and type that were given.
      damage: uint8 (height, width), 255 where damage was found or given, else 0; None
        where none was asked for.
      notes: what was done, and what was left.
    """

    image: np.ndarray
    damage: np.ndarray | None
    notes: tuple[str, ...]


def _page(image: np.ndarray) -> tuple[picture.Page, np.ndarray]:
    """Returns what an array is as a page, and its values (height, width, bands)."""
    values = image[..., None] if image.ndim == 2 else image
    if values.ndim != 3 or values.shape[-1] not in (1, 2, 3, 4) or not values.size:
        raise errors.InputError(
            f"an array of shape {image.shape} is no image; give (height, width) or "
            "(height, width, channels): grey or RGB, alpha after it"
        )
    if image.dtype not in _DTYPES:
        raise errors.InputError(
            f"an array of {image.dtype} is no image; give one of {', '.join(_DTYPES)}, "
            "floats in [0, 1]"
        )
    height, width, bands = values.shape
    colors = 1 if bands < 3 else 3
    page = picture.Page(
        0, width, height, bands, str(image.dtype), colors, alpha=bands > colors
    )
    return page, values


def _mask(name: str, mask: Any, page: picture.Page) -> Any:
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.shape[:2] != (page.height, page.width) or mask.size != mask[..., 0].size * (
        mask.shape[-1] if mask.ndim == 3 else page.width
    ):
        raise errors.InputError(
            f"{name}: a mask of shape {mask.shape} for an image of "
            f"{(page.height, page.width)}; make them equal"
        )
    return masks.array_rows(mask)


def restore_array(
    image: np.ndarray,
    restorer: engine.Engine,
    how: restore_page.How,
    *,
    damage: np.ndarray | None = None,
    keep: np.ndarray | None = None,
    infrared: np.ndarray | None = None,
) -> Restored:
    """Restores an image in memory.

    Args:
      image: uint8, uint16 or float32 in [0, 1], sRGB: (height, width) grey, or
        (height, width, channels) with 1, 2 (grey, alpha), 3 or 4 (RGB, alpha).
      restorer: from `engine.make_engine`.
      how: how.
      damage: (height, width), bool, uint8 or float in [0, 1]; white where damaged.
      keep: the same, black where nothing may be changed.
      infrared: (height, width), an infrared scan, uint8, uint16 or float in [0, 1].

    Returns:
      The restored image, and what was damaged.

    Raises:
      InputError: for arrays that are no image, masks of another size, and a mask of
        damage that is all white.
    """
    page, values = _page(image)
    strips: list[np.ndarray] = []
    given = masks.Given(
        damage=_mask("damage", damage, page),
        keep=_mask("keep", keep, page),
        infrared=_scan(infrared, page),
        name="damage",
    )
    with contextlib.ExitStack() as stack:
        mask, notes = restore_page.restore_page(
            page,
            functools.partial(_blocks, values),
            restorer,
            how,
            given,
            folder=tempfile.gettempdir(),
            stack=stack,
            write=lambda strip: strips.append(strip.values),
        )
        found = mask and np.concatenate(list(mask.rows()))[..., 0]
    restored = np.concatenate(strips).reshape(image.shape)
    return Restored(restored, found, tuple(notes))
