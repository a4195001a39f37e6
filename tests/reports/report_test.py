import base64
import dataclasses
import hashlib
import html.parser
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from restoration import report
from restoration.base import errors
from restoration.images import frames
from restoration.reports import (
    before_after,
    curves,
    gallery,
    page,
    run_files,
    training_run,
)

# With the slash of `</script>` it is a folder and a file in it.
HOSTILE = 'a"><script>alert(1)</script>&'
PROTOCOL = "PSNR/SSIM: RGB in [0,1], Gaussian 11x11 sigma 1.5, per image, averaged"

# name -> input PSNR, restored PSNR: gains of 5, -1, 3, 2, 1, 8, 4.
PSNRS = {
    "reel/film_0001": (20.0, 25.0),
    "reel/film_0002": (22.0, 21.0),
    "mønster-№7-写真": (21.0, 24.0),
    HOSTILE: (19.0, 21.0),
    "d": (20.0, 21.0),
    "e": (18.0, 26.0),
    "f": (20.0, 24.0),
}


class _Page(html.parser.HTMLParser):
    """Collects the start tags and the visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data):
        if not self._open and data.strip():
            self.text.append(" ".join(data.split()))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def _picture(seed, height=12, width=20):
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def _evaluation(split, count, after):
    return {
        "model": "basic",
        "split": split,
        "count": count,
        "step": 1200,
        "protocol": PROTOCOL,
        "input": {"mse": 0.01, "psnr": 20.125, "ssim": 0.75},
        "restored": {"mse": 0.0025, "psnr": after, "ssim": 0.875},
    }


def _metrics():
    lines = []
    for step in range(10, 60, 10):
        for split in ("train", "validation"):
            record = {"step": step, "epoch": step / 10, "split": split}
            record |= {"loss": 1 / step, "psnr": 20 + step / 10, "ssim": step / 100}
            if split == "train":
                record["images_per_second"] = 35.0
            lines.append(json.dumps(record))
    return lines


@pytest.fixture
def run(tmp_path):
    """Returns the options of a small run: splits, pictures, an odd name or two."""
    data, workdir = tmp_path / "data", tmp_path / "work"
    evaluation = workdir / "evaluation"
    rows = [
        "name,input_mse,input_psnr,input_ssim,restored_mse,restored_psnr,restored_ssim"
    ]
    for seed, (name, (before, after)) in enumerate(PSNRS.items()):
        frames.write(data / "test" / "input" / f"{name}.png", _picture(seed))
        frames.write(data / "test" / "output" / f"{name}.png", _picture(seed + 50))
        frames.write(evaluation / "test" / f"{name}.png", _picture(seed + 99))
        quoted = '"' + name.replace('"', '""') + '"'
        rows.append(f"{quoted},0.01,{before},0.7,0.005,{after},0.8")
    (evaluation / "test.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for split, count, after in (("train", 1920, 28.5), ("test", 7, 26.625)):
        text = json.dumps(_evaluation(split, count, after))
        (evaluation / f"{split}.json").write_text(text)
    config = {"model": "basic", "data_dir": str(data), "epochs": 5, "loss": HOSTILE}
    config |= {"parameters": 29507, "schedule": None, HOSTILE: "</dd><img src=x>"}
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "metrics.jsonl").write_text("\n".join(_metrics()) + "\n")
    return training_run.ReportOptions(workdir=str(workdir), cases=2)


@pytest.fixture
def photos(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    for name in ("street", "street_1", HOSTILE, "alone"):
        frames.write(before / f"{name}.jpg", _picture(1))
    for name in ("street_restored", "street_1_restored", HOSTILE):
        frames.write(after / f"{name}.png", _picture(2))
    (before / "street.txt").write_text("Köln, <em>1911</em>\n", encoding="utf-8")
    return training_run.ReportOptions(before=str(before), after=str(after))


def _read(options):
    return report.report(options).read_text(encoding="utf-8")


def test_numbers_are_on_the_page(run):
    text = " ".join(_Page(_read(run)).text)
    for number in ("20.12", "26.62", "+6.50", "28.50", "1,920 pictures", "7 pictures"):
        assert number in text
    assert "0.01000 0.00250 −75.0 %" in text
    assert "0.7500 0.8750 +0.1250" in text
    assert "29,507" in text and "35 images per second" in text
    assert PROTOCOL in text
    assert "median +3.00 dB, from −1.00 to +8.00 dB" in text
    assert "1 of 7 became worse" in text
    assert "epochs 5" in text and "schedule null" in text


def test_headline_has_a_label_for_screen_readers(run):
    labels = [attrs.get("aria-label", "") for attrs in _Page(_read(run)).all("p")]
    assert "input PSNR 20.12 dB -> restored PSNR 26.62 dB (+6.50 dB)" in labels


@pytest.mark.parametrize("which", ["run", "photos"])
def test_page_requests_nothing(which, request):
    page = _Page(_read(request.getfixturevalue(which)))
    assert not page.all("link") and not page.all("iframe") and not page.all("base")
    assert all("src" not in attrs for attrs in page.all("script"))
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "data:").startswith("data:")
    policy = page.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_policy_allows_only_the_script(photos):
    text = _read(photos)
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_style_and_script_contain_no_url():
    for path in page.TEMPLATES.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "http:" not in text and "https:" not in text
        assert "url(" not in text and "@import" not in text


@pytest.mark.parametrize("which", ["run", "photos"])
def test_names_and_captions_are_escaped(which, request):
    text = _read(request.getfixturevalue(which))
    page = _Page(text)
    assert len(page.all("script")) == 1
    assert not page.all("em")
    assert all(
        "onerror" not in attrs and attrs.get("src") != "x" for _, attrs in page.tags
    )
    assert "<script>alert" not in text
    assert any(HOSTILE in attrs.get("alt", "") for attrs in page.all("img"))
    assert HOSTILE in page.text


def test_other_scripts_survive(run):
    assert "mønster-№7-写真" in _Page(_read(run)).text


def test_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    pair = gallery.Comparison(name, _picture(1), _picture(2))
    page = gallery.compare_page([pair], "Before and after")
    assert "caf?" in _Page(page).text
    page.encode("utf-8")


def test_worst_typical_best_in_order(run):
    page = _Page(_read(run))
    names = [attrs["data-name"] for attrs in page.all("article")]
    assert names == [
        *("reel/film_0002", "d"),
        *("mønster-№7-写真", HOSTILE),
        *("e", "reel/film_0001"),
    ]
    gains = [text for text in page.text if text.endswith(" dB") and text[0] in "+−"]
    assert gains == [
        "−1.00 dB",
        "+1.00 dB",
        "+3.00 dB",
        "+2.00 dB",
        "+8.00 dB",
        "+5.00 dB",
    ]


def test_only_saved_pictures_are_shown_with_a_note(run):
    folder = pathlib.Path(run.workdir, "evaluation", "test")
    for name in ("e", "reel/film_0002", "d", "f"):
        (folder / f"{name}.png").unlink()
    page = _Page(_read(run))
    names = [attrs["data-name"] for attrs in page.all("article")]
    assert names == [HOSTILE, "mønster-№7-写真", "reel/film_0001"]
    assert any("from the 3 of 7 test pictures" in text for text in page.text)


def test_a_name_too_long_for_a_file_has_no_picture(run):
    table = pathlib.Path(run.workdir, "evaluation", "test.csv")
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace('"e"', "e" * 5000), encoding="utf-8")
    page = _Page(_read(run))
    assert any("from the 6 of 7 test pictures" in text for text in page.text)


def test_no_cases_needs_no_data(run):
    options = dataclasses.replace(run, cases=0, data_dir="/nowhere")
    assert not _Page(_read(options)).all("article")


def test_sliders_are_ranges_with_labels(run):
    page = _Page(_read(run))
    ranges = [a for a in page.all("input") if a["type"] == "range"]
    assert len(ranges) == 6
    assert "Compare reel/film_0002" in ranges[0]["aria-label"]
    views = [a["name"] for a in page.all("input") if a["type"] == "radio"]
    assert len(views) == 18 and len(set(views)) == 6


def test_curves_have_units_and_the_best_value(run):
    page = _Page(_read(run))
    labels = [attrs["aria-label"] for attrs in page.all("svg")]
    assert labels[1].startswith("PSNR, dB over epochs: train from 21.00 dB to 25.00 dB")
    assert "best 25.00 dB" in page.text and "best 0.02" in page.text


def test_no_two_elements_share_an_id(run):
    ids = [attrs["id"] for _, attrs in _Page(_read(run)).tags if "id" in attrs]
    assert any(id.startswith("psnr-") for id in ids) and len(ids) == len(set(ids))


def test_same_input_gives_the_same_bytes(run, photos, tmp_path):
    both = dataclasses.replace(run, before=photos.before, after=photos.after)
    pages = [
        report.report(dataclasses.replace(both, out=str(tmp_path / name))).read_bytes()
        for name in ("one.html", "two.html")
    ]
    assert pages[0] == pages[1]


def test_incomplete_last_line_is_ignored(run):
    path = pathlib.Path(run.workdir, "metrics.jsonl")
    whole = _read(run)
    path.write_bytes(path.read_bytes() + '{"step": 60, "split": "é'.encode()[:-1])
    assert _read(run) == whole


def test_malformed_middle_line_is_refused(run):
    path = pathlib.Path(run.workdir, "metrics.jsonl")
    lines = _metrics()
    lines[2] = lines[2][:20]
    path.write_text("\n".join(lines))
    with pytest.raises(errors.InputError, match=r"metrics\.jsonl, line 3: "):
        report.report(run)


def test_steps_repeated_after_a_kill_are_used_once(run):
    path = pathlib.Path(run.workdir, "metrics.jsonl")
    again = {"step": 40, "epoch": 4.0, "split": "validation", "psnr": 23.5}
    path.write_text("\n".join([*_metrics(), json.dumps(again)]))
    found = run_files.read_metrics(pathlib.Path(run.workdir))["validation"]
    assert [record["step"] for record in found] == [10, 20, 30, 40, 50]
    assert found[3] == again


def test_run_that_has_logged_no_metrics(run):
    pathlib.Path(run.workdir, "metrics.jsonl").write_text("")
    assert "The run has logged no metrics yet." in _Page(_read(run)).text


def test_values_that_are_not_numbers_leave_gaps(run):
    path = pathlib.Path(run.workdir, "metrics.jsonl")
    lines = [
        '{"step": 1, "epoch": 0.1, "split": "train", "loss": NaN, "psnr": null}',
        '{"step": 2, "epoch": 0.2, "split": "train", "loss": 0.5, "psnr": Infinity}',
    ]
    path.write_text("\n".join(lines))
    page = _Page(_read(run))
    assert len(page.all("svg")) == 1
    assert "nan" not in page.all("path")[0]["d"]


def test_many_records_are_drawn_as_means(run):
    path = pathlib.Path(run.workdir, "metrics.jsonl")
    record = {"split": "train", "psnr": 20.0, "ssim": 0.5}
    lines = [
        record | {"step": s, "epoch": s / 9, "loss": 1 / s} for s in range(1, 2001)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    page = _Page(_read(run))
    assert "train: means of 7 records" in page.text
    assert all(p["d"].count("L") < curves.MOST_POINTS for p in page.all("path"))


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("config.json", "python -m restoration.train"),
        ("metrics.jsonl", "python -m restoration.train"),
        ("evaluation/test.json", "python -m restoration.evaluate"),
        ("evaluation/test.csv", "python -m restoration.evaluate"),
    ],
)
def test_missing_file_is_named_with_the_command_that_makes_it(run, file, command):
    pathlib.Path(run.workdir, file).unlink()
    with pytest.raises(errors.InputError) as caught:
        report.report(run)
    assert file in str(caught.value) and command in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "[1]", "not a JSON object"),
        ("config.json", "{", "not JSON"),
        ("evaluation/test.json", '{"count": 1, "input": {}}', "no 'restored'"),
        (
            "evaluation/test.json",
            '{"count": 1, "input": {"mse": 0}, "restored": []}',
            "input psnr is None, not a number",
        ),
        ("evaluation/test.csv", "name,input_mse\n", "no column input_psnr"),
    ],
)
def test_malformed_file_is_refused(run, file, text, message):
    pathlib.Path(run.workdir, file).write_text(text)
    with pytest.raises(errors.InputError, match=message) as caught:
        report.report(run)
    assert file in str(caught.value)


def test_missing_pictures_are_reported(run, tmp_path):
    with pytest.raises(errors.InputError, match=r"no such folder.*--data_dir"):
        report.report(dataclasses.replace(run, data_dir=str(tmp_path / "gone")))
    data = tmp_path / "data" / "test"
    (data / "input" / "e.png").unlink()
    with pytest.raises(errors.InputError, match=r"no pair 'e'.*--data_dir"):
        report.report(run)


def test_no_page_is_left_behind_by_an_error(run):
    pathlib.Path(run.workdir, "evaluation", "test", "e.png").write_bytes(b"no picture")
    with pytest.raises(errors.InputError, match=r"e\.png"):
        report.report(run)
    assert not list(pathlib.Path(run.workdir).glob("*report.html*"))


def test_gallery_alone(photos):
    page = _Page(_read(photos))
    headings = [text for text in page.text if text in ("street", "street_1", "alone")]
    assert headings == ["street_1", "street"]
    assert "Köln, <em>1911</em>" in page.text
    assert any("1 more has no restored version." in text for text in page.text)
    assert len(page.all("img")) == 3 * (2 + 2)


def test_page_of_a_run_with_a_gallery(run, photos):
    both = dataclasses.replace(run, before=photos.before, after=photos.after)
    page = _Page(_read(both))
    assert len([a for a in page.all("input") if a["type"] == "range"]) == 9


def test_restored_folder_inside_the_originals(tmp_path):
    frames.write(tmp_path / "a.png", _picture(1))
    frames.write(tmp_path / "restored" / "a.png", _picture(2))
    rows, left = before_after.match_pictures(str(tmp_path), str(tmp_path / "restored"))
    assert [(row.before, row.after) for row in rows] == [
        (tmp_path / "a.png", tmp_path / "restored" / "a.png")
    ]
    assert left == []


def test_restored_pictures_beside_the_originals(tmp_path):
    for name in ("a.jpg", "a_restored.png", "a_b.jpg"):
        frames.write(tmp_path / name, _picture(1))
    rows, left = before_after.match_pictures(str(tmp_path), str(tmp_path))
    assert [(row.name, row.after.name) for row in rows] == [("a", "a_restored.png")]
    assert left == ["a_b.jpg"]


def test_gallery_errors_name_the_remedy(tmp_path, photos):
    def match(before, after):
        with pytest.raises(errors.InputError) as caught:
            before_after.match_pictures(str(before), str(after))
        return str(caught.value)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "python -m restoration.restore" in match(photos.before, empty)
    assert "--after" in match(photos.before, tmp_path / "gone")
    frames.write(pathlib.Path(photos.before, "street.bmp"), _picture(3))
    assert "street.bmp or street.jpg" in match(photos.before, photos.after)


def test_missing_options_are_refused(tmp_path):
    with pytest.raises(errors.InputError, match="--workdir"):
        report.report(training_run.ReportOptions())
    with pytest.raises(errors.InputError, match="go together"):
        report.report(training_run.ReportOptions(before=str(tmp_path)))


def test_large_pictures_are_shrunk_with_a_note():
    pair = gallery.Comparison("wide", np.zeros((10, 2400, 3)), np.zeros((10, 2400, 3)))
    page = _Page(gallery.compare_page([pair], "Wide"))
    assert {img.get("width") for img in page.all("img") if "src" in img} == {"1200"}
    assert "shown at 1200 × 5 of 2400 × 10 pixels" in page.text


def test_page_keeps_to_its_budget():
    noise = [_picture(seed, 400, 300) for seed in range(4)]
    free, kept = gallery.embed(noise), gallery.embed(noise, budget=400_000)
    assert free[0].width == 300 and not free[0].shrunk
    assert sum(len(picture.uri) for picture in kept) <= 400_000
    assert kept[0].shrunk and kept[0].full_width == 300


def test_compare_page_accepts_files_and_arrays(tmp_path):
    frames.write(tmp_path / "a.png", _picture(1))
    rows = [
        gallery.Comparison("first", tmp_path / "a.png", _picture(2), "taken in 1902"),
        gallery.Comparison("second", _picture(3), _picture(4)),
    ]
    text = gallery.compare_page(rows, "Ten & <two>")
    page = _Page(text)
    assert "<title>Ten &amp; &lt;two&gt;</title>" in text
    assert "taken in 1902" in page.text and "second" in page.text
    assert len([a for a in page.all("input") if a["type"] == "range"]) == 2
    assert text == gallery.compare_page(rows, "Ten & <two>")


def test_import_does_not_load_matplotlib():
    program = (
        "import sys; from restoration import report; "
        "assert not {'jax', 'tensorflow', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_command_line_starts_without_jax_or_tensorflow(run):
    program = (
        "import sys; from restoration import report; "
        "from restoration.reports import training_run; "
        "report.report(training_run.ReportOptions(workdir=sys.argv[1])); "
        "assert not {'jax', 'flax', 'tensorflow'} & set(sys.modules); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, run.workdir], check=True)
    out = pathlib.Path(run.workdir, "page.html")
    command = [sys.executable, "-m", "restoration.report", f"--workdir={run.workdir}"]
    done = subprocess.run(
        [*command, "-o", out], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(out) and out.stat().st_size > 10_000
    failed = subprocess.run(
        [*command, "--split=validation"], capture_output=True, text=True
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ") and "validation.json" in failed.stderr


@pytest.mark.slow
def test_a_folder_is_restored_and_shown(tmp_path, capsys, photographs):
    folder = tmp_path / "attic"
    frames.write(folder / "a.png", photographs["coffee"][:80, :90])
    frames.write(folder / "sub" / "b.jpg", photographs["chelsea"][:60, :60])
    (folder / "a.txt").write_text("Grandmother's kitchen", encoding="utf-8")
    (folder / "c.png").write_text("no picture")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert report.main(training_run.ReportOptions(input=str(folder))) == 1
    out, err = capsys.readouterr()
    written = tmp_path / "attic_report.html"
    assert out.strip() == str(written)
    assert "c.png: not a readable image" in err
    page = _Page(written.read_text(encoding="utf-8"))
    assert "Grandmother's kitchen" in page.text
    assert len(page.all("img")) >= 4
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_bad_input_folder_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match="no such folder"):
        report.main(training_run.ReportOptions(input=str(tmp_path / "no")))
    with pytest.raises(errors.InputError, match="--input, or --before"):
        training_run.ReportOptions(input="a", before="b", after="c")
