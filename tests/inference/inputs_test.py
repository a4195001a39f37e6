"""What pictures show and folders hold: specks that are none, negatives, tones."""

import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from restoration import restore
from restoration.images import color, colorimetry, frames
from restoration.inference import (
    batch,
    film_jobs,
    grade,
    jobs,
    negative,
    restore_file,
    true_specks,
)
from tests import files


def cells_of(image):
    return grade.look([(image, None)], image.shape[:2])


def sky(count=0, seed=0, size=256):
    """Returns a dusk sky, with so many stars, and where they are."""
    generator = np.random.default_rng(seed)
    across = np.linspace(0.15, 0.3, size)[None, :, None]
    image = np.broadcast_to(across, (size, size, 3)).copy()
    image += 0.005 * generator.standard_normal(image.shape)
    places = generator.integers(6, size - 6, (count, 2))
    for y, x in places:
        image[y - 1 : y + 2, x - 1 : x + 2] = generator.uniform(0.6, 1)
    return image.astype(np.float32), places


def found_in(image):
    read = true_specks.find(
        lambda: iter(np.array_split(image, 5)), lambda values: values, image.shape[:2]
    )
    return None if read is None else np.concatenate(list(read()))[..., 0] == 0


def test_stars_are_found_and_dust_is_not():
    image, places = sky(170)
    found = found_in(image)
    assert found.shape == (256, 256) and found.mean() < 0.25
    assert np.mean([found[y, x] for y, x in places]) > 0.95
    assert found_in(sky(12)[0]) is None
    assert found_in(sky(0)[0]) is None


def test_a_lattice_of_dots_is_found_though_it_is_not_dense():
    image, _ = sky(0, size=400)
    down, across = np.mgrid[:400, :400]
    for y in range(25, 400, 50):
        for x in range(25, 400, 50):
            image[(down - y) ** 2 + (across - x) ** 2 <= 16] = 0.9
    found = found_in(image)
    assert found is not None and found[25, 25] and not found[50, 50]


def test_noise_and_texture_are_no_specks(photographs):
    noise = np.random.default_rng(0).uniform(0, 1, (200, 200, 3)).astype(np.float32)
    assert found_in(noise) is None
    assert found_in(photographs["coffee"][:200, :300]) is None


def test_bands_of_large_pictures_meet_seamlessly():
    narrow, _ = sky(0, size=300)
    tall = np.concatenate([narrow] * 5)
    for y in range(6, 1490, 9):
        tall[y : y + 3, 7 + (y * 37) % 280 :][:, :3] = 0.9
    once, split = found_in(tall), found_in(tall)
    assert once.shape == tall.shape[:2]
    np.testing.assert_array_equal(once, split)
    assert once[511:514].any() and all(once[y, 8 + (y * 37) % 280] for y in (510, 519))


def test_a_starry_sky_keeps_its_stars(tmp_path):
    image, places = sky(170)
    frames.write(tmp_path / "a.png", image)
    median = lambda tiles: np.minimum(tiles, np.float32(0.3))  # noqa: E731
    done = files.restore(tmp_path / "a.png", tmp_path / "b.png", change=median)
    assert "left alone" in done.notes[0]
    assert "--mask" in done.notes[0] and "--strength" in done.notes[0]
    before, after = frames.read(tmp_path / "a.png"), frames.read(tmp_path / "b.png")
    kept = [np.array_equal(before[y, x], after[y, x]) for y, x in places]
    assert np.mean(kept) > 0.95
    # Who gives a mask has looked.
    Image.new("L", (256, 256), 255).save(tmp_path / "keep.png")
    keep = str(tmp_path / "keep.png")
    done = files.restore(
        tmp_path / "a.png", tmp_path / "c.png", change=median, keep=keep
    )
    assert not done.notes
    assert frames.read(tmp_path / "c.png").max() <= 0.31


# Negatives.


# Densities of the base and slopes of the layers of red, green and blue: of two kinds of
# film, and a strong mask.
FILMS = (
    ((0.20, 0.55, 0.80), (0.55, 0.60, 0.65)),
    ((0.25, 0.65, 0.95), (0.60, 0.65, 0.72)),
    ((0.28, 0.75, 1.15), (0.60, 0.66, 0.72)),
)


def as_negative(image, film=0, rim=0):
    """Exposes and develops film, and scans it so that the base is light in red."""
    base, slopes = (np.array(x) for x in FILMS[film])
    exposure = np.log10(np.clip(colorimetry.to_light(image, "srgb"), 1e-4, None)) + 2
    density = np.log1p(np.exp(exposure / 0.25)) * 0.25 * slopes  # with a toe
    if rim:
        clear = np.ones(image.shape[:2], bool)
        clear[rim:-rim, rim:-rim] = False
        density[clear] = 0
    light = 10.0 ** (0.1 - density + base[0] - base) * 0.75
    return colorimetry.to_values(np.clip(light, 0, 1), "srgb").astype(np.float32)


@pytest.mark.parametrize("film", range(3))
def test_color_negatives_are_found(photographs, film):
    # With film around, and without where the scene has something black.
    for name, rim in (
        ("chelsea", 12),
        ("rocket", 12),
        ("coffee", 12),
        ("astronaut", 0),
    ):
        image = photographs[name]
        found = negative.find(cells_of(as_negative(image, film, rim)))
        assert found and found.base[0] > found.base[1] > found.base[2]


def test_the_holder_and_the_lamp_around_film_are_left_out(photographs):
    film = as_negative(photographs["chelsea"], rim=16)
    for around in (0.0, 1.0):
        wide = np.pad(film, ((40, 40), (60, 60), (0, 0)), constant_values=around)
        assert negative.find(cells_of(wide))


def crops(image, count, seed=0):
    """Yields parts of an image, at random."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        size = [int(side * generator.uniform(0.2, 0.6)) for side in image.shape[:2]]
        size = [max(64, side) for side in size]
        y, x = (
            generator.integers(0, max(1, all_ - part))
            for all_, part in zip(image.shape, size, strict=False)
        )
        yield image[y : y + size[0], x : x + size[1]]


def test_orange_pictures_are_no_negatives(photographs):
    fur = photographs["chelsea"]
    pictures = [fur, fur[60:157, 100:203], *crops(fur, 40)]
    for name in ("coffee", "astronaut", "rocket"):
        pictures += [photographs[name], *crops(photographs[name], 10)]
    # A sunset: a bright orange sky that darkens upward, over black hills.
    down, across = np.mgrid[0:1:160j, 0:1:240j]
    sky = np.array([1, 0.55, 0.25]) * (0.25 + 0.75 * down[..., None])
    hills = (down > 0.8 + 0.05 * np.sin(9 * across))[..., None]
    pictures.append(np.where(hills, 0.02, sky))
    grey = fur @ color.LUMA
    for tone in ((1, 0.87, 0.7), (1, 0.8, 0.6), (1, 0.7, 0.45), (1, 0.7, 0.55)):
        for low in (0.05, 0.25):
            pictures.append((low + 0.65 * grey[..., None]) * np.array(tone))
    for cast in ((0.95, 0.85, 0.7), (1, 0.83, 0.65)):  # faded prints
        for name in ("chelsea", "coffee", "astronaut", "rocket"):
            pictures.append(np.array(cast) * (0.3 + 0.6 * photographs[name]))
    found = [negative.find(cells_of(p.astype(np.float32))) for p in pictures]
    assert not any(found)


def test_a_negative_is_restored_as_one(tmp_path, photographs):
    image = as_negative(photographs["chelsea"][::2, ::2], rim=6)
    # Dust on a negative is dark there, and light on its positive.
    dusty = image.copy()
    dusty[50:54, 60:64] = 0.02
    frames.write(tmp_path / "a.png", dusty)
    shown = []

    def fill(tiles):
        shown.append(tiles.max())
        return np.minimum(tiles, np.float32(0.97))

    done = files.restore(tmp_path / "a.png", tmp_path / "b.png", change=fill)
    assert "color negative" in done.notes[0]
    written = frames.read(tmp_path / "b.png")
    assert written[51, 61].mean() > dusty[51, 61].mean()
    others = np.abs(written - frames.read(tmp_path / "a.png"))
    assert np.median(others) < 0.01


@pytest.mark.parametrize("grey", [False, True])
def test_a_negative_is_what_its_owner_says(tmp_path, photographs, grey):
    photo = photographs["chelsea"][::2, ::2].mean(-1, keepdims=True).repeat(3, -1)
    silver = as_negative(photo, rim=6).mean(-1, keepdims=True).repeat(3, -1)
    silver[50:54, 60:64] = 0.02  # dust, light on the positive
    stored = Image.fromarray(np.rint(255 * silver).astype(np.uint8))
    (stored.convert("L") if grey else stored).save(tmp_path / "a.png")
    shown = []

    def fill(tiles):
        shown.append(tiles.mean(axis=(0, 1, 2)))
        return np.minimum(tiles, np.float32(0.9))

    written = {}
    for said in ("auto", "yes"):
        path = tmp_path / f"{said}.png"
        done = files.restore(tmp_path / "a.png", path, change=fill, negative=said)
        assert any("as a negative" in note for note in done.notes) == (said == "yes")
        written[said] = frames.read(path)
    # The model saw a positive, so what it took away made the negative lighter.
    before = frames.read(tmp_path / "a.png")
    assert (written["yes"][50:54, 60:64] > before[50:54, 60:64]).all()
    assert (written["auto"] <= before + 1e-6).all()
    np.testing.assert_allclose(shown[0] + shown[-1], 1, atol=0.25)


def test_a_picture_that_is_said_to_be_no_negative_is_none(tmp_path, photographs):
    frames.write(tmp_path / "a.png", as_negative(photographs["chelsea"], rim=12))
    done = files.restore(tmp_path / "a.png", tmp_path / "b.png", negative="no")
    assert not any("negative" in note for note in done.notes)
    done = files.restore(tmp_path / "a.png", tmp_path / "c.png")
    assert any("--negative=no" in note for note in done.notes)


def test_a_flat_picture_may_be_said_to_be_a_negative(tmp_path):
    Image.new("L", (64, 64), 128).save(tmp_path / "a.png")
    files.restore(tmp_path / "a.png", tmp_path / "b.png", negative="yes")
    assert np.asarray(Image.open(tmp_path / "b.png")).mean() >= 127


# Tone.


def test_sepia_keeps_its_tone(photographs):
    grey = photographs["chelsea"].mean(-1, keepdims=True)
    sepia = (0.15 + 0.7 * grey) * np.array([1, 0.87, 0.7])
    sepia = sepia.astype(np.float32)
    cells = cells_of(sepia)
    assert grade.is_toned(cells)
    assert not grade.is_toned(cells_of(photographs["chelsea"]))
    assert not grade.is_toned(cells_of(np.repeat(grey, 3, -1)))
    faded = np.array([0.95, 0.8, 0.65]) * (0.3 + 0.5 * photographs["coffee"])
    assert not grade.is_toned(cells_of(faded.astype(np.float32)))


def test_the_grade_of_a_toned_print_moves_lightness_alone(photographs, monkeypatch):
    grey = photographs["chelsea"].mean(-1, keepdims=True)
    sepia = ((0.2 + 0.5 * grey) * np.array([1, 0.87, 0.7])).astype(np.float32)
    polynomials = np.random.default_rng(0).normal(0, 0.2, (1, 7, 3))
    monkeypatch.setattr(grade, "_estimate", lambda *given: polynomials)
    found = grade.estimate(None, cells_of(sepia))
    graded = grade.apply(sepia, found)
    np.testing.assert_allclose(
        graded - graded[..., :1], sepia - sepia[..., :1], atol=1e-5
    )
    assert np.abs(graded - sepia).mean() > 0.01


# Folders.


def test_foreign_folders_are_passed_over_and_other_files_counted(tmp_path):
    names = [
        "a.jpg", "b.HIF", "c.MPO", "d.j2k", "e.dpx", "f.tga", "g.ppm", "h.pdf",
        "i.PDF", "j.mov", "sub/k.png", "sub/l.docx", "@eaDir/a.jpg", "#recycle/x.png",
        "Thumbs.db", ".thumbnails/y.jpg", ".picasaoriginals/z.jpg",
        "sub/@eaDir/k.png", ".hidden.mov", "x.lrdata/p.jpg", "noname",
    ]  # fmt: skip
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {str(p) for p in jobs.walk(tmp_path / "in", recursive=True)}
    assert found == {
        "a.jpg", "b.HIF", "c.MPO", "d.j2k", "e.dpx", "f.tga", "g.ppm", "sub/k.png"
    }  # fmt: skip
    inputs = (str(tmp_path / "in"),)
    counts = jobs.passed_over(inputs, str(tmp_path / "in" / "out"), recursive=True)
    assert counts == {".pdf": 2, ".docx": 1, ".mov": 1, "no suffix": 1}
    assert next(iter(counts)) == ".pdf"
    counts = jobs.passed_over(inputs, str(tmp_path / "in" / "sub"), recursive=True)
    assert ".docx" not in counts
    assert not jobs.passed_over((str(tmp_path / "in/a.jpg"),), "out", recursive=True)


def test_passed_over_files_are_the_last_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.pdf", "c.pdf"):
        (tmp_path / "in" / name).touch()
    monkeypatch.setattr(batch, "restore", lambda options: [])
    options = batch.RestoreOptions(
        input=(str(tmp_path / "in"),), output=str(tmp_path / "out")
    )
    assert restore.main(options, film_jobs.FilmOptions()) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("passed over") and last.endswith(": 2 .pdf")


def test_links_to_themselves_and_long_names_stop_no_batch(tmp_path):
    image = sky(0, size=32)[0]
    (tmp_path / "in").mkdir()
    names = ["a.png", "z.png", f"{'n' * 245}.png"]
    for name in names:
        frames.write(tmp_path / "in" / name, image)
    (tmp_path / "in/loop.png").symlink_to("loop.png")
    (tmp_path / "in/nowhere.png").symlink_to("missing.png")
    inputs, output = [str(tmp_path / "in")], tmp_path / "out"
    found = jobs.find(
        inputs, str(output), suffix="restored", ext="auto", recursive=True
    )
    assert sorted(job.source.name for job in found) == sorted(names)
    used = files.fake_engine(files.darker)
    for job in found:
        settings = restore_file.Settings(skip_existing=True)
        done = restore_file.restore_file(job, used, settings)
        if job.source.stem.startswith("n"):
            assert "too long" in done.error and "shorter --suffix" in done.error
        else:
            assert not done.error and job.target.is_file()


def test_names_break_no_line_and_steer_no_terminal(tmp_path, capsys):
    path = pathlib.Path(os.fsdecode(b"a\nb\x1b[31m\xfc.png"))
    done = restore_file.Restored(path, path, notes=("graded",))
    assert restore.report_failures([done]) == 0
    assert capsys.readouterr().out == "a\\nb\\x1b[31m\\udcfc.png (graded)\n"


@pytest.mark.parametrize("keep", [True, False])
def test_dates_of_files(tmp_path, keep):
    frames.write(tmp_path / "a.png", sky(0)[0])
    os.utime(tmp_path / "a.png", ns=(10**18, 10**18 + 123))
    files.restore(tmp_path / "a.png", tmp_path / "b.png", keep_dates=keep)
    dates = pathlib.Path(tmp_path / "b.png").stat()
    assert (dates.st_mtime_ns == 10**18 + 123) == keep
