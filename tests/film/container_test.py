"""Films read and written whole: times, tags, sound; broken and odd files."""

import dataclasses
import fractions

import numpy as np
import pytest

av = pytest.importorskip("av", reason="needs PyAV (extra film)")
pytest.importorskip("cv2", reason="needs OpenCV (extra film)")

from restoration.base import errors, files  # noqa: E402
from restoration.film import container  # noqa: E402
from tests import film_files  # noqa: E402


def copied(path, folder, *, codec="auto", cuts=(0, 5, 9)):
    """Reads a film and writes it again, in parts."""
    source = container.inspect(path)
    used = container.encoding(source, codec)
    pictures = list(container.read(source))
    parts = []
    for number, (start, end) in enumerate(
        zip(cuts, [*cuts[1:], len(pictures)], strict=True)
    ):
        name = folder / f"part{number}{used.suffix}"
        parts.append(container.write_part(name, pictures[start:end], source, used))
    target = folder / f"copy{used.suffix}"
    last = max(0, source.end - pictures[-1].time)
    notes = container.join(source, parts, last, target, replacing=files.replacing)
    return target, pictures, notes


FILMS = {
    "a.mkv": {
        "pixels": "yuv422p10le", "sound": "pcm_s16le", "chapters": True,
        "subtitles": True, "aspect": fractions.Fraction(16, 15),
    },
    "b.mp4": {
        "codec": "libx264", "pixels": "yuv420p", "unit": fractions.Fraction(1, 12800),
        "rotation": 90, "sound": "aac", "chapters": True, "options": {"bf": "0"},
        "times": [512 * t for t in (0, 1, 3, 4, 5, 6, 9, 10, 12, 13, 14, 15)],
    },
    "c.mov": {
        "codec": "prores_ks", "pixels": "yuv422p10le", "sound": "pcm_s16le",
        "unit": fractions.Fraction(1, 12800),
    },
    "d.webm": {"codec": "libvpx-vp9", "pixels": "yuv420p", "sound": "libopus"},
    "e.mkv": {"codec": "ffv1", "pixels": "bgr0"},
    "f.mkv": {"codec": "ffv1", "pixels": "gbrp12le", "colors": False},
}  # fmt: skip


@pytest.mark.parametrize("name", FILMS)
def test_a_copy_in_parts_is_the_film_but_for_its_codec(tmp_path, name):
    path = film_files.write(tmp_path / name, film_files.moving(), **FILMS[name])
    target, pictures, notes = copied(path, tmp_path)
    assert not notes
    assert len(pictures) == 12
    found, wanted = film_files.properties(target), film_files.properties(path)
    if name == "c.mov":  # ProRes becomes H.264
        assert found.pop("pixels") == wanted.pop("pixels") == "yuv422p10le"
    assert found == wanted
    if container.inspect(path).lossless:
        for one, other in zip(
            pictures, container.read(container.inspect(target)), strict=True
        ):
            assert one.time == other.time
            for a, b in zip(one.planes, other.planes, strict=True):
                np.testing.assert_array_equal(a, b)


def test_lossless_films_stay_so_and_others_become_h264(tmp_path):
    clip = film_files.moving(2)
    kinds = {}
    for name, settings in FILMS.items():
        settings = {k: v for k, v in settings.items() if k in ("codec", "pixels")}
        source = container.inspect(film_files.write(tmp_path / name, clip, **settings))
        used = container.encoding(source, "auto")
        kinds[name] = used.codec, used.suffix
    assert kinds == {
        "a.mkv": ("ffv1", ".mkv"),
        "b.mp4": ("libx264", ".mp4"),
        "c.mov": ("libx264", ".mov"),
        "d.webm": ("libx264", ".mkv"),
        "e.mkv": ("ffv1", ".mkv"),
        "f.mkv": ("ffv1", ".mkv"),
    }


@pytest.mark.parametrize(
    "suffix, codec, pixels",
    [
        (".png", "png", "rgb24"),
        (".tif", "tiff", "rgb48le"),
        (".dpx", "dpx", "gbrp10le"),
    ],
)
def test_sequences_come_back_bit_for_bit(tmp_path, suffix, codec, pixels):
    folder = tmp_path / "reel"
    folder.mkdir()
    for number, frame in enumerate(film_files.moving(3)):
        context = av.CodecContext.create(codec, "w")
        context.height, context.width = frame.shape[:2]
        context.pix_fmt, context.time_base = pixels, fractions.Fraction(1, 24)
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        data = [*context.encode(picture.reformat(format=pixels)), *context.encode()]
        name = folder / f"f{number + 8}{suffix}"  # 8, 9, 10: not in the names' order
        name.write_bytes(b"".join(map(bytes, data)))
    source = container.inspect(folder)
    assert [p.stem for p in source.pictures] == ["f8", "f9", "f10"]
    used = container.encoding(source, "auto")
    assert (used.codec, used.suffix) == (codec, suffix)
    container.write_pictures(tmp_path / "copy", container.read(source), source, used)
    again = container.inspect(tmp_path / "copy")
    assert again.format == source.format
    for one, other in zip(container.read(source), container.read(again), strict=True):
        for a, b in zip(one.planes, other.planes, strict=True):
            np.testing.assert_array_equal(a, b)


def test_damaged_packets_repeat_the_frame_before(tmp_path):
    clip = film_files.moving()
    path = film_files.write(
        tmp_path / "a.mkv", clip, codec="mjpeg", pixels="yuvj420p", colors=False
    )
    whole = list(container.read(container.inspect(path)))
    with av.open(str(path)) as film:
        packet = [bytes(p) for p in film.demux(video=0) if p.size][6]
    data = path.read_bytes()
    at = data.index(packet)
    broken = data[:at] + bytes(len(packet)) + data[at + len(packet) :]
    (tmp_path / "b.mkv").write_bytes(broken)
    found = list(container.read(container.inspect(tmp_path / "b.mkv")))
    assert [p.time for p in found] == [p.time for p in whole]
    assert [p.number for p in found if p.repeated] == [6]
    np.testing.assert_array_equal(found[6].planes[0], whole[5].planes[0])
    np.testing.assert_array_equal(found[7].planes[0], whole[7].planes[0])


def test_a_film_that_ends_early_gives_what_is_there(tmp_path):
    path = film_files.write(tmp_path / "a.mkv", film_files.moving())
    data = path.read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) // 2])
    found = list(container.read(container.inspect(tmp_path / "b.mkv")))
    assert 3 < len(found) < 10


def one_line(call, *words):
    with pytest.raises(errors.InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_bad_films_give_one_line(tmp_path):
    (tmp_path / "empty.mkv").write_bytes(b"")
    one_line(lambda: container.inspect(tmp_path / "empty.mkv"), "empty.mkv", "readable")
    (tmp_path / "text.mp4").write_text("no film at all")
    one_line(lambda: container.inspect(tmp_path / "text.mp4"), "text.mp4", "readable")
    with av.open(str(tmp_path / "sound.mkv"), "w") as film:
        stream = film.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        film.mux(stream.encode(frame))
    one_line(lambda: container.inspect(tmp_path / "sound.mkv"), "picture track")
    folder = tmp_path / "none"
    folder.mkdir()
    one_line(lambda: container.inspect(folder), "no numbered pictures")


def test_a_change_of_size_gives_one_line(tmp_path):
    folder = tmp_path / "reel"
    folder.mkdir()
    for number, size in enumerate([(32, 48), (32, 48), (48, 32)]):
        av.VideoFrame.from_ndarray(
            np.zeros((*size, 3), np.uint8), format="rgb24"
        ).to_image().save(folder / f"{number}.png")
    source = container.inspect(folder)
    one_line(lambda: list(container.read(source)), "2.png", "48×32 becomes 32×48")


def test_a_missing_encoder_is_named(tmp_path, monkeypatch):
    source = container.inspect(
        film_files.write(tmp_path / "a.mkv", film_files.moving(2))
    )
    monkeypatch.setitem(container.CODECS, "h265", ("libnone", {}))
    one_line(lambda: container.encoding(source, "h265"), "libnone", "--codec")


def test_interlaced_films_become_whole_frames(tmp_path):
    clip = film_files.moving(6, speed=6)
    # The second field is that of half a frame later.
    combed = [one.copy() for one in clip]
    for one, other in zip(combed, clip[1:], strict=False):
        one[1::2] = other[1::2]
    path = film_files.write(tmp_path / "a.mkv", combed, pixels="yuv422p")
    source = container.inspect(path)
    before, after = (
        list(container.read(source, deinterlace=way)) for way in (False, True)
    )
    assert [p.time for p in before] == [p.time for p in after]

    def combing(picture):
        rows = picture.planes[0].astype(float)
        return np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2)[8:-8].mean()

    assert combing(after[2]) < 0.5 * combing(before[2])


def test_a_full_disk_gives_one_line(tmp_path, monkeypatch):
    path = film_files.write(tmp_path / "a.mkv", film_files.moving(3))
    source = container.inspect(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(container, "_prepared", full)
    used = container.encoding(source, "auto")
    one_line(
        lambda: container.write_part(
            tmp_path / "part.mkv", container.read(source), source, used
        ),
        "no space left",
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.mkv"]


def test_full_range_is_known(tmp_path):
    path = film_files.write(
        tmp_path / "a.mp4", film_files.moving(2), codec="libx264", pixels="yuvj420p",
        unit=fractions.Fraction(1, 12800), colors=False,
    )  # fmt: skip
    source = container.inspect(path)
    assert source.layout.full and source.planar == "yuv420p"
    assert dataclasses.replace(source.layout, full=False).black == 16
