"""Restoring in memory gives what `restore` writes."""

import subprocess
import sys

import numpy as np
import pytest
import pyvips

import restoration
from restoration.base import errors
from restoration.images import frames
from restoration.inference import array, batch, engine, restore_page
from tests import files


@pytest.fixture(scope="module")
def image(photographs):
    return frames.to_uint8(photographs["chelsea"][60:130, 100:190])


def test_pixels_are_those_that_restore_writes(tmp_path, image, monkeypatch):
    # The finder's least tile, to be quick.
    monkeypatch.setattr(engine, "_TILES", ((448, 448),))
    frames.write(tmp_path / "a.png", image.astype(np.float32) / 255)
    options = batch.RestoreOptions(
        input=(str(tmp_path / "a.png"),), output=str(tmp_path / "out"), model="basic"
    )
    (done,) = batch.restore(options)
    written = frames.to_uint8(frames.read(done.output))
    restored = restoration.restore_image(image, model="basic")
    np.testing.assert_array_equal(restored, written)
    assert (restored != image).any()
    model = restoration.load_model("basic")
    again = restoration.restore_image(image, model=model, strength=1.0)
    np.testing.assert_array_equal(again, written)


def test_pixels_beside_transparent_ones_are_those_of_the_file(tmp_path):
    # More rows than are handed on at once.
    image = np.random.default_rng(0).integers(0, 256, (300, 900, 4), np.uint8)
    image[..., 3] = np.where(np.arange(900) % 12 < 6, 0, 255)
    pyvips.Image.new_from_array(image).pngsave(str(tmp_path / "a.png"))
    options = batch.RestoreOptions(
        input=(str(tmp_path / "a.png"),), output=str(tmp_path / "out"), model="basic",
        blind=False,
    )  # fmt: skip
    (done,) = batch.restore(options)
    written = pyvips.Image.new_from_file(str(done.output)).numpy()
    restored = restoration.restore_image(image, model="basic", blind=False)
    np.testing.assert_array_equal(restored, written)
    assert (restored != image).any()


def light(images):
    return (images.mean(-1, keepdims=True) > 0.6).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1), (40, 50, 2), (40, 50, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_shape_and_type_stay(shape, dtype):
    used = files.fake_engine(files.darker)
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    image = (np.full(shape, 0.5) * white).astype(dtype)
    restored = restoration.restore_image(image, model=used)
    assert restored.shape == shape and restored.dtype == image.dtype
    colors = {1: 1, 2: 1, 4: 3}.get(shape[-1] if len(shape) > 2 else 1)
    values, before = (x.reshape(40, 50, -1) for x in (restored, image))
    step = 0 if dtype == "float32" else 1
    np.testing.assert_allclose(
        values[..., :colors], 0.8 * before[..., :colors], atol=step, rtol=1e-6
    )
    np.testing.assert_array_equal(values[..., colors:], before[..., colors:])


def test_masks_in_memory(image):
    used = files.fake_engine(
        lambda x: x, find=light, fill=lambda x, mask: np.where(mask, 0.0, x)
    )
    done = array.restore_array(image, used, restore_page.How())
    found = done.damage > 0
    assert found.any() and not found.all() and "damaged, filled" in done.notes[0]
    assert (done.image[found] == 0).all()
    np.testing.assert_array_equal(done.image[~found], image[~found])
    # Given back, alone, it is used as it is; what is to be kept is kept.
    keep = np.ones(found.shape)
    keep[:30] = 0
    given = restoration.restore_image(
        image, model=used, blind=False, damage=found, keep=keep
    )
    np.testing.assert_array_equal(given[30:], done.image[30:])
    np.testing.assert_array_equal(given[:30], image[:30])


def test_what_is_no_image(image):
    used = files.fake_engine(files.darker)
    for wrong, line in (
        (image.astype(np.int32), "an array of int32 is no image"),
        (image[None], "is no image; give"),
        (image[:0], "is no image; give"),
        (np.zeros((4, 4, 7), np.uint8), "is no image; give"),
    ):
        with pytest.raises(errors.InputError, match=line):
            restoration.restore_image(wrong, model=used)
    for name in ("damage", "keep", "infrared"):
        with pytest.raises(errors.InputError, match=f"{name}: of shape .* make them"):
            restoration.restore_image(image, model=used, **{name: np.zeros((3, 3))})
    with pytest.raises(errors.InputError, match="to load_model"):
        restoration.restore_image(image, model=used, keep_color=True)
    with pytest.raises(errors.InputError, match="not both"):
        restoration.load_model("basic", workdir="run")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, restoration\n"
        "assert 'restore_image' in restoration.__all__\n"
        "print([m for m in ('jax', 'numpy', 'pyvips') if m in sys.modules])\n"
        "try:\n    restoration.nothing\n"
        "except AttributeError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    first, second = run.stdout.splitlines()
    assert first == "[]" and "has no attribute 'nothing'" in second, run.stderr
