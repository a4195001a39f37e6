"""The tables: their rows, that nothing is computed twice, and what is written."""

import csv
import dataclasses
import io
import json
import pathlib

import jax
import numpy as np
import pytest

from experiments.figures import readme
from experiments.tables import runs, standin, tables
from restoration import models
from restoration.base import errors
from restoration.models import identity_init
from restoration.training import run as training_run

OPTIONS = tables.TablesOptions(
    table="3", quick=True, pairs=75, image_size=16, batch_size=8, seeds=2
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


@pytest.fixture(scope="module")
def with_keras():
    quick = dataclasses.replace(tables.QUICK, twin=("3",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "QUICK", quick)
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
    assert found["quick"]
    assert (found["table"], found["model"], found["epochs"]) == ("3", "basic", 200)
    assert (found["fraction"], found["pairs"]) == (0.32, 24)
    assert sum(found["counts"].values()) == 24
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
    assert not list((folder.parent / "work").glob("t3*"))  # runs are cleared away


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
        assert "Quick run" in text
    assert page.count("<svg") == 2
    assert "Table 3: basic, 200 epochs" in markdown


def test_readme_block_contains_the_results(finished, monkeypatch):
    _, folder = finished
    result = json.loads((folder / "t3_basic_12_24.json").read_text())
    monkeypatch.setattr(tables, "committed", lambda quick: [result] if quick else [])
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
    with pytest.raises(errors.InputError, match="README: holds no <!-- tables"):
        readme.fill("a", "tables", source="README")


def test_an_interrupted_run_continues_to_the_same_numbers(
    tmp_path, monkeypatch, finished
):
    data, _ = tables.pairs_source()(tables.row_config(OPTIONS, tables.rows_of("3")[0]))
    recipe = runs.Recipe(start="carry", ema_decay=0.9, learning_rate=3e-3)
    run = runs.Run("basic", recipe, 4, 8, 16, seed=0)
    whole = runs.result(run, data, tmp_path / "whole")

    def cut(options, data, *, task):  # as a signal would, after two of four epochs
        return train(dataclasses.replace(options, epochs=2), data, task=task)

    train = training_run.train
    monkeypatch.setattr(training_run, "train", cut)
    runs.result(run, data, tmp_path / "cut")
    (tmp_path / "cut" / "result.json").unlink()
    monkeypatch.setattr(training_run, "train", train)
    resumed = runs.result(run, data, tmp_path / "cut")
    assert resumed["scores"] == whole["scores"]
    assert resumed["curves"] == whole["curves"]
    assert (whole["resumed"], resumed["resumed"]) == (False, True)


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
