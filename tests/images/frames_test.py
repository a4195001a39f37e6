"""Image files in and out."""

import numpy as np
import pytest
from PIL import Image

from restoration.base import errors
from restoration.images import frames


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jpg"])
def test_round_trip(tmp_path, photographs, suffix):
    image = photographs["coffee"][:50, :60]
    path = tmp_path / f"x{suffix}"
    frames.write(path, image)
    assert frames.size(path) == (50, 60)
    back = frames.read(path)
    assert back.dtype == np.float32
    lossless = suffix in (".png", ".bmp", ".tif")
    assert np.abs(back - image).max() < (0.002 if lossless else 0.15)
    assert np.abs(back - image).mean() < (0.002 if lossless else 0.015)
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


def test_grey_alpha_palette_and_16_bits_become_rgb(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([grey] * 3 + [255 - grey])).save(tmp_path / "alpha.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 257 + 1).save(tmp_path / "deep.png")
    for name in ("grey", "alpha", "palette"):
        image = frames.read(tmp_path / f"{name}.png")
        np.testing.assert_allclose(image, np.dstack([grey] * 3) / 255, atol=1e-6)
    deep = frames.read(tmp_path / "deep.png")
    expected = (np.minimum(grey.astype(int) * 257 + 1, 65536) % 65536) / 65535
    np.testing.assert_allclose(deep[..., 0], expected, atol=1e-6)


def test_metadata_is_taken_over(tmp_path, photographs):
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"  # orientation, camera maker
    picture = Image.fromarray(frames.to_uint8(photographs["coffee"][:20, :30]))
    picture.save(source, exif=exif, dpi=(300, 300))
    frames.write(target, frames.read(source), like=source)
    with Image.open(target) as written:
        assert written.getexif()[0x0112] == 6
        assert written.getexif()[0x010F] == "Maker"
        assert written.info["dpi"] == pytest.approx((300, 300), abs=1)
        assert written.size == (30, 20)


def test_unreadable_files_are_named(tmp_path, photographs):
    whole = tmp_path / "whole.png"
    frames.write(whole, photographs["rocket"][:60, :60])
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.png", "text.jpg", "empty.png"):
        with pytest.raises(errors.InputError, match=f"{name}: not a readable image"):
            frames.read(tmp_path / name)
    with pytest.raises(errors.InputError, match="no such file"):
        frames.read(tmp_path / "missing.png")
    with pytest.raises(errors.InputError, match="cannot be written"):
        frames.write(tmp_path / "x.xyz", photographs["rocket"][:8, :8])
    assert not (tmp_path / "x.xyz").exists()


def test_listing_is_ordered_and_stays_in_the_folder(tmp_path, photographs):
    image = photographs["rocket"][:8, :8]
    for name in ("b.png", "a.JPG", "sub/c.png", ".hidden.png", ".dir/d.png"):
        frames.write(tmp_path / "in" / name, image)
    frames.write(tmp_path / "out" / "e.png", image)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "notes.txt").write_text("")
    assert list(frames.list_images(tmp_path / "in")) == ["a.JPG", "b.png", "sub/c.png"]
    flat = frames.list_images(tmp_path / "in", recursive=False)
    assert list(flat) == ["a.JPG", "b.png"]
    with pytest.raises(errors.InputError, match="check the path"):
        list(frames.list_images(tmp_path / "nowhere"))
