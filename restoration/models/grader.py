"""The network that estimates a picture's grade; see `restoration.inference.grade`."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Weights are stored by this name.
NAME = "grade"

# A picture is looked at as so many cells a side.
CELLS = 64

# Rec. 601.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# Places of a histogram, from 0 to 1.
_BINS = 24


class Cells(NamedTuple):
    """The colors of a picture, seen small.

    Attributes:
      colors: float32 (CELLS², 3) in [0, 1].
      weights: float32 (CELLS²,), the share of each in the picture; they add to 1.
    """

    colors: Any
    weights: Any


def _histograms(cells: Cells) -> jnp.ndarray:
    """Returns soft histograms of colors, luma, saturation and color differences.

    Args:
      cells: with a leading batch axis.

    Returns:
      (batch, 7 * bins): the square root of what share falls near each place.
    """
    colors = cells.colors
    red, green, blue = (colors[..., c : c + 1] for c in range(3))
    saturation = colors.max(-1, keepdims=True) - colors.min(-1, keepdims=True)
    luma = (colors @ _LUMA)[..., None]
    seen = [colors, luma, saturation, red - green + 0.5, blue - green + 0.5]
    seen = jnp.concatenate(seen, -1)
    near = jnp.abs(seen[..., None] - jnp.linspace(0, 1, _BINS)) * (_BINS - 1)
    # A sum, which XLA fuses; a product would store a hundred megabytes.
    weights = cells.weights[..., None, None]
    share = (jnp.maximum(1 - near, 0) * weights).sum(1)
    # The root brings rare colors, such as the blackest, within sight.
    return 3 * jnp.sqrt(jnp.maximum(share, 1e-12)).reshape(len(colors), -1)


class Grader(nn.Module):
    """Estimates a grade from histograms; it begins as the identity."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, cells: Cells) -> jnp.ndarray:
        """Maps cells with a leading batch axis to polynomials (batch, 7, 3).

        With `dropout` it needs a key named so.
        """
        x = nn.gelu(nn.Dense(96, name="histograms")(_histograms(cells)))
        x = nn.Dropout(self.dropout, deterministic=not self.dropout)(x)
        x = nn.gelu(nn.Dense(64, name="hidden")(x))
        last = nn.Dense(21, kernel_init=nn.initializers.zeros, name="polynomials")
        return 0.3 * last(x).reshape(-1, 7, 3)


def abstract_parameters() -> Any:
    """Returns the shapes and types of the parameters without computing."""
    shapes = (1, CELLS**2, 3), (1, CELLS**2)
    cells = Cells(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    return jax.eval_shape(Grader().init, jax.random.key(0), cells)
