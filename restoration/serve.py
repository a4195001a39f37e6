"""Restores photographs and films in the browser, on a page that this machine serves.

python -m restoration.serve

What is uploaded lies in a temporary folder of the user alone and is deleted when the
program ends. Needs the extra `web`.
"""

import asyncio
import contextlib
import dataclasses
import os
import secrets
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator

from etils import epy

from restoration.base import cli, config, errors
from restoration.web import security, store

with epy.lazy_imports():
    import uvicorn

    from restoration.web import app

_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """Options of `python -m restoration.serve`."""

    port: int = config.option(
        8600, help="port to listen on; 0: any that is free", minimum=0, maximum=65535
    )
    host: str = config.option(
        "127.0.0.1",
        help="address to listen on; others than this machine's own let other machines "
        "in, by an address with a token",
    )
    browser: bool = config.option(True, help="open the page in the browser")
    device: str = config.option(
        "auto", help="where to compute", choices=("auto", "cpu", "gpu", "tpu")
    )
    max_pixels: int = config.option(
        400_000_000, help="refuse pictures and frames of more pixels", minimum=1
    )
    max_megabytes: int = config.option(
        2000, help="refuse pictures of more megabytes", minimum=1
    )
    max_film_gigabytes: int = config.option(
        50, help="refuse films of more gigabytes", minimum=1
    )
    max_gigabytes: int = config.option(
        200,
        help="the most that all files may take on the disk, results included; a film "
        "needs three times its size",
        minimum=1,
    )
    max_files: int = config.option(2000, help="the most files at a time", minimum=1)

    def __post_init__(self):
        """Checks limits."""
        config.check(self)


def _needed_packages() -> None:
    try:
        _ = uvicorn.Server, app.make_app
    except ImportError as error:
        raise errors.InputError(
            f"{error.name} is missing; pip install 'film-restoration[web]'"
        ) from None


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
      InputError: when the port is in use or the address is not this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        found = socket.socket(family, kind)
        if os.name == "posix":  # elsewhere it would take over a port in use
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        raise errors.InputError(
            f"--host={host} --port={port}: {error.strerror or error}; the page may "
            "be open already, or give another --port (0: any that is free)"
        ) from None
    return found


def open_browser(address: str) -> bool:
    """Opens an address in the browser; returns whether there is one with a window."""
    windows = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, windows)):
        return False  # a browser without a window would take over the terminal
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False


def _show(address: str) -> None:
    """Opens the page, and says so where that fails."""
    if not open_browser(address):
        print("No browser was found here; open the address above in one.", flush=True)


@contextlib.contextmanager
def _stopped_by_signals(server: "uvicorn.Server") -> Iterator[None]:
    """Lets the server end orderly when the program is to end."""

    def stop(*args: object) -> None:
        server.should_exit = True

    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(options: ServeOptions) -> None:
    """Serves the page until it is ended.

    Raises:
      InputError: when it cannot be started.
    """
    _needed_packages()
    store.remove_abandoned()
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(listen(options.host, options.port))
        port = listening.getsockname()[1]
        local = options.host in _LOCAL
        guard = security.Guard(
            secrets.token_urlsafe(24),
            port,
            names=() if local else (options.host.lower(), socket.gethostname().lower()),
            addresses=not local,
            locked=not local,
        )
        name = f"[{options.host}]" if ":" in options.host else options.host
        if options.host in ("0.0.0.0", "::"):
            name = socket.gethostname()
        address = f"http://{name}:{port}/"
        if guard.locked:
            address += f"?token={guard.token}"
        folder = store.create()
        stack.callback(store.remove, folder)
        failures: list[errors.InputError] = []

        def stop(error: errors.InputError | None = None) -> None:
            failures.extend([error] if error else [])
            server.should_exit = True

        limits = store.Limits(
            file=options.max_megabytes * 10**6,
            film=options.max_film_gigabytes * 10**9,
            total=options.max_gigabytes * 10**9,
            files=options.max_files,
            pixels=options.max_pixels,
        )
        page = app.make_app(
            folder, limits, guard, device=options.device, quit_=stop, stopped=stop
        )
        server = uvicorn.Server(
            uvicorn.Config(
                page,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=2,
            )
        )
        # Its own would end the process before the folder is deleted.
        server.capture_signals = contextlib.nullcontext
        print(f"Open {address} in a browser; Ctrl-C ends.", flush=True)
        if guard.locked:
            print(
                "Whoever knows this address can use the page; it is not encrypted.",
                flush=True,
            )
        if options.browser:
            threading.Thread(target=_show, args=(address,), daemon=True).start()
        with _stopped_by_signals(server):
            asyncio.run(server.serve([listening]))
        if failures:
            raise failures[0]
    with contextlib.suppress(OSError):  # the terminal may be closed
        print("Ended; what was uploaded is deleted, what you saved stays.", flush=True)


def main(options: ServeOptions) -> None:
    """Entry point."""
    serve(options)


if __name__ == "__main__":
    cli.run(main, ServeOptions)
