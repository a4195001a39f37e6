"""Infrared scans become masks: registered, freed of the picture, or ignored."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from restoration.images import frames
from restoration.inference import batch, infrared
from tests import files


@pytest.fixture(scope="module")
def luma(photographs):
    """A picture with detail, float32 (256, 300)."""
    return photographs["coffee"][:256, :300].mean(-1)


def dust(size):
    """Returns specks and a hair, bool."""
    generator = np.random.default_rng(1)
    mask = np.zeros(size, bool)
    for _ in range(25):
        top, left = (
            generator.integers(30, size[0] - 40),
            generator.integers(30, size[1] - 40),
        )
        mask[top : top + 4, left : left + 5] = True
    mask[60:64, 40:200] = True
    return mask


def scan(luma, mask, *, shift=(0, 0), through=0.03, noise=0.004):
    """Returns an infrared scan: even, noisy, dark under dust, moved by a shift."""
    generator = np.random.default_rng(2)
    image = 0.8 + through * np.log(np.maximum(luma, 1 / 255))
    image = np.where(mask, 0.3, image) + generator.normal(0, noise, luma.shape)
    return np.roll(image, shift, (0, 1)).astype(np.float32)


def reading(image, rows=50):
    values = image[..., None]
    return lambda: (values[top : top + rows] for top in range(0, len(values), rows))


def made(luma, image):
    read, note = infrared.make(reading(luma), reading(image, 37), luma.shape)
    return (None if read is None else np.concatenate(list(read()))[..., 0] > 0), note


@pytest.mark.parametrize("shift", [(0, 0), (3, -7), (-11, 2)])
def test_dust_is_found_where_it_is_on_the_picture(luma, shift):
    mask = dust(luma.shape)
    dirty = np.where(mask, 0.9, luma).astype(np.float32)
    found, note = made(dirty, scan(luma, mask, shift=shift))
    assert note == ""
    inside = found[20:-20, 20:-20]
    expected = mask[20:-20, 20:-20]
    assert (inside & expected).sum() > 0.97 * expected.sum()
    # Besides dust only the pixel around it.
    wide = np.pad(mask, 2)
    near = np.any(
        [
            wide[y : y + mask.shape[0], x : x + mask.shape[1]]
            for y in range(5)
            for x in range(5)
        ],
        axis=0,
    )
    assert not (found & ~near)[20:-20, 20:-20].any()


@pytest.mark.parametrize("shift", [(0, 0), (5, -3), (-4, 6)])
def test_phase_correlation_finds_a_shift(luma, shift):
    moved = np.roll(luma, shift, (0, 1))
    assert infrared.register([(luma, moved)]) == shift
    assert infrared.register([(luma, 0 * luma + 0.5)]) == (0, 0)


def test_a_scan_that_follows_the_picture_is_ignored(luma):
    silver = (0.1 + 0.7 * luma).astype(np.float32)
    found, note = made(luma, silver)
    assert found is None and "follows the picture" in note


def test_without_dust_nothing_is_found(luma):
    found, _ = made(luma, scan(luma, np.zeros(luma.shape, bool), through=0.0))
    assert not found.any()
    grey = 0 * luma + 0.5
    found, _ = made(grey, scan(grey, np.zeros(luma.shape, bool)))
    assert not found.any()


@pytest.mark.parametrize("shift", [(2, 3), (-2, 1), (0, -4), (40, 0), (-40, 0)])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_shifted_rows_repeat_the_border(shift, rows):
    image = np.arange(20 * 9, dtype=np.float32).reshape(20, 9)
    moved = np.concatenate(
        list(infrared.shifted(reading(image, rows), image.shape, shift))
    )
    down, across = (
        np.clip(np.arange(side) + step, 0, side - 1)
        for side, step in zip(image.shape, shift, strict=True)
    )
    np.testing.assert_array_equal(moved[..., 0], image[down[:, None], across])


def write(tmp_path, luma, *, size=None):
    mask = dust(luma.shape)
    dirty = np.where(mask, 0.9, luma)[..., None].repeat(3, -1)
    folder = tmp_path / "in"
    frames.write(folder / "a.png", dirty)
    image = scan(luma, mask)[: size or len(luma)]
    tifffile.imwrite(folder / "a_ir.tif", np.uint16(65535 * np.clip(image, 0, 1)))
    return folder, mask


def test_restore_takes_the_scan_beside_a_picture(tmp_path, luma, monkeypatch):
    folder, mask = write(tmp_path, luma)
    used = files.fake_engine(lambda x: x, fill=lambda x, mask: np.where(mask, 0.25, x))
    monkeypatch.setattr(batch, "load_engine", lambda options: used)
    options = batch.RestoreOptions(
        input=(str(folder),), output=str(tmp_path / "out"), infrared=True,
        save_damage=True,
    )  # fmt: skip
    # The scan itself is no picture to restore.
    (done,) = batch.restore(options)
    assert not done.error and done.input.name == "a.png"
    found = np.asarray(Image.open(tmp_path / "out" / "a_restored_damage.png")) > 0
    assert found[mask].all() and found.mean() < 2 * mask.mean()
    written = np.asarray(Image.open(done.output))
    assert (written[mask] == 64).all()


def test_a_scan_of_another_size_is_told(tmp_path, luma):
    folder, _ = write(tmp_path, luma, size=200)
    with pytest.raises(AssertionError, match="an infrared scan of 300×200 pixels"):
        files.restore(folder / "a.png", tmp_path / "b.png", infrared=True)
