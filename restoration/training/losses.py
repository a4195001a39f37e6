"""Training losses: (restored, truth) float NHWC -> one value an image."""

from collections.abc import Callable

import jax.numpy as jnp

from restoration.evaluation import metrics

Loss = Callable[[jnp.ndarray, jnp.ndarray], jnp.ndarray]


def l1(image: jnp.ndarray, reference: jnp.ndarray) -> jnp.ndarray:
    """Mean absolute error, (batch,)."""
    return jnp.mean(jnp.abs(image - reference), axis=(1, 2, 3))


def charbonnier(image: jnp.ndarray, reference: jnp.ndarray) -> jnp.ndarray:
    """Mean of √(d² + ε²), ε = 1e-3, (batch,) (Lai et al. 2017, LapSRN, eq. 2)."""
    squared = jnp.square(image - reference)
    return jnp.mean(jnp.sqrt(squared + 1e-6), axis=(1, 2, 3))


def psnr(image: jnp.ndarray, reference: jnp.ndarray) -> jnp.ndarray:
    """Negative PSNR, 10·log10(MSE + ε) dB, (batch,) (Chen et al. 2021, HINet).

    An image counts for what it gains in dB, however damaged it is. With ε = 1e-4, where
    theirs is 1e-8, those better than 40 dB count less and less.
    """
    return 10 * jnp.log10(metrics.mse(image, reference) + 1e-4)


LOSSES: dict[str, Loss] = {
    "mse": metrics.mse,
    "l1": l1,
    "charbonnier": charbonnier,
    "psnr": psnr,
}


def make_loss(name: str, *, ssim_weight: float = 0.0) -> Loss:
    """Returns the loss `name` + ssim_weight · (1 - SSIM)."""
    pixel = LOSSES[name]
    if not ssim_weight:
        return pixel
    return lambda image, reference: (
        pixel(image, reference) + ssim_weight * (1 - metrics.ssim(image, reference))
    )
