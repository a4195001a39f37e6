"""The import rules of the architecture hold."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "restoration"

# Each package imports only itself and those before it. A module directly in
# `restoration/` is a command: no package imports it, and no other command.
PACKAGES = (
    "base",
    "damage",
    "devices",
    "images",
    "models",
    "evaluation",
    "film",
    "data",
    "audit",
    "training",
    "inference",
    "reports",
    "web",
)

# The packages of ours that alone may import a third party.
ALLOWED = {
    "absl": {"base"},
    "apache_beam": {"inference", "prepare"},
    "av": {"film"},
    "cv2": {"film", "inference"},
    "flax": {"models"},
    "h5py": set(),
    "jinja2": {"reports"},
    "matplotlib": {"data", "reports"},  # in data for its fonts alone
    "onnx": {"inference"},
    "orbax": {"training"},
    "pyvips": {"images", "reports"},
    "scipy": {"inference"},
    "starlette": {"web"},
    "tensorflow": {"data", "audit"},
    "tensorflow_datasets": {"data", "prepare"},
    "uvicorn": {"serve"},
}


def imported(path: pathlib.Path) -> Iterator[str]:
    """Yields the dotted names of what a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def owner(path: pathlib.Path) -> str:
    """Returns the package, or the command, that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


SOURCES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py")


def test_every_folder_is_a_listed_package():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(PACKAGES)


def test_packages_import_only_those_before_them_and_no_command():
    for path in SOURCES:
        own = owner(path)
        allowed = PACKAGES
        if own in PACKAGES:
            allowed = PACKAGES[: PACKAGES.index(own) + 1]
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "restoration" and len(parts) > 1:
                assert parts[1] in allowed, f"{path} imports {name}"
            assert parts[0] != "experiments", f"{path} imports {name}"


def test_third_parties_are_imported_where_they_belong():
    for path in ROOT.rglob("*.py"):
        for name in imported(path):
            allowed = ALLOWED.get(name.split(".")[0])
            assert allowed is None or owner(path) in allowed, f"{path}: {name}"


def test_packages_import_nothing_by_themselves():
    # `--help` has to start without JAX, so nothing may come along with a package.
    for name in set(PACKAGES) - {"damage", "models"}:
        tree = ast.parse((ROOT / name / "__init__.py").read_text(encoding="utf-8"))
        assert [type(node) for node in tree.body] == [ast.Expr], name


@pytest.mark.parametrize(
    "module",
    ["restoration", "restoration.train", "restoration.restore", "restoration.evaluate",
     "restoration.degrade", "restoration.report", "restoration.clean",
     "restoration.prepare", "restoration.extract",
     "restoration.serve", "restoration.export"],
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
from restoration.data import arrays
from restoration.training import run, train_config
images = np.zeros((4, 16, 16, 3), np.uint8)
data = {{"train": arrays.PairArrays(images, images)}}
workdir = {str(tmp_path / "run")!r}
options = train_config.TrainConfig(
    data_dir="", workdir=workdir, epochs=1, batch_size=2, image_size=16
)
run.train(options, data)
print("tensorflow" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "False", run.stderr
