"""Nothing is compiled again once a run is under way."""

import contextlib

import numpy as np
import pytest
from jax import monitoring

from restoration.data import arrays
from restoration.images import frames
from restoration.inference import batch
from restoration.training import run, train_config

_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


@contextlib.contextmanager
def counting():
    """Counts the programs that JAX makes for XLA meanwhile."""
    seen = []

    def listen(event, seconds, **details):
        if event == _LOWERED:
            seen.append(details.get("fun_name"))

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        monitoring.unregister_event_duration_listener(listen)


def test_training_compiles_each_program_once(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), np.uint8)
    pairs = arrays.PairArrays(images, images)

    def programs(epochs):
        options = train_config.TrainConfig(
            data_dir="",
            workdir=str(tmp_path / str(epochs)),
            epochs=epochs,
            batch_size=2,
            image_size=16,
        )
        with counting() as seen:
            run.train(options, {"train": pairs, "validation": pairs})
        return len(seen)

    programs(1)  # what the whole process shares
    assert programs(2) == programs(4) > 0


@pytest.mark.slow  # compiles the finder and the filler for two shapes
def test_restoring_compiles_each_shape_once(tmp_path, photographs):
    def programs(name, *sizes):
        folder = tmp_path / name
        for number, (height, width) in enumerate(sizes):
            picture = photographs["coffee"][:height, :width]
            frames.write(folder / f"{number}.png", picture)
        options = batch.RestoreOptions(
            input=(str(folder),), output=str(tmp_path / f"{name}_out"), model="basic"
        )
        with counting() as seen:
            assert not any(result.error for result in batch.restore(options))
        return len(seen)

    programs("first", (40, 50))
    # The finder has shapes of its own for small and for large pictures.
    several = programs("several", (40, 50), (300, 70), (1, 333), (50, 60))
    assert several == programs("one", (64, 64)) > 0
    programs("second", (390, 590))
    large = programs("large", (390, 590), (60, 60), (380, 580), (400, 600))
    assert large == programs("two", (390, 590), (60, 60))
