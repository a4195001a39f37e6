"""Exact effects that cover the image; they return (image, mask).

The objects of a call share a few colors: `color` is (L, 3), and `layer` is the index of
each object's color. Layers are painted over each other in order.
"""

import jax
import jax.numpy as jnp

from restoration.damage import fields

Painted = tuple[jax.Array, jax.Array]

# An opacity below a third of a step of 8 bits is not seen: it is not painted.
_LEAST_OPACITY = 1 / 768


def paint(image: jax.Array, *, opacity: jax.Array, color: jax.Array) -> Painted:
    """Paints colors over an image, one after the other.

    Each color gives image + opacity * (color - image).

    Args:
      image: (H, W, 3) in [0, 1].
      opacity: (L, H, W) in [0, 1]; below 1/768 nothing is painted.
      color: (L, 3), or (L, H, W, 3) where it varies, RGB in [0, 1].

    Returns:
      The image and the mask: 1 minus the visible share of the image.
    """
    opacity = jnp.clip(opacity, 0, 1)
    opacity = jnp.where(opacity < _LEAST_OPACITY, 0.0, opacity)
    clear = jnp.ones(image.shape[:2])
    for layer, one_color in zip(opacity, jnp.clip(color, 0, 1), strict=True):
        image = image + layer[..., None] * (one_color - image)
        clear = clear * (1 - layer)
    return jnp.clip(image, 0, 1), 1 - clear


def vertical_scratches(
    image: jax.Array,
    *,
    x: jax.Array,
    width: jax.Array,
    opacity: jax.Array,
    layer: jax.Array,
    color: jax.Array,
) -> Painted:
    """Paints running scratches: vertical lines, antialiased.

    Args:
      image: (H, W, 3) in [0, 1].
      x: (N, H) column of each line's middle in each row, in pixels.
      width: (N,) in pixels. A pixel's opacity is the share of its width that is
        covered by the line.
      opacity: (N, H) in [0, 1].
      layer: (N,) int, the index of the color.
      color: (L, 3) RGB in [0, 1].

    Returns:
      The image and the mask.
    """
    column = jnp.arange(image.shape[1])
    x, half = x[..., None], width[:, None, None] / 2
    cover = jnp.minimum(column + 0.5, x + half) - jnp.maximum(column - 0.5, x - half)
    drawn = opacity[..., None] * jnp.maximum(cover, 0)
    layers = jnp.arange(len(color))[:, None, None, None]
    mine = layer[:, None, None] == layers
    return paint(image, opacity=jnp.max(drawn * mine, axis=1), color=color)


def strokes(
    image: jax.Array,
    *,
    points: jax.Array,
    width: jax.Array,
    opacity: jax.Array,
    layer: jax.Array,
    color: jax.Array,
    reach: int,
) -> Painted:
    """Paints curves, such as hairs, threads and scratches; short thick ones are spots.

    Args:
      image: (H, W, 3) in [0, 1].
      points: (N, P, 2) row and column of points along each curve in pixels, at most
        a pixel or half the width apart.
      width: (N, P) in pixels, at most 2 * reach.
      opacity: (N, P) in [0, 1].
      layer: (N,) int, the index of the color.
      color: (L, 3) RGB in [0, 1].
      reach: static half-width of the brush in pixels.

    Returns:
      The image and the mask.
    """
    drawn = fields.discs(
        image.shape[:2],
        layer=jnp.repeat(layer, points.shape[1]),
        centre=points.reshape(-1, 2),
        radius=width.reshape(-1) / 2,
        opacity=opacity.reshape(-1),
        layers=len(color),
        reach=reach,
    )
    return paint(image, opacity=drawn, color=color)


def specks(
    image: jax.Array,
    *,
    noise: jax.Array,
    threshold: jax.Array,
    softness: jax.typing.ArrayLike,
    opacity: jax.typing.ArrayLike,
    color: jax.Array,
) -> Painted:
    """Paints dust: specks where fine noise is above a threshold.

    Args:
      image: (H, W, 3) in [0, 1].
      noise: (L, H, W), of variance 1 by convention.
      threshold: (L, H, W); lower where dust is dense.
      softness: height above the threshold with full opacity, > 0.
      opacity: in [0, 1].
      color: (L, 3) RGB in [0, 1].

    Returns:
      The image and the mask.
    """
    rise = jnp.clip((noise - threshold) / softness, 0, 1)
    return paint(image, opacity=opacity * rise, color=color)


def blotches(
    image: jax.Array,
    *,
    distance: jax.Array,
    softness: jax.typing.ArrayLike,
    opacity: jax.Array,
    color: jax.Array,
    rim: jax.typing.ArrayLike = 0.0,
    rim_width: jax.typing.ArrayLike = 1.0,
) -> Painted:
    """Paints shapes: clumps of dirt, stains.

    Args:
      image: (H, W, 3) in [0, 1].
      distance: (L, H, W) to the edge in pixels, positive inside; see
        `fields.blobs`.
      softness: width of the edge's ramp in pixels, > 0.
      opacity: (L, H, W) in [0, 1].
      color: (L, 3) RGB in [0, 1].
      rim: share by which opacity is higher at the edge, as in a dried drop.
      rim_width: width of the rim in pixels, > 0.

    Returns:
      The image and the mask.
    """
    inside = jnp.clip(distance / softness + 0.5, 0, 1)
    ring = 1 + rim * jnp.exp(-jnp.maximum(distance, 0) / rim_width)
    return paint(image, opacity=opacity * inside * ring, color=color)


def cue_mark(
    image: jax.Array,
    *,
    centre: jax.Array,
    radius: jax.typing.ArrayLike,
    aspect: jax.typing.ArrayLike,
    ring: jax.typing.ArrayLike,
    opacity: jax.typing.ArrayLike,
    color: jax.Array,
) -> Painted:
    """Paints a cue mark: the ellipse, often with a ring, at the end of a reel.

    Args:
      image: (H, W, 3) in [0, 1].
      centre: (2,) row and column in pixels.
      radius: vertical half-axis in pixels.
      aspect: horizontal by vertical axis; 1 is a circle.
      ring: width of the ring within the edge, in pixels.
      opacity: in [0, 1].
      color: (2, 3) RGB in [0, 1] of the ring and of the inside.

    Returns:
      The image and the mask.
    """
    rows, columns = jnp.ogrid[: image.shape[0], : image.shape[1]]
    distance = radius - jnp.hypot(rows - centre[0], (columns - centre[1]) / aspect)
    inside = jnp.clip(
        distance - jnp.stack([0.0 * ring, ring])[:, None, None] + 0.5, 0, 1
    )
    return paint(image, opacity=opacity * inside, color=color)


def creases(
    image: jax.Array,
    *,
    distance: jax.Array,
    width: jax.Array,
    opacity: jax.Array,
    shadow: jax.Array,
    shadow_width: jax.Array,
    color: jax.Array,
) -> Painted:
    """Paints folds: lines where the emulsion cracked, and their shadows.

    Args:
      image: (H, W, 3) in [0, 1].
      distance: (N, H, W) signed distance to each fold's line, in pixels.
      width: (N, H, W) of the crack in pixels; 0 or less where it is closed.
      opacity: (N, H, W) of the crack in [0, 1].
      shadow: (N, H, W) opacity in [0, 1] of the side of positive distance.
      shadow_width: (N,) width of the shadow in pixels, > 0.
      color: (2, 3) RGB in [0, 1] of the shadow and of the crack.

    Returns:
      The image and the mask.
    """
    far = jnp.abs(distance)
    dark = shadow * jnp.exp(-far / shadow_width[:, None, None]) * (distance > 0)
    crack = opacity * jnp.clip(width / 2 + 0.5 - far, 0, 1) * (width > 0)
    drawn = jnp.stack([dark.max(axis=0), crack.max(axis=0)])
    return paint(image, opacity=drawn, color=color)


def missing(
    image: jax.Array,
    *,
    distance: jax.Array,
    rim: jax.Array,
    color: jax.Array,
) -> Painted:
    """Removes a part of the image, with a rim of torn paper.

    Args:
      image: (H, W, 3) in [0, 1].
      distance: (H, W) to the tear in pixels, positive in the missing part.
      rim: (H, W) width of the rim in pixels; 0 for none.
      color: (2, 3) RGB in [0, 1] of the torn paper and of the background.

    Returns:
      The image and the mask.
    """
    torn = jnp.clip(distance + rim + 0.5, 0, 1) * jnp.clip(rim, 0, 1)
    gone = jnp.clip(distance + 0.5, 0, 1)
    return paint(image, opacity=jnp.stack([torn, gone]), color=color)
