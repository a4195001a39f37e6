"""The import rules of the architecture hold."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "restoration"

# Who alone may import a package.
ALLOWED = {
    "flax": lambda path: path.parent.name == "models",
    "orbax": lambda path: path.name == "checkpoint.py",
    "tensorflow": lambda path: (
        path.name in ("input_pipeline.py", "paired_frames.py", "survey.py")
    ),
    "tensorflow_datasets": lambda path: (
        path.name in ("paired_frames.py", "records.py", "prepare.py")
    ),
    "apache_beam": lambda path: path.name in ("prepare.py", "archive.py"),
    "pyvips": lambda path: (
        path.name
        in (
            "frames.py",
            "picture.py",
            "colour.py",
            "encode.py",
            "scratch.py",
            "compare.py",
        )
    ),
    "av": lambda path: path.name == "films.py",
    "h5py": lambda path: path.name in ("denoisers.py", "keras_weights.py"),
    "scipy": lambda path: path.name == "matlab.py",
    "absl": lambda path: path.name == "cli.py",
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_packages_are_imported_where_they_belong():
    for path in ROOT.rglob("*.py"):
        for name in imported(path):
            allowed = ALLOWED.get(name)
            assert allowed is None or allowed(path), f"{path} imports {name}"


@pytest.mark.parametrize(
    "module",
    ["restoration", "restoration.train", "restoration.restore", "restoration.evaluate",
     "restoration.degrade", "restoration.report", "restoration.clean",
     "restoration.prepare", "restoration.extract", "restoration.archive"],
)  # fmt: skip
def test_entry_points_start_without_the_heavy_packages(module):
    code = (
        f"import sys, {module}\n"
        "print([m for m in ('jax', 'flax', 'orbax', 'tensorflow') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_training_on_arrays_does_not_import_tensorflow(tmp_path):
    code = f"""
import sys
import numpy as np
from restoration import arrays, config, train
images = np.zeros((4, 16, 16, 3), np.uint8)
data = {{"train": arrays.PairArrays(images, images)}}
workdir = {str(tmp_path / "run")!r}
options = config.TrainConfig(
    data_dir="", workdir=workdir, epochs=1, batch_size=2, image_size=16
)
train.train(options, data)
print("tensorflow" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "False", run.stderr
