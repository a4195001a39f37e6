"""Metrics against scikit-image and tf.image on real photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import metrics as reference

from restoration.base import errors
from restoration.evaluation import metrics
from restoration.training import losses, train_config


@pytest.fixture(scope="module")
def cases(photographs):
    """Pairs (image, target) from 8 to 55 dB."""
    generator = np.random.default_rng(0)
    found = []
    for name, sigma in (
        ("astronaut", 0.5), ("chelsea", 0.1), ("coffee", 0.02), ("rocket", 0.002),
    ):  # fmt: skip
        target = photographs[name][60:220, 100:280]
        noise = generator.normal(0, sigma, target.shape).astype(np.float32)
        found.append((np.clip(target + noise, 0, 1), target))
    flat = np.full((64, 64, 3), 0.9, np.float32)
    found.append((flat + 0.01, flat))
    return found


def compute(function, image, target):
    return float(jax.jit(function)(image[None], target[None])[0])


def test_equal_to_scikit_image(cases):
    for image, target in cases:
        mse = reference.mean_squared_error(target, image)
        assert compute(metrics.mse, image, target) == pytest.approx(mse, rel=1e-5)
        psnr = reference.peak_signal_noise_ratio(
            target.astype(float), image.astype(float), data_range=1
        )
        assert compute(metrics.psnr, image, target) == pytest.approx(
            psnr, abs=1e-5 * 10
        )
        ssim = reference.structural_similarity(
            target.astype(float),
            image.astype(float),
            data_range=1,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert compute(metrics.ssim, image, target) == pytest.approx(ssim, abs=1e-5)


def test_equal_to_tf_image(cases):
    import tensorflow as tf

    for image, target in cases:
        psnr = float(tf.image.psnr(image, target, 1.0))
        if psnr > 40:  # tf.image itself drifts by 1e-3 at 54 dB
            continue
        assert compute(metrics.psnr, image, target) == pytest.approx(psnr, abs=1e-4)
        ssim = float(tf.image.ssim(image, target, 1.0))
        assert compute(metrics.ssim, image, target) == pytest.approx(ssim, abs=1e-4)


def test_every_image_has_its_own_value(cases):
    (first, target), (second, other) = cases[0], cases[1]
    images, targets = np.stack([first, second]), np.stack([target, other])
    values = metrics.all_metrics(images, targets)
    for name in ("mse", "psnr", "ssim"):
        single = metrics.all_metrics(second[None], other[None])[name]
        assert values[name].shape == (2,)
        np.testing.assert_allclose(values[name][1], single[0], rtol=1e-5)


def test_equal_images_have_the_highest_values(cases):
    _, target = cases[0]
    assert compute(metrics.psnr, target, target) == np.inf
    assert compute(metrics.ssim, target, target) == pytest.approx(1, abs=1e-6)
    values = metrics.all_metrics(target[None], target[None])
    assert float(values["psnr"][0]) == metrics.PSNR_LIMIT


def test_ssim_refuses_images_smaller_than_its_window():
    image = jnp.zeros((1, 10, 40, 3))
    with pytest.raises(errors.InputError, match="11×11 pixels, got 10×40"):
        metrics.ssim(image, image)


def test_losses_equal_their_formulas():
    assert tuple(losses.LOSSES) == train_config.LOSSES
    image, target = jnp.full((2, 16, 16, 3), 0.5), jnp.full((2, 16, 16, 3), 0.2)
    np.testing.assert_allclose(losses.LOSSES["mse"](image, target), 0.09, rtol=1e-5)
    np.testing.assert_allclose(losses.LOSSES["l1"](image, target), 0.3, rtol=1e-5)
    np.testing.assert_allclose(
        losses.LOSSES["charbonnier"](image, target), np.sqrt(0.09 + 1e-6), rtol=1e-5
    )
    np.testing.assert_allclose(
        losses.LOSSES["psnr"](image, target), 10 * np.log10(0.0901), rtol=1e-5
    )
    mixed = losses.make_loss("l1", ssim_weight=0.5)(image, target)
    ssim = metrics.ssim(image, target)
    np.testing.assert_allclose(mixed, 0.3 + 0.5 * (1 - ssim), rtol=1e-5)
