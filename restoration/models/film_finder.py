"""The network that finds damage in a frame of a film, given its neighbours.

It is small: a film has many frames. What it is shown is prepared by
`film.over_time.finder_input`; neighbours lie there as they look along the motion.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from restoration.models import layers, nafnet

# Weights are stored by this name.
NAME = "film_finder"

# What `finder_input` gives, and of how many references to choose from.
CHANNELS = 11
REFERENCES = 4


class FilmFinder(nn.Module):
    """NAFNet's blocks at 1/4 and 1/8 of the size; plain convolutions at 1/2.

    It begins by finding nothing and preferring no reference.

    Attributes:
      width: channels at half resolution; they double with each level.
    """

    stride: ClassVar[int] = 8

    width: int = 16

    @nn.compact
    def __call__(self, inputs: jnp.ndarray) -> jnp.ndarray:
        """Looks at frames.

        Args:
          inputs: float32 (batch, height, width, CHANNELS), sides multiples of 8.

        Returns:
          float32 (batch, height, width, 1 + REFERENCES): the logit of damage, and what
          is added to the logarithm of each reference's weight in the fill.
        """
        x = layers.Conv3x3(self.width, name="intro")(nafnet.fold(inputs))
        first = x = nn.relu(x)
        x = nn.Dense(2 * self.width, name="down_1")(nafnet.fold(x))
        x = nafnet.Block(name="encoder_2")(x)
        second = x
        x = nn.Dense(4 * self.width, name="down_2")(nafnet.fold(x))
        for number in (1, 2):
            x = nafnet.Block(name=f"middle_{number}")(x)
        up = nn.Dense(8 * self.width, use_bias=False, name="up_2")
        x = layers.depth_to_space(up(x)) + second
        x = nafnet.Block(name="decoder_2")(x)
        up = nn.Dense(4 * self.width, use_bias=False, name="up_1")
        x = layers.depth_to_space(up(x)) + first
        x = nn.relu(layers.Conv3x3(self.width, name="decoder_1")(x)) + first
        outputs = nn.Dense(
            4 * (1 + REFERENCES), kernel_init=nn.initializers.zeros, name="outro"
        )(x)
        return layers.depth_to_space(outputs)


def abstract_parameters() -> Any:
    """Returns the shapes and types of the parameters without computing."""
    inputs = jax.ShapeDtypeStruct((1, 32, 32, CHANNELS), jnp.float32)
    return jax.eval_shape(FilmFinder().init, jax.random.key(0), inputs)
