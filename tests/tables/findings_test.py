"""The findings' answers follow from the measurements they are given."""

import dataclasses
import json

import pytest

from experiments.tables import findings, tables
from restoration.base import errors
from restoration.images import frames


def cells_of(psnr):
    """Returns cells of three runs 0.1 dB apart around psnr(row, kind)."""
    return [
        findings.Cell(row, kind, round(100 * row.epochs * row.fraction),
                      tuple(psnr(row, kind) + d for d in (-0.1, 0.0, 0.1)))
        for row, kind in findings.wanted_cells()
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


def test_a_second_call_recomputes_nothing(tmp_path, photographs, monkeypatch):
    monkeypatch.setattr(findings, "FEWEST_PICTURES", 3)
    for number in range(3):
        frames.write(tmp_path / f"in/{number}.png", photographs["rocket"][:40, :40])
    options = findings.FindingsOptions(
        data_dir=str(tmp_path / "in"), quick=True, pairs=20, image_size=16,
        results=str(tmp_path / "out"), workdir=str(tmp_path / "work"),
    )  # fmt: skip
    calls = []

    def measured(options, drawn):
        calls.append(1)
        findings._folder(options).mkdir(parents=True)
        return cells_of(as_reported)

    monkeypatch.setattr(findings, "measure", measured)
    monkeypatch.setattr(findings.standin, "_find_severity", lambda *_: (1.0, 28.0))
    monkeypatch.setattr(findings.runs, "keep_compiled", lambda folder: None)
    first = findings.findings(options)
    assert findings.findings(options) == first
    assert len(calls) == 1
    findings.findings(dataclasses.replace(options, seeds=2))
    assert len(calls) == 2
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert str(tmp_path) not in json.dumps(found)  # the same on every machine
    text = findings.to_markdown(found)
    assert text.count("| yes |") == len(found["findings"])
