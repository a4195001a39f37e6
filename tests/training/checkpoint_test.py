"""Checkpoints: exact, sealed, and never used when damaged."""

import json
import logging
import shutil

import jax
import numpy as np
import pytest

from restoration.base import config, errors, files
from restoration.training import checkpoint, checksums, provenance, step, train_config


def state_of(number, seed=0):
    """A small state with every bit pattern, those of NaN included."""
    bits = np.random.default_rng(seed).integers(0, 2**32, 64, np.uint32)
    leaf = jax.numpy.asarray(bits.view(np.float32))
    return step.TrainState(
        jax.numpy.int32(number), {"a": leaf}, {"b": leaf[::-1]}, {"c": leaf + 0}
    )


def write(workdir, scores, keep=9, fixed=None):
    """Saves a checkpoint for each (step, psnr)."""
    manager = checkpoint.open_manager(workdir, keep=keep, fixed=fixed)
    for number, psnr in scores:
        checkpoint.save(manager, state_of(number, number), psnr, {"at": number})
    manager.close()
    return workdir / "checkpoints"


def latest(workdir):
    manager = checkpoint.open_manager(workdir, keep=9)
    state = checkpoint.restore_latest(manager, state_of(0))
    note = checkpoint.read_note(manager)
    manager.close()
    return state, note


def bits(state):
    return [np.asarray(leaf).view(np.uint32) for leaf in jax.tree.leaves(state)]


def flip(path, place=-3):
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def largest(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != checksums.NAME)
    return max(files, key=lambda p: p.stat().st_size)


def test_every_bit_comes_back(tmp_path):
    write(tmp_path, [(3, 20.0)])
    state, note = latest(tmp_path)
    for ours, theirs in zip(bits(state), bits(state_of(3, 3)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert note == {"at": 3}


def test_the_latest_and_the_best_are_kept(tmp_path):
    scores = [(1, 5.0), (2, 9.0), (3, float("nan")), (4, 7.0), (5, None), (6, 8.0)]
    write(tmp_path, scores, keep=2)
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {2, 5, 6}
    assert latest(tmp_path)[0].step == 6


def test_a_seal_covers_every_file(tmp_path):
    folder = write(tmp_path, [(1, None)]) / "1"
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) > 3
    for path in files:
        good = path.read_bytes()
        flip(path, len(good) // 2)
        with pytest.raises(errors.InputError, match=r"1: damaged \("):
            checksums.verify(folder)
        path.write_bytes(good)
    checksums.verify(folder)
    content = json.loads((folder / checksums.NAME).read_text())
    content["facts"]["psnr"] = 99.0
    (folder / checksums.NAME).write_text(json.dumps(content))
    with pytest.raises(errors.InputError, match=r"seal.json"):
        checksums.facts(folder)


def test_damage_is_named_and_the_one_before_used(tmp_path, caplog):
    folder = write(tmp_path, [(1, None), (2, None), (3, None)])
    damaged = largest(folder / "3")
    flip(damaged)
    shutil.rmtree(folder / "2" / "d")
    state, note = latest(tmp_path)
    assert (int(state.step), note) == (1, {"at": 1})
    name = damaged.relative_to(folder / "3").as_posix()
    assert f"damaged ({name} has changed)" in caplog.text
    assert "is missing); moved to" in caplog.text
    assert "going on from step 1" in caplog.text
    assert sorted(p.name for p in (tmp_path / "damaged").iterdir()) == ["2", "3"]
    # Their steps are done again, and saved.
    write(tmp_path, [(2, None), (3, None)])
    assert latest(tmp_path)[0].step == 3


def test_what_was_not_sealed_is_used_only_when_alone(tmp_path, caplog):
    folder = write(tmp_path, [(1, None), (2, None)])
    (folder / "2" / checksums.NAME).unlink()
    assert latest(tmp_path)[0].step == 1
    assert "not sealed" in caplog.text
    (folder / "1" / checksums.NAME).unlink()
    assert latest(tmp_path)[0].step == 1
    assert "there is no other one" in caplog.text


def test_no_good_one_is_an_error_and_nothing_is_moved(tmp_path):
    folder = write(tmp_path, [(1, None), (2, None)])
    for number in "12":
        flip(largest(folder / number))
    with pytest.raises(errors.InputError, match="no checkpoint is intact") as error:
        latest(tmp_path)
    assert "2: damaged" in str(error.value) and "1: damaged" in str(error.value)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]


def test_what_a_kill_leaves_is_cleared(tmp_path):
    folder = write(tmp_path, [(1, None)])
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    shutil.copytree(folder / "1", folder / "0.deleted")
    assert latest(tmp_path)[0].step == 1
    assert [p.name for p in folder.iterdir()] == ["1"]


def test_other_versions_are_told(tmp_path, monkeypatch, caplog):
    write(tmp_path, [(1, None)])
    here = provenance.packages()
    monkeypatch.setattr(provenance, "packages", lambda: here | {"jax": "9.9"})
    latest(tmp_path)
    assert f"jax {here['jax']}, here 9.9" in caplog.text
    assert "flax" not in caplog.text


def test_another_run_is_told(tmp_path):
    options = train_config.TrainConfig(data_dir="d", workdir=str(tmp_path))
    files.write_text(tmp_path / "config.json", config.to_json(options))
    write(tmp_path, [(1, None)], fixed=train_config.fixed(options))
    changed = train_config.TrainConfig(
        data_dir="e", workdir=str(tmp_path), learning_rate=0.5, model="advanced"
    )
    files.write_text(tmp_path / "config.json", config.to_json(changed))
    with pytest.raises(errors.InputError, match="model basic -> advanced, learning_r"):
        latest(tmp_path)


def test_another_shape_is_told(tmp_path):
    write(tmp_path, [(1, None)])
    manager = checkpoint.open_manager(tmp_path, keep=1)
    like = state_of(0)._replace(parameters={"a": jax.numpy.zeros(3)})
    with pytest.raises(errors.InputError, match="not a checkpoint of this model"):
        checkpoint.restore_latest(manager, like)
    manager.close()


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    write(tmp_path, [(1, None)])

    def full(folder, facts):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checksums, "write", full)
    manager = checkpoint.open_manager(tmp_path, keep=1)
    checkpoint.save(manager, state_of(2), None)
    with pytest.raises(errors.InputError, match="no space left on the disk"):
        manager.close()
    monkeypatch.undo()
    assert latest(tmp_path)[0].step == 1  # the other one was never sealed


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(122, "Disk quota exceeded"), True),
        (ValueError("RESOURCE_EXHAUSTED: write: No space left on device"), True),
        (OSError(13, "Permission denied"), False),
        (ValueError("shapes differ"), False),
    ],
)
def test_errors_of_a_full_disk_are_known(error, full):
    assert files.is_full(error) == full
    expected = errors.InputError if full else type(error)
    with pytest.raises(expected), files.explain_full_disk("x"):
        raise error


@pytest.fixture(autouse=True)
def warnings(caplog):
    caplog.set_level(logging.WARNING)
