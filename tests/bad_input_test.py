"""Bad input gives one line that names it, and no part of a result."""

import os
import shutil

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from experiments.robustness import fuzz_restore
from restoration.base import errors
from restoration.images import frames, picture
from restoration.inference import jobs, restore_file
from tests import files, selection


@pytest.fixture(scope="module")
def photo(photographs):
    return frames.to_uint8(photographs["rocket"][:64, 100:190])


def attempt(source, target, **settings):
    job = jobs.Job(source, target, jobs.pathlib.PurePosixPath(source.name))
    return restore_file.restore_file(
        job, files.fake_engine(files.darker), restore_file.Settings(**settings)
    )


def failing(source, target, **settings):
    """Returns the error of a picture that must fail and leave nothing."""
    done = attempt(source, target, **settings)
    assert done.error and "\n" not in done.error
    assert not target.exists()
    if target.parent.is_dir():
        assert not [p for p in target.parent.iterdir() if p.name.startswith(".")]
    return done.error


def test_files_that_hold_no_picture(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "whole.png")
    Image.fromarray(photo).save(tmp_path / "whole.jpg")
    Image.fromarray(photo).save(tmp_path / "whole.tif")
    Image.fromarray(photo).save(tmp_path / "whole.webp", lossless=True)
    Image.fromarray(photo).save(tmp_path / "whole.bmp")
    for kind in ("png", "jpg", "tif", "webp", "bmp"):
        data = (tmp_path / f"whole.{kind}").read_bytes()
        (tmp_path / f"cut.{kind}").write_bytes(data[: len(data) * 2 // 3])
        (tmp_path / f"text.{kind}").write_text("hello")
        (tmp_path / f"empty.{kind}").write_bytes(b"")
        for name in (f"cut.{kind}", f"text.{kind}", f"empty.{kind}"):
            line = failing(tmp_path / name, tmp_path / "out" / name)
            assert line.startswith(f"{tmp_path / name}: not a readable image")


def test_animations_are_refused_by_name(tmp_path, photo):
    shots = [Image.fromarray(photo), Image.fromarray(photo[::-1].copy())]
    for kind in ("gif", "png", "webp"):
        path = tmp_path / f"a.{kind}"
        shots[0].save(path, save_all=True, append_images=shots[1:])
        line = failing(path, tmp_path / "out" / f"a.{kind}")
        assert f"an animated {kind.upper()}" in line


def test_formats_that_are_not_supported(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "one.gif")
    line = failing(tmp_path / "one.gif", tmp_path / "o.gif")
    assert "whole, but not a format that is restored; convert it" in line
    (tmp_path / "a.psd").write_bytes(b"8BPS" + bytes(60))
    assert "a.psd" in failing(tmp_path / "a.psd", tmp_path / "o.psd")
    assert jobs.is_picture("a.dng") and not jobs.is_picture("notes.txt")


def test_a_decompression_bomb_is_refused_before_it_is_read(tmp_path):
    pyvips.Image.black(30_000, 20_000).pngsave(str(tmp_path / "bomb.png"))
    pyvips.Image.black(30_000, 20_000).tiffsave(
        str(tmp_path / "bomb.tif"), compression="deflate"
    )
    for name in ("bomb.png", "bomb.tif"):
        assert (tmp_path / name).stat().st_size < 3_000_000
        line = failing(tmp_path / name, tmp_path / "o" / name, max_pixels=100_000_000)
        assert "30000×20000 pixels are more than --max_pixels" in line


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_tiny_and_thin_pictures(tmp_path, size, kind):
    values = np.full((*size, 3), 200, np.uint8)
    Image.fromarray(values).save(tmp_path / f"a.{kind}")
    files.restore(tmp_path / f"a.{kind}", tmp_path / f"b.{kind}")
    written = frames.read(tmp_path / f"b.{kind}")
    assert written.shape == values.shape
    np.testing.assert_allclose(written * 255, 160, atol=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    (tmp_path / "out").mkdir(mode=0o500)
    done = attempt(tmp_path / "a.png", tmp_path / "out" / "a.png")
    assert "cannot be written (Permission denied" in done.error


def test_a_folder_that_cannot_be_made(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    done = attempt(tmp_path / "a.png", tmp_path / "file" / "a.png")
    assert "cannot be written" in done.error and "file" in done.error


def test_a_full_disk(tmp_path, photo, monkeypatch):
    Image.fromarray(photo).save(tmp_path / "a.png")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    line = failing(tmp_path / "a.png", tmp_path / "out" / "a.png")
    assert "are needed while the picture is written" in line
    monkeypatch.undo()

    # The disk fills while rows are written.
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restore_file.encode, "write_rows", full)
    line = failing(tmp_path / "a.png", tmp_path / "out" / "a.png")
    assert "No space left on device" in line and "the disk has room" in line


def test_an_encoder_that_meets_a_full_disk(tmp_path, photo, monkeypatch):
    Image.fromarray(photo).save(tmp_path / "a.png")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restore_file.files.os, "replace", full)
    assert "cannot be written" in failing(tmp_path / "a.png", tmp_path / "o" / "a.png")


def test_what_the_report_of_a_bug_looks_like(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")

    def broken(tiles):
        raise TypeError("a bug")

    job = jobs.Job(tmp_path / "a.png", tmp_path / "b.png", jobs.pathlib.PurePosixPath())
    done = restore_file.restore_file(
        job, files.fake_engine(broken), restore_file.Settings()
    )
    assert "TypeError: a bug; please report this" in done.error


def test_values_beyond_white_and_none_at_all(tmp_path):
    values = np.linspace(-0.5, 3, 30 * 40 * 3, dtype=np.float32).reshape(30, 40, 3)
    values[..., 2] = values[::-1, ::-1, 2]  # a picture without color would get none
    values[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    files.restore(tmp_path / "a.tif", tmp_path / "b.tif")
    written = tifffile.imread(tmp_path / "b.tif")
    expected = values - 0.2 * np.clip(values, 0, 1)
    np.testing.assert_allclose(written, expected, atol=1e-6)


@pytest.mark.parametrize(
    "kind", selection.slow_but(["heic", "jpg", "png", "tif"], fuzz_restore.KINDS)
)
def test_damaged_files_never_crash_the_reader(tmp_path, kind):
    counts = fuzz_restore.fuzz(kind, rounds=40, seed=1, folder=tmp_path)
    assert counts["refused"] + counts["restored"] == 40
    assert counts["crashed"] == counts["partial"] == counts["surprised"] == 0


def test_the_reader_names_a_missing_file(tmp_path):
    with pytest.raises(errors.InputError, match="no such file"):
        picture.inspect(tmp_path / "missing.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "bmp"])
@pytest.mark.parametrize("stem", ["Straße 日本", "a [1]", "-i"])
def test_any_name_will_do(tmp_path, photo, kind, stem):
    Image.fromarray(photo).save(tmp_path / f"a.{kind}")
    source = (tmp_path / f"a.{kind}").rename(tmp_path / f"{stem}.{kind}")
    files.restore(source, tmp_path / stem / f"{stem}.{kind}")
    assert (tmp_path / stem / f"{stem}.{kind}").is_file()


def test_a_name_that_is_no_text(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    source = (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    for folder in ("out", os.fsdecode(b"r\xe9sultats")):
        target = tmp_path / folder / source.name
        files.restore(source, target)
        assert os.fsencode(target.name) == b"caf\xe9.png"
        assert np.asarray(Image.open(target)).shape == photo.shape
