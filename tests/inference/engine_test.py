"""Finder, filler and network together, compiled, on real pictures."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from restoration.images import frames
from restoration.inference import batch, engine


class LightFinder:
    """Finds what is light, as `models.finder` is called."""

    stride, halo, tile, overlap = 32, 448, 256, 64

    def apply(self, parameters, images):
        luma = images.mean(-1, keepdims=True)
        return 60 * (luma - parameters["threshold"])


class MeanFiller:
    """Fills with a color, as `models.filler` is called."""

    stride, halo = 32, 192

    def apply(self, parameters, images, masks):
        return jnp.where(masks > 0, parameters["color"], images)


@pytest.fixture(scope="module")
def weights():
    plain = dataclasses.replace(engine.load_weights("basic", ""), grader=None)
    finder = engine.Part(LightFinder(), {"threshold": np.float32(0.9)}, "1" * 64)
    color = {"color": np.float32([0.5, 0.25, 0.25])}
    filler = engine.Part(MeanFiller(), color, "2" * 64)
    return dataclasses.replace(plain, finder=finder, filler=filler)


@pytest.fixture(scope="module")
def used(weights):
    return engine.make_engine(weights)


def restored(folder, out, monkeypatch, used, **options):
    monkeypatch.setattr(batch, "load_engine", lambda options: used)
    (done,) = batch.restore(
        batch.RestoreOptions(input=(str(folder),), output=str(out), **options)
    )
    assert not done.error, done.error
    return frames.read(done.output), done


def test_found_filled_and_restored(tmp_path, photographs, used, monkeypatch):
    image = np.clip(photographs["chelsea"][40:140, 60:200], 0, 0.8)
    image[:, 40:43] = 1
    frames.write(tmp_path / "in" / "a.png", image)
    written, done = restored(tmp_path / "in", tmp_path / "out", monkeypatch, used)
    assert done.damaged_share == (pytest.approx(5 / 140, abs=1e-3),)
    line = written[10:-10, 41].mean(0)
    np.testing.assert_allclose(line, [0.5, 0.25, 0.25], atol=0.2)
    # Far from what was found the network is held to small changes.
    assert np.abs(written - image)[:, 60:].max() <= 10 / 255 + 1e-6
    assert used.weights.digests()["finder_sha256"] == "1" * 64


def test_without_masks_the_network_is_free(
    tmp_path, photographs, used, weights, monkeypatch
):
    noise = np.random.default_rng(0).normal(0, 0.1, (90, 120, 3))
    image = np.clip(0.7 * photographs["coffee"][:90, :120] + noise, 0, 0.85)
    frames.write(tmp_path / "in" / "a.png", image)
    alone = engine.make_engine(dataclasses.replace(weights, finder=None, filler=None))
    results = [
        restored(tmp_path / "in", tmp_path / name, monkeypatch, model, blind=blind)[0]
        for name, model, blind in (
            ("alone", alone, True), ("blind", used, False), ("gated", used, True)
        )
    ]  # fmt: skip
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[2] - results[1]).max() > 0.02


def test_the_finder_and_the_filler_take_few_shapes(used):
    sizes = (50, 70), (750, 500), (2000, 1500)
    filling = [used.filler.grid(size).tile for size in sizes]
    assert filling == [(640, 640), (960, 768), (1600, 1216)]
    # The finder sees what it learned from, and no more.
    assert {used.finder.grid(size).tile for size in sizes} == {(256, 256)}


def test_the_finder_finds_in_tiles_as_in_the_whole(used, photographs):
    image = np.float32(photographs["chelsea"][:300, :451])
    found = np.concatenate(list(used.finder.strips([image], image.shape[:2])))
    luma = image.mean(-1, keepdims=True)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-60 * (luma - 0.9))), atol=1e-3)


def test_memory_that_runs_out_halves_all_tiles(weights):
    used = engine.make_engine(weights)
    finding, filling = (n.grid((2000, 2000)) for n in (used.finder, used.filler))
    assert used.shrink()
    assert used.finder.grid((2000, 2000)).batch == finding.batch // 2
    assert used.filler.grid((2000, 2000)).tile < filling.tile
    while used.finder.shrink():
        pass
    # It sees tiles of one size alone.
    assert used.finder.grid((2000, 2000)) == dataclasses.replace(finding, batch=1)
