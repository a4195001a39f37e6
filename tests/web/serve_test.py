"""The page's program: what goes wrong, who leaves, what stays behind."""

import dataclasses
import io
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import types
import zipfile

import numpy as np
import psutil
import pytest
from PIL import Image

from restoration import serve
from restoration.base import errors
from restoration.film import video
from restoration.web import dispatch, pictures, store
from tests import serving, synthetic_film

GOOD = dataclasses.asdict(pictures.Choices())


@pytest.fixture(scope="module")
def page():
    with serving.page() as running:
        yield running


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.png"
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)
    return path


def until(check, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.05)
    return False


def workers(process=None):
    """Returns the worker processes below a process, this one by default."""
    found = []
    for child in (process or psutil.Process()).children(recursive=True):
        try:
            if any("worker" in part for part in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_a_port_in_use():
    with serve.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.InputError, match=f"--port={port}: Address already"):
            serve.listen("127.0.0.1", port)
        run = subprocess.run(
            [sys.executable, "-m", "restoration.serve", f"--port={port}",
             "--browser=false"],
            capture_output=True, text=True,
        )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and "the page may be open already" in run.stderr


def test_an_address_that_is_not_this_machines():
    with pytest.raises(errors.InputError, match=r"--host=192\.0\.2\.1"):
        serve.listen("192.0.2.1", 0)


def test_no_browser(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    serve._show("http://127.0.0.1:1/")
    assert "No browser was found here" in capsys.readouterr().out

    def none(address):
        raise serve.webbrowser.Error("could not locate runnable browser")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(serve.webbrowser, "open", none)
    serve._show("http://127.0.0.1:1/")
    assert "No browser was found here" in capsys.readouterr().out


def test_the_folder_is_the_users_alone_and_abandoned_ones_are_removed(monkeypatch):
    folder = store.create()
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
        # Of a process that never was, of one that is, and a link to elsewhere.
        gone = folder.with_name(f"{store._PREFIX}999999999-x")
        gone.mkdir()
        link = folder.with_name(f"{store._PREFIX}999999998-x")
        link.symlink_to(folder)
        assert store.remove_abandoned() == [gone]
        assert folder.is_dir() and link.is_symlink() and not gone.exists()
        link.unlink()
    finally:
        store.remove(folder)
    assert not folder.exists()


def test_films_lie_on_a_disk_and_not_in_memory(monkeypatch, tmp_path):
    def mounted(**kinds):
        parts = [
            types.SimpleNamespace(mountpoint=f"/{name}", fstype=kind)
            for name, kind in {"": "ext4", **kinds}.items()
        ]
        monkeypatch.setattr(store.psutil, "disk_partitions", lambda all: parts)
        return store.place()

    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store.tempfile, "gettempdir", lambda: "/tmp")
    monkeypatch.setattr(store, "_ON_DISK", tmp_path)
    assert mounted() == mounted(tmp="ext4", run="tmpfs") == pathlib.Path("/tmp")
    assert mounted(tmp="tmpfs") == tmp_path
    # Who chooses a folder gets it.
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert mounted(tmp="tmpfs") == pathlib.Path("/tmp")


@pytest.mark.parametrize("name", ["a.png", "a.mkv"])
def test_a_client_that_leaves_in_the_middle_of_an_upload(page, name):
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        connection.sendall(
            f"POST /api/pictures?name={name} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{page.port}\r\n"
            f"Origin: {page.address}\r\nX-Token: {serving.TOKEN}\r\n"
            "Content-Length: 1000000\r\n\r\n".encode()
            + b"x" * 300_000
        )
        # What has come is on the disk and not in memory.
        assert until(lambda: store.used(page.folder) > 250_000)
        (found,) = page.state()["pictures"]
        assert found["state"] == pictures.RECEIVING
        answer = page.post(f"/api/pictures/{found['key']}/restore", {"choices": GOOD})
        assert answer.status == 400
    assert until(lambda: not page.state()["pictures"])
    assert list(page.folder.iterdir()) == []


def test_a_file_that_another_tab_removes_while_it_comes(page, small):
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        data = small.read_bytes()
        connection.sendall(
            f"POST /api/pictures?name=a.png HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{page.port}\r\n"
            f"Origin: {page.address}\r\nX-Token: {serving.TOKEN}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data[:-9]
        )
        assert until(lambda: page.state()["pictures"])
        (found,) = page.state()["pictures"]
        assert page.post(f"/api/pictures/{found['key']}/remove").status == 200
        connection.sendall(data[-9:])
        assert b" 404 " in connection.recv(1000)
    assert page.state()["pictures"] == [] and list(page.folder.iterdir()) == []


def test_a_client_that_leaves_in_the_middle_of_work_finds_it_again(page, small):
    # No request of a page's holds the work up: another page goes on with it.
    key = page.upload(small, name="slow.png")
    other = page.upload(small)
    found = page.wait(key, pictures.WORKING)
    assert until(lambda: page.picture(key)["share"] > 0)
    assert page.picture(key)["left"] is None or page.picture(key)["left"] >= 0
    assert page.picture(other)["state"] == pictures.WAITING
    assert found["choices"] == GOOD
    for one in (key, other):
        page.post(f"/api/pictures/{one}/remove")
    assert until(lambda: not list(page.folder.iterdir()))


@pytest.fixture(scope="module")
def reel(tmp_path_factory):
    frames = list(synthetic_film.shot(
        "coffee", 6, (48, 64), start=(0, 0), end=(0.5, 0.5), zoom=(0.8, 0.8)
    ))  # fmt: skip
    return synthetic_film.write(tmp_path_factory.mktemp("film") / "reel.mkv", frames)


FILM = dataclasses.asdict(pictures.FilmChoices())


def test_a_film_is_shown_by_its_first_frame_and_tells_its_frames(page, reel):
    key = page.upload(reel, name="slow.mkv")
    page.wait(key, pictures.WORKING)
    assert until(lambda: page.picture(key)["frames"][0] > 2)
    found = page.picture(key)
    assert found["film"] == {"frames": 6, "rate": 25, "interlaced": False}
    assert found["levels"] == [[64, 48]] and found["choices"] == FILM
    assert found["frames"][1] == 3001 and found["left"] > 0
    small = page.get(f"/api/pictures/{key}/before/0/small.png").body
    first = np.asarray(Image.open(io.BytesIO(small)))
    wanted = video.to_rgb(next(video.decode(video.describe(reel))))
    np.testing.assert_array_equal(first, wanted)
    page.post(f"/api/pictures/{key}/cancel")
    page.wait(key, pictures.CANCELLED)
    assert len(workers()) == 1
    folder = page.folder / key
    assert {p.name for p in folder.iterdir()} == {"source.mkv", "before.levels.tif"}
    page.post(f"/api/pictures/{key}/remove")
    assert until(lambda: not list(page.folder.iterdir()))


def test_only_what_is_marked_needs_a_mark(page, small):
    """As the command, which refuses --only_damage where nothing finds damage."""
    key, other = page.upload(small), page.upload(small, name="other.png")
    for one in (key, other):
        page.wait(one, pictures.DONE)
    only = {"choices": GOOD | {"only_damage": True}}
    answer = page.post(f"/api/pictures/{key}/restore", only)
    assert answer.status == 400 and "nothing is marked" in answer.json["error"]
    stroke = {"erase": False, "size": 5, "points": [3, 3, 9, 9]}
    marked = only | {"mask": -1, "strokes": [stroke]}
    assert page.post(f"/api/pictures/{key}/restore", marked).status == 200
    page.wait(key, pictures.DONE)
    # For all: each that cannot be restored so says why.
    assert page.post("/api/restore", only).status == 200
    page.wait(key, pictures.DONE, pictures.FAILED)
    assert "nothing is marked" in page.wait(other, pictures.FAILED)["line"]
    for one in (key, other):
        page.post(f"/api/pictures/{one}/remove")


def test_films_and_photographs_have_settings_of_their_own(page, reel, small):
    film, photo = page.upload(reel), page.upload(small)
    for key in (film, photo):
        page.wait(key, pictures.DONE)
    runs = {key: page.picture(key)["result"]["version"] for key in (film, photo)}
    answer = page.post("/api/restore", {"choices": FILM | {"codec": "h264"},
                                        "film": True})  # fmt: skip
    assert answer.json == {"count": 1}
    page.wait(film, pictures.DONE)
    assert page.picture(film)["result"]["version"] == runs[film] + 1
    assert page.picture(film)["result"]["choices"]["codec"] == "h264"
    assert page.picture(photo)["result"]["version"] == runs[photo]
    # What was chosen for interlaced frames stays where nothing else is.
    yes = {"choices": FILM | {"deinterlace": "yes"}}
    assert page.post(f"/api/pictures/{film}/restore", yes).status == 200
    page.wait(film, pictures.DONE)
    page.post("/api/restore", {"choices": FILM | {"denoise": True}, "film": True})
    page.wait(film, pictures.DONE)
    assert page.picture(film)["choices"] == FILM | {
        "denoise": True, "deinterlace": "yes",
    }  # fmt: skip
    # Neither takes the other's.
    for key, choices in ((film, GOOD), (photo, FILM), (film, FILM | {"codec": "x"})):
        answer = page.post(f"/api/pictures/{key}/restore", {"choices": choices})
        assert answer.status == 400 and "\n" not in answer.json["error"]
    # The brush is for photographs.
    for path, body in (("restore", {"choices": FILM, "mask": -1}),
                       ("mask/save", {"mask": -1}), ("mask", b"x")):  # fmt: skip
        answer = page.post(f"/api/pictures/{film}/{path}", body)
        assert answer.status == 400 and "for photographs" in answer.json["error"]
    found = page.get("/api/archive").body
    with zipfile.ZipFile(io.BytesIO(found)) as archive:
        assert archive.testzip() is None
        assert archive.read("reel_restored.mkv") == reel.read_bytes()
        assert sorted(archive.namelist()) == ["reel_restored.mkv", "small_restored.png"]
    for key in (film, photo):
        page.post(f"/api/pictures/{key}/remove")


def test_names_of_films_are_those_of_the_command(page, reel, small, tmp_path):
    other = tmp_path / "reel.avi"
    frames = [np.full((16, 16, 3), value, np.uint8) for value in (50, 90)]
    synthetic_film.write(other, frames)
    sent = [
        ("reel.mkv", reel), ("reel.avi", other), ("Tapes/1950/a.mkv", reel),
        ("reel.png", small), ("Tapes/a.mkv", reel), ("Other/a.mkv", reel),
    ]  # fmt: skip
    keys = [page.upload(path, name=name) for name, path in sent]
    for key in keys:
        page.wait(key, pictures.DONE)
    assert [page.picture(key)["result"]["name"] for key in keys] == [
        "reel_mkv_restored.mkv", "reel_avi_restored.avi", "1950/a_restored.mkv",
        "reel_restored.png", "a_restored.mkv", "Other 2/a_restored.mkv",
    ]  # fmt: skip
    for key in keys:
        page.post(f"/api/pictures/{key}/remove")


def test_a_film_that_cannot_be_read_says_so(page, tmp_path):
    (tmp_path / "text.mp4").write_text("Dear grandmother, ...")
    key = page.upload(tmp_path / "text.mp4")
    found = page.wait(key, pictures.FAILED)
    assert found["line"].startswith("text.mp4: not a readable film (")
    page.post(f"/api/pictures/{key}/remove")


def test_films_without_what_reads_them(page, reel, monkeypatch):
    def missing():
        raise errors.InputError('reading films needs PyAV: pip install "av>=18"')

    monkeypatch.setattr(pictures.video, "require_pyav", missing)
    answer = page.post("/api/pictures?name=reel.mkv", b"x")
    assert answer.status == 400 and "pip install" in answer.json["error"]
    assert list(page.folder.iterdir()) == []


def test_cancelling(page, small):
    slow, waiting, last = (
        page.upload(small, name=name) for name in ("slow.png", "slow.png", "c.png")
    )
    page.wait(slow, pictures.WORKING)
    page.wait(waiting, pictures.WAITING)
    page.post(f"/api/pictures/{waiting}/cancel")
    assert page.picture(waiting)["state"] == pictures.CANCELLED
    page.post(f"/api/pictures/{slow}/cancel")
    page.wait(slow, pictures.CANCELLED)
    page.wait(last, pictures.DONE)
    assert len(workers()) == 1
    # A picture that was cancelled can be restored after all.
    page.post(f"/api/pictures/{slow}/restore", {"choices": GOOD})
    page.wait(slow, pictures.WORKING)
    for key in (slow, waiting, last):
        page.post(f"/api/pictures/{key}/remove")
    assert until(lambda: not list(page.folder.iterdir()))


def test_a_worker_that_dies_fails_one_picture_and_is_replaced(page, small):
    before = page.upload(small)
    page.wait(before, pictures.DONE)
    first = workers()[0].pid
    dies, after = page.upload(small, name="dies.png"), page.upload(small)
    found = page.wait(dies, pictures.FAILED)
    assert "ended in the middle (it was killed; perhaps the memory" in found["line"]
    page.wait(after, pictures.DONE)
    assert [worker.pid for worker in workers()] != [first]
    # What was there before is still there.
    assert page.get(f"/api/pictures/{before}/result").body == small.read_bytes()
    for key in (before, dies, after):
        page.post(f"/api/pictures/{key}/remove")


def test_a_worker_that_does_not_stop_is_killed(page, small, monkeypatch):
    monkeypatch.setattr(dispatch, "_PATIENCE", 0.3)
    key, after = page.upload(small, name="deaf.png"), page.upload(small)
    page.wait(key, pictures.WORKING)
    page.post(f"/api/pictures/{key}/cancel")
    page.wait(key, pictures.CANCELLED)
    page.wait(after, pictures.DONE)
    assert len(workers()) == 1
    for one in (key, after):
        page.post(f"/api/pictures/{one}/remove")


def test_two_tabs_see_and_change_the_same_pictures(page, small):
    key = page.upload(small)
    page.wait(key, pictures.DONE)
    # The first tab wants it as a JPEG file, the second, which did not know, removes it.
    choices = GOOD | {"ext": "jpg"}
    assert page.post(f"/api/pictures/{key}/restore", {"choices": choices}).status == 200
    page.wait(key, pictures.DONE)
    assert page.picture(key)["result"]["name"] == "small_restored.jpg"
    assert page.post(f"/api/pictures/{key}/remove").status == 200
    answer = page.post(f"/api/pictures/{key}/restore", {"choices": GOOD})
    assert answer.status == 404 and "not on the page any more" in answer.json["error"]


def test_a_page_of_an_earlier_start_is_told_so(page):
    answer = page.post("/api/restore", {"choices": GOOD}, token="of an earlier start")
    assert answer.status == 403
    assert answer.json["error"] == "the program was started again; load the page again"


def test_names_of_results_are_those_of_the_command(page, small, tmp_path):
    Image.open(small).save(tmp_path / "small.jpg")
    sent = [
        ("small.png", small), ("small.jpg", tmp_path / "small.jpg"),
        ("Album/1950/a.png", small), ("Album/a.png", small), ("Other/a.png", small),
    ]  # fmt: skip
    keys = [page.upload(path, name=name) for name, path in sent]
    for key in keys:
        page.wait(key, pictures.DONE)
    names = [page.picture(key)["result"]["name"] for key in keys]
    assert names == [
        "small_restored.png", "small_restored.jpg", "1950/a_restored.png",
        "Album/a_restored.png", "Other/a_restored.png",
    ]  # fmt: skip
    # As the same kind of file they would have the same name.
    page.post("/api/restore", {"choices": GOOD | {"ext": "png"}})
    for key in keys:
        page.wait(key, pictures.DONE)
    names = [page.picture(key)["result"]["name"] for key in keys]
    assert names[:2] == ["small_png_restored.png", "small_jpg_restored.png"]
    again = page.upload(small, name="Other/a.png")
    page.wait(again, pictures.DONE)
    named = [found["result"]["name"] for found in page.state()["pictures"]]
    assert len(set(named)) == len(named)
    for key in (*keys, again):
        page.post(f"/api/pictures/{key}/remove")


@pytest.mark.parametrize("device", ["tpu", "gpu"])
def test_a_worker_that_cannot_start_ends_the_program_with_its_reason(device):
    with serving.page(device=device) as running:
        assert until(lambda: running.failures, 60)
    line = str(running.failures[0])
    assert line == "--device=tpu: not here" or "does not start" in line


@pytest.fixture
def program(tmp_path):
    """Starts the program itself, with the fake worker; returns it and its page."""
    code = (
        "import sys\n"
        "from restoration import serve\n"
        "from restoration.web import dispatch\n"
        f"dispatch.Worker.__init__.__kwdefaults__['command'] = {serving.FAKE!r}\n"
        f"serve.app.make_app.__kwdefaults__['command'] = {serving.FAKE!r}\n"
        "serve.serve(serve.ServeOptions(port=0, browser=False))\n"
    )
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )  # fmt: skip
        started.append(process)
        line = process.stdout.readline()
        port = int(re.search(r"Open http://127\.0\.0\.1:(\d+)/", line)[1])
        (folder,) = (p for p in tmp_path.iterdir() if f"-{process.pid}-" in p.name)
        return process, serving.Page(port, folder, [])

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.wait()


def token_of(page):
    text = page.get("/").body.decode()
    return re.search(r'name="token" content="([^"]+)"', text)[1]


@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL", "button"])
def test_nothing_is_left_over(program, small, tmp_path, ending):
    process, page = program()
    token = token_of(page)
    answer = page.post("/api/pictures?name=slow.png", small.read_bytes(), token=token)
    key = answer.json["key"]

    def works():
        found = page.get("/api/state", token=token).json["pictures"]
        return [f["state"] for f in found if f["key"] == key] == [pictures.WORKING]

    assert until(works, 60)
    below = workers(psutil.Process(process.pid))
    assert len(below) == 1
    if ending == "button":
        assert page.post("/api/end", token=token).status == 200
    else:
        process.send_signal(getattr(signal, ending))
    process.wait(20)
    if ending != "SIGKILL":
        assert process.returncode == 0
        assert "what was uploaded is deleted" in process.stdout.read()
    assert until(lambda: not below[0].is_running()), "the worker goes on"
    assert until(lambda: not any(tmp_path.iterdir())), "files are left"


def test_a_restart_while_a_page_is_open(program, tmp_path):
    process, page = program()
    old = token_of(page)
    process.terminate()
    process.wait(20)
    with pytest.raises(ConnectionRefusedError):
        page.get("/api/state", token=old)
    _, again = program()
    assert token_of(again) != old
    answer = again.get("/api/state", token=old)
    assert answer.status == 403 and "load the page again" in answer.json["error"]


def test_another_host_needs_the_printed_address(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "restoration.serve", "--host=0.0.0.0", "--port=0",
         "--browser=false"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        port, token = re.search(r":(\d+)/\?token=(\S+) in a browser", line).groups()
        assert "not encrypted" in process.stdout.readline()
        page = serving.Page(int(port), pathlib.Path(tmp_path), [])
        assert page.get("/", token=None).status == 403
        assert page.get(f"/?token={token}", token=None).status == 200
        assert page.get("/", token=None, Host=f"evil.example:{port}").status == 421
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
    assert process.returncode == 0
    assert until(lambda: not any(tmp_path.iterdir()))
