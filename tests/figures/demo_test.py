"""What the demo says at its end."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from experiments.figures import demo


@pytest.mark.slow  # tests/end_to_end_test.py goes the same way
def test_the_whole_demo_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "KINDS", ("grain", "contrast"))  # compile fastest
    monkeypatch.setattr(demo, "LARGE_PHOTOGRAPH", "chelsea.png")
    out = tmp_path / "demo"
    means = demo.demo(demo.DemoOptions(out=str(out), epochs=1, frames=1))
    assert means["restored"].keys() == means["input"].keys()
    assert (out / "report.html").stat().st_size > 10_000
    shown = {path.name for path in (out / "restored").rglob("*.png")}
    assert "motorcycle_restored.png" in shown and len(shown) > 1


def test_the_demo_ends_by_naming_the_page(monkeypatch, capsys):
    means = {"input": {"psnr": 20.0}, "restored": {"psnr": 23.5}}
    monkeypatch.setattr(demo, "demo", lambda options: means)
    demo.main(demo.DemoOptions(out="shown"))
    *_, result, last = capsys.readouterr().out.splitlines()
    assert "+3.50 dB" in result and "shown/report.html" in result
    assert re.search(r"restoration serve\b.*a page in the browser", last)


def test_what_it_names_can_be_run(monkeypatch, tmp_path):
    script = tmp_path / ".venv" / "bin" / "restoration"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    assert demo.serve_command() == "restoration serve"
    script.parent.mkdir(parents=True)
    script.touch()
    assert demo.serve_command() == ".venv/bin/restoration serve"
    monkeypatch.undo()
    words = shlex.split(demo.serve_command())
    if not pathlib.Path(words[0]).is_file():  # not installed as a script
        words = [sys.executable, "-m", *words]
    done = subprocess.run([*words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--port" in done.stdout
