"""What counts as damage: thin and wide, certain and likely, dense and alone."""

import numpy as np
import pytest

from restoration.inference import decide, tiling
from restoration.models import filler
from tests import selection

SIZE = 160


def decided(probability, marked=None, allowed=None, sensitivity=0.5):
    shape = probability.shape
    maps = np.stack(
        [
            probability,
            np.zeros(shape) if marked is None else marked,
            np.ones(shape) if allowed is None else allowed,
        ],
        axis=-1,
    )
    limits = decide.limits(sensitivity)
    found = np.asarray(decide.decide(limits, maps[None].astype(np.float32)))
    return found[0, ..., 0] > 0


def empty():
    return np.zeros((SIZE, SIZE))


def between():
    """Returns a probability that is enough for a line and not for a blotch."""
    limits = decide.limits(0.5)
    return (limits.thin + limits.wide) / 2


def test_limits_fall_with_sensitivity():
    steps = [decide.limits(s) for s in (0.0, 0.2, 0.5, 0.8, 1.0)]
    for lower, higher in zip(steps[1:], steps, strict=False):
        assert all(np.less(lower, higher))
    assert all(limits.thin < limits.wide for limits in steps[1:])
    assert not decided(np.ones((SIZE, SIZE)), sensitivity=0).any()


def test_a_line_is_found_and_grows_by_a_pixel():
    probability = empty()
    probability[:, 50:53] = between()
    expected = empty()
    expected[:, 49:54] = 1
    np.testing.assert_array_equal(decided(probability), expected)


def test_a_crack_goes_on_from_where_it_is_sure():
    limits = decide.limits(0.5)
    probability = empty()
    probability[50, 10:150] = probability[100, 10:150] = limits.near + 0.01
    probability[50, 80] = between()
    found = decided(probability)
    assert found[49:52, 56:105].all()
    assert not found[90:].any()  # likely, and nowhere sure


def test_what_is_wide_must_be_more_certain():
    probability = empty()
    probability[40:90, 40:90] = between()
    assert not decided(probability).any()
    # Certain in its middle, it is damage with its likely rim.
    probability[44:86, 44:86] = 0.99
    found = decided(probability)
    assert found[40:90, 40:90].all() and found.sum() == 52 * 52


def test_a_stain_that_is_certain_in_its_greater_part_is_one():
    probability = empty()
    probability[40:100, 40:100] = 0.99
    # Too wide to be the rim of what is certain.
    probability[60:80, 60:80] = between()
    assert decided(probability)[40:100, 40:100].all()
    # Of a blotch that is mostly only likely no more than its certain part is taken.
    probability[40:100, 55:100] = between()
    assert not decided(probability)[40:100, 64:].any()


def test_a_likely_line_beside_something_wide_stays_found():
    probability = empty()
    probability[20:70, 20:70] = probability[:, 130:132] = between()
    found = decided(probability)
    assert found[:, 130:132].all() and not found[:, :100].any()


def test_what_lies_dense_is_no_damage():
    probability = empty()
    probability[::5, :], probability[:, ::5] = between(), between()
    # Beyond the border nothing is.
    assert not decided(probability)[48:-48, 48:-48].any()
    probability[:, :] = 0
    probability[::40, :] = between()
    assert decided(probability).any()


def test_a_mask_tells_how_certain_what_was_found_is():
    limits = decide.limits(0.5)
    probability, marked = empty(), empty()
    probability[50, :], probability[100, :] = 0.88, 0.999
    marked[100, :20] = 1
    maps = np.stack([probability, marked, 1 + empty()], -1)[None].astype(np.float32)
    mask = np.asarray(decide.decide(limits, maps))[0, ..., 0]
    np.testing.assert_allclose(mask[49:52], filler.certainty(0.88), atol=1e-6)
    np.testing.assert_allclose(mask[100, 20:], filler.certainty(0.999), atol=1e-6)
    assert (mask[100, :20] == 1).all() and mask[20:40].max() == 0
    # Stored and given back it says the same.
    bytes_ = decide.stored(mask)
    assert bytes_.dtype == np.uint8 and set(np.unique(bytes_)) == {0, 252, 254, 255}
    np.testing.assert_allclose(decide.given(bytes_), mask, atol=0.04)
    np.testing.assert_array_equal(decide.stored(decide.given(bytes_)), bytes_)
    # What a brush paints is damage, also where its edge is soft.
    given = decide.given(np.array([0, 127, 128, 200, 255], np.uint8))
    np.testing.assert_array_equal(given, [0, 0, 1, 1, 1])


def test_a_user_has_the_last_word():
    probability, marked, allowed = empty(), empty(), np.ones((SIZE, SIZE))
    probability[:, 50:53] = 0.99
    marked[10:20, :] = 1
    allowed[:, 100:] = 0
    allowed[100:, :] = 0
    found = decided(probability, marked, allowed)
    assert found[10:20, :100].all() and found[:100, 49:54].all()
    assert not found[:, 100:].any() and not found[100:].any()
    assert found.sum() == 10 * 100 + 90 * 5


@pytest.mark.parametrize(
    "size", selection.slow_but([(30, 1500)], [(1, 1), (30, 1500), (1300, 900)])
)
def test_strips_decide_as_the_whole_does(size):
    generator = np.random.default_rng(0)
    low = generator.random((size[0] // 8 + 1, size[1] // 8 + 1))
    probability = low.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    maps = np.stack([probability, 0 * probability, 0 * probability + 1], -1)
    maps = np.rint(255 * maps).astype(np.uint8)
    limits = decide.limits(0.5)
    rows = tiling.restore_strips(
        lambda tiles: decide.compute(limits, tiles), [maps], decide.GRID, size
    )
    halo = decide.GRID.context
    around = [(halo, halo), (halo, halo), (0, 0)]
    whole = np.pad(maps / 255, around, mode="symmetric").astype(np.float32)
    expected = decide.decide(limits, whole[None])[0, halo:-halo, halo:-halo]
    np.testing.assert_allclose(np.concatenate(list(rows)), expected, atol=1e-6)
