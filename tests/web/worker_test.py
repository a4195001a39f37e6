"""What the worker makes of films: the command's bytes, progress, ends in the middle."""

import pathlib

import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV (extra film)")
pytest.importorskip("cv2", reason="needs OpenCV (extra film)")

from restoration import restore
from restoration.base import errors
from restoration.film import video
from restoration.inference import batch, film, film_jobs
from restoration.web import films, pictures, store, worker
from tests import film_files


@pytest.fixture(scope="module")
def worn():
    return film_files.dirty(film_files.moving(10, size=(48, 64)), spots=2)[0]


def taken(folder, source, **limits):
    """Uploads a film to a page's folder; returns the pictures and the first task."""
    held = pictures.Pictures(folder, store.Limits(**limits))
    found = held.add(source.name)
    found.source.write_bytes(source.read_bytes())
    held.read(found)
    held.open(found)
    return held, found


def task_of(held):
    fields = held.take()
    paths = {name: pathlib.Path(fields[name]) for name in ("source", "target")}
    return worker.Task(**{**fields, **paths})


@pytest.mark.parametrize(
    ("name", "options", "choices"),
    [
        ("reel.mkv", {"sound": "pcm_s16le", "chapters": True}, {}),
        (
            "reel.mp4",
            {"codec": "libx264", "pixels": "yuv420p"},
            {"stabilize": True, "deflicker": True, "denoise": True, "codec": "ffv1"},
        ),
    ],
)
def test_a_film_comes_out_as_from_the_command(tmp_path, worn, name, options, choices):
    source = film_files.write(tmp_path / name, worn, **options)
    (tmp_path / "page").mkdir()
    held, found = taken(tmp_path / "page", source)
    assert found.levels == ((64, 48),) and found.film.frames == 10
    held.cancel(found)
    held.want(found, pictures.FilmChoices(**choices))
    told = []
    answer = worker.restore(task_of(held), "cpu", lambda *said: told.append(said))
    assert "error" not in answer, answer
    held.heard({"event": "done", "key": found.key, **answer})

    given = batch.RestoreOptions(input=(str(source),), output=str(tmp_path / "ours"))
    assert restore.main(given, film_jobs.FilmOptions(**choices)) == 0
    (ours,) = (tmp_path / "ours").iterdir()
    assert str(held.names()[found.key]) == ours.name
    assert found.result.path.read_bytes() == ours.read_bytes()
    # Every frame is told, of both passes, and the share never goes back.
    passes = {"looking": range(11), "restoring": range(10), "finishing": [10]}
    for stage, frames in passes.items():
        said = [more for told_stage, _, *more in told if told_stage == stage]
        assert said == [[(done, 10)] for done in frames]
    shares = [share for _, share, *_ in told]
    assert shares == sorted(shares) and shares[-1] == 1
    # What is shown is the first frame of the result.
    first = video.to_rgb(next(video.decode(video.describe(ours))))
    assert answer["levels"] == [first.shape[1::-1]]
    assert found.result.levels == ((64, 48),)


@pytest.mark.parametrize(("stage", "share"), [("looking", 0.03), ("restoring", 0.4)])
def test_nothing_of_a_film_is_left_when_it_is_cancelled(tmp_path, worn, stage, share):
    source = film_files.write(tmp_path / "reel.mkv", worn)
    (tmp_path / "page").mkdir()
    held, found = taken(tmp_path / "page", source)
    before = {path.name for path in found.folder.iterdir()}

    def tell(now, done, frames=None):
        if now == stage and done >= share:
            raise worker.CancelledError

    with pytest.raises(worker.CancelledError):
        worker.restore(task_of(held), "cpu", tell)
    held.heard({"event": "cancelled", "key": found.key})
    assert found.state == pictures.CANCELLED
    assert {path.name for path in found.folder.iterdir()} == before


def test_a_film_that_would_fill_the_disk_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(film, "_PART", 2)
    noise = np.random.default_rng(0).integers(0, 255, (6, 96, 128, 3), np.uint8)
    source = film_files.write(tmp_path / "reel.mkv", list(noise))
    (tmp_path / "page").mkdir()
    # Enough for the film and its parts, not for these joined.
    size = source.stat().st_size
    held, found = taken(tmp_path / "page", source, total=round(2.2 * size))
    answer = worker.restore(task_of(held), "cpu", lambda *said: None)
    assert "--max_gigabytes" in answer["error"] and "\n" not in answer["error"]
    held.heard({"event": "done", "key": found.key, **answer})
    assert [path.name for path in found.folder.glob("run*")] == []


def test_an_interlaced_film_asks_first(tmp_path, worn):
    source = film_files.write(
        tmp_path / "tape.mp4", worn, codec="libx264", pixels="yuv420p",
        options={"x264-params": "interlaced=1"},
    )  # fmt: skip
    (tmp_path / "page").mkdir()
    held, found = taken(tmp_path / "page", source)
    assert found.film.interlaced
    assert found.state == pictures.FAILED and held.take() is None
    assert found.line.startswith("tape.mp4: its frames are interlaced; choose")
    with pytest.raises(errors.InputError, match="choose under Interlaced frames"):
        held.want(found, found.choices)
    held.want(found, pictures.FilmChoices(deinterlace="yes"))
    assert task_of(held).options["deinterlace"] is True


def test_frames_that_are_too_large_are_refused_before_one_is_decoded(tmp_path, worn):
    source = film_files.write(tmp_path / "reel.mkv", worn)
    with pytest.raises(errors.InputError, match="64×48 pixels are more than --max_pix"):
        films.inspect(source, max_pixels=64 * 47)


def test_no_film_has_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("Dear grandmother, ...")
    with pytest.raises(errors.InputError, match="not a readable film") as e:
        films.inspect(tmp_path / "text.mp4", max_pixels=10**6)
    assert "\n" not in str(e.value)
