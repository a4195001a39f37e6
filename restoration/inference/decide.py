"""Which pixels are damaged: from what was found, and what a user says, to a mask.

A missed crack is a pity, a lost sleeve or eye a fault. So what is wide has to be more
certain than what is thin, and so has what lies dense over a whole area, such as lace,
lettering or polka dots. All limits stand here; `python -m
experiments.pretrain.mask_limits` shows what others would give and take.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from restoration.inference import layout
from restoration.models import filler, nafnet


class Limits(NamedTuple):
    """From which probability of damage on a pixel counts as damaged; above 1: never.

    Attributes:
      thin: in lines and specks.
      wide: in what is wide, or lies dense.
      near: in what hangs together with such, as the rest of a crack does.
    """

    thin: float
    wide: float
    near: float


# At --sensitivity=0.5, and by how much the limits' logits fall from 0 to 1.
_LIMITS = Limits(thin=0.88, wide=0.9, near=0.78)
_LOGITS = 6.0

# Wide is what squares of so many pixels, 2 radius + 1, fit into. Around what is wide
# and certain, damage that is likely is taken up to so many pixels on.
_WIDE_RADIUS, _RIM = 3, 4

# What is likely counts as certain where so much of what is likely around it is, within
# about so many pixels: a stain is filled as a whole, not in the parts that are certain.
_WHOLE_RADIUS, _WHOLE = 24, 0.5

# Dense is where this share of a square of 2 radius + 1 pixels is found.
_DENSE_RADIUS, _DENSE = 48, 0.3

# Damage goes on from where it is sure in so many steps of so many pixels.
_STEPS, _STEP = 12, 2

# Damage is a little wider than where it is certain.
_GROWN = 1

# What more than this share of a picture would be taken for is no damage.
MOST = 0.6

_HALO = _STEPS * _STEP + _DENSE_RADIUS + _RIM + 2 * _WIDE_RADIUS + _GROWN

# A mask as a picture of 8 bits is white, damage that somebody says is there, from here
# on; but for the values between, which tell how certain what was found is. So a mask
# that was found, corrected with a brush and given back stays what it was elsewhere.
_WHITE, _FOUND = 128, (240, 254)


# What each value of a mask in 8 bits means.
_MEANT = np.float32(np.arange(256) >= _WHITE)
_MEANT[_FOUND[0] : _FOUND[1] + 1] = filler.certainty(
    np.linspace(0, 1, _FOUND[1] - _FOUND[0] + 1)
)


class _Decision:
    """What tiling needs to know."""

    halo, stride = _HALO, 1


GRID = layout.make_grid(_Decision, tile=(1024, 1024), overlap=1)


def limits(sensitivity: float) -> Limits:
    """Returns the limits of a sensitivity, 0 (nothing is damage) to 1 (all may be)."""
    if sensitivity <= 0:
        return Limits(2.0, 2.0, 2.0)
    shift = (0.5 - sensitivity) * _LOGITS

    def moved(limit: float) -> float:
        if limit >= 1:
            return limit
        return 1 / (1 + math.exp(-(math.log(limit / (1 - limit)) + shift)))

    return Limits(*map(moved, _LIMITS))


def _greatest(x: jnp.ndarray, radius: int) -> jnp.ndarray:
    return nafnet.over_square(x, radius, jnp.maximum, 0.0)


def _opened(x: jnp.ndarray, radius: int) -> jnp.ndarray:
    """Returns the greatest, over squares that hold a pixel, of their least value."""
    return _greatest(nafnet.over_square(x, radius, jnp.minimum, 1.0), radius)


def _mean(x: jnp.ndarray, radius: int) -> jnp.ndarray:
    for axis in (1, 2):
        edges = [(0, 0)] * 4
        edges[axis] = (radius + 1, radius)
        sums, span = jnp.cumsum(jnp.pad(x, edges), axis=axis), 2 * radius + 1
        length = x.shape[axis]
        high = jax.lax.slice_in_dim(sums, span, span + length, axis=axis)
        x = (high - jax.lax.slice_in_dim(sums, 0, length, axis=axis)) / span
    return x


def _around(x: jnp.ndarray) -> jnp.ndarray:
    """Returns means that weigh what is near more: of means."""
    return _mean(_mean(x, _WHOLE_RADIUS // 2), _WHOLE_RADIUS // 2)


def given(values: np.ndarray) -> np.ndarray:
    """Returns what a mask in 8 bits, 0 to 255, means, float32; see `decide`."""
    return _MEANT[values.astype(np.uint8)]


def stored(mask: np.ndarray) -> np.ndarray:
    """Returns a mask, see `decide`, as uint8 that `given` takes back."""
    low, high = _FOUND
    least, most = filler.certainty(0.0), filler.certainty(1.0)
    share = np.clip((mask - least) / (most - least), 0, 1)
    found = np.rint(low + (high - low) * share)
    return np.where(mask >= 1, 255, np.where(mask > 0, found, 0)).astype(np.uint8)


def decide(limits: Limits, maps: jnp.ndarray) -> jnp.ndarray:
    """Returns the mask of damage.

    Args:
      limits: from `limits`.
      maps: float (batch, height, width, 3): the probability of damage; what a user
        gives, 1 where there is damage; 0 where a user says that nothing may be changed.

    Returns:
      float of (batch, height, width, 1): 1 where a user says that there is damage,
      `filler.certainty` where it was found, else 0.
    """
    probability, marked, allowed = (maps[..., c : c + 1] for c in range(3))
    likely = (probability >= limits.near).astype(jnp.float32)
    sure = (probability >= limits.thin).astype(jnp.float32)
    certain = (probability >= limits.wide).astype(jnp.float32)
    wide = _opened(likely, _WIDE_RADIUS)
    dense = (_mean(likely, _DENSE_RADIUS) >= _DENSE).astype(jnp.float32)
    # Thin parts of a wide thing, its fringe, are as certain as that thing must be.
    doubtful = jnp.maximum(_greatest(wide, _RIM), dense)
    # What holds the certain middle of something wide holds its likely rim too, and what
    # is certain in its greater part is certain.
    middle = _greatest(_opened(certain, _WIDE_RADIUS), _RIM)
    mostly = (_around(certain) >= _WHOLE * _around(likely)).astype(jnp.float32)
    certain = jnp.maximum(certain, mostly * _greatest(certain, _WHOLE_RADIUS) * likely)
    found = jnp.maximum(sure, certain)
    for _ in range(_STEPS):  # hysteresis, as Canny (1986) has it for edges
        found = _greatest(found, _STEP) * likely
    found = found * jnp.maximum(jnp.maximum(1 - doubtful, certain), middle)
    found = _greatest(found, _GROWN)
    found = found * filler.certainty(_greatest(probability, _GROWN))
    return jnp.maximum(found, marked) * (allowed > 0)


@jax.jit
def compute(limits: Limits, tiles: np.ndarray) -> jnp.ndarray:
    """Returns the cores of tiles of `GRID` that `decide` gives, as tiling needs them.

    Args:
      limits: from `limits`.
      tiles: uint8 values in float32 (batch, *GRID.tile, 3), as for `decide` times 255,
        what is given as `given` takes it.
    """
    marked = jnp.asarray(_MEANT)[tiles[..., 1:2].astype(jnp.uint8)]
    maps = jnp.concatenate(
        [tiles[..., :1] / 255, marked, tiles[..., 2:] / 255], axis=-1
    )
    return decide(limits, maps)[:, *GRID.inner]
