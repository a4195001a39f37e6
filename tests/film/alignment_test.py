"""Degraded films that were cut, cropped and scaled are aligned frame by frame."""

import itertools

import numpy as np
import pytest
import skimage.data
from PIL import Image

from restoration.film import alignment, matching, registration, shots
from tests import selection, synthetic_film

SIZE = (144, 192)


def thumbnails(film):
    return np.stack(
        [
            np.asarray(Image.fromarray(f).convert("L").resize((64, 48), Image.BOX))
            for f in film
        ]
    )


@pytest.fixture(scope="module")
def film():
    return synthetic_film.three_shots(SIZE)


def degraded_copy(film, numbers, box, size):
    """Returns frames by number, reframed and degraded; None: of another film."""
    strange = itertools.cycle(
        synthetic_film.shot(
            "rocket", 9, size, start=(0, 0.3), end=(1, 0.6), zoom=(0.5, 0.5)
        )
    )
    frames = (
        next(strange)
        if number is None
        else synthetic_film.reframed(film[number], box, size)
        for number in numbers
    )
    return [synthetic_film.degraded(frame, seed) for seed, frame in enumerate(frames)]


def test_cuts_are_found_in_a_degraded_film(film):
    frames = [synthetic_film.degraded(f, k, flicker=0.2) for k, f in enumerate(film)]
    assert [shot.start for shot in shots.find(thumbnails(frames))] == [0, 26, 57]


def test_a_flash_is_no_cut(film):
    frames = list(film)
    frames[40] = np.full_like(frames[40], 250)
    frames[12], frames[13] = film[70], film[71]
    assert [shot.start for shot in shots.find(thumbnails(frames))] == [0, 26, 57]


def test_a_fast_pan_and_black_frames_are_no_cuts():
    pan = synthetic_film.shot(
        "coffee", 12, SIZE, start=(0, 0.5), end=(1, 0.5), zoom=(0.5, 0.5)
    )
    frames = [*pan, *[np.zeros((*SIZE, 3), np.uint8)] * 9]
    starts = [shot.start for shot in shots.find(thumbnails(frames))]
    assert all(start in (0, 12) for start in starts)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_shortest_films_are_one_shot(film, length):
    assert shots.find(thumbnails(film[:length])) == (shots.Shot(0, length),)


WHOLE = (0, 0, SIZE[1], SIZE[0])
PART = (6.3, 4.7, 181.2, 139.1)
CASES = {
    "another start": (range(7, 80), WHOLE, SIZE),
    "cropped, smaller": (range(3, 75), PART, (108, 144)),
    "cropped by a quarter": (range(80), (22.3, 15.8, 176.5, 130.4), (112, 150)),
    "wide screen": (range(5, 80), (0, 24, 192, 120), (96, 192)),
    "parts cut out": ([*range(4, 20), *range(31, 70)], PART, (108, 144)),
    "frames inserted": ([*range(4, 40), *[None] * 6, *range(40, 80)], PART, (108, 144)),
    "24 for 25": ([i for i in range(80) if i % 25 != 24], PART, (108, 144)),
    "one shot": (range(60, 78), PART, (108, 144)),
}


@pytest.mark.parametrize(
    "case",
    selection.slow_but(["another start", "cropped by a quarter", "24 for 25"], CASES),
)
def test_every_match_is_the_right_frame(film, case):
    numbers, box, size = CASES[case]
    numbers = list(numbers)
    frames = degraded_copy(film, numbers, box, size)
    found = alignment.match(thumbnails(frames), thumbnails(film), size, SIZE)
    target = {k: number for k, number in enumerate(numbers) if number is not None}
    assert dict(zip(found.first.tolist(), found.second.tolist(), strict=True)) == target


def test_black_bars_and_squeezed_pixels_do_not_matter(film):
    numbers = list(range(12, 48))
    frames = degraded_copy(film, numbers, WHOLE, SIZE)
    barred = [np.pad(f, ((0, 0), (32, 32), (0, 0)), constant_values=9) for f in frames]
    squeezed = [synthetic_film.reframed(f, WHOLE, (144, 144)) for f in frames]
    wide = [frame[18:126] for frame in film]
    for degraded, clean in ((barred, film), (barred, wide), (squeezed, film)):
        found = alignment.match(
            thumbnails(degraded),
            thumbnails(clean),
            degraded[0].shape[:2],
            clean[0].shape[:2],
        )
        assert found.first.tolist() == list(range(len(numbers)))
        assert found.second.tolist() == numbers


def test_one_of_two_equal_frames_is_matched(film):
    numbers = [i for i in range(80) for _ in range(2 if i % 12 == 11 else 1)]
    frames = degraded_copy(film, numbers, PART, (108, 144))
    found = alignment.match(thumbnails(frames), thumbnails(film), (108, 144), SIZE)
    assert found.second.tolist() == list(range(80))
    assert [numbers[k] for k in found.first] == list(range(80))


def test_coarse_to_fine_matching_gives_the_same_frames(monkeypatch, film):
    numbers = [*range(4, 30), *range(42, 78)]
    frames = degraded_copy(film, numbers, PART, (108, 144))
    monkeypatch.setattr(matching, "MOST_AT_ONCE", 24)
    found = alignment.match(thumbnails(frames), thumbnails(film), (108, 144), SIZE)
    assert [numbers[k] for k in found.first] == found.second.tolist()
    assert len(found.first) >= len(numbers) - 2


def test_different_films_do_not_match(film):
    other = [
        *synthetic_film.shot(
            "rocket", 40, SIZE, start=(0, 0), end=(1, 1), zoom=(0.6, 0.8)
        )
    ]
    found = alignment.match(thumbnails(other), thumbnails(film), SIZE, SIZE)
    assert len(found.first) == 0


def test_blank_frames_match_nothing(film):
    black = np.zeros((20, *shots.SIZE), np.uint8)
    found = alignment.match(black, thumbnails(film), SIZE, SIZE)
    assert len(found.first) == 0


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
@pytest.mark.parametrize(
    "scales", [(1.0, 1.0), (1.25, 1.25), (0.9, 0.9), (1.5, 1.41)], ids=str
)
def test_scale_and_shift_are_found_to_a_fraction_of_a_pixel(name, scales):
    image = Image.fromarray(getattr(skimage.data, name)())
    size = 200, 260
    true = registration.Geometry(*scales, 10.37, 7.81)
    part = image.resize(size[::-1], Image.LANCZOS, box=true.box(0, 0, *size[::-1]))
    frame = synthetic_film.degraded(np.asarray(part), 1).mean(axis=2)
    luma = np.asarray(image.convert("L"))
    start = registration.Geometry(1.01 * scales[0], 0.99 * scales[1], 14, 4)
    found = registration.register(frame, luma, start)
    assert registration.distance(found, true, size) < 0.25
    assert abs(found.scale_x / true.scale_x - 1) < 0.002
    assert abs(found.scale_y / true.scale_y - 1) < 0.002
    assert registration.likeness(frame, luma, found) > 0.7


def test_geometry_of_resized_and_cropped_images():
    geometry = registration.Geometry(2, 3, 10, 20)
    assert geometry.box(1, 1, 2, 2) == (12, 23, 14, 26)
    halved = geometry.resized((0.5, 0.5), (1, 1))
    assert halved.box(0.5, 0.5, 1, 1) == geometry.box(1, 1, 2, 2)
    cropped = geometry.cropped((1, 1), (5, 6))
    assert cropped.box(0, 0, 1, 1) == (12 - 5, 23 - 6, 14 - 5, 26 - 6)


def test_common_box_is_inside_both_images():
    geometry = registration.Geometry(2, 2, -3, 5)
    left, top, right, bottom = registration.common_box(geometry, (50, 60), (90, 100))
    assert (left, top, right, bottom) == (2, 0, 51, 42)
    inside = geometry.box(left, top, right, bottom)
    assert inside[0] >= 0 and inside[2] <= 100 and inside[3] <= 90


def test_cut_out_undoes_a_shift():
    image = skimage.data.astronaut()
    geometry = registration.Geometry(1, 1, 30, 40)
    assert np.array_equal(
        registration.cut_out(image, geometry, (0, 0, 200, 100)), image[40:140, 30:230]
    )
