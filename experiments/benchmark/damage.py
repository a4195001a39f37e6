"""Measures damage, compared with OpenCV and NumPy, and with a training step.

    python -m experiments.benchmark damage

Measures the kinds that other training codes compute on the host (BasicSR's
degradations, GFPGAN's color jitter), one image at a time on one core. If JAX has an
accelerator, also batches there, and their share of a training step. OpenCV is optional;
without it, only ours is measured.
"""

import functools
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epy

from experiments.benchmark import interleaved

with epy.lazy_imports():
    import cv2
    import jax

    from experiments.benchmark import gpu_cases
    from restoration import damage
    from restoration.devices import backend

# The kinds that both have, in the order of their use.
KINDS = ("blur", "contrast", "cast", "weave", "grain", "jpeg")
_QUICK_KINDS = ("blur", "jpeg")

# Side of the images, and that of a quick run.
_SIDE, _QUICK_SIDE = 256, 64
_BATCH, _QUICK_BATCH = 64, 2
_ROUNDS, _SECONDS = 3, 0.5
_QUICK_ROUNDS, _QUICK_SECONDS = 1, 0.1

# Severity of the damage, which does not change the time.
_SEVERITY = 1.0

# The model whose training step a batch of damage is compared with.
_MODEL, _QUICK_MODEL = "nafnet_s", "basic"
_STEP = "training step"


def _pictures(count: int, side: int) -> np.ndarray:
    """Returns smooth pictures with some noise, (count, side, side, 3) in [0, 1]."""
    random = np.random.default_rng(0)
    waves = np.sin(np.linspace(0, 9, side)) / 4 + 0.5
    smooth = waves[:, None, None] * waves[None, :, None] + np.array([0.0, 0.1, 0.2])
    noisy = smooth + random.normal(0, 0.05, (count, side, side, 3))
    return np.clip(noisy, 0, 1).astype(np.float32)


# The same kinds on the host, as trainers write them: float32 (h, w, 3) in [0, 1].


def _blur(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (9, 9), random.uniform(0.1, 2.0))


def _contrast(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    pivot, factor = np.float32(random.uniform(0.3, 0.65)), random.uniform(0.8, 1.1)
    return np.clip(pivot + np.float32(factor) * (image - pivot), 0, 1)


def _cast(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    gain = random.uniform(0.7, 1.1, 3).astype(np.float32)
    return np.clip(image * gain, 0, 1)


def _weave(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    right, down = random.uniform(-0.35, 0.35, 2)
    shift = np.float32([[1, 0, right], [0, 1, down]])
    size = image.shape[1], image.shape[0]
    return cv2.warpAffine(image, shift, size, borderMode=cv2.BORDER_REPLICATE)


def _grain(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    noise = random.standard_normal(image.shape, np.float32)
    return np.clip(image + np.float32(random.uniform(0.01, 0.05)) * noise, 0, 1)


def _jpeg(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    options = [int(cv2.IMWRITE_JPEG_QUALITY), int(random.integers(40, 98))]
    _, encoded = cv2.imencode(".jpg", image * 255, options)
    return np.float32(cv2.imdecode(encoded, cv2.IMREAD_COLOR)) / 255


_ON_HOST: dict[str, Callable] = {
    "blur": _blur,
    "contrast": _contrast,
    "cast": _cast,
    "weave": _weave,
    "grain": _grain,
    "jpeg": _jpeg,
}


def on_host(
    random: np.random.Generator, image: np.ndarray, kinds: tuple[str, ...] = KINDS
) -> np.ndarray:
    """Damages an image with OpenCV and NumPy.

    Args:
      random: generator of the random parameters.
      image: float32 (h, w, 3) in [0, 1].
      kinds: of `KINDS`.

    Returns:
      float32 (h, w, 3).
    """
    for kind in kinds:
        image = _ON_HOST[kind](random, image)
    return image


# What each program measures.


def _host_case(kinds: tuple[str, ...], side: int) -> interleaved.Case:
    (image,), random = _pictures(1, side), np.random.default_rng(0)
    return interleaved.Case(
        lambda: on_host(random, image, kinds), lambda image: image, 1, {}
    )


def _our_case(kinds: tuple[str, ...], batch: int, side: int) -> interleaved.Case:
    """Damages a batch with a key for each image; a single image without vmap."""
    images = jax.numpy.asarray(_pictures(batch, side))

    def wear(key: jax.Array, image: jax.Array) -> jax.Array:
        return damage.damage(key, image, severity=_SEVERITY, kinds=kinds)[0]

    @jax.jit
    def run(number: Any, images: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(0), number)
        if batch == 1:
            return wear(key, images[0])
        return jax.vmap(wear)(jax.random.split(key, batch), images)

    numbers = iter(range(1 << 31))
    return interleaved.Case(
        lambda: run(np.uint32(next(numbers)), images), jax.block_until_ready, batch, {}
    )


def _host_makers(quick: bool) -> dict[str, Callable[[], interleaved.Case]]:
    side = _QUICK_SIDE if quick else _SIDE
    return {
        name: functools.partial(_host_case, kinds, side)
        for name, kinds in _kinds(quick).items()
    }


def _our_makers(quick: bool) -> dict[str, Callable[[], interleaved.Case]]:
    side = _QUICK_SIDE if quick else _SIDE
    return {
        name: functools.partial(_our_case, kinds, 1, side)
        for name, kinds in _kinds(quick).items()
    }


def _device_makers(quick: bool) -> dict[str, Callable[[], interleaved.Case]]:
    """Returns the makers of batches; none on a CPU, where they are too slow."""
    if backend.is_cpu() and not quick:
        return {}
    side = _QUICK_SIDE if quick else _SIDE
    batch = _QUICK_BATCH if quick else _BATCH
    every = {"film": damage.FILM, "photo": damage.PHOTO}
    kinds = _kinds(quick) | ({} if quick else every)
    makers: dict[str, Callable[[], interleaved.Case]] = {
        name: functools.partial(_our_case, kinds, batch, side)
        for name, kinds in kinds.items()
    }
    return makers | {
        _STEP: functools.partial(
            gpu_cases.our_training,
            _QUICK_MODEL if quick else _MODEL,
            batch,
            side,
            metrics=True,
        )
    }


def _kinds(quick: bool) -> dict[str, tuple[str, ...]]:
    kinds = _QUICK_KINDS if quick else KINDS
    return {kind: (kind,) for kind in kinds} | {"these together": kinds}


_PROGRAMS: dict[str, Callable[[bool], dict[str, Callable[[], interleaved.Case]]]] = {
    "ours": _our_makers,
    "opencv": _host_makers,
    "device": _device_makers,
}


def _serve(program: str, quick: bool) -> None:
    if program != "device":
        # Limits the process to one core, before JAX or others start threads.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if program == "opencv":
        cv2.setNumThreads(1)
    else:
        backend.keep_freed_memory()
    interleaved.serve(_PROGRAMS[program](quick))


def opencv_version() -> str | None:
    """Returns OpenCV's version, None if it is not installed."""
    if importlib.util.find_spec("cv2") is None:
        return None
    for name in ("opencv-python-headless", "opencv-python"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _measured(programs: list[str], quick: bool) -> dict[str, Any]:
    arguments = ["quick"] if quick else []
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    running = {
        name: interleaved.start(
            "experiments.benchmark.damage", [name, *arguments], environment
        )
        for name in programs
    }
    return interleaved.measure_and_stop(
        running,
        rounds=_QUICK_ROUNDS if quick else _ROUNDS,
        seconds=_QUICK_SECONDS if quick else _SECONDS,
    )


def _speeds(found: dict[str, Any], program: str) -> dict[str, float]:
    """Returns images per second by case."""
    own = {case: rows[program] for case, rows in found.items() if program in rows}
    for case, row in own.items():
        if "error" in row:
            raise RuntimeError(f"damage, {program}, {case}: {row['error']}")
    return {case: row["per_second"] for case, row in own.items()}


def _ratios(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    return {
        case: round(first[case] / second[case], 3) for case in first if case in second
    }


def measure(quick: bool) -> dict[str, Any]:
    """Measures damage on one core, compared with OpenCV, and batches on JAX's device.

    Args:
      quick: small images and one short round, as a test.

    Returns:
      `one_core`, images per second by program and kind, and
      `ratio_to_opencv_one_core`. With an accelerator, or quick: `device`, images per
      second by kind; `device_to_opencv_one_core`; and `share_of_step`, the time to
      damage a batch as a share of a training step.

    Raises:
      RuntimeError: if a measurement failed.
    """
    version = opencv_version()
    peer = {} if version is None else {"opencv": version}
    found = _measured(["ours", *peer], quick)
    one_core = {program: _speeds(found, program) for program in ("ours", *peer)}
    device = _speeds(_measured(["device"], quick), "device")
    result: dict[str, Any] = {
        "opencv": version or "not installed; pip install opencv-python-headless",
        "side": _QUICK_SIDE if quick else _SIDE,
        "batch": _QUICK_BATCH if quick else _BATCH,
        "one_core": one_core,
    }
    if peer:
        ratios = _ratios(one_core["ours"], one_core["opencv"])
        result["ratio_to_opencv_one_core"] = ratios
    if not device:
        return result
    step = device.pop(_STEP)
    result |= {
        "device": device,
        "step": {"model": _QUICK_MODEL if quick else _MODEL, "per_second": step},
        "share_of_step": _ratios(dict.fromkeys(device, step), device),
    }
    if peer:
        result["device_to_opencv_one_core"] = _ratios(device, one_core["opencv"])
    return result


if __name__ == "__main__":
    _serve(sys.argv[1], "quick" in sys.argv[2:])
