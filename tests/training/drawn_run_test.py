"""Training on drawn damage: the same promises as with pairs from files."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from restoration import damage, train
from restoration.base import errors
from restoration.devices import sharding
from restoration.images import frames
from restoration.models import pretrained
from restoration.training import (
    event_files,
    feed,
    provenance,
    recipe,
    repeat,
    run,
    step,
    train_config,
    trained,
)

# All but these two, which compile in seconds.
LEAVE_OUT = ",".join(sorted(set(damage.KINDS) - {"grain", "cast"}))


@pytest.fixture(scope="module")
def clean(tmp_path_factory, photographs):
    folder = tmp_path_factory.mktemp("clean")
    for name, image in photographs.items():
        frames.write(folder / f"{name}.png", image[40:104, 60:124])
    return folder


def options_for(clean, workdir, **changes):
    values = recipe.options("film") | {
        "model": "basic", "clean": str(clean), "workdir": str(workdir), "steps": 6,
        "batch_size": 4, "image_size": 32, "piece_size": 48, "evaluations": 2,
        "warmup_steps": 1, "log_every": 2, "leave_out": LEAVE_OUT,
        "writing_share": 0.0, "soft_share": 0.0, "toned_share": 0.0,
    }  # fmt: skip
    return train_config.TrainConfig(**(values | changes))


def read_log(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def whole(clean, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run.train(options_for(clean, workdir, tensorboard=True))


def test_a_run_is_logged_measured_and_kept(whole):
    workdir, result = whole
    assert result.step == result.total_steps == 6
    rows = read_log(workdir)
    assert [(row["step"], row["split"]) for row in rows] == [
        (2, "train"), (3, "validation"), (4, "train"), (6, "train"), (6, "validation"),
    ]  # fmt: skip
    for row in rows:
        if row["split"] == "validation":
            names = ("film", "photo", "soft", "clean")
            assert all(0 < row[f"{name}_psnr"] <= 100 for name in names)
            score = (row["film_psnr"] + row["photo_psnr"]) / 2
            assert row["psnr"] == pytest.approx(score)
    assert result.figures["psnr"] == result.psnr == rows[-1]["psnr"]
    options, parameters, number = trained.load_trained(workdir)
    assert (options.model, number) in {("basic", 3), ("basic", 6)}
    assert jax.tree.structure(parameters) == jax.tree.structure(result.parameters)
    (record,) = provenance.read(workdir)
    assert record["data"]["pictures"] == {"train": 3, "validation": 1}


def test_the_event_files_hold_what_the_log_holds(whole):
    import tensorflow as tf

    for split in ("train", "validation"):
        found = {}
        (file,) = (whole[0] / event_files.FOLDER / split).iterdir()
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name in ("scalars", "")
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(event.step, {})[value.tag] = number
        rows = [row for row in read_log(whole[0]) if row["split"] == split]
        assert list(found) == [row["step"] for row in rows]
        for row in rows:
            for name, number in found[row["step"]].items():
                assert number == pytest.approx(row[name], rel=1e-6)
            assert {"loss", "psnr"} < set(found[row["step"]])


@pytest.mark.slow
def test_stopped_and_started_again_it_ends_as_the_whole_one(
    clean, whole, tmp_path, monkeypatch
):
    """Also with event files, which then show every step once."""
    options = options_for(clean, tmp_path, tensorboard=True)
    asked = iter([False, False, False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(run.processes, "make_any", lambda: lambda here: next(asked))
        assert run.train(options).step == 4
    assert run.train(options).step == 6
    assert repeat.compare(whole[0], tmp_path) == []
    test_the_event_files_hold_what_the_log_holds((tmp_path,))
    starts = provenance.read(tmp_path)
    assert [record["step"] for record in starts] == [0, 4]
    # As `--repeat` compares, from the record alone.
    again = repeat.recorded(tmp_path, tmp_path / "again")
    assert again == dataclasses.replace(options, workdir=str(tmp_path / "again"))


def test_other_pictures_or_options_are_another_run(clean, whole, tmp_path):
    other = tmp_path / "other"
    for path in list(clean.iterdir())[:3]:
        frames.write(other / path.name, frames.read(path))
    with pytest.raises(errors.InputError, match="of other pictures or overlays"):
        run.train(options_for(other, whole[0]))
    with pytest.raises(errors.InputError, match=r"severity 2\.0 -> 1\.0"):
        run.train(options_for(clean, whole[0], severity=1.0))
    with pytest.raises(errors.InputError, match="steps 6 -> 8"):
        run.train(options_for(clean, whole[0], steps=8))


@pytest.mark.slow
def test_bad_numbers_stop_a_drawn_run_at_their_step(clean, tmp_path):
    options = options_for(clean, tmp_path, learning_rate=1e30, clip_norm=0.0)
    with pytest.raises(errors.InputError) as error:
        run.train(options)
    assert "on the pairs drawn for step" in str(error.value)
    assert "--seed=0" in str(error.value)


@pytest.mark.slow
def test_the_severity_rises_with_the_steps(clean):
    """At first next to nothing is drawn."""
    found = {}
    for rise in (0.0, 0.5):
        options = options_for(
            clean, "", severity_rise=rise, steps=2000, clean_share=0.0, severity=4.0
        )
        found[rise] = mean_difference(feed.drawn_feed(options), 0)
    assert 0 < found[0.5] < 0.02 * found[0.0]


def mean_difference(source, number):
    """Returns the mean difference between the sides of a step's pairs."""

    def look(state, batch):
        found = jax.numpy.abs(batch["input"] - batch["output"]).mean()
        after = state._replace(step=state.step + 1)
        return after, {"loss": found, "gradient_norm": found}

    advance = source.make_run(
        train_step=look, mesh=sharding.make_mesh(), start=number, total=2000
    )
    state = step.TrainState(jax.numpy.int32(number), {}, {}, {})
    return float(advance(state, limit=1)[1]["loss"])


@pytest.mark.slow
def test_training_begins_with_given_weights(clean, tmp_path):
    """From a file, and from the weights that are shipped."""
    name, parameters = pretrained.load_shipped("basic")
    path = tmp_path / "first.safetensors"
    pretrained.save(path, name, parameters, {})
    found = []
    for start in (str(path), "basic"):
        options = options_for(clean, tmp_path / "run", model=name, start=start)
        found.append(run.initial_parameters(options, None))
    jax.tree.map(np.testing.assert_array_equal, *found)
    jax.tree.map(np.testing.assert_array_equal, found[0], parameters)
    with pytest.raises(errors.InputError, match=f"weights of {name}, not of basic"):
        run.train(options_for(clean, tmp_path / "run", start=str(path)))
    with pytest.raises(errors.InputError, match="no weights of model 'unet'"):
        run.train(options_for(clean, tmp_path / "run", start="unet"))
    # Neither has taken the workdir.
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_takes_clean_pictures_alone(clean, tmp_path, capsys):
    options = dataclasses.asdict(options_for(clean, tmp_path))
    assert train.command(train.TrainOptions(**options)) is None
    assert "step 6 of 6, validation" in capsys.readouterr().out
