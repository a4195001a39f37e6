"""The report's program in Keras: our training gives the same losses."""

import numpy as np
import pytest

from experiments.tables import keras_reference
from restoration.data import arrays


@pytest.fixture(scope="module")
def data(photographs):
    """Noisy squares of photographs, by split."""
    generator = np.random.default_rng(0)
    images = list(photographs.values())
    found = {}
    for split, count in (("train", 40), ("validation", 4), ("test", 6)):
        target = [
            images[n % 4][row : row + 16, column : column + 16]
            for n, (row, column) in enumerate(generator.integers(0, 250, (count, 2)))
        ]
        degraded = np.clip(target + generator.normal(0, 0.05, np.shape(target)), 0, 1)
        sides = (np.rint(255 * np.array(side)) for side in (degraded, target))
        found[split] = arrays.PairArrays(*(side.astype(np.uint8) for side in sides))
    return found


# The two differ by rounding only: in float64 they agree for 50 steps. In float32 Adam
# amplifies rounding errors, most where a ReLU is near zero.
@pytest.mark.parametrize(
    ("name", "double", "early", "late"),
    [
        pytest.param("basic", False, 1e-5, 1e-2, marks=pytest.mark.slow),
        ("basic", True, 1e-13, 1e-13),
        pytest.param("advanced", True, 1e-13, 1e-13, marks=pytest.mark.slow),
        pytest.param("advanced", False, 1e-5, 1e-2, marks=pytest.mark.slow),
    ],
)
def test_same_weights_and_batches_give_the_same_losses(name, double, early, late, data):
    options = keras_reference.LockstepOptions(
        model=name, steps=50, batch_size=8, image_size=16, seed=1, double=double
    )
    seen = keras_reference.lockstep(options, data["train"])
    apart = np.abs(seen[:, 0] / seen[:, 1] - 1)
    assert apart[:10].max() < early
    assert apart.max() < late
    assert seen[-5:].mean() < seen[:5].mean()


def test_fit_learns_repeats_and_measures_every_split(data):
    first, again = (
        keras_reference.fit("basic", data, epochs=2, batch_size=8, seed=3) for _ in "ab"
    )
    assert first.history == again.history
    assert set(first.history[0]) == {"loss", "psnr", "val_loss", "val_psnr"}
    assert first.history[1]["loss"] < first.history[0]["loss"]
    assert set(first.scores) == {"train", "validation", "test"}


def test_score_without_context_equals_keras(data):
    model, members = keras_reference.build("basic"), data["test"]
    model.compile(loss="mse")
    degraded, target = (side / np.float32(255) for side in members)
    found = keras_reference.score(model, members, 4, 0)
    assert found["mse"] == pytest.approx(
        model.evaluate(degraded, target, verbose=0), 1e-4
    )
    # Context is cropped off: it does not change a model that sees single pixels.
    point = keras_reference.keras.Sequential(
        [keras_reference.keras.layers.Conv2D(3, 1)]
    )
    without, padded = (
        keras_reference.score(point, members, 4, context) for context in (0, 12)
    )
    assert padded == pytest.approx(without, rel=1e-5)
