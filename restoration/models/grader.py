"""The network that estimates an image's grade, see `restoration.inference.grade`."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from restoration.base import luma

# Weights are stored under this name.
NAME = "grade"

# The image is averaged over a grid of CELLS × CELLS cells.
CELLS = 64

_LUMA = np.array(luma.BT601, np.float32)

# Bins of a histogram, from 0 to 1.
_BINS = 24


class Cells(NamedTuple):
    """The mean colors of an image's cells.

    Attributes:
      colors: float32 (CELLS², 3) in [0, 1].
      weights: float32 (CELLS²,), the share of each cell in the image; the sum is 1.
    """

    colors: Any
    weights: Any


def _histograms(cells: Cells) -> jnp.ndarray:
    """Returns soft histograms of colors, luma, saturation and color differences.

    Args:
      cells: with a leading batch axis.

    Returns:
      (batch, 7 * bins): the square root of the share of the image in each bin.
    """
    colors = cells.colors
    red, green, blue = (colors[..., c : c + 1] for c in range(3))
    saturation = colors.max(-1, keepdims=True) - colors.min(-1, keepdims=True)
    brightness = (colors @ _LUMA)[..., None]
    values = [colors, brightness, saturation, red - green + 0.5, blue - green + 0.5]
    values = jnp.concatenate(values, -1)
    distance = jnp.abs(values[..., None] - jnp.linspace(0, 1, _BINS)) * (_BINS - 1)
    # XLA fuses this sum; a matrix product would store the whole array first.
    weights = cells.weights[..., None, None]
    share = (jnp.maximum(1 - distance, 0) * weights).sum(1)
    # The root gives rare colors, such as the darkest, more weight.
    return 3 * jnp.sqrt(jnp.maximum(share, 1e-12)).reshape(len(colors), -1)


class Grader(nn.Module):
    """Estimates a grade from color histograms; untrained it is the identity.

    Attributes:
      dropout: share of the features that are dropped, in training.
    """

    dropout: float = 0.0

    @nn.compact
    def __call__(self, cells: Cells) -> jnp.ndarray:
        """Maps cells with a leading batch axis to polynomials (batch, 7, 3).

        If `dropout` is not 0, `apply` needs a key of that name in `rngs`.
        """
        x = nn.gelu(nn.Dense(96, name="histograms")(_histograms(cells)))
        x = nn.Dropout(self.dropout, deterministic=not self.dropout)(x)
        x = nn.gelu(nn.Dense(64, name="hidden")(x))
        last = nn.Dense(21, kernel_init=nn.initializers.zeros, name="polynomials")
        return 0.3 * last(x).reshape(-1, 7, 3)


def abstract_parameters() -> Any:
    """Returns the shapes and dtypes of the parameters, computing nothing."""
    shapes = (1, CELLS**2, 3), (1, CELLS**2)
    cells = Cells(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    return jax.eval_shape(Grader().init, jax.random.key(0), cells)
