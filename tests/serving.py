"""Runs the page's server in tests, in a thread, and asks it as a browser would."""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import pathlib
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator

import uvicorn

from restoration import serve
from restoration.web import app, security, store

TOKEN = "t" * 32

# A worker without JAX' compiler, which fails in all the ways that a worker can.
FAKE = (sys.executable, "-m", "tests.web.fake_worker")


@dataclasses.dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclasses.dataclass
class Page:
    """A server that runs, and the folder of its uploads."""

    port: int
    folder: pathlib.Path
    failures: list

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, *, token=TOKEN, **headers):
        """Sends a request as the page's own script would; headers may be replaced."""
        own = {
            "Host": f"127.0.0.1:{self.port}",
            "Origin": self.address,
            "X-Token": token,
        }
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True)
            for name, value in own.items():
                if value is not None:
                    connection.putheader(name, value)
            if isinstance(body, dict):
                body = json.dumps(body).encode()
            if body is not None and "Content-Length" not in own:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.ask("POST", path, {} if body is None else body, **options)

    def upload(self, path, *, name=None):
        """Uploads a file; returns its key."""
        query = urllib.parse.urlencode({"name": name or path.name})
        answer = self.post(f"/api/pictures?{query}", path.read_bytes())
        assert answer.status == 201, answer.body
        return answer.json["key"]

    def state(self):
        return self.get("/api/state").json

    def picture(self, key):
        return next((p for p in self.state()["pictures"] if p["key"] == key), None)

    def wait(self, key, *states, seconds=90):
        """Waits until a picture has come to one of some states."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.picture(key)
            if found["state"] in states:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{found['state']} after {seconds} s, not {states}")


@contextlib.contextmanager
def page(*, limits=None, command=FAKE, device="cpu", **guard) -> Iterator[Page]:
    """Runs a server until the end of the block; nothing of it stays."""
    listening = serve.listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    folder = store.create()
    failures: list = []
    served = app.make_app(
        folder,
        limits or store.Limits(),
        security.Guard(TOKEN, port, **guard),
        device=device,
        stopped=failures.append,
        command=command,
    )
    config = uvicorn.Config(
        served, log_level="error", ws="none", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve([listening])), daemon=True
    )
    thread.start()
    try:
        yield Page(port, folder, failures)
    finally:
        server.should_exit = True
        thread.join(30)
        store.remove(folder)
        assert not thread.is_alive()
