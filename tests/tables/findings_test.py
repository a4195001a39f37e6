"""The findings' answers follow from the measurements they are given."""

import dataclasses
import json

import pytest

from experiments.tables import findings, standin, tables
from restoration.base import errors
from restoration.images import frames
from restoration.models import pretrained

INPUT = 28.0


def cells_of(psnr, scale="quick", apart=(-0.1, 0.0, 0.1)):
    """Returns cells of three runs 0.1 dB apart around psnr(row, kind)."""
    splits = {
        split: {"input": INPUT, "restored": 20.0 + number}
        for number, split in enumerate(("train", "validation", "test"))
    }
    return [
        findings.Cell(row, kind, round(100 * row.epochs * row.fraction), INPUT,
                      tuple(psnr(row, kind) + d for d in apart),
                      tuple(psnr(row, kind) + 1 for _ in apart), splits)
        for row, kind in findings.wanted_cells(scale)
    ]  # fmt: skip


def as_reported(row, kind):
    reported = tables.seed_numbers()[row.table, row.fraction, "test"]["psnr"]
    return reported + (3.5 if kind == "better" else 0.0)


def conclude(psnr):
    return {one["name"]: one for one in findings.conclude(cells_of(psnr))}


def test_the_reports_own_numbers_agree_with_its_best_runs():
    answers = conclude(as_reported)
    for model in ("basic", "advanced"):
        best = answers[f"best {model} run"]
        assert best["agrees"]
        assert best["numbers"]["behind"] == 0
        assert best["numbers"]["rank_correlation_with_steps"] == pytest.approx(
            best["numbers"]["rank_correlation_in_report"]
        )
    larger = answers["a larger model needs more data and longer training"]
    assert larger["agrees"]
    assert larger["numbers"]["behind_at_2_percent"] == pytest.approx(30.06 - 25.69)
    assert larger["numbers"]["gain_advanced"] == pytest.approx(27.67 - 25.69)
    more = answers["more data and training would improve both"]
    assert more["agrees"]
    assert more["numbers"]["basic, 100 to 300 epochs"]["gain"] == pytest.approx(1.85)


def test_other_numbers_disagree():
    answers = conclude(lambda row, kind: 25 + row.fraction + (row.model == "advanced"))
    best = answers["best basic run"]
    assert not best["agrees"]
    assert best["numbers"]["behind"] == pytest.approx(0.32 - 0.12)
    assert "32% at" in best["answer"]
    assert not answers["a larger model needs more data and longer training"]["agrees"]
    assert not answers["more data and training would improve both"]["agrees"]


@pytest.mark.parametrize(("gain", "basic", "advanced"), [(3.5, True, True),
                         (1.5, True, False), (0.5, False, False)])  # fmt: skip
def test_better_recipe_needs_the_wanted_gain(gain, basic, advanced):
    answers = conclude(
        lambda row, kind: row.epochs / 1e9 + 25 + gain * (kind == "better")
    )
    for model, expected in (("basic", basic), ("advanced", advanced)):
        one = answers[f"better recipe, {model}"]
        assert one["agrees"] == expected
        assert one["numbers"]["gain"] == pytest.approx(gain)
        assert f"{gain:+.2f} dB" in one["answer"]


@pytest.mark.parametrize(("apart", "agrees"), [(0.1, True), (0.2, False)])
def test_peers_must_agree_within_the_spread(apart, agrees):
    # Two standard deviations of 0.1 make a spread of 0.14.
    peers = ("twin", "bfloat16")
    answers = conclude(
        lambda row, kind: row.epochs / 1e9 + 25 + apart * (kind in peers)
    )
    for name in (
        "the Keras twin, basic",
        "the Keras twin, advanced",
        "bfloat16, basic",
    ):
        assert answers[name]["agrees"] == agrees
    assert answers["bfloat16, basic"]["agrees"] == agrees


def test_too_few_images_are_refused(tmp_path, photographs):
    for number in range(4):
        frames.write(tmp_path / f"{number}.png", photographs["rocket"][:40, :40])
    with pytest.raises(
        errors.InputError, match="4 images; give at least 200, since few cannot show"
    ):
        findings.findings(findings.FindingsOptions(data_dir=str(tmp_path)))


def test_one_run_each_shows_no_spread():
    cells = cells_of(as_reported, "cpu", apart=(0.0,))
    assert len(cells) == 13
    answers = {one["name"]: one for one in findings.conclude(cells)}
    assert answers["best basic run"]["agrees"]
    assert answers["the Keras twin, basic"]["agrees"] is None
    assert "bfloat16, basic" not in answers
    texts = [one["answer"] for one in answers.values()]
    assert not any("±" in text or "nan" in text for text in texts)
    assert all(
        "one run each" in answers[name]["answer"]
        for name in answers
        if not name.startswith("best")
    )
    other = findings.conclude(
        cells_of(lambda row, kind: 25 + row.fraction, "cpu", apart=(0.0,))
    )
    assert "0.20 dB behind, one run each" in other[0]["answer"]
    assert not other[0]["agrees"]


def test_words_follow_from_the_measurements():
    text = findings.in_words(cells_of(as_reported))
    assert "The input has 28.0 dB." in text
    assert "reach 32.2 dB (basic, +4.2) and 28.4 dB (advanced, +0.4) at best" in text
    assert "recipe 35.7 dB (basic, +7.7) and 31.9 dB (advanced, +3.9). They" in text
    assert "comes out at 33.2 dB (basic) and 29.4 dB (advanced), with" in text


def rows_of(options, scores):
    """Returns results of all rows, and of Keras for the scale's own."""
    results = []
    for row in tables.rows_of("all"):
        wanted = tables.row_config(options, row)
        found = scores(row)
        sides = {s: {"restored": v, "input": {"psnr": INPUT}} for s, v in found.items()}
        results.append({
            "runs": [{"scores": sides}] * wanted.seeds,
            "twin_runs": [{"scores": found}] * wanted.seeds * wanted.twin,
            "input": {split: {"psnr": INPUT} for split in found},
            "counts": {"train": 33, "common": 2}, "data": {"what": "pairs"},
        })  # fmt: skip
    return results


def reported_scores(row):
    splits = ("train", "validation", "test", "common", "undamaged")
    return {split: {"psnr": as_reported(row, "seed")} for split in splits}


def options_of(tmp_path, photographs, monkeypatch):
    monkeypatch.setattr(findings, "FEWEST_PICTURES", 3)
    for number in range(3):
        frames.write(tmp_path / f"in/{number}.png", photographs["rocket"][:40, :40])
    return findings.FindingsOptions(
        data_dir=str(tmp_path / "in"), scale="cpu", pairs=20, image_size=16,
        results=str(tmp_path / "out"), workdir=str(tmp_path / "work"),
    )  # fmt: skip


def test_rows_are_read_off_and_only_the_rest_is_trained(
    tmp_path, photographs, monkeypatch
):
    options = options_of(tmp_path, photographs, monkeypatch)
    asked, trained = [], []

    def rows(table_options):
        asked.append(table_options)
        return rows_of(table_options, reported_scores)

    def train(options, row, kind, pairs_of):
        trained.append((row.model, row.epochs, row.fraction, kind))
        sides = {s: {"restored": v} for s, v in reported_scores(row).items()}
        return [{"scores": sides}]

    monkeypatch.setattr(tables, "tables", rows)
    monkeypatch.setattr(findings, "_train", train)
    found = findings.findings(options)
    (table_options,) = asked
    assert (table_options.scale, table_options.table) == ("cpu", "all")
    assert table_options.results == options.results
    assert trained == [
        ("basic", 300, 0.12, "better"), ("advanced", 200, 0.12, "better"),
    ]  # fmt: skip
    kinds = [cell["kind"] for cell in found["cells"]]
    assert kinds == ["seed"] * 10 + ["better"] * 2 + ["twin"]
    assert found["cells"][0]["steps"] == 3 * 100
    assert found["cells"][1]["psnr"] == [30.31]
    assert found["cells"][1]["std"] is None
    text = findings.to_markdown(found)
    assert "Scale cpu, 100% of the report's epochs, 16×16 pixels" in text
    assert "| basic | 100 | 12% | 28.00 | 30.31 | 28.00 | 30.31 |" in text
    assert found["in_words"] in text


def test_the_better_recipe_is_trained_and_its_weights_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(standin, "KINDS", ("grain",))  # compiles fastest
    monkeypatch.setattr(standin, "_find_severity", lambda *_: (1.0, 28.0))
    short = dataclasses.replace(tables.SCALES["cpu"], epochs=0.02)
    monkeypatch.setitem(tables.SCALES, "cpu", short)
    options = findings.FindingsOptions(
        data_dir="", scale="cpu", pairs=200, image_size=16, batch_size=8,
        results=str(tmp_path / "out"), workdir=str(tmp_path / "work"),
    )  # fmt: skip
    row = findings.BETTER_ROWS["basic"]
    (found,) = findings._train(options, row, "better", tables.pairs_source())
    assert found["curves"]["train"]["epoch"] == [1, 2, 3, 4, 5, 6]
    loss = found["curves"]["validation"]["loss"]
    assert loss[-1] < loss[0]
    table_options = findings._table_options(options)
    wanted = tables.row_config(table_options, row)
    path = tables.weights_file(table_options, wanted, "better")
    card = pretrained.read_card(path.with_suffix(".json"))
    assert card["run"]["recipe"] == dataclasses.asdict(findings.BETTER)
    assert pretrained.load(path)[0] == "basic"


def test_findings_of_older_code_are_still_shown():
    path = tables.FOLDER / "results" / "quick" / "findings.json"
    text = findings.to_markdown(json.loads(path.read_text(encoding="utf-8")))
    assert "| yes |" in text
    assert "Scale quick, 6% of the report's epochs" in text


def test_a_second_call_recomputes_nothing(tmp_path, photographs, monkeypatch):
    options = options_of(tmp_path, photographs, monkeypatch)
    calls = []

    def measured(options, results):
        calls.append(1)
        return cells_of(as_reported)

    monkeypatch.setattr(findings, "measure", measured)
    monkeypatch.setattr(tables, "tables", lambda o: rows_of(o, reported_scores))
    first = findings.findings(options)
    assert findings.findings(options) == first
    assert len(calls) == 1
    findings.findings(dataclasses.replace(options, seeds=2))
    assert len(calls) == 2
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert str(tmp_path) not in json.dumps(found)  # the same on every machine
    text = findings.to_markdown(found)
    assert text.count("| yes |") == len(found["findings"])
