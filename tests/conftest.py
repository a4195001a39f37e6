"""Shared fixtures: real photographs and small paired folders made of them."""

import os

# Before TensorFlow or JAX is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import atexit
import importlib.metadata
import shutil
import tempfile

# Set once; pytest-xdist's workers and all subprocesses inherit it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    # The same programs are compiled again and again by runs and their subprocesses. JAX
    # locks this folder, with filelock, where its size has a limit.
    _CACHE = tempfile.mkdtemp(prefix="jax-tests-")
    atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(10**10)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    # Most of the suite's time is LLVM optimizing programs that run once. The emitters
    # of fusions, which double it, can be left out of older versions of JAX alone.
    _FLAGS = "--xla_backend_optimization_level=0"
    if importlib.metadata.version("jax").startswith("0.10."):
        _FLAGS += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}"

import pathlib

import numpy as np
import pytest
import skimage

from restoration.images import frames

# The files of the longest tests.
_LONG = {
    "browser_test.py", "drawn_run_test.py", "processes_test.py", "tables_test.py",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest tests first, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.path.name not in _LONG)


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
