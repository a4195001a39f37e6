"""Attacks on a page that is served to one's own machine; each has to fail."""

import dataclasses
import socket
import time

import numpy as np
import pytest
import pyvips
from PIL import Image

from restoration.web import app, pictures, security, store
from tests import serving

GUARD = security.Guard("secret", 8600)


def scope(path="/api/state", method="GET", query="", host="127.0.0.1:8600", **headers):
    found = {"host": host, "x_token": "secret", **headers}
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [
            (name.replace("_", "-").encode(), value.encode())
            for name, value in found.items()
            if value is not None
        ],
    }


def status(**options):
    refused = security.refusal(options.pop("guard", GUARD), scope(**options))
    return refused[0] if refused else 200


@pytest.fixture(scope="module")
def page():
    limits = store.Limits(
        file=300_000, film=700_000, total=2_400_000, files=4, pixels=100_000
    )
    with serving.page(limits=limits) as running:
        yield running


def test_only_the_own_names_are_answered():
    for host in ("127.0.0.1:8600", "localhost:8600", "LOCALHOST:8600", "[::1]:8600"):
        assert status(host=host) == 200
    # DNS rebinding: a page of evil.example whose name now leads here.
    for host in (
        "evil.example:8600", "evil.example", "127.0.0.1", "127.0.0.1:80",
        "127.0.0.1.evil.example:8600", "192.168.0.7:8600", "", ":8600",
        "127.0.0.1:8600:8600", "127.0.0.1:8600@evil.example",
    ):  # fmt: skip
        assert status(host=host) == 421, host


def test_a_host_that_was_opened_to_others_takes_addresses_but_no_foreign_names():
    guard = security.Guard("secret", 8600, names=("mill",), addresses=True, locked=True)
    for host in ("mill:8600", "192.168.0.7:8600", "[fe80::1]:8600", "localhost:8600"):
        assert status(guard=guard, host=host) == 200
    assert status(guard=guard, host="evil.example:8600") == 421
    # Nor is the page, which holds the token, given to whom does not know it.
    assert status(guard=guard, path="/", x_token=None) == 403
    assert status(guard=guard, path="/", x_token=None, query="token=guess") == 403
    assert status(guard=guard, path="/", x_token=None, query="token=secret") == 200
    assert status(path="/", x_token=None) == 200


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "https://127.0.0.1:8600",
     "http://127.0.0.1:8601", "http://127.0.0.1:8600.evil.example",
     "http://localhost:8600", "http://127.0.0.1", "file://"],
)  # fmt: skip
def test_a_change_needs_the_own_origin(origin):
    assert status(method="POST", origin=origin) == 403
    assert status(method="POST", origin="http://127.0.0.1:8600") == 200


def test_everything_but_the_page_needs_the_token():
    own = {"origin": "http://127.0.0.1:8600"}
    for token in (None, "", "secreT", "secret ", "s"):
        assert status(x_token=token) == 403
        assert status(method="POST", x_token=token, **own) == 403
    # An address may carry it for a picture, which cannot send headers; a change not.
    assert status(x_token=None, query="token=secret") == 200
    assert status(x_token=None, query="token=wrong") == 403
    assert status(method="POST", x_token=None, query="token=secret", **own) == 403


def test_other_pages_may_not_even_ask():
    for site in ("cross-site", "same-site"):
        assert status(sec_fetch_site=site) == 403
        assert status(path="/static/app.js", sec_fetch_site=site) == 403
    for site in ("same-origin", "none"):
        assert status(sec_fetch_site=site) == 200
    assert status(method="OPTIONS") == 405
    assert status(method="PUT") == 405


def test_a_header_that_is_given_twice_is_refused():
    twice = scope()
    twice["headers"].append((b"host", b"evil.example"))
    assert security.refusal(GUARD, twice)[0] == 400


def test_every_answer_forbids_foreign_scripts_frames_and_readers(page):
    answers = [
        page.get("/"),
        page.get("/static/app.js"),
        page.get("/api/state"),
        page.get("/nothing"),
        page.get("/", Host="evil.example"),
        page.ask("OPTIONS", "/api/state", Access_Control_Request_Method="POST"),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not [
            name for name in answer.headers if name.startswith("access-control")
        ]
    assert [answer.status for answer in answers] == [200, 200, 200, 404, 421, 405]


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere():
    text = (app.STATIC / "index.html").read_text(encoding="utf-8")
    for word in (
        "<style",
        " style=",
        "onclick",
        "onload",
        "javascript:",
        "http:",
        "//",
    ):
        assert word not in text.lower().replace("<!doctype", ""), word
    assert text.count("<script") == text.count('<script type="module" src="/static/')
    for path in app.STATIC.iterdir():
        known = path.read_text(encoding="utf-8").replace(
            "http://www.w3.org/2000/svg", ""
        )
        assert "http://" not in known and "https://" not in known, path
        assert path.name in (*app._FILES, "index.html")


def test_static_files_are_a_list_and_no_folder(page):
    for name in (
        "..%2fapp.py",
        "index.html",
        "%2e%2e/app.py",
        "app.css/../app.py",
        ".",
    ):
        assert page.get(f"/static/{name}").status == 404


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.png"
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)
    return path


def remove(page, *keys):
    for key in keys:
        assert page.post(f"/api/pictures/{key}/remove").status == 200


def test_a_file_that_is_too_large_is_refused_before_and_while_it_comes(page, tmp_path):
    answer = page.post("/api/pictures?name=a.png", b"x", Content_Length="900000000")
    assert answer.status == 413 and "--max_megabytes" in answer.json["error"]
    # A film may be larger, up to a limit of its own.
    answer = page.post("/api/pictures?name=a.mkv", b"x", Content_Length="700001")
    assert answer.status == 413 and "--max_film_gigabytes" in answer.json["error"]
    key = page.post("/api/pictures?name=a.mkv", b"x" * 600_000).json["key"]
    page.wait(key, pictures.FAILED)
    remove(page, key)
    # Without saying how large it is.
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        connection.sendall(
            f"POST /api/pictures?name=a.png HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
            f"Origin: {page.address}\r\nX-Token: {serving.TOKEN}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(5):
            connection.sendall(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
        assert b" 413 " in connection.recv(1000)
    assert page.state()["pictures"] == []
    assert list(page.folder.iterdir()) == []


def test_more_files_or_bytes_than_there_is_room_for(page, small, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    keys = [page.upload(small) for _ in range(4)]
    answer = page.post("/api/pictures?name=a.png", small.read_bytes())
    assert answer.status == 400 and "--max_files" in answer.json["error"]
    remove(page, *keys)
    keys = [page.upload(tmp_path / "noise.png")]
    page.wait(keys[0], pictures.DONE)
    keys.append(page.upload(tmp_path / "noise.png"))
    page.wait(keys[1], pictures.DONE)
    assert store.used(page.folder) > 2_100_001
    answer = page.post("/api/pictures?name=a.png", b"x" * 299_999)
    assert answer.status == 413 and "--max_gigabytes" in answer.json["error"]
    remove(page, *keys)
    assert list(page.folder.iterdir()) == []


def test_a_full_disk(page, small, monkeypatch):
    usage = store.shutil.disk_usage(page.folder)
    monkeypatch.setattr(
        store.shutil, "disk_usage", lambda path: usage._replace(free=10)
    )
    answer = page.post("/api/pictures?name=a.png", small.read_bytes())
    assert answer.status == 413 and "disk is full" in answer.json["error"]


def test_too_many_pixels_are_refused_before_they_are_decoded(page, tmp_path):
    pyvips.Image.black(8000, 8000).pngsave(str(tmp_path / "bomb.png"))
    key = page.upload(tmp_path / "bomb.png")
    found = page.wait(key, pictures.FAILED)
    assert found["line"].startswith("bomb.png: 8000×8000 pixels are more than")
    remove(page, key)


@pytest.mark.parametrize(
    "name",
    ["../../../etc/cron.d/x.png", "/etc/x.png", "..\\..\\x.png", "a/../../b.png", "..",
     "C:\\x.png", "\0.png", "x" * 5000 + ".png", "a\r\nSet-Cookie: x.png", ""],
)  # fmt: skip
def test_names_are_never_paths(page, small, name):
    key = page.upload(small, name=name or None)
    found = page.wait(key, pictures.DONE)
    inside = {p.relative_to(page.folder).parts[0] for p in page.folder.rglob("*")}
    assert inside == {key}
    for part in (found["name"], found["result"]["name"]):
        assert ".." not in part.split("/") and not part.startswith("/")
        assert "\\" not in part and ":" not in part and "\n" not in part
        assert max(map(len, part.split("/"))) < 255
    saved = page.get(f"/api/pictures/{key}/result")
    assert saved.body == small.read_bytes()
    assert "Set-Cookie" not in saved.headers
    remove(page, key)


@pytest.mark.parametrize(
    ("given", "relative", "parent"),
    [("a.png", "a.png", ""), ("Album/1950/a.png", "1950/a.png", "Album"),
     ("Album/a.png", "a.png", "Album"), ("../a.png", "a.png", ""),
     ("a/./b.png", "b.png", "a"), ("Straße 日本.jpg", "Straße 日本.jpg", ""),
     ("...", "picture", ""), (".hidden.png", ".hidden.png", "")],
)  # fmt: skip
def test_how_names_are_read(given, relative, parent):
    found = pictures.clean_name(given)
    assert (str(found[0]), found[1]) == (relative, parent)


def test_keys_lead_to_pictures_alone(page):
    for key in ("..", "%2e%2e", "..%2f..%2fetc", "x", "'"):
        assert page.get(f"/api/pictures/{key}/result").status == 404
        assert page.get(f"/api/pictures/{key}/before/0/0/0/0.png").status == 404
        assert page.post(f"/api/pictures/{key}/remove").status == 404


def test_nonsense_is_answered_in_one_line(page, small):
    key = page.upload(small)
    page.wait(key, pictures.DONE)
    good = dataclasses.asdict(pictures.Choices())
    for body in (
        b"{", b"[]", b"[" * 100_000, b"\xff", b"null",
        {"choices": None},
        {"choices": good | {"strength": 7}},
        {"choices": good | {"strength": float("nan")}},
        {"choices": good | {"model": "../../x"}},
        {"choices": good | {"ext": "exe"}},
        {"choices": good | {"output": "/etc"}},
        {"choices": good, "mask": 99},
        {"choices": good, "mask": "x"},
        {"choices": good, "mask": -1, "strokes": 7},
        {"choices": good, "mask": -1, "strokes": [{}]},
        {"choices": good, "mask": -1,
         "strokes": [{"erase": False, "size": 1e9, "points": [1, 2]}]},
        {"choices": good, "mask": -1,
         "strokes": [{"erase": False, "size": 1, "points": [1, float("inf")]}]},
    ):  # fmt: skip
        answer = page.post(f"/api/pictures/{key}/restore", body)
        assert answer.status == 400, body
        assert "\n" not in answer.json["error"]
        assert "Traceback" not in answer.json["error"]
    for tile in ("9/0/0", "0/9/0", "0/0/9"):
        assert page.get(f"/api/pictures/{key}/before/0/{tile}.png").status == 404
    answer = page.post(f"/api/pictures/{key}/restore", b" " * (17 * 2**20))
    assert answer.status == 413
    remove(page, key)


def test_no_traceback_and_no_path_reach_the_page(page, small, monkeypatch, capsys):
    def broken(*args):
        raise RuntimeError(f"secret of {page.folder}")

    monkeypatch.setattr(pictures.Pictures, "describe", broken)
    answer = page.get("/api/state")
    assert answer.status == 500
    assert "secret" not in answer.body.decode()
    assert "please report" in answer.json["error"]
    # It is printed after the answer was sent.
    shown = ""
    for _ in range(100):
        shown += capsys.readouterr().err
        if "RuntimeError: secret of" in shown:
            break
        time.sleep(0.02)
    assert "RuntimeError: secret of" in shown


def test_reasons_name_the_users_file_and_not_ours(page, small):
    for name in ("fails.png", "refuses.png"):
        key = page.upload(small, name=name)
        found = page.wait(key, pictures.FAILED)
        assert found["line"] == f"{name}: no good; take another"
        remove(page, key)
