"""The Beam pipeline gives what `restore` gives."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest
from PIL import Image

from restoration import restore
from restoration.base import errors
from restoration.images import frames
from restoration.inference import batch, film_jobs, jobs, pipeline


@pytest.fixture
def folder(tmp_path, photographs):
    photo = frames.to_uint8(photographs["rocket"][:50, 100:160])
    (tmp_path / "in" / "sub").mkdir(parents=True)
    Image.fromarray(photo).save(tmp_path / "in" / "a.png")
    Image.fromarray(photo).save(tmp_path / "in" / "a.jpg")
    Image.fromarray(photo[::-1].copy()).save(tmp_path / "in" / "sub" / "a.png")
    (tmp_path / "in" / "bad.jpg").write_text("no picture")
    (tmp_path / "in" / "@eaDir").mkdir()
    Image.fromarray(photo).save(tmp_path / "in" / "@eaDir" / "thumb.png")
    return tmp_path / "in"


def options_for(folder, output, **changes):
    options = batch.RestoreOptions(
        input=(str(folder),),
        output=str(output),
        model="basic",
        recursive=True,
        blind=False,  # the finder takes long, and has tests of its own
    )
    return dataclasses.replace(options, **changes)


def test_folders_listed_apart_hold_the_same_jobs_as_one_list(folder, tmp_path):
    options = options_for(folder, folder / "out")
    (folder / "out").mkdir()
    Image.open(folder / "a.png").save(folder / "out" / "old.png")
    apart = [
        job
        for relative in pipeline.folders_of(options, str(folder))
        for job in pipeline.jobs_of(options, str(folder), relative)
    ]
    whole = batch.find_jobs(options)
    assert sorted(apart, key=str) == sorted(whole, key=str)
    assert len(apart) == 4
    flat = dataclasses.replace(options, recursive=False)
    assert list(pipeline.folders_of(flat, str(folder))) == [""]


def test_a_worker_restores_as_the_command_does(folder, tmp_path):
    options = options_for(folder, tmp_path / "out")
    found = [
        json.loads(pipeline.restore_one(options, job))
        for job in batch.find_jobs(options)
    ]
    assert sorted(bool(row["error"]) for row in found) == [False, False, False, True]
    batch.restore(options_for(folder, tmp_path / "again"))
    for row in found:
        if not row["error"]:
            ours = pathlib.Path(row["output"])
            theirs = tmp_path / "again" / ours.relative_to(tmp_path / "out")
            assert ours.read_bytes() == theirs.read_bytes()


def test_beam_is_named_when_it_is_missing(folder, tmp_path, monkeypatch):
    class Missing:
        def __getattr__(self, name):
            raise ImportError

    monkeypatch.setattr(pipeline, "beam", Missing())
    with pytest.raises(errors.InputError, match=r"Apache Beam is not installed"):
        pipeline.run(options_for(folder, tmp_path / "o", beam="--runner=DirectRunner"))


def test_beam_takes_one_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "beam", pytest)  # whatever has the name is there
    monkeypatch.setattr(pytest, "Pipeline", None, raising=False)
    options = options_for(folder / "a.png", tmp_path / "o", beam="--runner=X")
    with pytest.raises(errors.InputError, match="restores one folder"):
        pipeline.run(options)
    with pytest.raises(errors.InputError, match="--compare"):
        dataclasses.replace(options, compare=True)


def test_the_pipeline_on_the_direct_runner(folder, tmp_path, capsys):
    pytest.importorskip("apache_beam", reason="no Apache Beam: locks/beam.txt")
    options = options_for(folder, tmp_path / "out", beam="--runner=DirectRunner")
    for _ in range(2):  # the second time all is there already
        assert restore.main(options, film_jobs.FilmOptions()) == 1
        said = capsys.readouterr()
        assert "3 of 4 pictures" in said.out and "bad.jpg" in said.err
    batch.restore(options_for(folder, tmp_path / "again"))
    for job in jobs.find([str(folder)], str(tmp_path / "out"), suffix="restored",
                         ext="auto", recursive=True):  # fmt: skip
        if "bad" not in job.source.name:
            theirs = tmp_path / "again" / job.target.relative_to(tmp_path / "out")
            assert job.target.read_bytes() == theirs.read_bytes()


def test_the_command_sends_workers_what_they_can_import(folder, tmp_path):
    pytest.importorskip("apache_beam", reason="no Apache Beam: locks/beam.txt")
    run = subprocess.run(
        [sys.executable, "-m", "restoration.restore", "-i", str(folder), "--recursive",
         "-o", str(tmp_path / "out"), "--model=basic", "--blind=false",
         "--beam=--runner=DirectRunner"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 1 and "3 of 4 pictures" in run.stdout, run.stderr
