"""Restores single files in tests with networks that need no compiling."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from restoration import models
from restoration.inference import engine, jobs, layout, restore_file

HAS_EXIFTOOL = shutil.which("exiftool") is not None
needs_exiftool = pytest.mark.skipif(not HAS_EXIFTOOL, reason="exiftool is missing")


def fake_network(change, *, tile=64, overlap=8):
    """Returns a network that is a function of a tile's values."""
    grid = layout.make_grid(
        models.get_model("basic"), tile=(tile, tile), overlap=overlap
    )

    def compile_program(grid):
        return lambda tiles: np.clip(change(tiles)[:, *grid.inner], 0, 1)

    return engine.Network(compile_program, [grid])


def fake_engine(change, *, find=None, fill=None, **options):
    """Returns an engine whose networks are functions of values alone.

    Args:
      change: of RGB, what restores it.
      find: of RGB, the probability of damage (..., 1); None finds nothing.
      fill: of RGB and mask, RGB filled.
      options: of `fake_network`.
    """

    def filled(tiles):
        images, mask = tiles[..., :3], tiles[..., 3:]
        return np.concatenate([fill(images, mask), mask], -1)

    return engine.Engine(
        engine.Weights("basic", {}, "0" * 64),
        "test",
        fake_network(lambda tiles: change(tiles[..., :3]), **options),
        finder=find and fake_network(find),
        filler=fill and fake_network(filled),
    )


def darker(tiles):
    return tiles * np.float32(0.8)


def restore(source, target, *, change=darker, relative=None, used=None, **settings):
    """Restores one file; a failure is raised."""
    target = pathlib.Path(target)
    relative = pathlib.PurePosixPath(relative or pathlib.Path(source).name)
    done = restore_file.restore_file(
        jobs.Job(pathlib.Path(source), target, relative),
        used or fake_engine(change),
        restore_file.Settings(**settings),
    )
    assert not done.error, done.error
    return done


def tool(*command):
    """Runs another program and returns what it prints."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
