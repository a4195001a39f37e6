"""Restoring files, weights files, and making paired folders."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from restoration import damage, degrade, models, restore
from restoration.base import errors
from restoration.data import pairs
from restoration.images import frames
from restoration.inference import batch, grade, preserve
from restoration.models import apply, pretrained


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory, photographs):
    folder = tmp_path_factory.mktemp("photos")
    frames.write(folder / "a.png", photographs["coffee"][:60, :70])
    frames.write(folder / "b.jpg", photographs["chelsea"][:33, :1])
    frames.write(folder / "sub" / "c.webp", photographs["rocket"][:40, :300])
    return folder


def run(folder, out, **changes):
    # Without the finder, which takes long and has tests of its own.
    values = {"input": (str(folder),), "output": str(out), "model": "basic"}
    values["blind"] = False
    return batch.restore(batch.RestoreOptions(**(values | changes)))


def test_restores_every_file_at_its_size_and_format(photo_folder, tmp_path):
    results = run(photo_folder, tmp_path, recursive=True)
    assert [r.error for r in results] == ["", "", ""]
    names = {r.output.relative_to(tmp_path).as_posix() for r in results}
    assert names == {"a_restored.png", "b_restored.jpg", "sub/c_restored.webp"}
    for result in results:
        assert frames.size(result.output) == frames.size(result.input)
    name, parameters = pretrained.load_shipped("basic")
    image = frames.read(photo_folder / "a.png")
    cells = grade.look([(image, None)], image.shape[:2])
    polynomials = grade.estimate(pretrained.load_grader()[0], cells)
    shown = grade.make_prepare(lambda values: values, polynomials)(image)
    # Beyond its borders a picture is continued by its reflection.
    shown = np.pad(shown, ((32, 32), (32, 32), (0, 0)), mode="symmetric")[None]
    whole = apply.restore_whole(models.get_model(name), parameters, shown)
    whole = np.clip(preserve.preserve_shades(shown, whole), 0, 1)[0, 32:-32, 32:-32]
    written = frames.read(tmp_path / "a_restored.png")
    assert np.abs(written - whole).max() <= 0.5 / 255 + 1e-5


def test_one_bad_file_does_not_stop_the_others(photo_folder, tmp_path, capsys):
    (tmp_path / "bad.png").write_text("no image")
    inputs = (str(tmp_path / "bad.png"), str(photo_folder / "a.png"))
    results = run(tmp_path, tmp_path / "out", input=inputs)
    assert "bad.png: not a readable image" in results[0].error
    assert not results[1].error
    assert restore.report_failures(results) == 1
    out, err = capsys.readouterr()
    assert "a_restored.png" in out
    assert err.splitlines()[-1].startswith("error: ")


def test_nothing_is_overwritten_unasked(photo_folder, tmp_path):
    file = photo_folder / "a.png"
    assert not run(file, tmp_path)[0].error
    written = (tmp_path / "a_restored.png").stat().st_mtime_ns
    assert "exists; --overwrite" in run(file, tmp_path)[0].error
    assert (tmp_path / "a_restored.png").stat().st_mtime_ns == written
    assert not run(file, tmp_path, overwrite=True)[0].error
    both = run(file, tmp_path / "n", input=(str(file), str(file)))
    assert len(both) == 1 and not both[0].error


def test_what_cannot_start(photo_folder, tmp_path):
    with pytest.raises(errors.InputError, match="no such file or folder"):
        run(tmp_path / "nowhere", tmp_path / "o")
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.InputError, match="no images"):
        run(tmp_path / "empty", tmp_path / "o")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(errors.InputError, match="not a folder"):
        run(photo_folder, tmp_path / "notes.txt")
    with pytest.raises(errors.InputError, match=r"choose one of .*basic"):
        run(photo_folder, tmp_path / "o", model="unet")
    with pytest.raises(errors.InputError, match="not both"):
        batch.RestoreOptions(input=("x",), output="y", model="basic", workdir="w")


@pytest.fixture
def weights(tmp_path):
    model = models.get_model("basic")
    parameters = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    path = tmp_path / "w" / "basic.safetensors"
    pretrained.save(path, "basic", parameters, {"command": "test"})
    return path, parameters


def test_weights_round_trip(weights):
    path, parameters = weights
    name, loaded = pretrained.load(path)
    assert name == "basic"
    jax.tree.map(np.testing.assert_array_equal, parameters, loaded)


def test_bad_weights_are_told(weights):
    path, parameters = weights
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(errors.InputError, match="differs from the SHA-256"):
        pretrained.load(path)
    path.with_suffix(".json").unlink()
    path.write_bytes(data[:500])
    with pytest.raises(errors.InputError, match="not a weights file"):
        pretrained.load(path)
    pretrained.save(path, "advanced", parameters, {})
    with pytest.raises(errors.InputError, match="not weights of advanced"):
        pretrained.load(path)
    parameters["params"]["stage_1"]["conv_1"]["bias"] += np.inf
    pretrained.save(path, "basic", parameters, {})
    with pytest.raises(errors.InputError, match="not finite"):
        pretrained.load(path)
    with pytest.raises(errors.InputError, match="check the path"):
        pretrained.load(path.with_name("missing.safetensors"))


def test_shipped_weights_match_their_cards():
    assert pretrained.shipped()
    for name in pretrained.shipped():
        loaded, _ = pretrained.load_shipped(name)
        assert loaded == pretrained.SHIPPED[name]
        card = json.loads((pretrained.FOLDER / f"{name}.json").read_text())
        assert {"training data", "recipe", "command", "figures", "limits"} <= set(card)


@pytest.mark.parametrize(
    ("name", "variants"),
    [("shot_0012", 3), ("photo", 3), ("reel/0001", 2), ("reel/shot_0001", 2),
     ("img42", 2), ("shot_0012", 1)],
)  # fmt: skip
def test_variants_keep_their_clip(name, variants):
    names = {degrade.variant_name(name, v, variants) for v in range(variants)}
    assert len(names) == variants
    assert {pairs.clip_of(n) for n in names} == {pairs.clip_of(name)}


def test_degraded_clips_share_what_lasts(tmp_path, photographs):
    for name in ("a_000", "a_001", "b_000"):
        frames.write(tmp_path / "in" / f"{name}.png", photographs["coffee"][:64, :96])
    found = {}
    for clips in (True, False):
        out = tmp_path / str(clips)
        options = degrade.DegradeOptions(
            input=(str(tmp_path / "in"),), output=str(out), kinds=("cast",),
            clips=clips, crop_size=48, severity=2.0,
        )  # fmt: skip
        assert degrade.degrade(options) == []
        found[clips] = [
            frames.read(out / "input" / f"{name}.png")
            for name in ("a_000", "a_001", "b_000")
        ]
    one, two, other = found[True]
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0.01
    assert np.abs(found[False][0] - found[False][1]).max() > 0.01


def test_degrade_writes_pairs_that_depend_on_seed_and_name_alone(tmp_path, photographs):
    for name in ("a_1", "a_2", "b_1"):
        frames.write(
            tmp_path / "clean" / f"{name}.png", photographs["coffee"][:90, :90]
        )

    def make(out, **changes):
        options = degrade.DegradeOptions(
            input=(str(tmp_path / "clean"),), output=str(tmp_path / out),
            crop_size=64, severity=2.0, **changes,
        )  # fmt: skip
        assert degrade.degrade(options) == []
        return {p.name: p for p in pairs.match(tmp_path / out)}

    first = make("one", masks=True)
    assert set(first) == {"a_1", "a_2", "b_1"}
    (tmp_path / "clean" / "a_1.png").unlink()
    second = make("two", masks=True)
    for name, pair in second.items():
        assert pair.input.read_bytes() == first[name].input.read_bytes()
    third = make("three", seed=1)
    assert third["b_1"].input.read_bytes() != second["b_1"].input.read_bytes()

    degraded, clean = (
        frames.read(getattr(first["b_1"], s)) for s in ("input", "output")
    )
    assert degraded.shape == clean.shape == (64, 64, 3)
    assert np.abs(degraded - clean).mean() > 0.01
    failures = degrade.degrade(
        degrade.DegradeOptions(
            input=(str(tmp_path / "clean"),), output=str(tmp_path / "one"),
            crop_size=64,
        )
    )  # fmt: skip
    assert "exists; --overwrite" in failures[0]
    failures = degrade.degrade(
        degrade.DegradeOptions(
            input=(str(tmp_path / "clean"),), output=str(tmp_path / "x"), crop_size=500
        )
    )
    assert "smaller than --crop_size" in failures[0]


def test_the_groups_of_damage_exist():
    assert set(damage.FILM) < set(damage.PHOTO) <= set(damage.KINDS)
