"""The cleaner on a folder with every defect there is."""

import csv
import hashlib
import io
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import unicodedata
import zlib

import numpy as np
import pytest
import skimage.data
from PIL import Image

from restoration import clean
from restoration.audit import finding, listing, quarantine, survey
from restoration.base import errors
from restoration.data import pairs
from restoration.reports import audit_page

SIDE = 96
SCRIPT = "<script>alert(1)</script>"


def photo(name, index=0):
    """A crop of a photograph; the index pans, as a film camera does."""
    full = getattr(skimage.data, name)()[..., :3]
    top, left = 60 + 3 * (index % 4), 90 + 12 * index
    return full[top : top + 2 * SIDE : 2, left : left + 2 * SIDE : 2]


def wear(image, seed):
    """Grain, fading and two scratches."""
    rng = np.random.default_rng(seed)
    degraded = 0.9 * image + 12 + rng.normal(0, 9, image.shape)
    degraded[:, rng.integers(0, SIDE, 2)] = 230
    return np.clip(degraded, 0, 255).astype(np.uint8)


def save(path, image, **options):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(path, **options)


def encode(image, kind):
    data = io.BytesIO()
    Image.fromarray(image).save(data, kind)
    return data.getvalue()


def add_pair(folder, name, image, seed):
    save(folder / "input" / f"{name}.png", wear(image, seed))
    save(folder / "output" / f"{name}.png", image)


CLIPS = {
    "train": ("astronaut", "coffee"),
    "validation": ("chelsea",),
    "test": ("rocket",),
}


def make_clean(root):
    """28 pairs of four clips, in three splits."""
    for split, clips in CLIPS.items():
        for clip in clips:
            for index in range(7):
                name = f"{clip}_{index:04d}"
                add_pair(root / split, name, photo(clip, index), hash_of(name))


def hash_of(text):
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def add_defects(root):
    """Adds one of each defect; returns {(file, reason)} that must be found."""
    train, found = root / "train", set()
    source = itertools.count()

    def fresh():
        """A part of a photograph that is in no other pair."""
        index = next(source)
        name = ("astronaut", "coffee", "chelsea", "rocket")[index % 4]
        full = getattr(skimage.data, name)()[..., :3]
        top, left = 10 + 17 * (index // 4), 5 + 23 * (index // 4)
        image = full[top : top + SIDE, left : left + SIDE]
        return np.ascontiguousarray(image if index % 8 < 4 else image[:, ::-1])

    def pair(name, degraded=None, output=None, suffix="png", **options):
        image = fresh()
        degraded = wear(image, hash_of(name)) if degraded is None else degraded
        save(train / f"input/{name}.png", degraded)
        output = image if output is None else output
        save(train / f"output/{name}.{suffix}", output, **options)
        return image

    def expect(reason, *files):
        found.update((f"train/{file}", reason) for file in files)

    save(train / "input/only_in.png", fresh())
    save(train / "output/only_out.png", fresh())
    expect("lone", "input/only_in.png", "output/only_out.png")

    pair("garbage")
    (train / "output/garbage.png").write_bytes(b"this is no image at all")
    expect("undecodable", "output/garbage.png")

    pair("cut")
    data = (train / "input/cut.png").read_bytes()
    (train / "input/cut.png").write_bytes(data[: len(data) // 2])
    pair("cut_jpeg", suffix="jpg")
    data = (train / "output/cut_jpeg.jpg").read_bytes()
    (train / "output/cut_jpeg.jpg").write_bytes(data[: len(data) // 2])
    pair("nothing")
    (train / "input/nothing.png").write_bytes(b"")
    expect("truncated", "input/cut.png", "output/cut_jpeg.jpg", "input/nothing.png")

    pair("bomb")
    header = encode(np.zeros((1, 1, 3), np.uint8), "PNG")
    huge = (60000).to_bytes(4, "big")
    chunk = b"IHDR" + huge + huge + header[24:29]
    crc = zlib.crc32(chunk).to_bytes(4, "big")
    (train / "output/bomb.png").write_bytes(header[:12] + chunk + crc + header[33:])
    expect("bomb", "output/bomb.png")

    image = pair("small")
    save(train / "output/small.png", image[:-8])
    expect("size", "input/small.png")

    first, second = pair("mixed_a_0001"), pair("mixed_b_0001")
    save(train / "output/mixed_a_0001.png", second)
    save(train / "output/mixed_b_0001.png", first)
    expect("dissimilar", "input/mixed_a_0001.png", "input/mixed_b_0001.png")

    image = fresh()
    pair("reversed", degraded=image, output=wear(image, 5))
    expect("exchanged", "input/reversed.png")

    image = skimage.data.coffee()[200 : 200 + SIDE + 4, 300 : 300 + SIDE + 3]
    pair("moved", degraded=wear(image[4:, 3:], 6), output=image[:-4, :-3])
    expect("shifted", "input/moved.png")

    image = fresh()
    pair("same", degraded=image, output=image)
    expect("identical", "input/same.png")

    # A frame of the test split, exactly and nearly, once more in training.
    image = photo("rocket", 2)
    pair("stolen", degraded=wear(image, 7), output=image)
    image = Image.fromarray(photo("rocket", 5))
    near = image.resize((SIDE // 2,) * 2).resize((SIDE,) * 2)
    pair("resembling", degraded=wear(np.asarray(near), 8), output=near)
    expect("leak", "input/stolen.png", "input/resembling.png")

    image = photo("coffee", 4)
    pair("zz_again", degraded=wear(image, 9), output=image)
    expect("duplicate", "input/zz_again.png")
    image = Image.fromarray(photo("astronaut", 3))
    near = image.resize((SIDE // 2,) * 2).resize((SIDE,) * 2)
    pair("zz_akin", degraded=wear(np.asarray(near), 10), output=near)
    expect("near_duplicate", "input/zz_akin.png")

    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    pair("black", degraded=wear(black, 11), output=black)
    expect("blank", "input/black.png")

    image = pair("twice")
    save(train / "input/twice.jpg", image)
    expect("ambiguous", "input/twice.png", "input/twice.jpg")

    pair("Case_1")
    pair("case_1")
    composed = unicodedata.normalize("NFC", "café")
    pair(composed)
    pair(unicodedata.normalize("NFD", composed))
    expect("similar_name", "input/Case_1.png", "input/case_1.png")
    expect("similar_name", f"input/{composed}.png")
    expect("similar_name", f"input/{unicodedata.normalize('NFD', composed)}.png")

    image = pair("wrong")
    (train / "output/wrong.png").write_bytes(encode(image, "JPEG"))
    expect("extension", "output/wrong.png")

    pair("moving", save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE))])
    expect("animated", "output/moving.png")
    pair(
        "pages",
        suffix="tif",
        save_all=True,
        append_images=[Image.new("RGB", (SIDE, SIDE))],
    )
    expect("multi_page", "output/pages.tif")
    expect("format", "output/pages.tif")

    image = pair("print", suffix="jpg")
    save(train / "output/print.jpg", Image.fromarray(image).convert("CMYK"))
    expect("cmyk", "output/print.jpg")

    image = pair("deep").mean(-1)
    save(train / "output/deep.png", (image * 257).astype(np.uint16))
    save(train / "input/deep.png", wear(np.stack([image] * 3, -1), 12))
    expect("16_bit", "output/deep.png")

    image = Image.fromarray(pair("clear"))
    image.putalpha(100)
    save(train / "output/clear.png", image)
    expect("transparent", "output/clear.png")

    pair("linked")
    outside = root.parent / "outside.png"
    (train / "output/linked.png").rename(outside)
    (train / "output/linked.png").symlink_to(outside)
    (train / "input/elsewhere").symlink_to(root.parent)
    expect("link", "output/linked.png", "input/elsewhere")

    (train / "input/notes.txt").write_text("not an image")
    expect("not_image", "input/notes.txt")

    for name in (f"a\nnew line {SCRIPT[:8]}", 'q"uote,', "=1+1", os.fsdecode(b"\xff")):
        save(train / "input" / f"{name}.png", fresh())
        expect("lone", f"input/{name}.png")
    return found


def options(root, **changes):
    return clean.CleanOptions(str(root), **{"tensorflow": False, **changes})


def tree(root):
    """All files, links and folders of a folder, with their content."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isdir(path):
                content = ""
            else:
                content = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
            found[os.path.relpath(path, root)] = content
    return found


def report(root):
    with open(root / "Disregard/report.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with all defects, never changed; and what is wrong with it."""
    root = tmp_path_factory.mktemp("template") / "frames"
    make_clean(root)
    return root, add_defects(root)


@pytest.fixture
def defective(template, tmp_path):
    shutil.copytree(template[0], tmp_path / "frames", symlinks=True)
    return tmp_path / "frames"


@pytest.fixture
def small(tmp_path):
    """Three pairs and three lone files, not split."""
    root = tmp_path / "small"
    for index in range(3):
        add_pair(root, f"coffee_{index}", photo("coffee", index), index)
        save(root / f"output/sub/lone_{index}.png", photo("rocket", index))
    return root


def test_exactly_the_defects_are_found(defective, template):
    before = tree(defective)
    summary = clean.clean(options(defective, dry_run=True))
    found = {(f.file, f.reason) for f in summary.findings}
    expected = template[1]
    assert expected - found == set()
    clean_names = {clip for clips in CLIPS.values() for clip in clips}
    false = [
        f
        for f in summary.findings
        if listing.pair_name(f.file).stem.rpartition("_")[0] in clean_names
    ]
    assert false == []
    # What else is said of the defective files follows from how they were made.
    assert {reason for _, reason in found - expected} <= {"link"}
    assert {reason for _, reason in found} == set(finding.REASONS) - {"unreadable"}
    assert tree(defective) == before


def test_files_are_moved_and_undo_restores_every_byte(defective):
    before = tree(defective)
    summary = clean.clean(options(defective))
    assert summary.failed == ()
    moved = {move.source for move in summary.moved}
    assert {
        "train/input/only_in.png",
        "train/output/garbage.png",
        "train/input/garbage.png",
        "train/input/bomb.png",
        "train/input/small.png",
        "train/output/small.png",
    } <= moved
    assert "train/input/stolen.png" not in moved
    for path in moved:
        assert not os.path.lexists(defective / path)
        assert os.path.lexists(defective / "Disregard" / path)
    after = tree(defective)
    kept = {p: h for p, h in before.items() if p not in moved}
    assert {p: h for p, h in after.items() if not p.startswith("Disregard")} == kept

    rows = report(defective)
    assert all(None not in row and None not in row.values() for row in rows)
    files = {row["file"] for row in rows}
    assert f"train/input/a\nnew line {SCRIPT[:8]}.png" in files
    assert r"train/input/\xff.png" in files
    by_file = {(row["file"], row["reason"]): row for row in rows}
    assert by_file["train/input/stolen.png", "leak"]["action"] == "listed"
    partner = by_file["train/input/garbage.png", "partner"]
    assert partner["action"] == "moved"
    assert partner["now_at"] == "Disregard/train/input/garbage.png"

    page = (defective / "Disregard/report.html").read_text(encoding="utf-8")
    assert "<script>" not in page.replace("<script></script>", "")
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")

    again = clean.clean(options(defective))
    assert (again.moved, again.failed) == ((), ())
    assert report(defective) == rows

    undone = clean.clean(options(defective, undo=True))
    assert (undone.put_back, undone.failed) == (len(moved), ())
    assert tree(defective) == before


def test_move_and_keep(defective):
    summary = clean.clean(
        options(defective, move=("leak", "link"), keep=("lone", "truncated"))
    )
    moved = {move.source for move in summary.moved}
    assert "train/input/stolen.png" in moved and "train/output/stolen.png" in moved
    assert "train/output/linked.png" in moved and "train/input/linked.png" in moved
    assert "train/input/only_in.png" not in moved
    assert "train/input/cut.png" not in moved
    assert os.path.islink(defective / "Disregard/train/output/linked.png")


def test_an_unsplit_folder_keeps_its_pairs(small):
    clean.clean(options(small))
    assert len(pairs.match(small)) == 3
    assert sorted(os.listdir(small)) == ["Disregard", "input", "output"]
    assert (small / "Disregard/output/sub/lone_0.png").exists()


KILLER = """
import os, signal, sys
from restoration import clean
from restoration.audit import quarantine
name, count, argument = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
real = getattr(os, name)
def deadly(*args, **kwargs):
    global count
    result = real(*args, **kwargs)
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
options = clean.CleanOptions(argument[0], tensorflow=False, undo="undo" in argument)
setattr(os, name, deadly)
clean.clean(options)
"""


def kill(root, call, count, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", KILLER, call, str(count), str(root), *arguments],
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.returncode == -signal.SIGKILL


def test_killed_run_is_finished_or_undone(small):
    before = tree(small)
    # Killed when the second file has both its new and its old name.
    kill(small, "link", 2)
    assert (small / "Disregard/output/sub/lone_1.png").exists()
    assert (small / "output/sub/lone_1.png").exists()
    assert not (small / "Disregard/report.csv").exists()
    copy = small.parent / "copy"
    shutil.copytree(small, copy)
    os.unlink(copy / "output/sub/lone_1.png")
    os.link(copy / "Disregard/output/sub/lone_1.png", copy / "output/sub/lone_1.png")

    finished = clean.clean(options(small))
    assert (finished.finished, finished.moved, finished.failed) == (3, (), ())
    assert [row["reason"] for row in report(small)] == ["lone"] * 3
    assert not (small / "output/sub/lone_1.png").exists()
    clean.clean(options(small, undo=True))
    assert tree(small) == before

    undone = clean.clean(options(copy, undo=True))
    assert undone.failed == ()
    assert tree(copy) == before


def test_killed_undo_is_continued(small):
    before = tree(small)
    clean.clean(options(small))
    kill(small, "link", 2, "undo")
    middle = clean.clean(options(small, dry_run=True))
    assert middle.failed == ()
    again = clean.clean(options(small))
    assert again.failed == () and len(again.moved) == 3
    clean.clean(options(small, undo=True))
    assert tree(small) == before


def test_killed_while_planning_moves_nothing(small, monkeypatch):
    before = tree(small)
    real = os.fsync
    calls = []

    def fail(descriptor):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        clean.clean(options(small))
    monkeypatch.undo()
    journal = small / quarantine.JOURNAL
    # As if killed in the middle of the line.
    journal.write_bytes(journal.read_bytes()[:-20])
    assert {p: h for p, h in tree(small).items() if "Disregard" not in p} == before
    assert len(clean.clean(options(small)).moved) == 3
    clean.clean(options(small, undo=True))
    assert tree(small) == before


def test_full_disk_loses_nothing(small, monkeypatch):
    before = tree(small)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(errors.InputError, match="nothing was moved"):
            clean.clean(options(small))
    assert {p: h for p, h in tree(small).items() if "Disregard" not in p} == before
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        stuck = clean.clean(options(small))
        assert stuck.moved == () and len(stuck.failed) == 3
    with monkeypatch.context() as patch:
        patch.setattr(audit_page, "write_csv", full)
        unreported = clean.clean(options(small))
        assert len(unreported.moved) == 3
        assert "run again" in unreported.failed[0]
    clean.clean(options(small))
    assert len(report(small)) == 3
    clean.clean(options(small, undo=True))
    assert tree(small) == before


def test_nothing_is_overwritten(small):
    clean.clean(options(small))
    save(small / "output/sub/lone_0.png", photo("chelsea"))
    second = clean.clean(options(small))
    assert [move.target for move in second.moved] == [
        "Disregard/output/sub/lone_0.2.png"
    ]
    assert len(report(small)) == 4
    undone = clean.clean(options(small, undo=True))
    assert undone.put_back == 3
    assert "exists already" in undone.failed[0]
    assert [row["now_at"] for row in report(small)] == [
        "Disregard/output/sub/lone_0.png"
    ]
    # A file that was changed after the move is not put back.
    (small / "output/sub/lone_0.png").unlink()
    (small / "Disregard/output/sub/lone_0.png").write_bytes(b"changed")
    assert "changed" in clean.clean(options(small, undo=True)).failed[0]


def test_links_are_never_followed(small):
    (small / "Disregard").symlink_to(small.parent)
    with pytest.raises(errors.InputError, match="link"):
        clean.clean(options(small))
    (small / "Disregard").unlink()
    outside = small.parent / "outside"
    (small / "input").rename(outside)
    (small / "input").symlink_to(outside)
    with pytest.raises(errors.InputError, match="symbolic link"):
        clean.clean(options(small))


def test_files_of_other_origin_stay(small):
    save(small / "Disregard/old.png", photo("coffee"))
    before = tree(small)
    clean.clean(options(small))
    clean.clean(options(small, undo=True))
    assert tree(small) == before
    (small / "Disregard/report.csv").write_text("mine")
    with pytest.raises(errors.InputError, match=r"report\.csv"):
        clean.clean(options(small))


def test_bad_folders_are_refused(small, tmp_path, monkeypatch):
    with pytest.raises(errors.InputError, match="no such folder"):
        clean.clean(options(tmp_path / "absent"))
    with pytest.raises(errors.InputError, match="nothing to undo"):
        clean.clean(options(small, undo=True))
    (tmp_path / "none/input").mkdir(parents=True)
    with pytest.raises(errors.InputError, match="output"):
        clean.clean(options(tmp_path / "none"))
    save(tmp_path / "none/output/x.png", photo("coffee"))
    with pytest.raises(errors.InputError, match="no pairs"):
        clean.clean(options(tmp_path / "none"))
    assert not (tmp_path / "none/Disregard").exists()
    with (
        quarantine.locked(str(small)),
        pytest.raises(errors.InputError, match="another run"),
    ):
        clean.clean(options(small))
    real = os.scandir

    def closed(path):
        if str(path).endswith("output"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(errors.InputError, match="Permission denied"):
        clean.clean(options(small))


def test_bad_options_are_refused():
    for bad in (
        {"move": ("nonsense",)},
        {"move": ("leak",), "keep": ("leak",)},
        {"undo": True, "keep": ("lone",)},
        {"workers": -1},
    ):
        with pytest.raises(errors.InputError):
            options("x", **bad)


def test_unreadable_file_is_reported(small, monkeypatch, capsys):
    real = survey._read

    def failing(path):
        if path.endswith("input/coffee_1.png"):
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(survey, "_read", failing)
    assert clean.main(options(small)) == 1
    assert "unreadable" in capsys.readouterr().out
    assert (small / "input/coffee_1.png").exists()


@pytest.mark.slow
def test_command_line_with_tensorflow(small):
    # TensorFlow needs the chunk that ends a PNG file, Pillow does not.
    path = small / "input/coffee_1.png"
    path.write_bytes(path.read_bytes()[:-12])

    def run(*flags):
        return subprocess.run(
            [sys.executable, "-m", "restoration.clean", f"--data_dir={small}", *flags],
            cwd=pathlib.Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert "5 files moved" in done.stdout
    assert done.stderr == ""
    moved = {row["file"]: row["detail"] for row in report(small)}
    assert "TensorFlow" in moved["input/coffee_1.png"]
    wrong = run("--move=everything")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --move=everything")
    assert wrong.stderr.count("\n") == 1
