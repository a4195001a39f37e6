"""Shared fixtures: real photographs and small paired folders made of them."""

import os

# Before TensorFlow or JAX is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The same programs are compiled again and again by runs and their subprocesses. Each
# worker has a cache of its own, since JAX does not write its entries atomically.
import atexit
import shutil
import tempfile

_CACHE = tempfile.mkdtemp(prefix="jax-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
# Most of the suite's time is LLVM optimizing programs that run once.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
)

import pathlib

import numpy as np
import pytest
import skimage

from restoration.images import frames


@pytest.fixture(scope="session")
def photographs() -> dict[str, np.ndarray]:
    """Photographs of scikit-image's wheel, float32 RGB in [0, 1]."""
    folder = pathlib.Path(skimage.__file__).parent / "data"
    names = {"astronaut": ".png", "chelsea": ".png", "coffee": ".png", "rocket": ".jpg"}
    return {name: frames.read(folder / (name + ext)) for name, ext in names.items()}


@pytest.fixture(scope="session")
def paired_folder(tmp_path_factory, photographs) -> pathlib.Path:
    """A small film: 6 clips of 4 frames of 48×40, the input noisy. Read only."""
    folder = tmp_path_factory.mktemp("film")
    generator = np.random.default_rng(0)
    images = list(photographs.values())
    for clip in range(6):
        for number in range(4):
            top, left = 40 * clip, 10 * number + 60
            target = images[clip % 4][top : top + 48, left : left + 40]
            noise = generator.normal(0, 0.1, target.shape)
            name = f"clip{clip}_{number:03d}.png"
            frames.write(folder / "output" / name, target)
            frames.write(folder / "input" / name, np.clip(target + noise, 0, 1))
    return folder
