"""Masks of damage: found, given, corrected and given back, and what they protect."""

import json
import pathlib

import jax
import numpy as np
import pytest
import tifffile
from absl import flags
from PIL import Image, ImageDraw

from restoration import restore
from restoration.base import cli, errors
from restoration.inference import batch, jobs, mask_files, preserve
from tests import files

# A picture of one grey with a light scratch and a light blotch.
SIZE = (90, 120)
BASE, SCRATCH = 100, 250

# What a mask has where damage was surely found.
FOUND = 254


def degraded(dtype=np.uint8, bands=3):
    image = np.full((*SIZE, bands), BASE, np.float64)
    image[:, 50:53] = SCRATCH
    image[20:40, 80:100] = SCRATCH
    if dtype == np.uint16:
        return (image * 257).astype(dtype)
    return image.astype(dtype) if dtype == np.uint8 else (image / 255).astype(dtype)


def damage():
    mask = np.zeros(SIZE, bool)
    mask[:, 50:53] = mask[20:40, 80:100] = True
    return mask


def light(images):
    """Finds what is light."""
    return (images.mean(-1, keepdims=True) > 0.9).astype(np.float32)


def flat(images, mask):
    """Fills with the grey that the picture has."""
    return np.where(mask > 0, np.float32(BASE / 255), images)


def used(change=lambda images: images, find=light, fill=flat, **options):
    return files.fake_engine(change, find=find, fill=fill, **options)


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.dtype == np.uint8:
        Image.fromarray(image.squeeze()).save(path)
    else:
        tifffile.imwrite(path, image, photometric="rgb")
    return path


def read(path):
    if path.suffix == ".tif":
        return tifffile.imread(path)
    return np.asarray(Image.open(path))


def grown(mask):
    wide = np.pad(mask, 1)
    parts = [wide[y : y + SIZE[0], x : x + SIZE[1]] for y in range(3) for x in range(3)]
    return np.any(parts, axis=0)


# Found and filled.


def test_what_is_found_is_filled_and_told(tmp_path):
    source = save(degraded(), tmp_path / "a.png")
    done = files.restore(source, tmp_path / "out" / "a_restored.png", used=used(),
                         save_damage=True)  # fmt: skip
    assert (read(done.output) == BASE).all()
    mask = Image.open(tmp_path / "out" / "a_restored_damage.png")
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), FOUND * grown(damage()))
    assert done.damaged_share == (pytest.approx(grown(damage()).mean(), abs=1e-6),)
    assert any("% damaged, filled" in note for note in done.notes)


def test_without_a_finder_nothing_is_masked(tmp_path):
    source = save(degraded(), tmp_path / "a.png")
    done = files.restore(source, tmp_path / "b.png", used=used(files.darker),
                         blind=False)  # fmt: skip
    np.testing.assert_allclose(read(done.output), 0.8 * degraded(), atol=0.51)
    assert done.damaged_share == (None,) and not done.notes


def test_what_would_be_all_damage_is_none(tmp_path):
    source = save(degraded(), tmp_path / "a.png")
    done = files.restore(
        source, tmp_path / "b.png", used=used(find=lambda x: np.ones_like(x[..., :1]))
    )
    np.testing.assert_array_equal(read(done.output), degraded())
    assert any("too much to be damage" in note for note in done.notes)
    assert done.damaged_share == (0.0,)


@pytest.mark.parametrize(("sensitivity", "found"), [(0, 0), (0.5, 0), (1, 1)])
def test_sensitivity_moves_the_threshold(tmp_path, sensitivity, found):
    source = save(degraded(), tmp_path / "a.png")
    done = files.restore(
        source, tmp_path / "b.png", sensitivity=float(sensitivity),
        used=used(find=lambda images: 0.5 * light(images)),
    )  # fmt: skip
    assert (done.damaged_share[0] > 0) == found


def test_hidden_pixels_are_no_damage(tmp_path):
    image = np.dstack([degraded(), np.full(SIZE, 255, np.uint8)])
    image[:, 40:70, 3] = 0
    source = save(image, tmp_path / "a.png")
    done = files.restore(source, tmp_path / "b.png", used=used(), save_damage=True)
    found = read(tmp_path / "b_damage.png") > 0
    assert not found[:, 42:68].any() and found[:, 70:].any()
    np.testing.assert_array_equal(read(done.output)[:, 40:70], image[:, 40:70])


# What is left alone.


@pytest.mark.parametrize(
    ("dtype", "ext"), [(np.uint8, "png"), (np.uint16, "tif"), (np.float32, "tif")]
)
def test_only_damage_leaves_all_else_bit_for_bit(tmp_path, dtype, ext):
    image = degraded(dtype)
    noise = np.random.default_rng(0).integers(0, 5, image.shape)
    image = (image + (noise / 255 if dtype == np.float32 else noise)).astype(dtype)
    source = save(image, tmp_path / f"a.{ext}")
    done = files.restore(
        source, tmp_path / f"b.{ext}", used=used(files.darker), only_damage=True,
        save_damage=True,
    )  # fmt: skip
    mask = read(tmp_path / "b_damage.png") > 0
    written = read(done.output)
    assert written.dtype == image.dtype and mask.any()
    np.testing.assert_array_equal(written[~mask], image[~mask])
    assert (written[mask] < image[mask]).all()


def test_keep_protects_what_is_found(tmp_path):
    source = save(degraded(), tmp_path / "a.png")
    keep = np.full(SIZE, 255, np.uint8)
    keep[:, 70:] = 0
    path = save(keep, tmp_path / "keep.png")
    done = files.restore(source, tmp_path / "b.png", used=used(), keep=str(path))
    written = read(done.output)
    np.testing.assert_array_equal(written[:, 70:], degraded()[:, 70:])
    assert (written[:, :70] == BASE).all()


# Given.


def given(tmp_path, mask, name="mask.png"):
    return str(save(np.uint8(255 * mask), tmp_path / name))


def test_damage_adds_to_what_is_found_or_replaces_it(tmp_path):
    source = save(degraded(), tmp_path / "a.png")
    more = np.zeros(SIZE, bool)
    more[60:70, 10:30] = True
    options = {"damage": given(tmp_path, more), "save_damage": True, "overwrite": True}
    files.restore(source, tmp_path / "b.png", used=used(), **options)
    added = read(tmp_path / "b_damage.png")
    expected = np.where(more, 255, FOUND * grown(damage()))
    np.testing.assert_array_equal(added, expected)
    files.restore(source, tmp_path / "b.png", used=used(), blind=False, **options)
    np.testing.assert_array_equal(read(tmp_path / "b_damage.png"), 255 * more)


def test_save_correct_and_give_back(tmp_path):
    """The archive's workflow: the mask is corrected with a brush and used as it is."""
    source = save(degraded(), tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    files.restore(source, out / "a_restored.png", used=used(), save_damage=True)
    path = out / "a_restored_damage.png"
    with Image.open(path) as image:
        brush = ImageDraw.Draw(image)
        brush.ellipse((78, 18, 102, 42), fill=0)  # the blotch belongs there
        brush.line((5, 5, 40, 60), fill=255, width=3)  # this was missed
        image.save(path)
    corrected = read(path)
    done = files.restore(
        source, out / "b" / "a_restored.png", used=used(), blind=False,
        damage=str(out), save_damage=True,
    )  # fmt: skip
    np.testing.assert_array_equal(read(out / "b" / "a_restored_damage.png"), corrected)
    written = read(done.output)
    np.testing.assert_array_equal(written[corrected == 0], degraded()[corrected == 0])
    assert (written[corrected > 0] == BASE).all()


def test_a_run_fills_what_is_given_and_restores_the_rest_freely(tmp_path):
    source = save(degraded(), tmp_path / "a.png")
    mask = given(tmp_path, damage())
    run = used(files.darker, find=None)
    done = files.restore(source, tmp_path / "b.png", used=run, damage=mask)
    assert (read(done.output) == round(0.8 * BASE)).all()


def test_every_page_has_its_mask(tmp_path):
    pages = [degraded(), degraded()[:70], degraded()[:, :110]]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page, photometric="rgb")
    out = tmp_path / "out"
    done = files.restore(tmp_path / "a.tif", out / "a_restored.tif", used=used(),
                         save_damage=True)  # fmt: skip
    names = ["a_restored_damage.png", *(f"a_restored_damage_{n}.png" for n in (2, 3))]
    for name, page in zip(names, pages, strict=True):
        assert read(out / name).shape == page.shape[:2]
    assert len(done.damaged_share) == 3
    options = {"damage": str(out), "blind": False, "save_damage": True}
    files.restore(tmp_path / "a.tif", out / "b" / "a_restored.tif", used=used(),
                  **options)  # fmt: skip
    for name in names:
        np.testing.assert_array_equal(read(out / name), read(out / "b" / name))
    (out / names[2]).unlink()
    with pytest.raises(AssertionError, match=r"no mask of page 3; add .*_3\.png"):
        files.restore(tmp_path / "a.tif", out / "c" / "a_restored.tif", used=used(),
                      **options)  # fmt: skip


def test_pages_of_one_mask_file_are_taken_by_number(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for value in (0, 255):
            file.write(np.full((8, 8), value, np.uint8), photometric="minisblack")
    job = jobs.Job(tmp_path / "x.tif", tmp_path / "y.tif", pathlib.PurePosixPath("x"))
    for number in (0, 1):
        found = mask_files.find_file(
            str(tmp_path / "a.tif"), job, number, option="damage"
        )
        assert found == (tmp_path / "a.tif", number)


def test_masks_that_cannot_be_used(tmp_path):
    source = save(degraded(), tmp_path / "in" / "a.png")

    def line(**settings):
        with pytest.raises(AssertionError) as caught:
            files.restore(source, tmp_path / "b.png", used=used(), **settings)
        text = str(caught.value).splitlines()[0]
        assert not (tmp_path / "b.png").exists()
        return text

    small = given(tmp_path, damage()[:50])
    assert "a mask of 120×50 pixels for a picture of 120×90" in line(damage=small)
    assert "make them equal" in line(keep=small)
    white = given(tmp_path, np.ones(SIZE))
    told = line(damage=white, blind=False)
    assert "mask.png: the mask is all white" in told and "paint white only" in told
    assert "--damage; add one" in line(damage=str(tmp_path / "in" / ".."))
    (tmp_path / "bad.png").write_text("no picture")
    assert "not a readable image" in line(damage=str(tmp_path / "bad.png"))


def test_a_mask_cannot_be_filled_without_a_filler(tmp_path):
    source = save(degraded(), tmp_path / "a.png")
    with pytest.raises(AssertionError, match="no weights of a filler"):
        files.restore(source, tmp_path / "b.png", damage=given(tmp_path, damage()))


def test_infrared_that_is_not_there_is_told(tmp_path):
    source = save(degraded(), tmp_path / "a.png")
    done = files.restore(source, tmp_path / "b.png", infrared=True)
    assert "no infrared was found" in done.notes


# Names and options.


def test_masks_of_pictures_that_share_their_name(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        save(degraded(), tmp_path / "in" / name)
    out = tmp_path / "out"
    found = jobs.find([str(tmp_path / "in")], str(out), suffix="restored", ext="auto",
                      recursive=False)  # fmt: skip
    assert {job.beside for job in found} == {
        "a_restored.png", "a_restored.jpg", "b_restored"
    }  # fmt: skip
    for job in found:
        for name in (f"{job.beside}_damage.png", f"{job.beside}_difference_2.png"):
            save(degraded(), out / name)
    # What lies among the results is no input.
    with pytest.raises(errors.InputError, match="no images"):
        jobs.find([str(out)], str(out), suffix="restored", ext="auto", recursive=False)


def test_old_names_of_options(tmp_path):
    def parsed(*arguments):
        values = flags.FlagValues()
        cli.define_flags(batch.RestoreOptions, values)
        return cli.parse(
            ["restore", "-i", "a", "-o", "b", *arguments], batch.RestoreOptions, values
        )

    assert parsed(f"--mask={tmp_path}").keep == str(tmp_path)
    assert parsed(f"--keep={tmp_path}").keep == str(tmp_path)
    with pytest.raises(errors.InputError, match="now named --save_damage"):
        parsed("--damage_mask")
    assert not parsed("--noblind").blind and not parsed("--blind=false").blind


def test_the_report_tells_shares_and_weights(tmp_path, monkeypatch):
    save(degraded(), tmp_path / "in" / "a.png")
    monkeypatch.setattr(batch, "load_engine", lambda options: used())
    options = batch.RestoreOptions(
        input=(str(tmp_path / "in"),), output=str(tmp_path / "out"),
        report=str(tmp_path / "r.json"), save_damage=True,
    )  # fmt: skip
    assert restore.report_failures(batch.restore(options)) == 0
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["files"][0]["damaged_share"] == [
        pytest.approx(grown(damage()).mean(), abs=1e-6)
    ]
    assert {"finder_sha256", "filler_sha256", "grader_sha256"} <= set(told)
    assert (tmp_path / "out" / "a_restored_damage.png").is_file()
    # A mask that an earlier run wrote is not written over unasked.
    (tmp_path / "out" / "a_restored.png").unlink()
    assert "_damage.png: exists" in batch.restore(options)[0].error


def test_gated_changes_are_small_where_nothing_is_found():
    images = np.full((1, 60, 60, 3), 0.5, np.float32)
    restored = images - 0.2
    found = np.zeros((1, 60, 60, 1), np.float32)
    found[:, 30, 30] = 1
    hold = jax.jit(preserve.hold_change)
    held = np.asarray(hold(images, restored, found))
    near = np.zeros((60, 60), bool)
    near[23:38, 23:38] = True
    np.testing.assert_array_equal(held[0][near], restored[0][near])
    np.testing.assert_allclose(
        held[0, :16], images[0, :16] - np.float32(10 / 255), atol=1e-6
    )
    # In between there is no step: the limit opens by degrees.
    line = images[0, 30, :, 0] - held[0, 30, :, 0]
    assert np.abs(np.diff(line)).max() < 0.15
    free = np.asarray(hold(images, restored, np.ones_like(found)))
    np.testing.assert_array_equal(free, restored)
