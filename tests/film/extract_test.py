"""Frames and pairs from films: colors, shapes, broken files, the whole command."""

import csv
import fractions
import importlib.metadata
import json
import re
import subprocess
import sys

import av
import numpy as np
import pytest

from restoration import extract
from restoration.base import errors
from restoration.data import pairs
from restoration.film import registration, video
from restoration.images import frames
from tests import synthetic_film

SIZE = (96, 128)


@pytest.fixture(scope="module")
def film():
    return synthetic_film.three_shots(SIZE, lengths=(14, 17, 13))


@pytest.fixture(scope="module")
def film_file(tmp_path_factory, film):
    return synthetic_film.write(tmp_path_factory.mktemp("film") / "city.mkv", film)


def run(*inputs, output, **options):
    return extract.extract(
        extract.ExtractOptions(input=tuple(map(str, inputs)), output=str(output),
                               **options)
    )  # fmt: skip


def written(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))


def read_bytes(path):
    return np.rint(frames.read(path) * 255).astype(np.uint8)


# Colors, in closed form.

PATCHES = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [128, 128, 128],
     [200, 60, 120], [16, 16, 16], [255, 255, 255], [0, 0, 0], [30, 140, 220]]
)  # fmt: skip
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
NUMBERS = {"bt601": 5, "bt709": 1}


def coded(matrix, full, bits):
    """The patches as Y, U, V levels by the standard's formulas, (3, patches)."""
    red, blue = WEIGHTS[matrix]
    r, g, b = PATCHES.T / 255
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    step, top = 2 ** (bits - 8), 2**bits - 1
    levels = (
        [y * top, u * top + 128 * step, v * top + 128 * step]
        if full
        else [step * (16 + 219 * y), step * (128 + 224 * u), step * (128 + 224 * v)]
    )
    return np.clip(np.rint(levels), 0, top)


def write_patches(path, matrix, full, bits, tagged=True, height=32):
    form = {8: "yuv444p", 10: "yuv444p10le"}[bits]
    with av.open(str(path), "w") as container:
        track = container.add_stream("ffv1", rate=25)
        track.width, track.height, track.pix_fmt = 32 * len(PATCHES), height, form
        picture = av.VideoFrame(track.width, height, form)
        if tagged:
            for thing in (picture, track.codec_context):
                thing.colorspace = NUMBERS[matrix]
                thing.color_range = 2 if full else 1
        for plane, levels in zip(
            picture.planes, coded(matrix, full, bits), strict=True
        ):
            row = np.repeat(levels, 32).astype("<u2" if bits > 8 else np.uint8)
            line = row.tobytes().ljust(plane.line_size, b"\0")
            plane.update(line * height)
        picture.pts = 0
        container.mux(track.encode(picture))
        container.mux(track.encode())
    return path


def decoded_patches(path):
    (frame,) = video.decode(video.describe(path))
    return video.to_rgb(frame)[16, 16::32].astype(int)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", list(WEIGHTS))
def test_colors_follow_the_standard(tmp_path, matrix, full, bits):
    path = write_patches(tmp_path / "patches.mkv", matrix, full, bits)
    assert np.abs(decoded_patches(path) - PATCHES).max() <= 2


@pytest.mark.parametrize(("height", "matrix"), [(32, "bt601"), (720, "bt709")])
def test_frame_size_decides_if_no_matrix_is_given(tmp_path, height, matrix):
    path = write_patches(
        tmp_path / "patches.mkv", matrix, False, 8, tagged=False, height=height
    )
    assert np.abs(decoded_patches(path) - PATCHES).max() <= 2


# Shapes and times.


def corners(tmp_path, **stream):
    """A film whose upper left corner is red and whose upper right one is blue."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:16, :16], image[:16, -16:] = (255, 0, 0), (0, 0, 255)
    path = synthetic_film.write(
        tmp_path / "corners.mp4", [image] * 3, codec="libx264", form="yuv444p",
        options={"crf": "0"}, **stream,
    )  # fmt: skip
    film = video.describe(path)
    return film, video.to_rgb(next(video.decode(film)))


def test_a_film_recorded_sideways_is_rotated(tmp_path):
    film, image = corners(tmp_path, rotation=90)
    assert image.shape == (96, 64, 3) == (film.height, film.width, 3)
    # Anticlockwise: the right side becomes the top.
    assert image[4, 4].argmax() == 2 and image[-4, 4].argmax() == 0


def test_pixels_become_square(tmp_path):
    aspect = fractions.Fraction(4, 3)
    film, image = corners(tmp_path, sample_aspect_ratio=aspect)
    assert image.shape == (64, 128, 3)
    assert "4:3" in film.warnings[0]
    stored = video.describe(film.path, square=False)
    assert video.to_rgb(next(video.decode(stored))).shape == (64, 96, 3)


def test_interlaced_films_give_a_warning(tmp_path):
    path = synthetic_film.write(
        tmp_path / "tv.mkv", [np.zeros((64, 96, 3), np.uint8)] * 3, codec="libx264",
        options={"x264-params": "interlaced=1"},
    )  # fmt: skip
    assert "interlaced" in video.describe(path).warnings[0]


def test_frames_of_a_variable_rate_keep_their_times(tmp_path, film):
    times = [0, 40, 80, 200, 240, 700]
    path = synthetic_film.write(tmp_path / "phone.mkv", film[:6], times=times)
    found = list(video.decode(video.describe(path)))
    assert [frame.number for frame in found] == list(range(6))
    assert [round(1000 * frame.seconds) for frame in found] == times


# One film.


def test_frames_are_written_by_shot_without_loss(tmp_path, film, film_file):
    done, failed = run(film_file, output=tmp_path, every=6)
    assert not failed and "shots: 3" in done[0]
    names = [f"city/shot0001_{n:07d}.png" for n in (0, 6, 12)]
    names += [f"city/shot0002_{n:07d}.png" for n in (14, 20, 26)]
    names += [f"city/shot0003_{n:07d}.png" for n in (31, 37, 43)]
    assert written(tmp_path) == names
    for name in names:
        number = int(name[-11:-4])
        assert np.array_equal(read_bytes(tmp_path / name), film[number])
    clips = {pairs.clip_of(name.removesuffix(".png")) for name in names}
    assert clips == {"city/shot0001", "city/shot0002", "city/shot0003"}


def test_frames_per_shot_can_be_limited(tmp_path, film_file):
    run(film_file, output=tmp_path, per_shot=2)
    assert [int(name[-11:-4]) for name in written(tmp_path)] == [3, 10, 18, 26, 34, 40]


def test_without_cuts_a_film_is_one_clip(tmp_path, film_file):
    run(film_file, output=tmp_path, cuts=False, every=20)
    assert written(tmp_path) == [f"city/shot0001_{n:07d}.png" for n in (0, 20, 40)]


def test_files_are_overwritten_only_with_overwrite(tmp_path, film_file):
    run(film_file, output=tmp_path, every=20)
    first = tmp_path / written(tmp_path)[0]
    first.write_bytes(b"mine")
    _, failed = run(film_file, output=tmp_path, every=20)
    assert str(first) in failed[0] and "--overwrite" in failed[0]
    assert first.read_bytes() == b"mine"
    run(film_file, output=tmp_path, every=20, overwrite=True)
    assert read_bytes(first).shape == (*SIZE, 3)


def test_a_broken_film_is_kept_up_to_its_end_and_stops_no_other(
    tmp_path, film, film_file
):
    broken = tmp_path / "broken.mkv"
    data = film_file.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    (tmp_path / "junk.mkv").write_bytes(b"no film at all" * 99)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "restoration.extract", "-i", tmp_path / "junk.mkv",
               broken, film_file, "-o", out, "--every", "5"]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 1
    wrong = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "junk.mkv: not a readable film" in wrong[0]
    seen = re.search(r"broken\.mkv: ends after (\d+) of 44 frames", wrong[1])
    assert len(wrong) == 2
    kept = [name for name in written(out) if name.startswith("broken/")]
    assert kept and max(int(name[-11:-4]) for name in kept) < int(seen[1])
    for name in kept:
        assert np.array_equal(read_bytes(out / name), film[int(name[-11:-4])])
    assert sum(name.startswith("city/") for name in written(out)) == 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input": ("none.mkv",)}, "no such file"),
        ({"input": ("a/x.mkv", "b/x.mp4")}, "both would be written"),
        ({"input": ("a.mkv", "b.mkv"), "remaster": "c.mkv"}, "exactly one film"),
        ({"input": ("a.mkv",), "every": 0}, "at least 1"),
    ],
)
def test_bad_options_are_refused(tmp_path, given, message):
    with pytest.raises(errors.InputError, match=message):
        extract.extract(extract.ExtractOptions(output=str(tmp_path), **given))


def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize("version", [missing, lambda name: "17.1.0"])
def test_error_says_how_to_install_pyav(tmp_path, monkeypatch, film_file, version):
    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(errors.InputError, match='pip install "av>=18"'):
        run(film_file, output=tmp_path)


def test_tags_that_are_not_utf_8_are_accepted(tmp_path, film_file):
    path, tag = tmp_path / "tagged.mkv", b"ENCODER"
    broken = b"\xff\xfe\xe9\xe8\xe4\xf6\xfc"
    path.write_bytes(film_file.read_bytes().replace(tag, broken))
    assert path.read_bytes() != film_file.read_bytes()
    run(path, output=tmp_path / "frames", every=100)
    assert written(tmp_path / "frames")


# Two films.

BOX, WORN_SIZE = (5.3, 3.7, 121.2, 90.6), (80, 106)


@pytest.fixture(scope="module")
def paired(tmp_path_factory, film, film_file):
    """Pairs of a degraded copy that starts later and has a part cut out."""
    folder = tmp_path_factory.mktemp("paired")
    numbers = [*range(4, 20), *range(24, 44)]
    degraded = [
        synthetic_film.degraded(
            synthetic_film.reframed(film[n], BOX, WORN_SIZE), n, grain=4
        )
        for n in numbers
    ]
    path = synthetic_film.write(
        folder / "worn<b>.mkv",
        degraded,
        codec="libx264",
        options={"crf": "14"},
        rate=24,
    )
    run(path, output=folder, remaster=str(film_file), every=4)
    return folder, numbers, degraded


def test_pairs_are_frames_of_the_same_instant(paired):
    folder, numbers, _ = paired
    with open(folder / "worn<b>.alignment.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["worn_frame"]) for row in rows] == list(range(len(numbers)))
    assert [int(row["remaster_frame"]) for row in rows] == numbers
    names = [row["name"] for row in rows if row["status"] == "written"]
    found = pairs.match(folder)
    assert [pair.name for pair in found] == names and len(names) >= 9
    # The degraded film has a fourth shot: the missing part makes a cut.
    clips = {f"worn<b>/shot000{k}" for k in (1, 2, 3, 4)}
    assert {pair.clip for pair in found} == clips


def test_geometry_is_found_to_a_fraction_of_a_pixel(paired):
    folder, _, _ = paired
    numbers = json.loads((folder / "worn<b>.alignment.json").read_text())
    true = registration.Geometry(
        (BOX[2] - BOX[0]) / WORN_SIZE[1], (BOX[3] - BOX[1]) / WORN_SIZE[0], *BOX[:2]
    )
    for shot in numbers["shots"]:
        found = registration.Geometry(**shot["geometry"])
        assert registration.distance(found, true, WORN_SIZE) < 0.25
        assert abs(found.scale_x / true.scale_x - 1) < 0.002
        assert abs(found.scale_y / true.scale_y - 1) < 0.002
    runs = [(r["frame"], r["offset"]) for s in numbers["shots"] for r in s["offsets"]]
    assert runs == [(0, 4), (10, 4), (16, 8), (23, 8)]


def test_the_remaster_is_resampled_onto_the_unchanged_degraded_frame(paired, film):
    folder, numbers, degraded = paired
    for pair in pairs.match(folder):
        number = int(pair.name[-7:])
        first, second = read_bytes(pair.input), read_bytes(pair.output)
        assert first.shape == second.shape == (*WORN_SIZE, 3)
        # As encoded: H.264 with halved color resolution.
        luma = first.mean(axis=2) - degraded[number].mean(axis=2)
        assert np.abs(luma).mean() < 4
        target = synthetic_film.reframed(film[numbers[number]], BOX, WORN_SIZE)
        difference = (second.astype(float) - target)[4:-4, 4:-4]
        assert np.sqrt((difference**2).mean()) < 3


def test_page_is_self_contained_and_escaped(paired):
    folder, _, _ = paired
    page = (folder / "worn<b>.alignment.html").read_text(encoding="utf-8")
    assert "worn<b>" not in page and "worn&lt;b&gt;" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert page.count("<article") == 4


def test_different_films_are_refused(tmp_path, film_file):
    other = synthetic_film.shot(
        "rocket", 20, SIZE, start=(0, 0), end=(1, 1), zoom=(0.6, 0.8)
    )
    path = synthetic_film.write(tmp_path / "other.mkv", list(other))
    out = tmp_path / "out"
    options = extract.ExtractOptions(
        input=(str(path),), output=str(out), remaster=str(film_file)
    )
    done, failed = extract.extract(options)
    assert not done and not out.exists()
    assert "other.mkv" in failed[0] and "no frames match" in failed[0]
    assert extract.main(options) == 1
