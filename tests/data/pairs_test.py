"""Matching, splitting and sampling of pairs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restoration.base import errors
from restoration.data import pairs
from restoration.images import frames


def make(names):
    return [pairs.Pair(n, pairs.clip_of(n), "", (".png", ".png")) for n in names]


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("shot_001", "shot"),
        ("a_1_02", "a_1"),
        ("portrait", "portrait"),
        ("reel/0001", "reel"),
        ("reel/shot_0001", "reel/shot"),
        ("img42", "img42"),
        ("_7", "_7"),
    ],
)
def test_clip_of_a_name(name, clip):
    assert pairs.clip_of(name) == clip


def test_samples_of_the_seed_report():
    every = make(f"clip{i // 37}_{i:05d}" for i in range(31_801))
    splits = pairs.split_by_clip(every)
    samples = {f: pairs.sample(splits, f, seed=1) for f in (0.02, 0.12, 0.32, 1.0)}
    counts = {f: sum(map(len, s.values())) for f, s in samples.items()}
    assert counts == {0.02: 636, 0.12: 3816, 0.32: 10176, 1.0: 31801}
    for small, large in ((0.02, 0.12), (0.12, 0.32), (0.32, 1.0)):
        for split in pairs.SPLITS:
            assert set(samples[small][split]) <= set(samples[large][split])
    assert samples[0.02] != pairs.sample(splits, 0.02, seed=2)
    shares = [len(splits[s]) / 31_801 for s in pairs.SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


@settings(max_examples=60, deadline=None)
@given(
    clips=st.lists(st.integers(0, 500), min_size=1, max_size=12, unique=True),
    length=st.integers(1, 4),
)
def test_splits_contain_every_pair_once_and_no_clip_twice(clips, length):
    every = make(f"clip{c}_{i}" for c in clips for i in range(length))
    splits = pairs.split_by_clip(every)
    assert sorted(p for s in splits.values() for p in s) == sorted(every)
    train, validation, test = ({p.clip for p in splits[s]} for s in pairs.SPLITS)
    if len(clips) >= 3:
        assert not (train & validation or validation & test or train & test)
    if len(every) >= 3:
        assert all(splits.values())


def test_added_files_do_not_change_the_splits_of_others():
    before = make(f"clip{c}_{i}" for c in range(40) for i in range(3))
    after = make(f"clip{c}_{i}" for c in range(60) for i in range(5))
    split_of = {p.name: s for s, ps in pairs.split_by_clip(after).items() for p in ps}
    for split, members in pairs.split_by_clip(before).items():
        assert all(split_of[pair.name] == split for pair in members)


def test_small_samples_leave_no_split_empty():
    splits = pairs.split_by_clip(make(f"clip{c}_{i}" for c in range(30) for i in "01"))
    assert all(pairs.sample(splits, 3 / 60, seed=4).values())


def test_matches_by_stem_in_sub_folders(tmp_path, photographs):
    image = photographs["coffee"][:16, :16]
    for path in ("input/a/x_1.png", "output/a/x_1.jpg", "input/lone.png",
                 "output/b.bmp", "input/b.png", "output/notes.png"):  # fmt: skip
        frames.write(tmp_path / path, image)
    (tmp_path / "output" / "lone.txt").write_text("not an image")
    found = pairs.match(tmp_path)
    assert [(p.name, p.clip) for p in found] == [("a/x_1", "a/x"), ("b", "b")]
    assert found[0].output == tmp_path / "output/a/x_1.jpg"


def test_split_folder_keeps_its_splits(tmp_path, photographs):
    image = photographs["coffee"][:16, :16]
    for split, name in (("train", "a"), ("validation", "b"), ("test", "c")):
        for side in ("input", "output"):
            frames.write(tmp_path / split / side / f"{name}.png", image)
    splits = pairs.find_splits(tmp_path)
    assert {s: [p.name for p in m] for s, m in splits.items()} == {
        "train": ["a"], "validation": ["b"], "test": ["c"],
    }  # fmt: skip
    (tmp_path / "input").mkdir()
    with pytest.raises(errors.InputError, match="keep one layout"):
        pairs.find_splits(tmp_path)


def test_bad_folders_are_refused(tmp_path, photographs):
    with pytest.raises(errors.InputError, match="nowhere: no such folder"):
        pairs.find_splits(tmp_path / "nowhere")
    with pytest.raises(errors.InputError, match="input: no such folder"):
        pairs.find_splits(tmp_path)
    (tmp_path / "input").mkdir()
    (tmp_path / "output").mkdir()
    with pytest.raises(errors.InputError, match="no pairs"):
        pairs.find_splits(tmp_path)
    image = photographs["coffee"][:16, :16]
    for name in ("input/a.png", "input/a.jpg", "output/a.png"):
        frames.write(tmp_path / name, image)
    with pytest.raises(errors.InputError, match="have the same name"):
        pairs.find_splits(tmp_path)


def test_bad_fraction_or_empty_split_is_refused():
    splits = pairs.split_by_clip(make(["a_1", "b_1", "c_1"]))
    for fraction in (-0.1, 0, 1.5):
        with pytest.raises(errors.InputError, match="above 0"):
            pairs.sample(splits, fraction, seed=0)
    with pytest.raises(errors.InputError, match="train 3"):
        empty = {"train": tuple(make("abc")), "validation": (), "test": ()}
        pairs.require(empty, "test", "folder")
