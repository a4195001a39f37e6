"""Dirt found and filled over time: what is dirt goes, what moves stays."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="needs OpenCV (extra film)")

from restoration.film import (  # noqa: E402
    motion,
    over_time,
    scratches,
    steady,
    stills,
)
from tests import film_files  # noqa: E402

LAYOUT = stills.Layout(8, "rgb")
CHROMA = stills.Layout(10, "yuv")


def as_stills(frames):
    for number, frame in enumerate(frames):
        planes = tuple(np.ascontiguousarray(frame[..., c]) for c in (1, 2, 0))
        yield stills.Still(number, planes, stills.to_grey(planes, LAYOUT))


def as_chroma(frames):
    """The frames as 10 bits, chroma at half the size."""
    for number, frame in enumerate(frames):
        planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV).astype(np.uint16) * 4
        small = cv2.resize(planes[..., 1:], None, fx=0.5, fy=0.5)
        planes = (planes[..., 0].copy(), small[..., 0].copy(), small[..., 1].copy())
        yield stills.Still(number, planes, stills.to_grey(planes, CHROMA))


def restored(frames, layout=LAYOUT, find=None, **kwargs):
    passed = over_time.first_pass(frames, layout)
    find = find or over_time.spike_finder()
    return list(over_time.second_pass(passed, layout, find, **kwargs))


def error(done, clean):
    """Mean absolute difference inside a mask, of luma."""
    return np.abs(
        stills.to_grey(done.planes, LAYOUT).astype(float)
        - stills.to_grey(tuple(clean[..., c] for c in (1, 2, 0)), LAYOUT)
    )


def test_dirt_goes_everywhere_and_nothing_else_changes():
    clean = film_files.moving(9)
    worn, masks = film_files.dirty(clean)
    results = restored(as_stills(worn))
    assert [done.still.number for done in results] == list(range(9))
    for done, still, target, mask in zip(
        results, as_stills(worn), clean, masks, strict=True
    ):
        # First and last frames, too, which have neighbours on one side only.
        assert (done.mask & mask).sum() > 0.9 * mask.sum()
        assert done.mask.mean() < 4 * mask.mean()
        assert error(done, target)[mask].mean() < 6
        for before, after in zip(still.planes, done.planes, strict=True):
            np.testing.assert_array_equal(before[~done.mask], after[~done.mask])


def test_planes_of_other_sizes_and_depths_are_filled():
    clean = film_files.moving(5)
    worn, _ = film_files.dirty(clean)
    worn[2][40:46, 60:66] = (250, 20, 20)  # of another color, too
    for done, still, target in zip(
        restored(as_chroma(worn), CHROMA), as_chroma(worn), as_chroma(clean),
        strict=True,
    ):  # fmt: skip
        for index in range(3):
            plane, before = done.planes[index], still.planes[index]
            assert plane.dtype == np.uint16
            here = stills.mask_at(done.mask, plane.shape)
            np.testing.assert_array_equal(plane[~here], before[~here])
            wrong = np.abs(plane.astype(float) - target.planes[index])[here]
            if done.mask.any():
                assert wrong.mean() < 4 * 6


def test_a_thing_that_moves_steadily_stays():
    frames = film_files.moving(9, speed=1)
    for number, frame in enumerate(frames):  # a ball
        cv2.circle(frame, (20 + 8 * number, 50), 9, (250, 250, 250), -1)
    for done, frame in zip(restored(as_stills(frames)), frames, strict=True):
        ball = np.zeros(frame.shape[:2], np.uint8)
        cv2.circle(ball, (20 + 8 * done.still.number, 50), 7, 1, -1)
        assert error(done, frame)[ball > 0].mean() < 6


def test_clean_frames_stay_as_they_are():
    for done in restored(as_stills(film_files.moving(6))):
        assert not done.mask.any()
        for before, after in zip(done.still.planes, done.planes, strict=True):
            assert before is after


def test_a_gain_is_no_dirt_and_fills_follow_it():
    clean = film_files.moving(7)
    worn, masks = film_files.dirty(clean)
    gains = [1.0, 0.93, 1.05, 0.95, 1.04, 0.96, 1.0]
    flicker = [
        np.uint8(np.clip(f * g, 0, 255)) for f, g in zip(worn, gains, strict=True)
    ]
    target = [
        np.uint8(np.clip(f * g, 0, 255)) for f, g in zip(clean, gains, strict=True)
    ]
    for done, right, mask in zip(
        restored(as_stills(flicker)), target, masks, strict=True
    ):
        assert error(done, right)[mask].mean() < 8
        assert done.mask.mean() < 5 * mask.mean() + 0.02


def test_short_shots_are_left():
    worn, _ = film_files.dirty(film_files.moving(2))
    for count in (1, 2):
        for done in restored(as_stills(worn[:count])):
            assert not done.mask.any()


def test_what_the_user_marks_is_filled_whatever_the_finder_says():
    clean = film_files.moving(5)
    given = np.zeros(film_files.SIZE, bool)
    given[30:40, 50:60] = True
    frames = [
        dataclasses.replace(s, given=given if s.number == 2 else None)
        for s in as_stills(clean)
    ]
    results = restored(iter(frames))
    np.testing.assert_array_equal(results[2].mask, given)
    assert error(results[2], clean[2])[given].mean() < 4
    # In a shot of one frame nothing but its surroundings tells.
    alone = restored(iter([dataclasses.replace(frames[2], number=0)]))
    np.testing.assert_array_equal(alone[0].mask, given)
    assert (alone[0].planes[0] != frames[2].planes[0]).any()


def test_a_finder_that_is_unsure_fills_in_part():
    clean = film_files.moving(5)
    given = np.zeros(film_files.SIZE, bool)
    given[30:33, 50:60] = True
    part = np.zeros(film_files.SIZE, np.float32)
    part[40:60] = np.linspace(0, 1, 20, dtype=np.float32)[:, None]

    def find(still, references, share=None):
        mask = np.zeros(still.grey.shape, bool)
        mask[40:60] = True
        weights = over_time.trust(still.grey, references, mask)
        return over_time.Found(mask, cv2.merge(weights), share)

    def frames():
        worn = [frame.copy() for frame in clean]
        worn[2][40:60] = 255 - worn[2][40:60]
        for still in as_stills(worn):
            yield dataclasses.replace(still, given=given if still.number == 2 else None)

    def middle(share):
        passed = [
            over_time.Passed(
                s, s.planes, s.grey, motion.smoothed(s.grey), given & False
            )
            for s in frames()
        ]
        finder = functools.partial(find, share=share)
        return list(over_time.second_pass(passed, LAYOUT, finder, grain=False))[2]

    whole, some = middle(None), middle(part)
    own = list(frames())[2].planes[0].astype(float)
    wanted = own + (whole.planes[0] - own) * np.where(given, 1, part)
    np.testing.assert_allclose(some.planes[0], wanted, atol=1.01)
    # What the user marked is filled wholly, and the mask is the same.
    np.testing.assert_array_equal(some.planes[0][given], whole.planes[0][given])
    np.testing.assert_array_equal(some.mask, whole.mask)


def test_filled_places_have_the_grain_of_the_frame():
    rng = np.random.default_rng(0)
    clean = np.full((96, 128), 120.0)
    frames, masks = [], []
    for number in range(7):
        noisy = np.uint8(np.clip(clean + rng.normal(0, 6, clean.shape), 0, 255))
        mask = np.zeros(clean.shape, bool)
        mask[30:60, 40:80] = number == 3
        frames.append(
            stills.Still(number, (noisy,), noisy, given=mask if mask.any() else None)
        )
        masks.append(mask)
    grey = stills.Layout(8, "gray", full=True)
    done = restored(iter(frames), grey)[3]
    assert 4.0 < done.planes[0][masks[3]].astype(float).std() < 8.0
    smooth = restored(iter(frames), grey, grain=False)[3]
    assert smooth.planes[0][masks[3]].astype(float).std() < 4.5


def test_averaging_takes_grain_out_and_keeps_motion():
    rng = np.random.default_rng(0)
    clean = film_files.moving(7)
    noisy = [
        np.uint8(np.clip(f + rng.normal(0, 8, (*f.shape[:2], 1)), 0, 255))
        for f in clean
    ]
    results = restored(as_stills(noisy), grain=False)
    done = results[3]
    averaged = dataclasses.replace(done, planes=over_time.denoised(done, LAYOUT))
    assert error(averaged, clean[3]).mean() < 0.65 * error(done, clean[3]).mean()


def test_copies_are_restored_alike():
    worn, masks = film_files.dirty(film_files.moving(6))
    doubled = [worn[0], worn[0], worn[1], worn[2], worn[2], worn[3], worn[4], worn[5]]
    unique = list(stills.undoubled(as_stills(doubled)))
    assert [len(still.copies) for still in unique] == [1, 0, 1, 0, 0, 0]
    # Without, dirt on both would hide from either's neighbours.
    results = restored(iter(unique))
    assert all(
        (done.mask & mask).sum() > 0.9 * mask.sum()
        for done, mask in zip(results, masks, strict=True)
    )


def test_references_lie_on_both_sides_where_they_can():
    assert over_time.offsets(5, 5) == (-1, 1, -2, 2)
    assert over_time.offsets(0, 5) == (1, 2, 1, 2)
    assert over_time.offsets(1, 5) == (-1, 1, 2, 2)
    assert over_time.offsets(4, 0) == (-1, -2, -1, -2)
    assert over_time.offsets(1, 1) == (-1, 1, 1, -1)
    assert over_time.offsets(1, 0) == over_time.offsets(0, 0) == ()


def test_windows_hold_what_is_around():
    found = [(b, x, a) for b, x, a in stills.windows(range(5), 2)]
    assert found[0] == ([], 0, [1, 2])
    assert found[2] == ([0, 1], 2, [3, 4])
    assert found[4] == ([2, 3], 4, [])
    assert list(stills.windows([], 2)) == []


def test_flow_is_the_motion():
    one, other = (
        cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in film_files.moving(2, speed=4)
    )
    field = motion.flow(one, other)
    np.testing.assert_allclose(np.median(field, (0, 1)), [-4, 0], atol=0.15)
    seen = motion.warped(other, field)
    assert np.abs(seen.astype(float) - one)[8:-8, 8:-8].mean() < 1.0


@pytest.mark.parametrize("size", [(2, 2), (16, 16), (25, 200), (40, 9)])
def test_tiny_frames_are_taken(size):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, size, dtype=np.uint8) for _ in range(4)]
    series = [stills.Still(i, (f,), f) for i, f in enumerate(frames)]
    layout = stills.Layout(8, "gray", full=True)
    cleaned = scratches.removed(stills.undoubled(iter(series)), layout)
    assert len(restored(cleaned, layout)) == 4


# Scratches that stand still.


def scratched(frames, x=70, tone=250):
    results = []
    for frame in frames:
        frame = frame.copy()
        frame[:, x : x + 2] = tone
        results.append(frame)
    return results


@pytest.mark.parametrize("tone", [5, 250])
def test_standing_scratches_go(tone):
    clean = film_files.moving(8)
    frames = list(scratches.removed(as_stills(scratched(clean, tone=tone)), LAYOUT))
    for still, target in zip(frames, clean, strict=True):
        assert still.scratched[:, 70:72].all()
        assert still.scratched.mean() < 0.08
        right = stills.to_grey(tuple(target[..., c] for c in (1, 2, 0)), LAYOUT)
        wrong = np.abs(still.grey.astype(float) - right)[:, 70:72]
        assert wrong.mean() < 8


def test_edges_and_lines_that_pass_are_no_scratches():
    edge = [f.copy() for f in film_files.moving(8)]
    passing = [f.copy() for f in film_files.moving(8)]
    for number, (one, other) in enumerate(zip(edge, passing, strict=True)):
        one[:, 70:] //= 2
        other[:, 20 + 8 * number : 22 + 8 * number] = 250
    for frames in (edge, passing, film_files.moving(8)):
        found = scratches.removed(as_stills(frames), LAYOUT)
        assert all(still.scratched is None for still in found)


# Weave and flicker.


def steadied(frames):
    """What takes weave and flicker out of frames, and them without it."""
    series = list(as_stills(frames))
    small = [steady.small(still.grey) for still in series]
    steps = [steady.measure(a, b, 0) for a, b in itertools.pairwise(small)]
    found = steady.corrections([steady.STILL, *steps])
    return found, [
        steady.applied(still.planes, c, LAYOUT, move=True, brighten=True)[0]
        for still, c in zip(series, found, strict=True)
    ]


def woven(frames, shifts, gains):
    """Frames moved by shifts, pixels, and multiplied."""
    moved = []
    for frame, (x, y), gain in zip(frames, shifts, gains, strict=True):
        matrix = np.float32([[1, 0, x], [0, 1, y]])
        size = frame.shape[1::-1]
        frame = cv2.warpAffine(
            frame, matrix, size, flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        moved.append(np.uint8(np.clip(frame * gain, 0, 255)))
    return moved


def test_weave_and_flicker_are_taken_out():
    rng = np.random.default_rng(2)
    base = film_files.moving(1, size=(120, 160))[0]
    shifts, gains = rng.normal(0, 0.6, (16, 2)), 1 + rng.normal(0, 0.04, 16)
    frames = woven([base] * 16, shifts, gains)
    _, fixed = steadied(frames)

    def unrest(planes):
        planes = np.stack(planes)[:, 8:-8, 8:-8].astype(float)
        return np.abs(np.diff(planes, axis=0)).mean()

    assert unrest(fixed) < 0.2 * unrest(frames)


def test_what_moves_in_the_picture_is_not_taken_for_weave():
    rng = np.random.default_rng(3)
    still, thing = (
        cv2.GaussianBlur(rng.uniform(40, 200, (240, 320)).astype(np.float32), (0, 0), 2)
        for _ in range(2)
    )
    frames = []
    for number in range(20):  # a thing of half the frame starts, stops and turns
        frame, x = still.copy(), round(60 + 40 * np.sin(number / 2.5))
        frame[40:220, x : x + 200] = thing[40:220, :200]
        frames.append(np.dstack([frame.astype(np.uint8)] * 3))
    shifts = rng.normal(0, 0.5, (20, 2))
    found, _ = steadied(woven(frames, shifts, np.ones(20)))
    moved = 320 * np.array([(c.right, c.down) for c in found])
    left = np.diff(moved + shifts, axis=0)
    assert np.std(left, axis=0).max() < 0.2 * np.diff(shifts, axis=0).std()


def test_a_pan_is_not_held_back():
    blocks = len(steady.STILL.right)
    steps = [steady.Step((0.01,) * blocks, (0.0,) * blocks)] * 20
    assert all(abs(c.right) < 1e-6 for c in steady.corrections(steps))
