"""Initial weights with which an autoencoder shows its input."""

from typing import Any

import jax
import numpy as np


def _he(parameters: Any, seed: int) -> Any:
    """Draws kernels so that ReLU keeps the variance (He et al. 2015); biases 0."""
    generator = np.random.default_rng(seed)

    def drawn(path: tuple, leaf: Any) -> np.ndarray:
        if leaf.ndim == 1:
            return np.zeros(leaf.shape, np.float32)
        inputs = np.prod(leaf.shape[:3])
        if "upconv" in path[-2].key:  # a pixel sees a quarter of the taps
            inputs = inputs / 4
        noise = generator.standard_normal(leaf.shape, np.float32)
        return noise * np.sqrt(2 / inputs, dtype=np.float32)

    return jax.tree_util.tree_map_with_path(drawn, parameters)


def autoencoder(parameters: Any, seed: int) -> Any:
    """Returns initial weights with which an autoencoder shows its input, blurred.

    Keras' weights start both networks at grey. Here six channels carry the picture
    through each autoencoder: the three colors, of which pooling keeps the
    brightest, and their negatives, of which it keeps the darkest; tents enlarge
    both and the last convolution joins them, so that the sigmoid, which is nearly
    a line of slope 1/4 there, gives the color back. The others start as He's
    random weights, halved.

    Args:
      parameters: of the same shapes; the values are not read.
      seed: of the random weights.

    Returns:
      The weights, float32.
    """
    found = _he(parameters, seed)
    tent = np.float32([0.5, 1, 0.5])
    for stage in found["params"].values():
        for layer in stage.values():
            layer["kernel"] *= 0.5
        for name in ("conv_1", "conv_2", "upconv_1", "upconv_2"):
            stage[name]["kernel"][..., :6] = 0
        stage["conv_3"]["kernel"][:, :, :6] = 0
        stage["conv_1"]["bias"][3:6] = 1
        for color in range(3):
            stage["conv_1"]["kernel"][1, 1, color, color] = 1
            stage["conv_1"]["kernel"][1, 1, color, color + 3] = -1
            stage["conv_3"]["kernel"][1, 1, color, color] = 2
            stage["conv_3"]["kernel"][1, 1, color + 3, color] = -2
        for channel in range(6):
            stage["conv_2"]["kernel"][1, 1, channel, channel] = 1
            for name in ("upconv_1", "upconv_2"):
                stage[name]["kernel"][:, :, channel, channel] = np.outer(tent, tent)
    return found
