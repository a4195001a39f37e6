"""Stand-in pairs: deterministic, split by image, with the wanted PSNR."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tables import standin
from restoration.base import errors
from restoration.data import pairs
from restoration.evaluation import metrics
from restoration.images import frames

OPTIONS = standin.StandinOptions(pairs=60, image_size=16, input_psnr=33.0)


@pytest.fixture(scope="module")
def drawn():
    """Pairs with grain alone, since all the kinds take long to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standin, "KINDS", ("grain",))
        yield standin.prepare(OPTIONS)


def test_numbers_of_pairs_are_the_reports():
    splits = standin.lay_out([f"still{n}" for n in range(50)], 31_801)
    assert [len(splits[s]) for s in pairs.SPLITS] == [25_441, 3_180, 3_180]
    for fraction, count in ((0.02, 636), (0.12, 3_816), (0.32, 10_176)):
        sampled = pairs.sample(splits, fraction, seed=0)
        assert sum(map(len, sampled.values())) == count
        assert len(sampled["train"]) == pytest.approx(0.8 * count, rel=0.1)


def test_no_image_and_no_shot_is_in_two_splits():
    names = [f"a/{n}" for n in range(40)] + [f"b/shot{n}_00{i}"
             for n in range(20) for i in range(3)]  # fmt: skip
    splits = standin.split_sources(names)
    assert sum(map(len, splits.values())) == len(names)
    shots = [
        {n.rpartition("_")[0] or n for n in members} for members in splits.values()
    ]
    assert all(shots)
    assert not shots[0] & shots[1] | shots[0] & shots[2] | shots[1] & shots[2]


def test_a_pair_depends_only_on_seed_and_number(drawn):
    members = drawn.splits["train"]
    made = standin.draw(drawn, members)
    for chosen in ([3], [40, 3, 7]):
        again = standin.draw(drawn, [members[number] for number in chosen])
        for side, other in zip(made, again, strict=True):
            np.testing.assert_array_equal(np.asarray(side)[chosen], other)
    inputs = np.asarray(made.input)
    assert len(np.unique(inputs.reshape(len(inputs), -1), axis=0)) == len(inputs)


def test_the_target_is_a_square_of_the_named_image(drawn):
    member = drawn.splits["test"][0]
    target = np.asarray(standin.draw(drawn, [member]).output)[0]
    picture = frames.to_uint8(frames.read(standin.find_sources("")[member.clip]))
    windows = np.lib.stride_tricks.sliding_window_view(picture, target.shape)
    corners = np.argwhere((windows[..., 0, 0, :] == target[0, 0]).all(-1))[:, :2]
    assert any((windows[r, c, 0] == target).all() for r, c in corners)


def test_input_psnr_is_the_wanted_one(drawn):
    made = standin.draw(drawn, drawn.splits["train"])
    degraded, target = (jnp.asarray(side, jnp.float32) / 255 for side in made)
    measured = float(jnp.mean(metrics.all_metrics(degraded, target)["psnr"]))
    assert measured == pytest.approx(33.0, abs=0.1)
    assert measured == pytest.approx(drawn.sample_psnr, abs=1e-3)
    card = standin.card(drawn)
    assert card["pairs_in"] == {"train": 48, "validation": 6, "test": 6}
    assert set().union(*card["names"].values()) == set(drawn.sources)


def test_unusable_images_are_refused(tmp_path, photographs):
    with pytest.raises(errors.InputError, match="at least 3 are needed"):
        standin.find_sources(str(tmp_path))
    for number in range(3):
        frames.write(tmp_path / f"{number}.png", photographs["rocket"][:20, :40])
    sources = standin.find_sources(str(tmp_path))
    with pytest.raises(errors.InputError, match=r"0.png: 40×20 is smaller than --im"):
        standin.load_clean(sources, 24)


def test_sheet_shows_pairs_at_full_size(drawn):
    shown = standin.sheet(drawn, count=2)
    target = np.asarray(standin.draw(drawn, drawn.splits["train"][:1]).output)[0]
    np.testing.assert_array_equal(frames.to_uint8(shown[18:34, 16:32]), target)
