"""Paints scanned dirt over images, on the device: the user's own kinds of damage.

The dirt is given as masks, the alpha channels of scanned images: uint8
(count, side, side), 255 where the image is covered completely. Position, size, angle,
color and opacity are random. As in `restoration.damage`, the key comes first, the image
second, and severity 0 changes no bit.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import ndimage

from restoration.damage import fields
from restoration.damage.paint import Painted, paint

# Expected and largest number of masks at severity 1 on a square of 384 units.
_EXPECTED, _MOST = 6.0, 12

# Largest distance of a mask's center from the image, in units.
_MARGIN = 80

# Range of the scale of masks.
_ZOOM = (0.4, 1.25)


def _colors(each, common) -> jax.Array:
    """Returns (N, 3) colors: dark or bright, and one in seven of any color."""
    dark = 0.3 * each.tone**1.5
    bright = 1.0 - 0.4 * each.tone**1.3
    # 30 % of the images have only dark dirt, 40 % only bright dirt.
    is_bright = each.bright < jnp.clip(3.3 * common.share - 1.0, 0, 1)
    grey = jnp.where(is_bright, bright, dark)[:, None]
    hue = jnp.stack([each.red, each.green, each.blue], axis=-1)
    tinted = grey + 0.1 * (hue - 0.5)
    return jnp.where((each.colored < 1 / 7)[:, None], hue, tinted)


def _seen(
    mask: jax.Array, each, shape: tuple[int, int], *, zoom: jax.Array
) -> jax.Array:
    """Returns (H, W) in [0, 1]: a mask, rotated, scaled and moved to its position."""
    rows, columns = jnp.meshgrid(*map(jnp.arange, shape), indexing="ij")
    down, right = rows - each.row, columns - each.column
    sin, cos = jnp.sin(each.angle) / zoom, jnp.cos(each.angle) / zoom
    mirror = jnp.where(each.mirror < 0.5, -1.0, 1.0)
    middle = (mask.shape[0] - 1) / 2
    coordinates = [down * cos - right * sin + middle]
    coordinates.append(mirror * (down * sin + right * cos) + middle)
    return ndimage.map_coordinates(mask, coordinates, order=1).astype(jnp.float32) / 255


def random_overlays(
    key: jax.Array,
    image: jax.Array,
    masks: jax.Array,
    *,
    severity: jax.typing.ArrayLike,
) -> Painted:
    """Paints some of the masks over an image.

    Args:
      key: PRNG key.
      image: (H, W, 3) in [0, 1].
      masks: uint8 (count, side, side), the opacity of scanned dirt.
      severity: 0 none, 1 about six masks on a square of 384 pixels.

    Returns:
      The image and the (H, W) opacity of the masks.
    """
    shape, masks = image.shape[:2], jnp.asarray(masks)
    severity, scale = fields.limited(severity), fields.unit(shape)
    extent = fields.area(shape, margin=_MARGIN)
    slots = max(2, math.ceil(_MOST * extent))
    common, each = fields.draw(
        key,
        ((), {"rounding": (0, 1), "amount": (0, 1), "share": (0, 1)}
         | {"strength": (0.5, 1), "zoom": (0.8, 1.25)}),
        (
            (slots,),
            {"which": (0, 1), "row": (0, 1), "column": (0, 1), "mirror": (0, 1)}
            | {"angle": (0, 2 * math.pi), "zoom": _ZOOM, "opacity": (0.3, 1)}
            | {"tone": (0, 1), "bright": (0, 1), "colored": (0, 1)}
            | {"red": (0, 1), "green": (0, 1), "blue": (0, 1)},
        ),
    )  # fmt: skip
    expected = _EXPECTED * severity * fields.spread(common.amount, octaves=1.5)
    exists = fields.count(common.rounding, expected * extent, slots)
    margin = _MARGIN * scale
    each.row = each.row * (shape[0] + 2 * margin) - margin
    each.column = each.column * (shape[1] + 2 * margin) - margin
    which = (each.which * masks.shape[0]).astype(jnp.int32)
    zoom = scale * common.zoom * each.zoom
    placed = {
        name: getattr(each, name) for name in ("row", "column", "angle", "mirror")
    }

    def draw_one(one):
        which, zoom, placed = one
        placement = type(each)(**placed)
        return _seen(masks[which], placement, shape, zoom=zoom)

    # A loop draws each mask once. Fused with the painting, it would be drawn again for
    # every color.
    seen = lax.map(draw_one, (which, zoom, placed))
    opacity = exists * common.strength * each.opacity
    return paint(
        image,
        opacity=opacity[:, None, None] * seen,
        color=_colors(each, common),
    )
