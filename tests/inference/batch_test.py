"""Batches: which files, what becomes of them, and how they are controlled."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from PIL import Image

from restoration import models, restore
from restoration.base import errors
from restoration.devices import backend
from restoration.images import frames
from restoration.inference import (
    batch,
    engine,
    film_jobs,
    jobs,
    layout,
    preserve,
    restore_file,
    tiling,
)
from restoration.reports import compare
from tests import files


@pytest.fixture(scope="module")
def photo(photographs):
    return frames.to_uint8(photographs["chelsea"][60:160, 100:230])


def save(photo, *paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path)


def find(inputs, output, *, suffix="restored", ext="auto", recursive=True):
    given = [str(path) for path in inputs]
    found = jobs.find(given, str(output), suffix=suffix, ext=ext, recursive=recursive)
    return {j.source: j.target.relative_to(output).as_posix() for j in found}


@pytest.fixture
def fake(monkeypatch):
    """Makes `restore` use a model that needs no compiling."""
    used = files.fake_engine(files.darker)
    monkeypatch.setattr(batch, "load_engine", lambda options: used)


def run(inputs, output, **changes):
    given = tuple(str(path) for path in inputs)
    options = batch.RestoreOptions(input=given, output=str(output), **changes)
    return batch.restore(options)


# Which files.


def test_names_never_collide(tmp_path, photo):
    one, two = tmp_path / "one", tmp_path / "two"
    save(photo, one / "a.jpg", one / "a.png", one / "b.png", two / "a.jpg")
    out = tmp_path / "out"
    assert find([one], out) == {
        one / "a.jpg": "a_restored.jpg", one / "a.png": "a_restored.png",
        one / "b.png": "b_restored.png",
    }  # fmt: skip
    assert find([one], out, ext="png") == {
        one / "a.jpg": "a_jpg_restored.png", one / "a.png": "a_png_restored.png",
        one / "b.png": "b_restored.png",
    }  # fmt: skip
    both = find([one, two], out)
    assert both[one / "a.jpg"] == "one/a_restored.jpg"
    assert both[two / "a.jpg"] == "two/a_restored.jpg"
    assert both[one / "b.png"] == "b_restored.png"
    # Neither the order nor naming one twice changes anything.
    assert find([two, one], out) == both
    assert find([one, two, one / "b.png"], out) == both


def test_results_inside_the_input_folder_are_no_input(tmp_path, photo, fake):
    save(photo, tmp_path / "a.png", tmp_path / "sub" / "b.png")
    for output in (tmp_path / "sub" / "out", tmp_path):
        for _ in range(2):
            done = run([tmp_path], output, recursive=True, overwrite=True,
                       difference=True)  # fmt: skip
            own = {d.input.relative_to(tmp_path).as_posix() for d in done}
            assert not any(d.error for d in done)
            if output != tmp_path:
                assert own == {"a.png", "sub/b.png"}
        for path in [p for p in tmp_path.rglob("*restored*") if p.is_file()]:
            path.unlink()
    with pytest.raises(errors.InputError, match=r"would replace .*a\.png"):
        find([tmp_path / "a.png"], tmp_path, suffix="")


def test_one_picture_may_become_a_file_of_any_name(tmp_path, photo, fake):
    source = tmp_path / "a.png"
    save(photo, source)
    plain, given = tmp_path / "plain.png", tmp_path / "new" / "given.JPG"
    (done,) = run([source], plain, difference=True)
    assert done.output == plain and not done.error
    assert (tmp_path / "plain_difference.png").exists()
    run([source], given)
    with Image.open(given) as image:
        assert image.format == "JPEG" and image.size == photo.shape[1::-1]
    (again,) = run([source], plain)
    assert "--overwrite" in again.error
    save(photo, tmp_path / "folder.png" / "b.png")
    (inside,) = run([source], tmp_path / "folder.png")
    assert inside.output == tmp_path / "folder.png" / "a_restored.png"
    for inputs, output, changes, line in (
        ([source, given], plain, {}, "more than one"),
        ([tmp_path], plain, {}, "more than one"),
        ([tmp_path / "none.png"], plain, {}, "no such file"),
        ([source], source, {}, "would replace"),
        ([source], tmp_path / "b.heic", {}, "another ending"),
        ([source], tmp_path / "b.jpg", {"ext": "tif"}, "--ext=tif"),
        ([source], plain, {"beam": "--runner=DirectRunner"}, "wants a folder"),
    ):
        with pytest.raises(errors.InputError, match=line):
            run(inputs, output, **changes)
    (tmp_path / "reel.mkv").touch()
    for output in (plain, tmp_path / "out.mkv"):
        with pytest.raises(errors.InputError, match="give -o a folder"):
            film_jobs.divide([str(tmp_path / "reel.mkv")], str(output), suffix="",
                             recursive=False, sequence=False)  # fmt: skip


def test_what_is_found_in_folders(tmp_path, photo):
    save(
        photo, tmp_path / "a.png", tmp_path / "sub" / "b.jpg", tmp_path / ".x" / "c.png"
    )
    (tmp_path / "d.gif").write_bytes(b"GIF89a")
    (tmp_path / "notes.txt").write_text("")
    out = tmp_path.parent / "elsewhere"
    flat = find([tmp_path], out, recursive=False)
    assert {p.name for p in flat} == {"a.png", "d.gif"}  # told, not passed over
    assert {p.name for p in find([tmp_path], out)} == {"a.png", "b.jpg", "d.gif"}
    assert find([tmp_path], out)[tmp_path / "sub" / "b.jpg"] == "sub/b_restored.jpg"


# Unattended.


def test_a_report_tells_of_every_file(tmp_path, photo, fake):
    save(photo, tmp_path / "in" / "a.png", tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "bad.png").write_text("no picture")
    out, path = tmp_path / "out", tmp_path / "r.json"
    done = run([tmp_path / "in"], out, report=str(path), strength=0.5)
    assert [bool(d.error) for d in done] == [False, False, True]
    told = json.loads(path.read_text())
    assert told["model"] == "basic" and told["weights_sha256"] == "0" * 64
    assert (told["restored"], told["skipped"], told["failed"]) == (2, 0, 1)
    assert told["settings"]["strength"] == 0.5
    assert told["files"][0]["sizes"] == [[130, 100]]
    assert told["files"][0]["seconds"] > 0 and told["files"][0]["tiles"] == [[64, 64]]
    assert "not a readable image" in told["files"][2]["error"]
    # A killed batch goes on: what is there stays, the rest is made.
    (out / "b_restored.jpg").unlink()
    before = (out / "a_restored.png").stat().st_mtime_ns
    done = run([tmp_path / "in"], out, skip_existing=True)
    assert [d.skipped for d in done] == [True, False, False]
    assert (out / "a_restored.png").stat().st_mtime_ns == before
    assert (out / "b_restored.jpg").is_file()
    assert restore.report_failures(done) == 1
    with pytest.raises(errors.InputError, match="choose another file"):
        run([tmp_path / "in"], out, report=str(tmp_path / "in" / "a.png" / "r.json"))


def test_options_that_contradict():
    for given, line in (
        ({"overwrite": True, "skip_existing": True}, "not both"),
        ({"tile": "big"}, "auto or a number"),
        ({"context": "-3"}, "auto or a number"),
        ({"strength": 1.5}, "from 0.0 to 1.0"),
        ({"keep": "/nowhere"}, "no such file or folder"),
        ({"damage": "/nowhere"}, "no such file or folder"),
        ({"blind": False, "only_damage": True}, "no mask of damage"),
        ({"workdir": "run", "save_damage": True}, "no mask of damage"),
        ({"sensitivity": 2.0}, "from 0.0 to 1.0"),
        ({"ext": "gif"}, "choose one of"),
    ):
        with pytest.raises(errors.InputError, match=line):
            batch.RestoreOptions(input=("a",), output="b", **given)


def test_a_device_that_is_not_here():
    with pytest.raises(errors.InputError, match="JAX finds no TPU here"):
        backend.device("tpu")


def test_restore_starts_without_tensorflow(tmp_path, photo):
    save(photo, tmp_path / "a.png")
    code = (
        "import sys\nfrom restoration.inference import batch, engine\n"
        "engine._TILES = ((448, 448),)\n"  # the finder's least, to be quick
        f"options = batch.RestoreOptions(input=({str(tmp_path / 'a.png')!r},), "
        f"output={str(tmp_path / 'out')!r}, model='basic')\n"
        "assert not batch.restore(options)[0].error\n"
        "print([m for m in ('tensorflow', 'orbax', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_compiled_programs_are_kept_whole(tmp_path, photo):
    """Entries appear only by renaming, and no folder of a run stays behind."""
    code = (
        "from restoration.devices import backend\n"
        "backend.cache_compilations()\nimport jax\n"
        # A fast machine compiles in less than the time from which on it is kept.
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "print(jax.jit(lambda x: jax.numpy.linalg.svd(x @ x)[1])("
        "jax.numpy.eye(32)).sum())"
    )
    environment = {k: v for k, v in os.environ.items() if "JAX" not in k}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    stamps = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        kept = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert not [p for p in tmp_path.rglob(".run-*")]
        stamps.append(
            {p.name: p.stat().st_mtime_ns for p in kept if "atime" not in p.name}
        )
    assert stamps[0] and stamps[0].items() <= stamps[1].items()


# Control.


def test_a_mask_limits_what_is_restored(tmp_path, photo):
    save(photo, tmp_path / "in" / "sub" / "a.png")
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[20:50, 30:90], mask[60:, :] = 255, 128
    save(mask, tmp_path / "masks" / "sub" / "a.png")
    options = {"relative": "sub/a.png", "keep": str(tmp_path / "masks")}
    source, target = tmp_path / "in" / "sub" / "a.png", tmp_path / "b.png"
    files.restore(source, target, **options)
    written = np.asarray(Image.open(target)).astype(float)
    np.testing.assert_array_equal(written[mask == 0], photo[mask == 0])
    np.testing.assert_allclose(
        written[mask == 255], 0.8 * photo[mask == 255], atol=0.51
    )
    np.testing.assert_allclose(written[mask == 128], 0.9 * photo[mask == 128], atol=1)
    save(mask[:50], tmp_path / "masks" / "sub" / "a.png")
    with pytest.raises(AssertionError, match="make them equal"):
        files.restore(source, target, overwrite=True, **options)
    with pytest.raises(AssertionError, match="no mask"):
        files.restore(source, tmp_path / "c.png", keep=str(tmp_path / "masks"))


def test_difference_shows_what_was_changed(tmp_path, photo):
    degraded = photo // 2 + 60
    degraded[40:44] = 255  # a scratch
    save(degraded, tmp_path / "a.png")

    def mend(tiles):
        return np.where(tiles > 0.99, np.float32(0.4), tiles)

    files.restore(tmp_path / "a.png", tmp_path / "b.png", change=mend, difference=True)
    difference = np.asarray(Image.open(tmp_path / "b_difference.png")).astype(float)
    np.testing.assert_allclose(difference[40:44], 127.5 + 127.5 * (0.4 - 1), atol=1)
    np.testing.assert_allclose(difference[:40], 127.5, atol=0.51)


def test_keep_color_leaves_color_and_tone():
    generator = np.random.default_rng(0)
    images = generator.uniform(0.3, 0.6, (1, 200, 200, 3)).astype(np.float32)
    warmer = images * np.array([1.2, 1.0, 0.8], np.float32) + np.float32(0.05)
    kept = np.asarray(preserve.preserve_color(images, warmer))
    # What each pixel's color is apart from its lightness stays.
    differences = (kept - images).reshape(-1, 3)
    np.testing.assert_allclose(differences, differences[:, :1].repeat(3, 1), atol=1e-5)
    assert abs((kept - images).mean()) < 0.002
    # A scratch is still mended.
    degraded = images.copy()
    degraded[:, :, 100] += 0.3
    mended = np.asarray(preserve.preserve_color(degraded, images))
    assert np.abs(mended - images)[:, :, 100].mean() < 0.03
    assert np.abs(degraded - images)[:, :, 100].mean() > 0.29
    # So is a wide blotch, for the most part.
    degraded = images.copy()
    degraded[:, 60:140, 60:140] += 0.3
    mended = np.asarray(preserve.preserve_color(degraded, images))
    assert np.abs(mended - images)[:, 60:140, 60:140].mean() < 0.11


def test_wide_color_stays_and_narrow_color_is_mended():
    generator = np.random.default_rng(0)
    images = generator.uniform(0.3, 0.6, (1, 200, 200, 3)).astype(np.float32)
    warm = np.array([0.1, 0.0, -0.1], np.float32)
    # A change of color alone: of a wide one nothing is left, however strong.
    blotch = images.copy()
    color = warm - warm @ np.array([0.299, 0.587, 0.114], np.float32)
    blotch[:, 60:140, 60:140] += color
    kept = np.asarray(preserve.preserve_shades(images, blotch))
    np.testing.assert_allclose(
        kept[:, 75:125, 75:125], images[:, 75:125, 75:125], atol=1e-5
    )
    # Of a colored scratch of one pixel, taken away, a fifteenth of its color stays:
    # the middle of a box of 15 pixels folded with itself.
    degraded = images.copy()
    degraded[:, :, 100] += color
    mended = np.asarray(preserve.preserve_shades(degraded, images))
    left = (mended - images)[:, :, 100]
    np.testing.assert_allclose(left, np.broadcast_to(color / 15, left.shape), atol=1e-5)


@pytest.mark.parametrize(("shade", "left"), [(0.04, 0.0), (-0.04, 0.0), (0.3, 0.25)])
def test_of_a_wide_shade_the_faint_part_is_taken_out(shade, left):
    generator = np.random.default_rng(0)
    images = generator.uniform(0.3, 0.6, (1, 200, 200, 3)).astype(np.float32)
    shaded = images + np.float32(shade)
    kept = np.asarray(preserve.preserve_shades(images, shaded))
    np.testing.assert_allclose(kept, images + np.float32(left), atol=1e-5)
    # Of a scratch that is taken away hardly anything stays.
    degraded = images.copy()
    degraded[:, :, 100] += np.float32(shade)
    mended = np.asarray(preserve.preserve_shades(degraded, images))
    assert np.abs(mended - images).max() < 0.05 / 33 + 1e-5


@pytest.mark.parametrize("preserved", [preserve.COLOR, preserve.SHADES])
def test_what_is_kept_does_not_depend_on_tiles(photographs, preserved):
    weights = engine.load_weights("basic", "")
    model, parameters = models.get_model(weights.model), weights.parameters
    image = photographs["coffee"][:150, :230]
    found = np.zeros((150, 230, 1), np.float32)
    found[:, 60:63], found[90:, 100:] = 1, 1
    results = []
    for tile in ((144, 144), (320, 320), (128, 176)):
        grid = layout.make_grid(model, tile=tile, radius=preserved.radius)
        compute = tiling.make_compute(preserve.restoring(model, preserved), grid)
        strips = tiling.restore_strips(
            lambda tiles, compute=compute: compute(parameters, tiles),
            [np.concatenate([image, found], -1)], grid, image.shape[:2],
        )  # fmt: skip
        results.append(np.concatenate(list(strips)))
    for other in results[1:]:
        assert np.abs(results[0] - other).max() < 1 / 255


def test_a_mask_that_nothing_makes_is_refused(tmp_path, photo, monkeypatch):
    save(photo, tmp_path / "a.png")
    without = types.SimpleNamespace(finder=None)
    monkeypatch.setattr(batch, "load_engine", lambda options: without)
    for name in ("save_damage", "only_damage"):
        options = batch.RestoreOptions(
            input=(str(tmp_path),), output=str(tmp_path / "out"), **{name: True}
        )
        with pytest.raises(errors.InputError, match="no weights of a finder"):
            batch.restore(options)


def test_context_is_never_less_than_the_model_sees():
    weights = engine.load_weights("basic", "")
    with pytest.raises(errors.InputError, match="sees 10 pixels far"):
        engine.make_engine(weights, context="4")
    grid = engine.make_engine(weights, tile="192", context="30").grid((9, 9))
    # And what shades that are kept need: 32 pixels.
    assert grid.context == 32 + 32 and grid.core == (64, 64)
    # The weights of a run have no grader: their network is used alone.
    alone = dataclasses.replace(weights, grader=None)
    grid = engine.make_engine(alone, tile="128", context="30").grid((9, 9))
    assert grid.context == 32 and grid.core == (64, 64)


# A device that runs out of memory.


def test_tiles_are_halved_until_they_fit(tmp_path, photo):
    save(photo, tmp_path / "a.png")
    grid = layout.make_grid(models.get_model("basic"), tile=(256, 256), batch=4)
    tried = []

    def compile_program(grid):
        def compute(tiles):
            tried.append((grid.tile[0], grid.batch))
            if grid.tile[0] * grid.batch > limit:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return tiles[:, *grid.inner][..., :3] * np.float32(0.8)

        return compute

    limit = 130
    used = engine.Engine(None, "", engine.Network(compile_program, [grid]))
    job = jobs.Job(tmp_path / "a.png", tmp_path / "b.png", pathlib.PurePosixPath("a"))
    done = restore_file.restore_file(job, used, restore_file.Settings())
    assert not done.error and done.tiles == ((128, 128),)
    assert sorted(set(tried), reverse=True) == [(256, 4), (256, 2), (256, 1), (128, 1)]
    written = np.asarray(Image.open(tmp_path / "b.png"))
    np.testing.assert_allclose(written, 0.8 * photo, atol=0.51)

    limit = 1
    done = restore_file.restore_file(job, used, restore_file.Settings(overwrite=True))
    assert "too little memory for one tile" in done.error


def test_tiles_are_chosen_by_the_free_memory(monkeypatch):
    weights = engine.load_weights("basic", "")
    size = (300, 400)
    rows = [np.ones((*size, 4), np.float32)]

    def tile_of_restored():
        used = engine.make_engine(weights)
        assert len(np.concatenate(list(used.network.strips(rows, size)))) == 300
        return used.grid(size).tile

    whole = tile_of_restored()
    monkeypatch.setattr(backend, "free_memory", lambda device: 10_000_000)
    assert tile_of_restored() < whole
    monkeypatch.setattr(backend, "free_memory", lambda device: 1000)
    with pytest.raises(errors.InputError, match="too little for one tile"):
        tile_of_restored()


def test_a_model_that_sees_far_takes_tiles_that_suit_the_picture():
    grid = engine.make_engine(engine.load_weights("nafnet_s", "")).grid
    small, large, wide = grid((300, 400)), grid((1000, 1000)), grid((9000, 10000))
    assert max(small.tile) < 0.6 * max(large.tile)
    assert large.core[0] >= 1000 and large.core[1] >= 1000
    # Rows of tiles in memory: no more for a wide picture than twice a usual one's.
    assert wide.core[0] * 10000 < 2 * large.core[0] * 5000
    assert grid((20000, 20000)) == wide
    # Of a scan of any width nothing is computed twice as often as with large tiles.
    for width in range(50, 6000, 450):
        size = (700, width)
        assert layout.computed(grid(size), size) <= layout.computed(large, size)


# The page of before and after.


def test_the_page_shows_pictures_upright_and_asks_for_nothing(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(photo).save(tmp_path / "b.bmp")
    done = [files.restore(tmp_path / n, tmp_path / f"o{n}") for n in ("a.jpg", "b.bmp")]
    failed = restore_file.Restored(tmp_path / "c", tmp_path / "d", "an error")
    assert compare.write(tmp_path / "compare.html", [*done, failed]) == []
    page = (tmp_path / "compare.html").read_text()
    assert 'width="100" height="130"' in page and 'width="130" height="100"' in page
    assert "http://" not in page and "https://" not in page
    assert page.count('type="range"') == 2
