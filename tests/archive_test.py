"""The Beam pipeline gives what `restore` gives."""

import json

import pytest
from PIL import Image

from restoration import archive
from restoration.base import errors
from restoration.images import frames
from restoration.inference import batch


@pytest.fixture
def folder(tmp_path, photographs):
    photo = frames.to_uint8(photographs["rocket"][:50, 100:160])
    (tmp_path / "in" / "sub").mkdir(parents=True)
    Image.fromarray(photo).save(tmp_path / "in" / "a.png")
    Image.fromarray(photo[::-1].copy()).save(tmp_path / "in" / "sub" / "a.png")
    (tmp_path / "in" / "bad.jpg").write_text("no picture")
    return tmp_path / "in"


def test_a_worker_restores_as_the_command_does(folder, tmp_path):
    options = archive.ArchiveOptions(
        input=(str(folder),), output=str(tmp_path / "out"), model="basic"
    )
    single = archive._restore_options(options)
    results = [archive.restore_one(job, single) for job in batch.find_jobs(single)]
    assert [bool(result["error"]) for result in results] == [False, True, False]
    json.dumps(results)
    again = batch.RestoreOptions(
        input=(str(folder),), output=str(tmp_path / "again"), model="basic",
        recursive=True,
    )  # fmt: skip
    batch.restore(again)
    for name in ("a_restored.png", "sub/a_restored.png"):
        ours, theirs = (tmp_path / f / name for f in ("out", "again"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_beam_is_named_when_it_is_missing(folder, tmp_path, monkeypatch):
    class Missing:
        def __getattr__(self, name):
            raise ImportError

    monkeypatch.setattr(archive, "beam", Missing())
    with pytest.raises(errors.InputError, match=r"film-restoration\[beam\]"):
        archive.restore_archive(
            archive.ArchiveOptions(input=(str(folder),), output=str(tmp_path / "o"))
        )


def test_the_pipeline_on_the_direct_runner(folder, tmp_path, capsys):
    pytest.importorskip("apache_beam", reason="no Apache Beam: locks/beam.txt")
    options = archive.ArchiveOptions(
        input=(str(folder),), output=str(tmp_path / "out"), model="basic"
    )
    for _ in range(2):  # the second time all is there already
        assert archive.main(options) == 1
        out, err = capsys.readouterr()
        assert "2 of 3 pictures are in" in out
        assert "bad.jpg: not a readable image" in err
    assert (tmp_path / "out" / "sub" / "a_restored.png").is_file()
