"""Hostile input is refused in one line: `experiments.robustness.fuzz`, shortened."""

import ast
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from absl import flags
from hypothesis import strategies as st

from experiments.robustness import (
    fuzz,
    fuzz_bombs,
    fuzz_guided,
    fuzz_restore,
    fuzz_targets,
)
from restoration import clean, report
from restoration.audit import quarantine
from restoration.base import cli, config, errors
from restoration.data import array_files, pairs
from restoration.images import frames
from restoration.images.metadata import png
from restoration.models import pretrained
from restoration.reports import training_run
from restoration.training import train_config

ROOT = pathlib.Path(__file__).parents[2]

QUICK = hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = [field.name for field in dataclasses.fields(train_config.TrainConfig)]


def refused_or_taken(call):
    """Whether a call took its input; any error but one line of InputError fails."""
    try:
        call()
    except errors.InputError as error:
        assert str(error) and "\n" not in str(error)
        return False
    return True


@QUICK
@hypothesis.given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.text())
def test_hostile_configurations_are_refused(changes, text):
    good = dataclasses.asdict(train_config.TrainConfig(data_dir="d", workdir="w"))
    for data in (json.dumps(good | changes), text, json.dumps(good) + text):
        refused_or_taken(
            lambda data=data: config.from_json(
                data, train_config.TrainConfig, source="x"
            )
        )


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000])
def test_configurations_that_exhaust_a_parser(text):
    assert not refused_or_taken(
        lambda: config.from_json(text, train_config.TrainConfig, source="x")
    )


def test_cards_and_headers_that_exhaust_a_parser(tmp_path):
    path, deep = tmp_path / "a.safetensors", b"[" * 100_000
    for inner in (deep, b'{"__metadata__":' + deep):
        path.write_bytes(len(inner).to_bytes(8, "little") + inner)
        assert not refused_or_taken(lambda: pretrained.load(path))
    path.write_bytes((pretrained.FOLDER / "basic.safetensors").read_bytes())
    path.with_suffix(".json").write_bytes(deep)
    assert not refused_or_taken(lambda: pretrained.load(path))


@QUICK
@hypothesis.given(
    st.sampled_from(fuzz_targets.COMMANDS), st.integers(0, 10**6), st.lists(st.text())
)
def test_hostile_command_lines_are_refused(command, seed, more):
    options_class = fuzz_targets.options_of(command)
    values = flags.FlagValues()
    cli.define_flags(options_class, values)
    values.set_gnu_getopt(True)
    generator = np.random.default_rng(seed)
    line = fuzz_targets.random_flags(options_class, generator, ["/missing", "x"])
    refused_or_taken(
        lambda: cli.parse(["command", *line, *more], options_class, values)
    )


@QUICK
@hypothesis.given(st.binary(max_size=200), st.integers(0, 10**6))
def test_damaged_weights_are_refused(tmp_path, data, seed):
    whole = (pretrained.FOLDER / "basic.safetensors").read_bytes()
    head = fuzz_restore.damaged(whole[:2000], np.random.default_rng(seed))
    path = tmp_path / "a.safetensors"
    for changed in (data, head + whole[2000:]):
        path.write_bytes(changed)
        refused_or_taken(lambda: pretrained.load(path))


@pytest.mark.parametrize(
    "name", ["config", "frames", "pairs", "journal", "arrays", "report", "names"]
)
def test_some_hostile_inputs_of_each_target(tmp_path, name):
    counts = fuzz.fuzz(name, rounds=12, seed=7, folder=tmp_path)
    assert counts["tried"] == 12
    assert not fuzz.bad({name: counts}), counts


WATCHED = """
import pathlib, pickle, sys
from experiments.robustness import fuzz, fuzz_targets
around = pathlib.Path(sys.argv[1])

def unsafe(folder):
    def attempt(generator):
        (around / "outside").write_text("x")
        (around / "inside" / "fine").write_text("x")
        pickle.loads(b"cbuiltins\\nlen\\n.")
        raise KeyError("no one-line error")
    return attempt

class Queue:
    put = print

fuzz_targets.TARGETS["unsafe"] = unsafe
(around / "inside").mkdir()
fuzz._try_all("unsafe", range(fuzz_targets.WARM + 1), 0, str(around / "inside"), Queue)
"""


def test_watch_counts_changes_outside_the_folder(tmp_path):
    """The counts of the fuzzer are not 0 because it is blind."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path)], capture_output=True, text=True
    )
    number, seen, _ = ast.literal_eval(done.stdout.splitlines()[-1])
    assert number == fuzz_targets.WARM
    assert seen == {"surprised": 1, "outside": 1, "unpickled": 1}


# Small files that claim to be large.


@pytest.mark.parametrize(
    "name", ["header.png", "header.jpg", "header.bmp", "header.tif"]
)
def test_headers_of_four_gigapixels_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(fuzz_bombs.claiming(name.partition(".")[2]))
    for read in (frames.read, frames.size):
        with pytest.raises(
            errors.InputError, match=r"65535×65535 pixels|not a readable"
        ):
            read(path)


def test_a_block_that_decompresses_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(fuzz_bombs.with_profile(1 << 28))
    with pytest.raises(ValueError, match="too large"):
        png.read(path)


# Names that are markup.


def test_names_are_escaped_on_pages(tmp_path):
    for number, name in enumerate(fuzz_targets.NAMES):
        for side in ("before", "after"):
            frames.write(tmp_path / side / f"{name.strip('.')}_{number}.png",
                         np.zeros((8, 8, 3), np.float32))  # fmt: skip
    options = training_run.ReportOptions(
        before=str(tmp_path / "before"),
        after=str(tmp_path / "after"),
        title="</title><script>document.title='ran'</script>",
    )
    page = report.report(options)
    fuzz_targets.check_page(page.read_text(encoding="utf-8"))
    with pytest.raises(fuzz_targets.UnsafeError):
        fuzz_targets.check_page("<script></script><img src=x onerror=alert(1)>")
    chromium = shutil.which("chromium")
    if chromium:
        shown = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
             page.as_uri()],
            capture_output=True, text=True, timeout=120,
        ).stdout  # fmt: skip
        assert "<title>&lt;/title&gt;&lt;script&gt;" in shown
        assert "<title>ran" not in shown


# Names that lead elsewhere.


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a\0b", None, 3])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    assert not pairs.is_inside(name)
    with pytest.raises((ValueError, TypeError)):
        empty = {split: [] for split in pairs.SPLITS}
        pairs.records(empty | {"test": [name]}, empty | {"test": ["clip"]})


def prepared_index(tmp_path):
    for side in ("input", "output"):
        for number in range(3):
            image = np.full((12, 12, 3), number / 3, np.float32)
            frames.write(tmp_path / "film" / side / f"a{number}_1.png", image)
    (tmp_path / "prepared").mkdir()
    array_files.write(tmp_path / "prepared", pairs.find_splits(tmp_path / "film"))
    return tmp_path / "prepared" / array_files.INDEX


@pytest.mark.parametrize("number", [2**32, 2**64, -1])
def test_an_index_of_impossible_checksums_is_refused(tmp_path, number):
    index = prepared_index(tmp_path)
    content = json.loads(index.read_text())
    content["checksums"]["train"][0][0] = number
    index.write_text(json.dumps(content))
    with pytest.raises(errors.InputError, match="cannot be read"):
        array_files.open_arrays(tmp_path / "prepared")


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path):
    index = prepared_index(tmp_path)
    index.write_text(index.read_text().replace("a1_1", "../../../a1_1"))
    with pytest.raises(errors.InputError, match="leads out of its folder"):
        array_files.open_arrays(tmp_path / "prepared")


def test_a_journal_with_an_impossible_name_is_refused(tmp_path):
    journal = tmp_path / quarantine.JOURNAL
    journal.parent.mkdir()
    move = {"source": "input/\ud800", "target": f"{quarantine.FOLDER}/x",
            "sha256": "", "findings": []}  # fmt: skip
    journal.write_text(json.dumps({"kind": "plan", "moves": [move]}) + "\n")
    with pytest.raises(errors.InputError, match="line 1 is damaged"):
        quarantine.read_journal(str(tmp_path))


def test_a_journal_that_leads_out_of_the_folder_is_refused(tmp_path):
    for side in ("input", "output"):
        frames.write(tmp_path / "film" / side / "a_1.png", np.zeros((8, 8, 3)))
    aside = tmp_path / "film" / quarantine.FOLDER
    aside.mkdir()
    (aside / "x").write_text("x")
    digest = quarantine.fingerprint(str(aside / "x"))
    move = {"source": "../../taken", "target": f"{quarantine.FOLDER}/x",
            "sha256": digest, "findings": []}  # fmt: skip
    lines = [{"kind": "start", "made_folder": True}, {"kind": "plan", "moves": [move]}]
    journal = tmp_path / "film" / quarantine.JOURNAL
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = clean.CleanOptions(str(tmp_path / "film"), undo=True)
    with pytest.raises(errors.InputError, match="leads out of the folder"):
        clean.clean(options)
    assert (aside / "x").exists()


# No pickle.

FORBIDDEN = {
    "pickle", "cPickle", "shelve", "marshal", "joblib", "cloudpickle", "yaml"
}  # fmt: skip


def calls(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: k.value for k in node.keywords}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            module = getattr(node, "module", None)
            yield "import", [module] if module else names


def test_no_code_loads_pickles():
    """Nor anything else that runs what a file holds."""
    folders = (ROOT / "restoration", ROOT / "experiments")
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for name, keywords in calls(path):
            where = f"{path}: {name} {keywords}"
            if name == "import":
                assert not FORBIDDEN & {module.split(".")[0] for module in keywords}, (
                    where
                )
                continue
            assert name not in ("eval", "exec", "compile"), where
            if name == "torch.load":
                assert keywords["weights_only"].value is True, where
            assert not name.endswith((".read_pickle", ".load_model")), where
            if name in ("np.load", "numpy.load"):
                allowed = keywords.get("allow_pickle")
                assert isinstance(allowed, ast.Constant) and not allowed.value, where


@pytest.mark.parametrize("name", ["config", "array", "restore tif"])
def test_guided_inputs_are_refused_in_one_line(name, tmp_path):
    pytest.importorskip("atheris", reason="no atheris: pip install '.[fuzz]'")
    options = fuzz_guided.GuidedOptions(runs=200, out=str(tmp_path / "f.json"))
    counts = fuzz_guided.fuzz(name, options)
    assert counts["tried"] >= 200 and counts["finding"] == "none", counts["example"]
    assert counts["branches"][1] >= counts["branches"][0] > 20


def test_a_process_that_ends_by_itself_counts_as_a_finding():
    pytest.importorskip("atheris", reason="no atheris: pip install '.[fuzz]'")
    counts = fuzz_guided.fuzz("unknown", fuzz_guided.GuidedOptions(runs=1))
    assert counts["finding"] == "ended with 1" and "KeyError" in counts["example"]
