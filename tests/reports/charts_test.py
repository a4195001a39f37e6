import pathlib
import re

import matplotlib
import pytest

from restoration.reports import charts

TRAIN = [(step / 10, 1.0 / step) for step in range(1, 100)]
VALIDATION = [(1, 0.5), (4, 0.125), (6, 0.25), (9, 0.375)]


def _draw(lines, lower_is_better=True, id="loss", y_label="Loss"):
    return charts.draw(
        lines,
        id=id,
        x_label="epochs",
        y_label=y_label,
        write=lambda y: f"{y:.3g} dB",
        lower_is_better=lower_is_better,
    )


def _texts(svg):
    return re.findall("<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize(("lower", "best"), [(True, "0.125"), (False, "0.5")])
def test_best_validation_point_is_marked(lower, best):
    svg = _draw({"train": TRAIN, "validation": VALIDATION}, lower)
    assert [t for t in _texts(svg) if "best" in t] == [f"best {best} dB"]
    assert "best" not in _draw({"train": TRAIN})


def test_losses_over_a_factor_of_ten_have_a_log_scale():
    narrow = [(0, 1.0), (1, 9.9)]
    assert "Loss, log scale" in _texts(_draw({"train": TRAIN}))
    assert "Loss" in _texts(_draw({"train": narrow}))
    assert "Loss" in _texts(_draw({"train": TRAIN}, lower_is_better=False))
    assert "Loss" in _texts(_draw({"train": [*narrow, (2, 0.0)]}))


def test_each_dot_has_a_tooltip():
    svg = _draw({"train": TRAIN, "validation": VALIDATION})
    titles = re.findall("<title>(.*?)</title>", svg)
    assert titles[1] == "validation, epochs 4: 0.125 dB"
    assert len(titles) == len(VALIDATION)
    many = [(i, float(i)) for i in range(1, 100)]
    assert "<title>" not in _draw({"train": TRAIN, "validation": many})


def test_label_is_a_sentence():
    svg = _draw({"train": [(1, 2.0), (2, 1.0)]}, y_label='Loss ("a" & <b>)')
    label = "Loss (&quot;a&quot; &amp; &lt;b&gt;) over epochs: train from 2 dB to 1 dB"
    assert f'role="img" aria-label="{label}"' in svg
    assert re.match('<svg viewBox="0 0 [0-9.]+ [0-9.]+" role', svg)


def test_labels_are_not_interpreted():
    label = "id=\"x $x^2$ #000001 'DejaVu Sans'"
    assert label in _texts(_draw({"train": [(1, 2.0)]}, y_label=label))


def test_colors_and_fonts_are_those_of_the_page():
    svg = _draw({"train": TRAIN, "validation": VALIDATION})
    css = pathlib.Path(charts.__file__).parent / "templates" / "page.css"
    defined = set(re.findall(r"(--\w+):", css.read_text(encoding="utf-8")))
    used = set(re.findall(r"var\((--\w+)\)", svg))
    assert used == {"--sans", "--quiet", "--rule", "--train", "--accent"} <= defined
    assert "currentColor" in svg
    assert "DejaVu" not in svg and "#00000" not in svg


def test_references_stay_inside_the_svg():
    svg = _draw({"train": TRAIN, "validation": VALIDATION}, id="one")
    assert "http" not in svg and "<style" not in svg and "<metadata" not in svg
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids)) and all(id.startswith("one-") for id in ids)
    used = re.findall(r'(?:href="|url\()#([^")]+)', svg)
    assert used and set(used) <= set(ids)


def test_settings_of_the_caller_are_ignored_and_kept():
    lines = {"train": TRAIN, "validation": VALIDATION}
    svg = _draw(lines)
    with matplotlib.rc_context({"font.size": 30, "axes.grid.axis": "x"}):
        before = dict(matplotlib.rcParams)
        assert _draw(lines) == svg
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    "points", [[(1, 0.5)], [(1, 1.0), (2, 1.0)], [(0, -1.0), (0, 1.0)], [(5, 0.0)]]
)
def test_few_points_draw_without_a_warning(points, recwarn):
    assert "nan" not in _draw({"train": points, "validation": points})
    assert not recwarn.list
