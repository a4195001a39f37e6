"""Restores single files in tests with a model that needs no compiling."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from restoration import models
from restoration.inference import engine, jobs, layout, restore_file, tiling

HAS_EXIFTOOL = shutil.which("exiftool") is not None
needs_exiftool = pytest.mark.skipif(not HAS_EXIFTOOL, reason="exiftool is missing")


def fake_engine(change, *, tile=64, overlap=8, sizes=None):
    """Returns an engine whose model is a function of RGB values alone."""
    grid = layout.make_grid(
        models.get_model("basic"), tile=(tile, tile), overlap=overlap
    )

    def restore(blocks, size, prepare):
        def compute(tiles):
            return np.clip(change(tiles)[:, *grid.inner], 0, 1)

        yield from tiling.restore_strips(compute, blocks, grid, size, prepare=prepare)

    return engine.Engine(None, "test", restore, lambda: False, lambda size: grid)


def darker(tiles):
    return tiles * np.float32(0.8)


def restore(source, target, *, change=darker, relative=None, **settings):
    """Restores one file; a failure is raised."""
    target = pathlib.Path(target)
    relative = pathlib.PurePosixPath(relative or pathlib.Path(source).name)
    done = restore_file.restore_file(
        jobs.Job(pathlib.Path(source), target, relative),
        fake_engine(change),
        restore_file.Settings(**settings),
    )
    assert not done.error, done.error
    return done


def tool(*command):
    """Runs another program and returns what it prints."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
