"""What of a picture stays as it was though a network would change it.

Color and tone stay by a `Rule`; what is no damage stays by `hold_change`, the gate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from restoration.base.luma import BT601
from restoration.models import nafnet

# Changes of lightness wider than about this many pixels are tone, as far as they are no
# larger than this, of 1: what is, is dirt that was filled.
_TONE_RADIUS, _TONE = 32, 0.1


# The same where colors may change: it costs the film track 0.09 dB, and halves what is
# falsely shaded on prints.
_FAINT_TONE = 0.05


# Changes of color wider than about this many pixels are wide: on the film track
# without them PSNR falls by 0.01 dB, and on prints they are blotches.
_COLOR_RADIUS = 14


# Where no damage was found within so many pixels, no value changes by more than the
# limit, of 1: small specks that belong there (stars, glints) stay. It opens over the
# pixels of the ramp, so that no edge is seen. As measured on the benchmark's films, the
# gate costs 0.04 dB.
_GATE_RADIUS, _GATE_RAMP, _GATE_LIMIT = 7, 3, 10 / 255


# What a grey value is made of, as in Rec. 601.
_LUMA = BT601


class Rule(NamedTuple):
    """What of the images stays though the model would change it.

    Attributes:
      apply: of images and restored ones, such as `preserve_color`.
      radius: pixels around one that its result depends on, beyond the model's halo.
    """

    apply: Callable[[jnp.ndarray, jnp.ndarray], jnp.ndarray]
    radius: int


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


def preserve_color(images: jnp.ndarray, restored: jnp.ndarray) -> jnp.ndarray:
    """Returns the images with the restored structure, their color and tone.

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


def preserve_shades(images: jnp.ndarray, restored: jnp.ndarray) -> jnp.ndarray:
    """Returns the restored images without what is wide and only shades or tints.

    Which colors and tones a picture has as a whole, a network does not see in a tile.
    Changes of color wider than some 14 pixels are taken out, and of changes of
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


COLOR = Rule(preserve_color, _TONE_RADIUS)


SHADES = Rule(preserve_shades, _TONE_RADIUS)


def hold_change(
    images: jnp.ndarray, restored: jnp.ndarray, found: jnp.ndarray
) -> jnp.ndarray:
    """Returns the restored images, with small changes only where nothing was found.

    Args:
      images: float (batch, height, width, 3) before.
      restored: the same images after.
      found: float (batch, height, width, 1), 1 where damage was found, else 0.

    Returns:
      float of the same shape. Within `_GATE_RADIUS` pixels of what was found it is
      `restored`; where 1 is all of `found`, it is exactly so.
    """
    near = nafnet.over_square(found, _GATE_RADIUS + _GATE_RAMP, jnp.maximum, 0.0)
    for axis in (1, 2):
        near = _box(near, _GATE_RAMP, axis)
    limit = _GATE_LIMIT + near
    held = images + jnp.clip(restored - images, -limit, limit)
    return jnp.where(near >= 1 - 1e-3, restored, held)


# Pixels around one that the gate looks at.
GATE_RADIUS = _GATE_RADIUS + 2 * _GATE_RAMP


def restoring(
    model: Any, rule: Rule | None
) -> Callable[[Any, jnp.ndarray], jnp.ndarray]:
    """Returns apply(parameters, tiles): a model with all that it may not change.

    Args:
      model: Flax module.
      rule: what of color and tone stays.

    Returns:
      A function of parameters and float (batch, height, width, 4), images and where
      they may be changed freely (1) or little (0), that gives float (batch, height,
      width, 3).
    """

    def apply(parameters: Any, tiles: jnp.ndarray) -> jnp.ndarray:
        images, found = tiles[..., :3], tiles[..., 3:]
        restored = jnp.clip(model.apply(parameters, images), 0, 1)
        if rule:
            restored = jnp.clip(rule.apply(images, restored), 0, 1)
        return hold_change(images, restored, found)

    return apply
