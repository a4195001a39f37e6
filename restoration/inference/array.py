"""Restoring pictures in memory: the very pixels that `restore` writes."""

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from restoration.base import errors
from restoration.images import picture
from restoration.inference import engine, masks, restore_page, rows

_DTYPES = ("uint8", "uint16", "float32")

# Rows that are handed on at once.
_ROWS = 256


class Restored(NamedTuple):
    """A restored picture.

    Attributes:
      image: of the shape and type that were given.
      damage: uint8 (height, width), 255 where damage was given, 240 to 254, by how
        certain it is, where it was found, else 0; None where none was asked for.
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


def _plane(name: str, plane: Any, page: picture.Page) -> rows.Read | None:
    """Returns rows of a plane beside the image, float32 (rows, width, 1) in [0, 1]."""
    if plane is None:
        return None
    plane = np.asarray(plane)
    if plane.shape != (page.height, page.width):
        raise errors.InputError(
            f"{name}: of shape {plane.shape} for an image of "
            f"{(page.height, page.width)}; make them equal"
        )
    white = {"uint8": 255, "uint16": 65535}.get(str(plane.dtype), 1)
    values = np.clip(plane.astype(np.float32) / np.float32(white), 0, 1)
    return functools.partial(_blocks, values[..., None])


def _mask(name: str, mask: Any, page: picture.Page) -> rows.Read | None:
    """Returns rows of a mask, uint8 (rows, width, 1)."""
    read = _plane(name, mask, page)
    return read and (lambda: (np.rint(255 * v).astype(np.uint8) for v in read()))


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    for top in range(0, len(values), _ROWS):
        yield values[top : top + _ROWS]


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
        infrared=_plane("infrared", infrared, page),
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


def load_model(
    name: str = "",
    *,
    workdir: str = "",
    tile: str = "auto",
    context: str = "auto",
    keep_color: bool = False,
    device: str = "auto",
) -> engine.Engine:
    """Loads a model once for many images; see `restore`'s options of the same names.

    Args:
      name: of shipped weights, "" for the best ones.
      workdir: a training run to use instead.
      tile: side of the tiles, pixels, or "auto".
      context: pixels around tiles, or "auto".
      keep_color: whether color and tone stay.
      device: "auto", "cpu", "gpu" or "tpu".

    Returns:
      What `restore_image` takes as its model.

    Raises:
      InputError: for an unknown model, unusable weights, a device that is not there.
    """
    if name and workdir:
        raise errors.InputError("give a model's name or a workdir, not both")
    return engine.make_engine(
        engine.load_weights(name, workdir),
        tile=tile,
        context=context,
        keep_color=keep_color,
        device=device,
    )


_load_once = functools.lru_cache(maxsize=4)(load_model)


def restore_image(
    image: np.ndarray,
    *,
    model: str | engine.Engine = "",
    damage: np.ndarray | None = None,
    keep: np.ndarray | None = None,
    infrared: np.ndarray | None = None,
    blind: bool = True,
    sensitivity: float = 0.5,
    only_damage: bool = False,
    negative: str = "auto",
    strength: float = 1.0,
    keep_color: bool = False,
) -> np.ndarray:
    """Restores an image: finds damage, fills it, restores and grades the rest.

    The pixels are those that `restore` writes for the image as a PNG file.

    Args:
      image: see `restore_array`.
      model: a name of shipped weights, "" for the best ones, or from `load_model`.
      damage: see `restore_array`; with `blind=False` nothing else is filled.
      keep: see `restore_array`.
      infrared: see `restore_array`.
      blind: whether damage is looked for.
      sensitivity: how readily something counts as damage, 0 to 1.
      only_damage: whether only what is damaged is changed.
      negative: "yes", "no", or "auto": color negatives are known by their mask.
      strength: 1 restores, 0 gives back the image.
      keep_color: whether color and tone stay; of a loaded model, ask `load_model`.

    Returns:
      The restored image, of the same shape and type.

    Raises:
      InputError: see `load_model` and `restore_array`.
    """
    if isinstance(model, str):
        model = _load_once(model, keep_color=keep_color)
    elif keep_color:
        raise errors.InputError("give keep_color to load_model, which made the model")
    how = restore_page.How(strength, blind, sensitivity, only_damage, negative)
    return restore_array(
        image, model, how, damage=damage, keep=keep, infrared=infrared
    ).image
