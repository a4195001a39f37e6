"""MSE, PSNR and SSIM of each image, as `tf.image` computes them.

Images are float NHWC RGB in [0, 1]. SSIM: Gaussian window 11×11 with σ 1.5,
K1 0.01, K2 0.03, the valid region, mean over pixels and channels (Wang et al.,
"Image Quality Assessment: From Error Visibility to Structural Similarity",
2004). `PROTOCOL` is printed beside every number.
"""

import jax.numpy as jnp
import numpy as np

from restoration.base import errors

PROTOCOL = (
    "RGB in [0, 1]; PSNR and SSIM for each image (Gaussian 11x11, sigma 1.5, "
    "valid region), then averaged; an exact match counts as 100 dB"
)

# The mean PSNR over images needs a finite value for an exact match.
PSNR_LIMIT = 100.0

# Side of SSIM's window, pixels.
WINDOW = 11
_SIGMA = 1.5


def mse(image: jnp.ndarray, target: jnp.ndarray) -> jnp.ndarray:
    """Mean squared error.

    Args:
      image: float (batch, height, width, channels) in [0, 1].
      target: of the same shape.

    Returns:
      float32 (batch,).
    """
    difference = image.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(difference), axis=(1, 2, 3))


def psnr(image: jnp.ndarray, target: jnp.ndarray) -> jnp.ndarray:
    """Peak signal-to-noise ratio in dB, -10·log10(MSE); infinite for a match.

    Args:
      image: float (batch, height, width, channels) in [0, 1].
      target: of the same shape.

    Returns:
      float32 (batch,).
    """
    return -10 * jnp.log10(mse(image, target))


def _blur(x: jnp.ndarray) -> jnp.ndarray:
    """Applies the Gaussian window over height and width, valid region.

    Computed as shifted multiply-adds: exact float32 on every backend (a convolution
    would use TF32 on a GPU) and faster on a CPU than a grouped convolution.
    """
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(distance**2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).astype(np.float32)
    height, width = x.shape[1] - WINDOW + 1, x.shape[2] - WINDOW + 1
    x = sum(w * x[:, i : i + height] for i, w in enumerate(weights))
    return sum(w * x[:, :, i : i + width] for i, w in enumerate(weights))


def ssim(image: jnp.ndarray, target: jnp.ndarray) -> jnp.ndarray:
    """Structural similarity (Wang et al. 2004, equation 13).

    Args:
      image: float (batch, height, width, channels) in [0, 1].
      target: of the same shape.

    Returns:
      float32 (batch,), 1 for equal images.

    Raises:
      InputError: for images smaller than the 11×11 window.
    """
    if min(image.shape[1:3]) < WINDOW:
        raise errors.InputError(
            f"SSIM needs images of at least {WINDOW}×{WINDOW} pixels, "
            f"got {image.shape[1]}×{image.shape[2]}"
        )
    # A shift leaves variances as they are, and smaller values lose less precision to
    # the cancellation in E[x²] - E[x]².
    x, y = image.astype(jnp.float32), target.astype(jnp.float32)
    shift_x, shift_y = (jnp.mean(z, axis=(1, 2), keepdims=True) for z in (x, y))
    x, y = x - shift_x, y - shift_y
    mean_x, mean_y = _blur(x), _blur(y)
    variances = _blur(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + shift_x, mean_y + shift_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def all_metrics(image: jnp.ndarray, target: jnp.ndarray) -> dict[str, jnp.ndarray]:
    """Returns MSE, PSNR and SSIM, each (batch,), PSNR limited to 100 dB."""
    return {
        "mse": mse(image, target),
        "psnr": jnp.minimum(psnr(image, target), PSNR_LIMIT),
        "ssim": ssim(image, target),
    }
