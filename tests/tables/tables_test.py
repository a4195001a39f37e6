"""The tables: their rows, that nothing is computed twice, and what is written."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from experiments.figures import readme
from experiments.tables import runs, standin, tables
from restoration import models
from restoration.base import cli, errors
from restoration.models import identity_init, pretrained
from restoration.training import checkpoint, run_log
from restoration.training import run as training_run

OPTIONS = tables.TablesOptions(
    table="3", scale="quick", pairs=75, image_size=16, batch_size=8, seeds=2
)


def test_rows_are_the_reports():
    rows = tables.rows_of("all")
    assert len(rows) == 10
    named = {(r.table, r.fraction, s) for r in rows
             for s in ("train", "validation", "test")}  # fmt: skip
    assert named == set(tables.seed_numbers())
    full = tables.TablesOptions()
    stems = [tables._stem(tables.row_config(full, row)) for row in rows]
    assert stems[0] == "t1_basic_100_636"
    assert stems[-1] == "t5_advanced_200_3816"
    assert tables.seed_numbers()["4", 0.12, "test"]["psnr"] == 27.67


def test_tables_beyond_the_report():
    wanted = [
        tables.row_config(tables.TablesOptions(table=t), tables.rows_of(t)[0])
        for t in ("6", "7")
    ]
    assert [(w.pairs, w.run.epochs, w.seeds) for w in wanted] == [
        (31_801, 300, 3), (31_801, 300, 1),
    ]  # fmt: skip


def test_the_scale_of_two_cores_has_the_reports_counts():
    options = tables.TablesOptions(scale="cpu")
    wanted = [tables.row_config(options, row) for row in tables.rows_of("all")]
    counts = [(w.pairs, w.run.epochs, w.run.batch_size, w.seeds) for w in wanted]
    assert counts == [
        (636, 100, 16, 1), (3816, 100, 16, 1), (10176, 100, 16, 1), (636, 300, 16, 1),
        (3816, 300, 16, 1), (10176, 200, 16, 1), (636, 100, 16, 1), (3816, 100, 16, 1),
        (636, 200, 16, 1), (3816, 200, 16, 1),
    ]  # fmt: skip
    assert {w.run.image_size for w in wanted} == {64}
    assert [w.twin for w in wanted] == [True] + [False] * 9
    assert tables.row_config(
        dataclasses.replace(options, seeds=2), wanted[0].row
    ).seeds == 2  # fmt: skip
    # Ten rows are five runs.
    folders = {tables._runs_folder(options, w.row) for w in wanted}
    assert len(folders) == 5
    assert tables._stops(options, wanted[2].row) == (100, 200)


def test_the_earlier_flag_is_answered_with_the_new_one():
    with pytest.raises(errors.InputError, match="--quick is now named --scale"):
        cli._check_renamed(["tables", "--quick"], tables.TablesOptions)


@pytest.fixture(scope="module")
def with_keras():
    quick = dataclasses.replace(tables.SCALES["quick"], twin=(("3", 0.32),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tables.SCALES, "quick", quick)
        patch.setattr(standin, "KINDS", ("grain",))  # compiles fastest
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, with_keras):
    folder = tmp_path_factory.mktemp("tables")
    options = dataclasses.replace(
        OPTIONS,
        results=str(folder / "results"),
        workdir=str(folder / "work"),
        out=str(folder / "out"),
    )
    tables.main(options)
    return options, folder / "results"


def test_a_second_call_recomputes_nothing(finished, monkeypatch):
    options, folder = finished
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def refuse(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(tables, "compute", refuse)
    monkeypatch.setattr(tables.standin, "prepare", refuse)
    tables.main(options)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with pytest.raises(AssertionError, match="computed again"):
        tables.main(dataclasses.replace(options, seeds=1))
    monkeypatch.setattr(tables.runs, "code_version", lambda: "another")
    with pytest.raises(AssertionError, match="computed again"):
        tables.main(options)


def test_results_contain_their_configuration(finished):
    _, folder = finished
    found = json.loads((folder / "t3_basic_12_24.json").read_text())
    assert found["scale"] == "quick"
    assert (found["table"], found["model"], found["epochs"]) == ("3", "basic", 200)
    assert (found["fraction"], found["pairs"]) == (0.32, 24)
    splits = ("train", "validation", "test")
    assert sum(found["counts"][split] for split in splits) == 24
    # Of all 75 pairs, not of the row's 24: the test pairs that all rows have.
    assert found["counts"]["common"] == found["counts"]["undamaged"] == 7
    for run in found["runs"]:
        sides = run["scores"]["undamaged"]
        assert sides["input"]["psnr"] == 100
        assert sides["restored"]["psnr"] < 100
    assert set(found["twin_runs"][0]["scores"]) == {*splits, "common", "undamaged"}
    for who, key in (("ours", "runs"), ("twin", "twin_runs")):
        values = [
            run["scores"]["test"].get("restored", run["scores"]["test"])["psnr"]
            for run in found[key]
        ]
        assert len(set(values)) == 2  # two seeds
        expected = {"mean": np.mean(values), "std": np.std(values, ddof=1)}
        assert found[who]["test"]["psnr"] == pytest.approx(expected)
    curves = found["runs"][0]["curves"]
    assert curves["train"]["epoch"] == list(range(1, 13))
    assert curves["train"]["loss"][-1] < curves["train"]["loss"][0]
    for word in ("code", "protocol", "machine", "data", "seconds", "config"):
        assert found[word]


def test_every_row_is_written(finished):
    options, folder = finished
    out = pathlib.Path(options.out)
    result = json.loads((folder / "t3_basic_12_24.json").read_text())
    lines = list(csv.DictReader(io.StringIO((out / "table_3.csv").read_text())))
    assert [line["split"] for line in lines] == ["train", "validation", "test"]
    assert float(lines[2]["psnr_seed"]) == 31.77
    mean = result["ours"]["test"]["psnr"]["mean"]
    assert float(lines[2]["psnr_ours"]) == pytest.approx(mean, rel=1e-5)
    page = (out / "table_3.html").read_text()
    markdown = (out / "table_3.md").read_text()
    for text in (page, markdown):
        assert f"{mean:.2f} ±" in text
        assert "31.77" in text
        assert "Scale quick" in text
    assert page.count("<svg") == 2
    assert "Table 3: basic, 200 epochs" in markdown


def test_a_row_that_is_the_beginning_of_another_is_read_off_it(
    finished, tmp_path, monkeypatch
):
    options, folder = finished
    shutil.copytree(folder.parent, tmp_path, dirs_exist_ok=True)
    options = dataclasses.replace(
        options, table="1", results=str(tmp_path / "results"),
        workdir=str(tmp_path / "work"),
    )  # fmt: skip
    only = tables.TABLES["1"] | {"fractions": (0.32,)}
    monkeypatch.setitem(tables.TABLES, "1", only)

    def refuse(*arguments, **named):
        raise AssertionError("trained again")

    monkeypatch.setattr(training_run, "train", refuse)
    # Kept, since table 1's row is not written yet.
    (runs_folder,) = (tmp_path / "work").glob("basic_24_*")
    (short,) = tables.tables(options)
    long = json.loads((tmp_path / "results" / "t3_basic_12_24.json").read_text())
    assert (tmp_path / "results" / "t1_basic_6_24.json").is_file()
    assert not runs_folder.exists()
    for one, other in zip(short["runs"], long["runs"], strict=True):
        assert one["scores"] != other["scores"]
        assert one["seconds"] < other["seconds"]
        for split, curve in one["curves"].items():
            for name, values in curve.items():
                assert values == other["curves"][split][name][: len(values)]
    # The weights stay, those of the longer run.
    path = tables.weights_file(
        options, tables.row_config(options, tables.rows_of("1")[0])
    )
    assert pretrained.load(path)[0] == "basic"
    assert pretrained.read_card(path.with_suffix(".json"))["run"]["epochs"] == 12


def test_readme_block_contains_the_results(finished, monkeypatch):
    _, folder = finished
    result = json.loads((folder / "t3_basic_12_24.json").read_text())
    rows = [tables.row_config(OPTIONS, row) for row in tables.rows_of("all")]
    found = [result if wanted.row.table == "3" else None for wanted in rows]

    def committed(scale):
        results = found if scale == "cpu" else [None] * len(rows)
        return list(zip(rows, results, strict=True))

    monkeypatch.setattr(tables, "committed", committed)
    text = readme.fill("a\n<!-- tables: x -->\nold\n<!-- end of tables -->\nb",
                       "tables", source="README")  # fmt: skip
    assert text.startswith("a\n<!-- tables: x -->\n| table |")
    assert text.endswith("\n<!-- end of tables -->\nb")
    ours, keras = (
        f"{result[who]['test']['psnr']['mean']:.2f} ±" for who in ("ours", "twin")
    )
    assert "old" not in text
    assert ours in text
    assert keras in text
    assert text.count("| not run |") == 9
    assert "| 5 | advanced | 12 | 9 | 28.41 | – | not run | – |" in text
    # All or nothing at the other scales.
    found[rows.index(next(w for w in rows if w.row.table == "3"))] = None
    assert readme.report_table().startswith("Not run yet")
    with pytest.raises(errors.InputError, match="README: holds no <!-- tables"):
        readme.fill("a", "tables", source="README")


def test_quick_results_of_older_code_are_still_shown():
    assert all(result for _, result in tables.committed("quick"))
    results = [result for _, result in tables.committed("quick")]
    assert "Scale quick: 6% of the report's epochs" in tables.scale_note(results)


@pytest.fixture(scope="module")
def data(with_keras):
    return tables.pairs_source()(tables.row_config(OPTIONS, tables.rows_of("3")[0]))[0]


RUN = runs.Run("basic", runs.SEED, 4, 8, 16, seed=0)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """Returns the folder of a run of four epochs, a checkpoint of each."""
    folder = tmp_path_factory.mktemp("straight")
    options = dataclasses.replace(runs._train_config(RUN, folder, 1), keep=9)
    members = {split: data[split] for split in ("train", "validation")}
    training_run.train(options, members, task=runs._task(options, "keras"))
    return folder


def states_equal(one, other, epoch):
    """Returns whether two runs' weights and optimizers are the same, bit for bit."""
    trees = []
    for folder in (one, other):
        each = checkpoint.steps_in(checkpoint.folder_of(folder))[-1]
        epochs = json.loads((folder / "config.json").read_text())["epochs"]
        path = checkpoint.folder_of(folder) / str(each // epochs * epoch)
        trees.append(checkpoint.restore(path, checkpoint.shapes(path)))
    leaves = [
        [(jax.tree_util.keystr(key), np.asarray(leaf).tobytes()) for key, leaf in tree]
        for tree in (jax.tree.leaves_with_path(tree) for tree in trees)
    ]
    assert len(leaves[0]) > 3 * 10  # weights and two moments of ten layers' arrays
    return leaves[0] == leaves[1]


def test_a_shorter_run_is_the_longer_ones_beginning(tmp_path, data, straight):
    short, long = tmp_path / "short", tmp_path / "long"
    alone = runs.result(dataclasses.replace(RUN, epochs=2), data, short)
    whole = runs.result(RUN, data, long, stops=(2, 4))
    on_the_way = runs.result(dataclasses.replace(RUN, epochs=2), data, long,
                             stops=(2, 4))  # fmt: skip
    assert states_equal(short, straight, 2)
    assert states_equal(long, straight, 4)
    assert on_the_way["scores"] == alone["scores"]
    assert on_the_way["curves"] == alone["curves"]
    assert on_the_way["scores"] != whole["scores"]


def test_an_interrupted_run_continues_to_the_same_numbers(
    tmp_path, monkeypatch, data, straight
):
    write = run_log.Log.write

    def stop_in_third_epoch(log, row):
        write(log, row)
        if row["split"] == "train" and row["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(run_log.Log, "write", stop_in_third_epoch)
        with pytest.raises(errors.InputError, match="stopped at step 9 of 12; the"):
            runs.result(RUN, data, tmp_path / "cut", stops=(2, 4))
    found = runs.result(RUN, data, tmp_path / "cut", stops=(2, 4))
    assert states_equal(tmp_path / "cut", straight, 4)
    assert found["resumed"]
    first = json.loads((tmp_path / "cut" / "result_2.json").read_text())
    assert not first["resumed"]
    assert 0 < first["seconds"] < found["seconds"]


def test_what_was_not_measured_on_the_way_is_refused(tmp_path, data, straight):
    shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(errors.InputError, match="trained beyond epoch 2, at which"):
        runs.result(dataclasses.replace(RUN, epochs=2), data, tmp_path / "run")
    falling = dataclasses.replace(runs.SEED, schedule="cosine")
    with pytest.raises(ValueError, match="cosine: a shorter run has other rates"):
        runs.result(dataclasses.replace(RUN, recipe=falling), data, tmp_path / "other",
                    stops=(2, 4))  # fmt: skip


@pytest.mark.parametrize("name", ["basic", "advanced"])
def test_carrying_weights_show_the_picture(name, photographs):
    model = models.get_model(name)
    images = photographs["coffee"][None, :256:2, :256:2]
    shapes = models.abstract_parameters(model)
    start = identity_init.autoencoder(shapes, 0)
    sizes = [leaf.shape for leaf in jax.tree.leaves(start)]
    assert sizes == [leaf.shape for leaf in jax.tree.leaves(shapes)]
    restored = np.asarray(model.apply(start, images))
    shown = np.corrcoef(restored.ravel(), images.ravel())[0, 1]
    assert shown > 0.85
