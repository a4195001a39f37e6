"""Figures of harm and of masks: what is falsely taken, what limits give."""

import numpy as np
import pytest

from experiments.pretrain import finder_quality, harm, mask_limits, quality
from restoration.images import frames
from restoration.inference import decide
from tests import files


def light(images):
    return (images.mean(-1, keepdims=True) > 0.9).astype(np.float32)


def used(find=light, change=lambda x: x):
    return files.fake_engine(change, find=find, fill=lambda x, mask: x * (1 - mask))


def test_healthy_pictures_made_old_hold_no_damage(photographs):
    image = photographs["chelsea"]
    kinds = [harm.make_old(image, number, seed=1) for number in range(4)]
    for old in kinds:
        assert old.shape == (300, 451, 3) or max(old.shape) <= 480
        assert old.min() >= 0 and old.max() <= 1
        # Not far from the picture in what it shows.
        grey, luma = old.mean(-1), image.mean(-1)
        assert np.corrcoef(grey.ravel(), luma.ravel())[0, 1] > 0.9
    assert np.ptp(kinds[0], -1).max() < 2 / 255
    assert kinds[1].mean((0, 1))[0] > kinds[1].mean((0, 1))[2] + 0.05
    saturations = [np.ptp(old, -1).mean() for old in (*kinds[2:], image)]
    assert saturations[0] < saturations[1] < saturations[2]
    again = harm.make_old(image, 2, seed=1)
    np.testing.assert_array_equal(again, kinds[2])
    assert (harm.make_old(image, 2, seed=2) != kinds[2]).any()


def night(specks=40):
    generator = np.random.default_rng(0)
    image = np.full((120, 160, 3), 0.1, np.float32)
    places = generator.permutation(12 * 16)[:specks]
    for place in places:
        row, column = 10 * (place // 16) + 4, 10 * (place % 16) + 4
        image[row : row + 2, column : column + 2] = 0.8
    return image


def test_specks_that_are_kept_are_counted():
    image = night()
    assert harm.specks_kept(image, image) == (40, 40)
    assert harm.specks_kept(image, 0 * image + 0.1) == (0, 40)
    assert harm.specks_kept(image, 0.1 + 0.6 * (image - 0.1)) == (40, 40)
    assert harm.specks_kept(image, 0.1 + 0.4 * (image - 0.1)) == (0, 40)
    wide = image.copy()
    wide[20:60, 20:60] = 0.8
    assert harm.specks_kept(wide, wide)[1] < 40


@pytest.fixture(scope="module")
def bench(tmp_path_factory, photographs):
    folder = tmp_path_factory.mktemp("bench")
    for track in ("film", "photo"):
        target = 0.8 * photographs["coffee"][:90, :120]
        mask = np.zeros(target.shape, np.float32)
        mask[:, 50:53] = 1
        for side, image in (
            ("input", np.maximum(target, mask)), ("output", target), ("mask", mask)
        ):  # fmt: skip
            frames.write(folder / "bench" / track / side / "a.png", image)
    frames.write(folder / "clean" / "b.png", photographs["chelsea"][:90, :120])
    frames.write(folder / "specks" / "stars.png", night())
    return folder


def test_true_masks_and_the_finder_are_scored(bench, tmp_path):
    track = bench / "bench" / "film"
    found = quality.score_masks(used(), track, tmp_path)
    assert found["average_precision"] == 1
    # The fill is black, in 3 of 120 columns.
    image, target = (frames.read(track / s / "a.png") for s in ("input", "output"))
    black = image.copy()
    black[:, 50:53] = 0
    expected = quality.score(black, target)
    assert found["given"]["psnr"] == pytest.approx(expected["psnr"], abs=0.01)
    blind = used(find=lambda x: 0 * x[..., :1])
    worse = quality.score_masks(blind, track, tmp_path / "blind")
    assert worse["average_precision"] == pytest.approx(3 / 120)


def test_false_changes_and_specks_are_scored(bench, tmp_path):
    old = quality.score_old(used(), bench / "clean", tmp_path / "a")
    assert old["count"] == 1 and old["masked"] >= 0 and old["psnr"] > 20
    everything = used(change=lambda x: x * 0.5)
    worse = quality.score_old(everything, bench / "clean", tmp_path / "b")
    assert worse["false"] > 90 and worse["worst"] >= worse["false"]
    kept = quality.score_specks(used(), bench / "specks", tmp_path / "c")
    taken = quality.score_specks(
        used(find=lambda x: (x.mean(-1, keepdims=True) > 0.5).astype(np.float32)),
        bench / "specks", tmp_path / "d",
    )  # fmt: skip
    assert kept["mean"] == kept["stars"] == 1
    assert taken["mean"] < 0.1


def test_the_table_of_masks_leaves_what_was_not_measured(tmp_path):
    path = tmp_path / "quality.json"
    rows = {
        "nafnet_s": {
            "sha256": "", "finder_sha256": "", "specks": {"mean": 0.9},
            "tracks": {"film": {"given": {"psnr": 30.127, "ssim": 0.9},
                                "average_precision": 0.681}},
        },
        "other": {"sha256": "", "finder_sha256": ""},
        "alone": {"sha256": "", "specks": {"mean": 0.9}},  # found nothing: no row
    }  # fmt: skip
    path.write_text(quality.json.dumps({"weights": rows}))
    named = {f"{name} label": row for name, row in rows.items()}
    path.write_text(quality.json.dumps({"weights": named}))
    first, second = quality.mask_table(path).splitlines()[2:]
    assert first == "| `nafnet_s label` | 30.13 | 0.900 | 0.68 | – | – | – | 90 |"
    assert second.count("–") == 7


def test_limits_trade_damage_for_harm(bench, tmp_path, monkeypatch):
    def find(images):
        luma = images.mean(-1, keepdims=True)
        return np.where(luma > 0.9, 0.85, 0.6 * luma).astype(np.float32)

    monkeypatch.setattr(mask_limits, "with_weights", lambda options: used(find=find))
    options = mask_limits.LimitOptions(
        bench=str(bench / "bench"), clean=str(bench / "clean"),
        thin=("0.1", "0.8", "0.9"), wide=("1.1",), near=("0.7",),
        out=str(tmp_path / "o.json"),
    )  # fmt: skip
    mask_limits.main(options)
    low, middle, high = quality.json.loads((tmp_path / "o.json").read_text())["limits"]
    assert middle["film"]["recall"] == 1 and high["film"]["recall"] == 0
    assert 0.3 < middle["film"]["precision"] <= 1
    assert middle["changed"] == high["changed"] == 0 and low["marked"] >= 0
    assert len(mask_limits.table({"input_psnr": {"film": 1.0}, "limits": [low]})) > 50


def test_average_precision_of_chance_is_the_share():
    truth = np.zeros((50, 50), bool)
    truth[:5] = True
    flat = np.zeros((50, 50))
    assert finder_quality.average_precision(truth, flat) == pytest.approx(0.1)
    assert decide.limits(0.5).thin < decide.limits(0.5).wide
