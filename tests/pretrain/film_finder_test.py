"""The film finder: batches that follow from their steps, runs that go on exactly."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="needs OpenCV (extra film)")
pytest.importorskip("av", reason="needs PyAV (extra film)")

from experiments.pretrain import film_dirt, film_finder, pretrain
from restoration.base import errors
from restoration.images import frames
from restoration.models import pretrained
from restoration.training import repeat, run
from tests import film_files


def options_for(workdir, **changes):
    small = {
        "batch_size": 6, "image_size": 32, "steps": 4, "decay_from": 2,
        "warmup_steps": 1, "log_every": 2, "checkpoint_every": 1, "evaluations": 1,
    }  # fmt: skip
    paths = {"films": "F", "clean": "C", "overlays": "O", "workdir": str(workdir)}
    values = pretrain.read_recipe("film_finder") | paths | small
    return film_finder.FinderOptions(**(values | changes))


@pytest.fixture(scope="module")
def material():
    rng = np.random.default_rng(0)
    scan = np.zeros((40, 40), np.uint8)
    scan[10:30, 10:30] = 255
    film = rng.integers(60, 180, (20, 64, 80), dtype=np.uint8)
    return film_dirt.Sources([film], [film[0]], {k: [scan] for k in film_dirt._RATES})


def test_a_batch_follows_from_its_step_alone(material, monkeypatch):
    monkeypatch.setattr(film_finder, "_CLIPS", 2)  # three steps a block
    options = options_for("W")
    draw = film_finder.make_draw(options, material)
    seen = [draw(number) for number in range(5)]
    again = film_finder.make_draw(options, material)(4)
    for name, array in again.items():
        np.testing.assert_array_equal(array, seen[4][name])
    assert again["input"].shape == (6, 32, 32, 11)
    assert again["references"].shape == again["trust"].shape == (6, 32, 32, 4)
    # Every frame of the block's clips is given once.
    given = {batch["worn"][row].tobytes() for batch in seen[:3] for row in range(6)}
    drawn = {
        example["worn"].tobytes()
        for clip in range(2)
        for example in film_finder.examples(
            film_dirt.draw(np.random.default_rng([0, 0, clip]), material, 9, 32)
        )
    }
    assert given == drawn and len(given) == 18


def test_a_run_begins_with_the_weights_that_it_is_given(tmp_path):
    start = str(pretrained.FOLDER / "film_finder.safetensors")
    task = film_finder.make_task(options_for(tmp_path, start=start))
    _, shipped = pretrained.load(start)
    for one, other in zip(
        jax.tree.leaves(task.initial), jax.tree.leaves(shipped), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    filler = str(pretrained.FOLDER / "filler.safetensors")
    with pytest.raises(errors.InputError, match="weights of filler, not of film_fi"):
        film_finder.make_task(options_for(tmp_path, start=filler))
    with pytest.raises(errors.InputError, match="safetensors file, or random"):
        options_for(tmp_path, start="shipped")


def test_what_was_noted_of_the_material_stays_while_it_is_the_same(tmp_path):
    _, shipped = pretrained.load(pretrained.FOLDER / "film_finder.safetensors")
    described = {"fingerprint": "f", "pairs": {"train": 20}, "card": {"films": ["a"]}}
    for sha256, noted in (("f", True), ("g", False)):
        options = options_for(tmp_path / sha256)
        began = {"training data": {"sha256": sha256, "films' licences": "CC0"}}
        path = film_finder.export(
            options, described, began, step=1, parameters=shipped, figures={}
        )
        data = json.loads(path.with_suffix(".json").read_text())["training data"]
        assert data["films"] == ["a"] and data["sha256"] == "f"
        assert ("films' licences" in data) == noted


@pytest.mark.slow
def test_a_run_in_parts_is_the_same_run(material, tmp_path, monkeypatch):
    monkeypatch.setattr(film_finder, "_CLIPS", 2)
    monkeypatch.setattr(film_finder, "_MEASURED", 2)
    described = {"fingerprint": "f", "pairs": {"train": 20}, "card": {"films": ["a"]}}

    def train(options):
        return pretrain.train_and_export(
            options,
            film_finder.make_feed(options, material, material, described),
            film_finder.make_task(options),
            functools.partial(film_finder.export, options, described, {}),
        )

    whole, parts = (options_for(tmp_path / name) for name in ("whole", "parts"))
    done = train(whole)
    assert {"input_psnr", "psnr"} <= set(done.figures)
    asked = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(run.processes, "make_any", lambda: lambda here: next(asked))
        assert train(dataclasses.replace(parts, steps=5)).step == 2
    assert train(parts).step == 4
    assert repeat.compare(whole.workdir, parts.workdir) == []
    one, other = map(film_finder.weights_file, (whole, parts))
    assert one.read_bytes() == other.read_bytes()
    assert pretrained.load(one)[0] == "film_finder"
    card = json.loads(other.with_suffix(".json").read_text())
    assert card["complete"] and card["pairs seen"] == 24
    assert card["figures"] == done.figures


@pytest.fixture
def folders(tmp_path):
    """A film, photographs and a scan of each kind."""
    (tmp_path / "films").mkdir()
    film_files.write(tmp_path / "films" / "a.mkv", film_files.moving(24))
    rng = np.random.default_rng(1)
    for name in "abcd":
        frames.write(tmp_path / "clean" / f"{name}.png", rng.random((40, 40, 3)))
    for kind in film_dirt._RATES:
        (tmp_path / "scans" / kind).mkdir(parents=True)
        alpha = Image.new("RGBA", (40, 40), (255, 255, 255, 99))
        alpha.save(tmp_path / "scans" / kind / "1.png")
    return {
        "films": str(tmp_path / "films"), "clean": str(tmp_path / "clean"),
        "overlays": str(tmp_path / "scans"), "sources": "all",
    }  # fmt: skip


def test_some_of_the_material_is_held_out(folders, tmp_path):
    training, measured, described = film_finder.load(options_for(tmp_path, **folders))
    assert [len(film) for film in training.films] == [15]
    assert [len(film) for film in measured.films] == [9]
    assert (len(training.photographs), len(measured.photographs)) == (3, 1)
    assert described["pairs"] == {"train": 18}
    assert described["card"]["films"] == ["a.mkv"]
    again = film_finder.load(options_for(tmp_path, **folders, photographs=2))[2]
    assert again["fingerprint"] != described["fingerprint"]


def test_folders_that_cannot_serve_are_told(folders, tmp_path):
    def load(**changes):
        return film_finder.load(options_for(tmp_path, **(folders | changes)))

    with pytest.raises(errors.InputError, match="no film; give a folder"):
        load(films=folders["clean"])
    with pytest.raises(errors.InputError, match=r"no dots/\*\.png"):
        load(overlays=folders["clean"])
    film_files.write(tmp_path / "films" / "b.mkv", film_files.moving(10))
    with pytest.raises(errors.InputError, match=r"b\.mkv: 10 frames; a film has"):
        load()
    with pytest.raises(errors.InputError, match="--image_size=33: must be a multiple"):
        load(image_size=33)
