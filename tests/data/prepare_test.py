"""Prepared datasets: the pairs and batches of the folder; complete, or none at all."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from restoration import evaluate, prepare, report
from restoration.base import errors
from restoration.data import paired_frames, pairs, records, sources
from restoration.images import frames
from restoration.reports import training_run
from restoration.training import feed, run, train_config
from tests import selection

FORMATS = {
    "tfrecord": {},
    "array_record": {"format": "array_record"},
    "npy": {"format": "npy"},
    "files": {"encoding": "files"},
}
DRAWS = {
    "image_size": 32, "batch_size": 6, "seed": 5,
    "start_step": 2, "total_steps": 6, "augment": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, paired_folder):
    """The paired folder in every format, by name."""
    folders = {}
    for name, options in FORMATS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        prepare.prepare(
            prepare.PrepareOptions(
                data_dir=str(paired_folder), out=str(folders[name]), **options
            )
        )
    return folders


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_batches_of_the_folder(prepared, paired_folder, name):
    folder = sources.open_source(paired_folder)
    other = sources.open_source(prepared[name])
    samples = [pairs.sample(s.splits, 0.6, seed=3) for s in (folder, other)]
    for split in pairs.SPLITS:
        mine, theirs = ([(m.name, m.clip) for m in s[split]] for s in samples)
        assert mine == theirs
        assert mine

    expected, got = (
        list(source.train_batches(sample["train"], **DRAWS))
        for source, sample in zip((folder, other), samples, strict=True)
    )
    assert len(expected) == len(got) == 4
    for mine, theirs in zip(expected, got, strict=True):
        for side in ("input", "output"):
            np.testing.assert_array_equal(mine[side], theirs[side])

    expected, got = (
        list(source.evaluation_batches(source.splits["train"], batch_size=5))
        for source in (folder, other)
    )
    for mine, theirs in zip(expected, got, strict=True):
        assert mine["name"] == theirs["name"]
        for part in ("input", "output", "mask"):
            np.testing.assert_array_equal(mine[part], theirs[part])


@pytest.mark.parametrize("name", FORMATS)
def test_processes_share_a_batch(prepared, name):
    source = sources.open_source(prepared[name])
    members = source.splits["train"]
    whole = list(source.train_batches(members, **DRAWS))
    parts = [
        list(source.train_batches(members, **DRAWS, process=(i, 2))) for i in (0, 1)
    ]
    for number, batch in enumerate(whole):
        joined = np.concatenate([part[number]["output"] for part in parts])
        np.testing.assert_array_equal(batch["output"], joined)


def test_tfds_loads_a_prepared_dataset(prepared, paired_folder):
    loaded = tfds.load("paired_frames", data_dir=prepared["tfrecord"], split="train")
    members = pairs.find_splits(paired_folder)["train"]
    assert len(loaded) == len(members)
    for pair, example in zip(members, loaded.as_numpy_iterator(), strict=True):
        assert example["name"].decode() == pair.name
        assert example["clip"].decode() == pair.clip
        for side, path in (("input", pair.input), ("output", pair.output)):
            np.testing.assert_array_equal(
                example[side], frames.to_uint8(frames.read(path))
            )


class PairedFramesTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks."""

    DATASET_CLASS = paired_frames.PairedFrames
    SPLITS = {"train": 1, "validation": 1, "test": 1}  # noqa: RUF012

    @classmethod
    def setUpClass(cls):
        """Makes the example data."""
        cls.EXAMPLE_DIR = os.path.join(tfds.testing.make_tmp_dir(), "pairs")
        for shade, split in enumerate(pairs.SPLITS):
            for side in ("input", "output"):
                image = np.full((16, 20, 3), 0.3 * shade + 0.1 * (side == "input"))
                frames.write(f"{cls.EXAMPLE_DIR}/{split}/{side}/{split}_1.png", image)
        super().setUpClass()


@pytest.mark.slow
def test_training_evaluation_and_report_accept_every_format(
    prepared, paired_folder, tmp_path
):
    results = {}
    folders = {"folder": paired_folder, **prepared, "device": prepared["tfrecord"]}
    for name, folder in folders.items():
        workdir = tmp_path / name
        options = train_config.TrainConfig(
            data_dir=str(folder), workdir=str(workdir), epochs=1, batch_size=4,
            image_size=32, cache="device" if name == "device" else "none",
        )  # fmt: skip
        run.train(options)
        measured = evaluate.EvaluateOptions(workdir=str(workdir), cases=1)
        results[name] = evaluate.evaluate(measured)["test"]["restored"]
    for name, values in results.items():
        assert values == pytest.approx(results["folder"], rel=1e-4), name
    pages = []
    for name in ("folder", "npy", "files"):
        options = training_run.ReportOptions(workdir=str(tmp_path / name), title="t")
        report.main(options)
        pages.append((tmp_path / name / "report.html").read_text(encoding="utf-8"))
    pictures = [
        sorted(set(p.split('"')[0] for p in page.split('src="data:image/jpeg')[1:]))
        for page in pages
    ]
    # Degraded and clean pictures are equal; restored ones may differ by rounding.
    for other in pictures[1:]:
        assert len(set(pictures[0]) & set(other)) >= len(pictures[0]) * 2 // 3


def test_unusual_names(tmp_path):
    names = ["new\nline_1", "größe_2", "画像_3", os.fsdecode(b"byte\xff_4"), "<b>_5"]
    for name in names:
        for side in ("input", "output"):
            frames_path = tmp_path / "data" / side / f"{name}.png"
            frames.write(frames_path, np.full((16, 16, 3), 0.5))
    for form, options in FORMATS.items():
        out = tmp_path / form
        prepare.prepare(
            prepare.PrepareOptions(
                data_dir=str(tmp_path / "data"), out=str(out), **options
            )
        )
        source = sources.open_source(out)
        found = {m.name for members in source.splits.values() for m in members}
        assert found == set(names)
        for members in source.splits.values():
            for batch in source.evaluation_batches(members, batch_size=1):
                assert batch["input"].mean() == 128


def options_of(paired_folder, out, **options):
    return prepare.PrepareOptions(data_dir=str(paired_folder), out=str(out), **options)


def test_a_finished_dataset_is_kept(prepared, paired_folder, tmp_path):
    out = tmp_path / "p"
    shutil.copytree(prepared["npy"], out)
    options = options_of(paired_folder, out, format="npy")
    index = out / "arrays" / "index.json"
    before = index.stat().st_mtime_ns
    assert not prepare.prepare(options).new
    assert index.stat().st_mtime_ns == before
    other = tmp_path / "other"
    shutil.copytree(paired_folder, other)
    os.utime(other / "input" / "clip3_001.png")
    with pytest.raises(errors.InputError, match="from other files; --overwrite"):
        prepare.prepare(options_of(other, out, format="npy"))
    assert prepare.prepare(options_of(other, out, format="npy", overwrite=True)).new
    card = (out / "arrays" / "README.md").read_text(encoding="utf-8")
    counts = {s: len(m) for s, m in pairs.find_splits(paired_folder).items()}
    for split, count in counts.items():
        assert f"| {split} | {count} |" in card


@pytest.mark.parametrize("form", ["tfrecord", "npy"])
def test_a_bad_pair_is_named_and_leaves_no_dataset(paired_folder, tmp_path, form):
    data = tmp_path / "data"
    shutil.copytree(paired_folder, data)
    options = options_of(data, tmp_path / "out", format=form)
    bad = data / "output" / "clip3_001.png"
    frames.write(bad, np.zeros((48, 44, 3)))
    with pytest.raises(errors.InputError, match=r"clip3_001.png: differ in size"):
        prepare.prepare(options)
    bad.write_bytes(b"no image")
    with pytest.raises(errors.InputError, match=r"clip3_001.png: not a readable image"):
        prepare.prepare(options)
    left = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert [p for p in left if p.suffix != ".json"] == []
    with pytest.raises(errors.InputError):
        sources.open_source(tmp_path / "out")
    # When the file is repaired, the same command succeeds.
    shutil.copy(data / "input" / "clip3_001.png", bad)
    assert prepare.prepare(options).new


def test_arrays_need_equal_sizes(tmp_path):
    for number, side_length in enumerate((16, 16, 20, 16, 16, 16)):
        for side in ("input", "output"):
            path = tmp_path / "data" / "train" / side / f"a_{number}.png"
            frames.write(path, np.zeros((side_length, 16, 3)))
    with pytest.raises(errors.InputError, match=r"a_2.png: 16×20 .* --format=tfrecord"):
        prepare.prepare(options_of(tmp_path / "data", tmp_path / "p", format="npy"))


@pytest.mark.parametrize("form", selection.slow_but(["files", "npy"], FORMATS))
def test_a_full_disk_is_reported(paired_folder, tmp_path, form):
    # A limit on file sizes fails in the same calls as a full disk.
    code = (
        "import resource, signal, sys\n"
        "from restoration import prepare\nfrom restoration.base import cli\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "sys.argv[0] = 'prepare'\n"
        "cli.run(prepare.main, prepare.PrepareOptions)\n"
    )
    out = tmp_path / "out"
    flags = [f"--{k}={v}" for k, v in FORMATS[form].items()]
    run = subprocess.run(
        [sys.executable, "-c", code, f"--data_dir={paired_folder}", f"--out={out}",
         *flags],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert str(out) in last
    assert "make room" in last
    assert not sources.find_prepared(out)
    assert prepare.prepare(options_of(paired_folder, out, **FORMATS[form])).new


def test_an_interrupted_build_starts_over(prepared, paired_folder, tmp_path):
    code = (
        "import os, signal, sys\n"
        "from restoration import prepare\nfrom restoration.data import pairs\n"
        "read = pairs.read\n"
        "def killed(pair):\n"
        "    if pair.name == 'clip4_002': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return read(pair)\n"
        "pairs.read = killed\n"
        "prepare.prepare(prepare.PrepareOptions(\n"
        "    data_dir=sys.argv[1], out=sys.argv[2], format=sys.argv[3]))\n"
    )
    for form in ("tfrecord", "npy"):
        out = tmp_path / form
        run = subprocess.run([sys.executable, "-c", code, paired_folder, out, form])
        assert run.returncode == -9
        assert not sources.find_prepared(out)
        prepare.prepare(options_of(paired_folder, out, format=form))
        folders = {p.name for p in out.rglob("*") if p.is_dir()}
        assert not [name for name in folders if "incomplete" in name]
        assert sources.open_source(out).splits.keys() == set(pairs.SPLITS)


def shards(folder, pattern):
    return sorted(p for p in folder.rglob(pattern) if p.is_file())


@pytest.mark.parametrize(
    ("form", "pattern"),
    [("tfrecord", "*train*record-*"), ("array_record", "*train*record-*"),
     ("files", "*train*record-*"), ("npy", "train/input.npy")],
)  # fmt: skip
@pytest.mark.parametrize("defect", ["flipped", "cut", "missing"])
def test_a_corrupted_shard_is_named(prepared, tmp_path, form, pattern, defect):
    folder = tmp_path / "p"
    shutil.copytree(prepared[form], folder)
    shard = shards(folder, pattern)[0]
    data = bytearray(shard.read_bytes())
    if defect == "flipped":
        data[len(data) // 2] ^= 0x10
        shard.write_bytes(data)
    elif defect == "cut":
        shard.write_bytes(data[: len(data) * 2 // 3])
    else:
        shard.unlink()
    with pytest.raises(errors.InputError, match=shard.name):
        source = sources.open_source(folder)
        list(source.evaluation_batches(source.splits["train"], batch_size=4))


def test_offsets_of_a_file_written_by_tensorflow(tmp_path):
    import tensorflow as tf

    path = tmp_path / "x.tfrecord"
    texts = [b"", b"a", b"bc" * 1000]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for text in texts:
            writer.write(text)
    offsets = records.find_offsets(path)
    assert np.diff(offsets).tolist() == [16 + len(text) for text in texts]
    assert offsets[-1] == path.stat().st_size


def test_damaged_indexes_are_refused(prepared, tmp_path):
    folder = tmp_path / "p"
    shutil.copytree(prepared["npy"], folder)
    index = folder / "arrays" / "index.json"
    good = json.loads(index.read_text(encoding="utf-8"))
    for bad in ("{", "[]", json.dumps(good | {"form": "other"}),
                json.dumps(good | {"names": {}})):  # fmt: skip
        index.write_text(bad, encoding="utf-8")
        with pytest.raises(errors.InputError, match=r"index.json: cannot be read"):
            sources.open_source(folder)
    # No pickle is ever loaded.
    index.write_text(json.dumps(good), encoding="utf-8")
    np.save(folder / "arrays/train/input.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(errors.InputError, match=r"input.npy: cannot be read"):
        sources.open_source(folder)
    # An empty file, an archive, and an array with a negative size.
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(3))
    folded = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        folded, {"descr": "|u1", "fortran_order": False, "shape": (-3, 8, 8, 3)}
    )
    for data in (b"", archive.getvalue(), folded.getvalue() + bytes(64)):
        (folder / "arrays/train/input.npy").write_bytes(data)
        with pytest.raises(errors.InputError, match=r"input.npy: cannot be read"):
            sources.open_source(folder)
    other = tmp_path / "q"
    shutil.copytree(prepared["tfrecord"], other)
    (features,) = other.rglob("features.json")
    features.write_text("{", encoding="utf-8")
    with pytest.raises(errors.InputError, match=r"1.0.0: cannot be read"):
        sources.open_source(other)


def test_several_datasets_need_a_name(prepared, tmp_path):
    shutil.copytree(prepared["npy"], tmp_path, dirs_exist_ok=True)
    shutil.copytree(prepared["files"], tmp_path, dirs_exist_ok=True)
    with pytest.raises(errors.InputError, match="several prepared datasets"):
        sources.open_source(tmp_path)
    assert sources.open_source(tmp_path / "arrays").splits["train"]


def test_bad_options_are_refused(paired_folder, tmp_path):
    with pytest.raises(errors.InputError, match="drop --encoding"):
        options_of(paired_folder, tmp_path, format="npy", encoding="files")
    with pytest.raises(errors.InputError, match="other than the data"):
        prepare.prepare(options_of(paired_folder, paired_folder))
    with pytest.raises(errors.InputError, match="no such folder"):
        prepare.prepare(options_of(tmp_path / "nothing", tmp_path / "out"))


def test_pairs_that_do_not_fit_into_memory_are_streamed(
    prepared, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(feed, "_free_memory", lambda: 1000)
    options = train_config.TrainConfig(
        data_dir=str(prepared["npy"]), workdir=str(tmp_path), epochs=1, batch_size=4,
        image_size=32, cache="device",
    )  # fmt: skip
    result = run.train(options)
    assert result.step == result.total_steps
    assert "streaming them instead" in caplog.text


def test_arrays_train_without_tensorflow(prepared, tmp_path):
    code = (
        "import sys\n"
        "from restoration.training import run, train_config\n"
        "run.train(train_config.TrainConfig(data_dir=sys.argv[1], workdir=sys.argv[2],"
        " epochs=1, batch_size=4, image_size=32, cache=sys.argv[3]))\n"
        "print([m for m in sys.modules if m.startswith('tensorflow')])\n"
    )
    for cache in ("none", "device"):
        run = subprocess.run(
            [sys.executable, "-c", code, prepared["npy"], tmp_path / cache, cache],
            capture_output=True, text=True,
        )  # fmt: skip
        assert run.stdout.strip() == "[]", run.stderr


def test_beam_gives_the_same_records(paired_folder, tmp_path):
    pytest.importorskip("apache_beam", reason="no Apache Beam: locks/beam.txt")
    options = options_of(paired_folder, tmp_path, beam="--runner=DirectRunner")
    assert prepare.prepare(options).new
    folder, made = sources.open_source(paired_folder), sources.open_source(tmp_path)
    for mine, theirs in zip(
        folder.train_batches(folder.splits["train"], **DRAWS),
        made.train_batches(made.splits["train"], **DRAWS),
        strict=True,
    ):
        np.testing.assert_array_equal(mine["input"], theirs["input"])
