"""Tiles equal the whole, at every size."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import models
from restoration.base import errors
from restoration.inference import layout, tiling
from restoration.models import apply


def restorer(name, tile, **options):
    model = models.get_model(name)
    parameters = model.init(jax.random.key(3), jnp.zeros((1, 8, 8, 3)))
    run = tiling.make_restore(model, tile=tile, **options)
    return model, parameters, lambda image: run(parameters, image)


SIZES = [(1, 1), (1, 90), (33, 21), (150, 171)]


@pytest.mark.parametrize(
    ("name", "tile", "size"),
    [
        *[("basic", tile, size) for tile in (64, 96) for size in SIZES],
        *[
            pytest.param("advanced", 128, size, marks=[pytest.mark.slow] * more)
            for size, more in zip(SIZES, (True, True, True, False), strict=True)
        ],
    ],
)
def test_tiles_equal_the_whole(name, tile, size, photographs):
    model, parameters, run = restorer(name, tile, batch=2)
    image = photographs["astronaut"][: size[0], : size[1]]
    whole = apply.restore_whole(model, parameters, image[None])[0]
    restored = run(image)
    assert restored.shape == image.shape
    assert np.abs(restored - whole).max() < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (40, 41), (33, 150), (150, 171)])
def test_a_narrow_edge_saves_tiles_and_changes_nothing(size, photographs):
    """Of a context that is more than the model sees, the edges need no more."""
    model = models.get_model("basic")
    parameters = model.init(jax.random.key(3), jnp.zeros((1, 8, 8, 3)))
    image = photographs["astronaut"][: size[0], : size[1]]
    whole = apply.restore_whole(model, parameters, image[None])[0]
    wide = layout.Grid((72, 64), context=24, overlap=4, stride=4, batch=2)
    narrow = dataclasses.replace(wide, edge=apply.margin(model))
    compute = tiling.make_compute(model.apply, narrow)
    rows = tiling.restore_strips(
        lambda tiles: compute(parameters, tiles), strips(image, [7, 30]), narrow, size
    )
    assert np.abs(np.concatenate(list(rows)) - whole).max() < 1e-5
    pixels = [layout.computed(grid, size) for grid in (narrow, wide)]
    assert pixels[0] < pixels[1] or size == (1, 1)


def test_result_depends_on_neither_tile_nor_batch(photographs):
    image = photographs["chelsea"][:130, :190]
    results = [
        restorer("basic", tile, overlap=overlap, batch=batch)[2](image)
        for tile, overlap, batch in ((60, 4, 1), (96, 16, 3), (256, 32, 1))
    ]
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)
    np.testing.assert_allclose(results[0], results[2], atol=1e-5)


@pytest.mark.parametrize("length", [1, 39, 40, 41, 44, 100, 1001])
def test_starts_cover_everything_on_the_grid(length):
    places = layout.starts(length, core=40, overlap=8, stride=4)
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
        halo, stride = 10, 4

        def apply(self, parameters, images):
            traces.append(images.shape)
            return images

    run = tiling.make_restore(Counting(), tile=64)
    for size in ((20, 30), (64, 64), (200, 150)):
        image = photographs["coffee"][: size[0], : size[1]]
        np.testing.assert_allclose(run({}, image), image, atol=1e-6)
    assert traces == [(1, 64, 64, 3)]


def strips(image, heights):
    """Returns an image in blocks of changing heights."""
    tops = np.cumsum([0, *itertools.islice(itertools.cycle(heights), len(image))])
    return [image[a:b] for a, b in itertools.pairwise(tops) if a < len(image)]


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (131, 190)])
@pytest.mark.parametrize("heights", [[1], [7, 30], [500]])
@pytest.mark.parametrize("tile", [(64, 64), (56, 104)])
def test_strips_give_what_the_whole_array_does(size, heights, tile, photographs):
    _, _, run = restorer("basic", 64, overlap=8)
    model = models.get_model("basic")
    image = photographs["astronaut"][: size[0], : size[1]]
    grid = layout.make_grid(model, tile=tile, overlap=8, batch=3)
    parameters = model.init(jax.random.key(3), jnp.zeros((1, 8, 8, 3)))
    compute = tiling.make_compute(model.apply, grid)
    rows = tiling.restore_strips(
        lambda tiles: compute(parameters, tiles), strips(image, heights), grid, size
    )
    np.testing.assert_allclose(np.concatenate(list(rows)), run(image), atol=1e-5)


def test_strips_are_read_no_further_than_needed():
    grid = layout.Grid(tile=(64, 64), context=12, overlap=8, stride=4, batch=1)
    read = []

    def blocks():
        for top in range(0, 4000, 8):
            read.append(top + 8)
            yield np.zeros((8, 50, 3), np.float32)

    done = 0
    for rows in tiling.restore_strips(lambda t: t[:, 12:52, 12:52], blocks(), grid,
                                      (4000, 50)):  # fmt: skip
        done += len(rows)
        # A row of tiles, the next one that is being cut, and a block.
        assert read[-1] - done <= 3 * grid.tile[0]
    assert done == 4000


@pytest.mark.parametrize("length", [1, 2, 5, 40])
def test_mirrored_is_numpys_symmetric_padding(length):
    line = np.arange(length)
    padded = np.pad(line, 100, mode="symmetric")
    np.testing.assert_array_equal(
        tiling.mirrored(np.arange(-100, length + 100), length), padded
    )


def test_seams_are_no_stronger_than_the_picture(photographs):
    """A model that is not local: each tile gets another brightness."""
    grid = layout.Grid(tile=(96, 96), context=8, overlap=16, stride=8, batch=1)
    generator = np.random.default_rng(0)

    def compute(tiles):
        return tiles[:, 8:88, 8:88] + np.float32(generator.uniform(-0.04, 0.04))

    image = photographs["chelsea"][:300, :450]
    rows = tiling.restore_strips(compute, [image], grid, image.shape[:2])
    change = np.concatenate(list(rows)) - image

    def energy(places):
        return (np.diff(change, axis=1)[:, places] ** 2).mean()

    starts = layout.starts(450, core=80, overlap=16, stride=8)
    # The hard seam would be one step of up to 0.08; blended over 16 pixels no step
    # is more than that times the steepest part of the window, pi / 32.
    assert np.abs(np.diff(change, axis=1)).max() <= 0.08 * np.pi / 32 + 1e-6
    inside = [s + 40 for s in starts[:-1]]
    assert energy(inside) < 1e-9


def test_a_grid_is_halved_down_to_what_the_model_needs():
    grid = layout.make_grid(models.get_model("basic"), tile=(256, 128), batch=4)
    seen = []
    while grid:
        seen.append((grid.tile, grid.batch))
        grid = layout.halved(grid)
    assert seen == [
        ((256, 128), 4), ((256, 128), 2), ((256, 128), 1), ((128, 64), 1)
    ]  # fmt: skip
