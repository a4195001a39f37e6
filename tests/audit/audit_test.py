"""The similarity measures of the audit, and its worker processes."""

import io
import math

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageFile

from restoration.audit import audit, finding, listing, survey
from restoration.images import similarity


def grey(array):
    return similarity.grey(Image.fromarray(array.astype(np.uint8)).convert("RGB"))


def crop(right=0, down=0, side=140):
    image = skimage.data.astronaut()
    return image[100 + down : 100 + down + side, 150 + right : 150 + right + side]


@pytest.mark.parametrize(("right", "down"), [(0, 0), (2, 0), (-3, 5), (6, -5)])
def test_shift_of_a_degraded_image(right, down):
    rng = np.random.default_rng(0)
    # In a crop further right, the content is further left.
    degraded = 0.5 * crop(-right, -down) + 60 + rng.normal(0, 10, (140, 140, 3))
    degraded[:, 40:43] = 255
    found = similarity.shift(
        similarity.luma(grey(np.clip(degraded, 0, 255))), similarity.luma(grey(crop()))
    )
    assert math.dist(found[:2], (right, down)) < 0.5
    assert found[2] > survey.SURE_SHARPNESS


def test_shift_of_different_images_is_not_sharp():
    other = skimage.data.coffee()[100:240, 200:340]
    lumas = similarity.luma(grey(crop())), similarity.luma(grey(other))
    assert similarity.shift(*lumas)[2] < 10
    plain = np.full((140, 140), 7, np.float32)
    assert similarity.shift(plain, plain)[2] == 0


def test_correlation_is_pearsons():
    first, second = np.random.default_rng(0).normal(size=(2, 8, 8))
    expected = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert similarity.correlation(first, second) == pytest.approx(expected)
    assert similarity.correlation(first, np.ones((8, 8))) == 0


def test_near_finds_copies_and_no_others():
    photos = [
        getattr(skimage.data, name)()[..., :3]
        for name in ("astronaut", "coffee", "chelsea", "rocket", "retina")
    ]
    greys = [grey(photo) for photo in photos]
    for photo in photos:
        data = io.BytesIO()
        small = Image.fromarray(photo).resize((200, 150))
        small.save(data, "JPEG", quality=50)
        greys.append(similarity.grey(Image.open(data)))
    hashes = np.array([similarity.dhash(g) for g in greys], np.uint64)
    thumbs = np.array([similarity.luma(g, (8, 8)).ravel() for g in greys], np.uint8)
    found = similarity.near(hashes, thumbs, np.arange(10))
    assert found == [(i, i + 5) for i in range(5)]
    assert similarity.near(hashes, thumbs, np.arange(10) % 5) == []


def test_near_of_hashes_equals_all_comparisons():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, (300, 2)).astype(np.uint64)
    # Up to five changed bits: always found.
    flips = np.zeros((300, 2), np.uint64)
    for row in flips:
        for bit in rng.choice(128, rng.integers(0, 6), replace=False):
            row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    hashes = np.concatenate([base, base ^ flips])
    thumbs = np.tile(np.arange(64, dtype=np.uint8), (600, 1))
    found = similarity.near(hashes, thumbs, np.arange(600))
    assert found == [(i, i + 300) for i in range(300)]


def test_exchanged_needs_pairs_with_the_same_kind_of_damage():
    rng = np.random.default_rng(0)
    wear = rng.normal((0.6, 0.8, 0.3, 0, 0), 0.15, (60, 5))
    assert not similarity.exchanged(wear).any()
    wear[[7, 21]] *= -1
    assert np.flatnonzero(similarity.exchanged(wear)).tolist() == [7, 21]
    # A pair that hardly differs is not enough, nor are few pairs.
    wear[30] *= -0.1
    assert np.flatnonzero(similarity.exchanged(wear)).tolist() == [7, 21]
    assert not similarity.exchanged(wear[:10]).any()
    # Two opposite kinds of damage, such as grain and blur, do not count.
    mixed = np.concatenate([wear[:30], -wear[:25]])
    assert not similarity.exchanged(mixed).any()


def test_shown_names_are_valid_unicode():
    assert finding.shown("a\udcff\n√") == "a\\xff\n√"


def test_split_stem_and_side_of_a_path():
    assert listing.pair_name("train/input/a/b_1.png") == ("train", "a/b_1")
    assert listing.pair_name("output/b.c.png") == ("", "b.c")
    assert listing.side_of("test/output/x.png") == "output"
    assert listing.side_of("input/x.png") == "input"


def save_pairs(root, count):
    rng = np.random.default_rng(0)
    for side in ("input", "output"):
        (root / side).mkdir()
        for index in range(count):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / side / f"x_{index:03d}.png")


def test_lenient_settings_of_pillow_are_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    save_pairs(tmp_path, 2)
    path = tmp_path / "output/x_001.png"
    path.write_bytes(path.read_bytes()[:100])
    found = audit.audit(tmp_path, tensorflow=False).findings
    assert [(f.file, f.reason) for f in found] == [("output/x_001.png", "truncated")]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_audit_survives_a_crashing_decoder(tmp_path, monkeypatch):
    save_pairs(tmp_path, 80)
    (tmp_path / "input/x_033.png").write_bytes(b"crash")
    # Workers are new processes; this changes Pillow in them.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from PIL import Image\n"
        "real = Image.open\n"
        "def deadly(file, *args, **kwargs):\n"
        "    if file.getvalue() == b'crash':\n"
        "        os._exit(11)\n"
        "    return real(file, *args, **kwargs)\n"
        "Image.open = deadly\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = audit.audit(tmp_path, tensorflow=False, workers=2)
    assert found.pairs == 80
    assert {(f.file, f.reason) for f in found.findings} == {
        ("input/x_033.png", "undecodable"),
        ("output/x_033.png", "undecodable"),
    }
