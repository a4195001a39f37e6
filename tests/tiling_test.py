"""Tiles equal the whole, at every size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import errors, models, tiling


def restorer(name, tile, **options):
    model = models.get_model(name)
    parameters = model.init(jax.random.key(3), jnp.zeros((1, 8, 8, 3)))
    run = tiling.make_restore(model, tile=tile, **options)
    return model, parameters, lambda image: run(parameters, image)


@pytest.mark.parametrize(
    ("name", "tile"), [("basic", 64), ("basic", 96), ("advanced", 128)]
)
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (33, 21), (150, 171)])
def test_tiles_equal_the_whole(name, tile, size, photographs):
    model, parameters, run = restorer(name, tile, batch=2)
    image = photographs["astronaut"][: size[0], : size[1]]
    whole = tiling.restore_whole(model, parameters, image[None])[0]
    restored = run(image)
    assert restored.shape == image.shape
    assert np.abs(restored - whole).max() < 1e-5


def test_result_depends_on_neither_tile_nor_batch(photographs):
    image = photographs["chelsea"][:130, :190]
    results = [
        restorer("basic", tile, ramp=ramp, batch=batch)[2](image)
        for tile, ramp, batch in ((60, 4, 1), (96, 16, 3), (256, 32, 1))
    ]
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)
    np.testing.assert_allclose(results[0], results[2], atol=1e-5)


@pytest.mark.parametrize("length", [1, 39, 40, 41, 44, 100, 1001])
def test_starts_cover_everything_on_the_grid(length):
    places = tiling.starts(length, core=40, ramp=8, multiple=4)
    covered = np.zeros(max(places) + 40, int)
    for place in places:
        assert place % 4 == 0
        covered[place : place + 40] += 1
    assert covered[:length].min() >= 1
    assert max(places) + 40 - length < max(40, 4)
    assert all(40 - (b - a) >= 8 for a, b in itertools.pairwise(places))


def test_windows_of_neighbours_add_up_to_one():
    window = tiling.window(40, 8)
    assert window.min() > 0
    np.testing.assert_allclose(window[-8:] + window[:8], 1, atol=1e-6)
    np.testing.assert_array_equal(window[8:-8], 1)


def test_a_tile_that_does_not_fit_the_model():
    for tile in (30, 62):
        with pytest.raises(errors.InputError, match="multiple of 4 and at least"):
            tiling.make_restore(models.get_model("basic"), tile=tile)


def test_compiles_once_for_all_sizes(photographs):
    traces = []

    class Counting:
        halo, multiple = 10, 4

        def apply(self, parameters, images):
            traces.append(images.shape)
            return images

    run = tiling.make_restore(Counting(), tile=64)
    for size in ((20, 30), (64, 64), (200, 150)):
        image = photographs["coffee"][: size[0], : size[1]]
        np.testing.assert_allclose(run({}, image), image, atol=1e-6)
    assert traces == [(1, 64, 64, 3)]
