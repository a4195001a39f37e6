"""`restore` on films: the whole way, stopped and gone on, masks, bad input."""

import dataclasses
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

av = pytest.importorskip("av", reason="needs PyAV (extra film)")
cv2 = pytest.importorskip("cv2", reason="needs OpenCV (extra film)")

from restoration.film import container, over_time, stills  # noqa: E402
from restoration.inference import film, film_finding, film_jobs  # noqa: E402
from restoration.models import pretrained  # noqa: E402
from tests import film_files  # noqa: E402

SPIKES = film_jobs.Settings(film_finder="spikes")


@pytest.fixture(scope="module")
def clip():
    clean = film_files.moving(10)
    return clean, *film_files.dirty(clean)


@pytest.fixture(scope="module")
def reel(tmp_path_factory, clip):
    path = tmp_path_factory.mktemp("reel") / "reel.mkv"
    return film_files.write(path, clip[1], sound="pcm_s16le", chapters=True)


def restore(path, output, **settings):
    jobs, rest = film_jobs.divide(
        [str(path)], str(output), suffix="restored", recursive=False,
        sequence=settings.get("sequence", False),
    )  # fmt: skip
    assert not rest
    (result,) = film.restore(jobs, dataclasses.replace(SPIKES, **settings))
    return result


def gain(before, after, target):
    """By how many dB a film has come nearer to its target."""

    def loss(frames):
        return np.mean([
            np.mean((a.astype(float) - b) ** 2)
            for a, b in zip(frames, target, strict=True)
        ])  # fmt: skip

    return 10 * np.log10(loss(before) / loss(after))


def test_a_film_is_restored_and_all_else_is_as_it_was(tmp_path, reel, clip):
    clean, worn, _ = clip
    result = restore(reel, tmp_path)
    assert not result.error
    assert result.output == tmp_path / "reel_restored.mkv"
    assert film_files.properties(result.output) == film_files.properties(reel)
    assert gain(worn, film_files.decoded(result.output), clean) > 10
    assert [p.name for p in tmp_path.iterdir()] == ["reel_restored.mkv"]
    again = restore(reel, tmp_path)
    assert "exists" in again.error
    assert restore(reel, tmp_path, skip_existing=True).skipped


def test_masks_come_out_and_go_in(tmp_path, reel, clip):
    clean, worn, masks = clip
    result = restore(reel, tmp_path / "a", save_damage=True)
    saved = tmp_path / "a" / "reel_restored_damage.mkv"
    found = film_files.decoded(saved, "gray")
    for one, mask in zip(found, masks, strict=True):
        assert set(np.unique(one)) <= {0, 255}
        assert (one > 0)[mask].mean() > 0.9
    # Pixels outside are those of the source, bit for bit.
    for one, other, mask in zip(
        film_files.decoded(result.output), worn, found, strict=True
    ):
        np.testing.assert_array_equal(one[mask == 0], other[mask == 0])
    back = restore(reel, tmp_path / "b", damage=str(saved), blind=False)
    assert not back.error
    assert gain(worn, film_files.decoded(back.output), clean) > 10
    # A folder of masks, too; and one without this film's.
    assert not restore(reel, tmp_path / "c", damage=str(tmp_path / "a")).error
    (tmp_path / "none").mkdir()
    line = restore(reel, tmp_path / "d", damage=str(tmp_path / "none")).error
    assert "no mask film" in line and "\n" not in line


def test_nothing_is_found_and_nothing_changes(tmp_path, reel, clip):
    result = restore(reel, tmp_path, blind=False)
    for one, other in zip(film_files.decoded(result.output), clip[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_cut_is_kept(tmp_path):
    one = film_files.moving(8, seed=1)
    other = [255 - frame for frame in film_files.moving(8, seed=2, speed=3)]
    clean = [*one, *other]
    worn, _ = film_files.dirty(clean)
    path = film_files.write(tmp_path / "two.mkv", worn)
    result = restore(path, tmp_path / "out")
    assert "2 shots" in "".join(result.notes)
    assert gain(worn, film_files.decoded(result.output), clean) > 8


def test_a_sequence_stays_one(tmp_path, clip):
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(clip[1][:6]):
        Image.fromarray(frame).save(folder / f"reel_{number:04d}.png")
    result = restore(folder, tmp_path / "out", sequence=True)
    assert not result.error
    names = [f"reel_{number:04d}.png" for number in range(6)]
    assert sorted(p.name for p in result.output.iterdir()) == names
    frames = [np.asarray(Image.open(result.output / name)) for name in names]
    assert gain(clip[1][:6], frames, clip[0][:6]) > 8
    line = restore(folder, tmp_path / "film", sequence=True, codec="ffv1")
    assert line.output.suffix == ".mkv"
    assert len(film_files.decoded(line.output)) == 6


def test_goes_on_after_a_kill_with_the_same_result(tmp_path, monkeypatch):
    clean = film_files.moving(24)
    worn, _ = film_files.dirty(clean)
    path = film_files.write(tmp_path / "long.mkv", worn)
    monkeypatch.setattr(film, "_PART", 8)
    whole = restore(path, tmp_path / "a")
    code = (
        "import os, signal, sys\n"
        "from restoration.inference import film\n"
        "from tests.inference import film_test as t\n"
        "film._PART = 8\n"
        "write = film._write_part\n"
        "def stop(part, *rest):\n"
        "    if part.number == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return write(part, *rest)\n"
        "film._write_part = stop\n"
        "t.restore(sys.argv[1], sys.argv[2])\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "b")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = tmp_path / "b" / ".long_restored.mkv.parts"
    assert not (tmp_path / "b" / "long_restored.mkv").exists()
    assert (parts / "part00001.mkv").exists()
    kept = (parts / "part00000.mkv").stat().st_mtime_ns
    seen = []
    write = film._write_part
    monkeypatch.setattr(
        film,
        "_write_part",
        lambda part, *rest: seen.append(part.number) or write(part, *rest),
    )
    result = restore(path, tmp_path / "b")
    assert not result.error and seen == [2] and kept
    assert not parts.exists()
    assert whole.output.read_bytes() == result.output.read_bytes()


def test_other_settings_begin_anew(tmp_path, reel):
    folder = tmp_path / "x"
    film._claim(folder, "one")
    (folder / "part00000.json").write_text("{}")
    film._claim(folder, "one")
    assert (folder / "part00000.json").exists()
    film._claim(folder, "two")
    assert not (folder / "part00000.json").exists()
    one, other = (
        film._fingerprint(reel, dataclasses.replace(SPIKES, denoise=way))
        for way in (False, True)
    )
    assert one != other


def test_bad_films_give_one_line_and_lose_nothing(tmp_path, reel, clip):
    (tmp_path / "text.mkv").write_text("no film")
    line = restore(tmp_path / "text.mkv", tmp_path / "out").error
    assert "text.mkv" in line and "\n" not in line
    # A result that would be the film itself.
    own = film_files.write(tmp_path / "own.mkv", clip[1][:3])
    before = own.read_bytes()
    jobs, _ = film_jobs.divide([str(own)], str(tmp_path), suffix="", recursive=False,
                          sequence=False)  # fmt: skip
    (result,) = film.restore(jobs, dataclasses.replace(SPIKES, overwrite=True))
    assert "would replace it" in result.error
    assert own.read_bytes() == before
    # A disk that fills up.
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "\n" not in restore(reel, blocked / "out").error
    # Masks of another size.
    small = film_files.write(
        tmp_path / "small.mkv", film_files.moving(10, size=(48, 64))
    )
    assert "make them equal" in restore(reel, tmp_path / "m", damage=str(small)).error


def test_interlaced_films_ask(tmp_path, reel, monkeypatch):
    inspect = container.inspect
    monkeypatch.setattr(
        container, "inspect",
        lambda *a, **k: dataclasses.replace(inspect(*a, **k), interlaced=True),
    )  # fmt: skip
    assert "--deinterlace" in restore(reel, tmp_path / "a").error
    assert not restore(reel, tmp_path / "b", deinterlace=False).error


def test_films_and_pictures_are_told_apart(tmp_path):
    for name in ("a.MKV", "b.png", "sub/c.mp4", ".d.mkv", "a_restored.mkv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")

    def found(inputs, output=tmp_path / "out", **kwargs):
        kwargs = {"suffix": "restored", "recursive": False, "sequence": False, **kwargs}
        jobs, rest = film_jobs.divide(list(map(str, inputs)), str(output), **kwargs)
        return [job.source.name for job in jobs], len(rest)

    assert found([tmp_path]) == (["a.MKV", "a_restored.mkv"], 1)
    assert found([tmp_path], tmp_path) == (["a.MKV"], 1)
    assert found([tmp_path], recursive=True)[0] == ["a.MKV", "a_restored.mkv", "c.mp4"]
    assert found([tmp_path / "sub"]) == (["c.mp4"], 0)
    assert found([tmp_path / "b.png", tmp_path / "a.MKV"]) == (["a.MKV"], 1)
    assert found([tmp_path / "sub"], sequence=True) == (["sub"], 0)
    (tmp_path / "a.mov").write_bytes(b"")
    jobs, _ = film_jobs.divide([str(tmp_path)], str(tmp_path), suffix="restored",
                          recursive=False, sequence=False)  # fmt: skip
    names = sorted(job.stem.name for job in jobs)
    assert names == ["a_MKV_restored", "a_mov_restored"]


def test_the_network_finds_what_it_is_told_to():
    """A network of zeros is undecided: whether it finds is for the sensitivity."""
    import jax
    import jax.numpy as jnp

    from restoration.models import film_finder

    shapes = film_finder.abstract_parameters()
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    frames = film_files.moving(5)
    planes = [np.ascontiguousarray(f[..., 1]) for f in frames]
    series = [stills.Still(i, (p,), p) for i, p in enumerate(planes)]
    layout = stills.Layout(8, "gray", full=True)
    for sensitivity, share in ((0.1, 0.0), (0.5, 1.0)):
        find = film_finding.network_finder(zeros, sensitivity)
        passed = over_time.first_pass(iter(series), layout)
        for done in over_time.second_pass(passed, layout, find):
            assert done.mask.mean() == share


def test_strips_find_what_the_whole_frame_shows(monkeypatch):
    _, parameters = pretrained.load(film_finding.WEIGHTS)
    worn, _ = film_files.dirty(film_files.moving(5, size=(256, 64)))
    planes = [np.ascontiguousarray(f[..., 1]) for f in worn]
    series = [stills.Still(i, (p,), p) for i, p in enumerate(planes)]
    layout = stills.Layout(8, "gray", full=True)
    find = film_finding.network_finder(parameters, 0.5)
    both = []

    def in_both(still, references):
        monkeypatch.setattr(film_finding, "_STRIP", 2**30)
        whole = find(still, references)
        monkeypatch.setattr(film_finding, "_STRIP", 64 * 64)
        both.append((whole, find(still, references)))
        return whole

    assert list(
        over_time.second_pass(over_time.first_pass(series, layout), layout, in_both)
    )
    assert any(whole.mask.any() for whole, _ in both)
    for whole, strips in both:
        np.testing.assert_array_equal(whole.mask, strips.mask)
        np.testing.assert_allclose(whole.share, strips.share, atol=1e-4)
        np.testing.assert_allclose(whole.weights, strips.weights, atol=1e-4)


def test_the_command_restores_films_and_tells_of_them(tmp_path, reel):
    run = subprocess.run(
        [sys.executable, "-m", "restoration.restore", str(reel), "-o",
         str(tmp_path / "out"), "--film_finder=spikes", "--compare",
         f"--report={tmp_path / 'report.json'}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "10 frames, 1 shots" in run.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["restored"] == 1 and report["files"][0]["error"] == ""
    page = (tmp_path / "out" / "compare_films.html").read_text()
    assert 'src="reel_restored_compare.mp4"' in page and "media-src" in page
    with av.open(str(tmp_path / "out" / "reel_restored_compare.mp4")) as shown:
        assert shown.streams.video[0].codec_context.name == "h264"
        assert len(list(shown.decode(video=0))) == 10
