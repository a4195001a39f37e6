"""What the page's server refuses before anything else sees a request.

A page that is served to one's own machine can be reached by every other page in the
same browser. So the name it is called by must be its own (DNS rebinding), each change
needs the page's origin and a token of this start (CSRF), nothing may be read from
elsewhere (no CORS header is ever sent), and the page itself runs no script but its own.
"""

import dataclasses
import hmac
import ipaddress
import json
import sys
import traceback
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable, Callable], Awaitable[None]]

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' blob:; connect-src 'self'; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Pictures stay out of the browser's cache, which outlives the program.
    "cache-control": "no-store",
}

BROKEN = "something went wrong; the terminal shows what, please report it"

_LOCAL = ("127.0.0.1", "localhost", "[::1]")


@dataclasses.dataclass(frozen=True)
class Guard:
    """Who is let in.

    Attributes:
      token: a secret of this start.
      port: what the server listens on.
      names: further names of this machine that it may be called by.
      addresses: whether it may be called by any address, such as 192.168.0.7; a page
        of another site cannot be.
      locked: whether the page itself is given only to who knows the token.
    """

    token: str
    port: int
    names: tuple[str, ...] = ()
    addresses: bool = False
    locked: bool = False


def knows(guard: Guard, given: str) -> bool:
    """Returns whether what was given is the token."""
    return hmac.compare_digest(given.encode(), guard.token.encode())


def is_own_host(guard: Guard, host: str) -> bool:
    """Returns whether a Host header names this server."""
    name, _, port = host.rpartition(":")
    if not name or name.endswith(":"):  # no port: that of HTTP
        name, port = host, "80"
    name = name.lower()
    if port != str(guard.port):
        return False
    if name in (*_LOCAL, *guard.names):
        return True
    if not guard.addresses:
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def refusal(guard: Guard, scope: Scope) -> tuple[int, str] | None:
    """Returns the status and line with which a request is refused, or None."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1")
        if key in headers and key in ("host", "origin", "x-token"):
            return 400, "a header was given twice"
        headers[key] = value.decode("latin-1")
    host = headers.get("host", "")
    if not is_own_host(guard, host):
        return 421, "this page is not served under that name; open the printed address"
    method, path = scope["method"], scope["path"]
    if method not in ("GET", "HEAD", "POST"):
        return 405, "this method is not used here"
    if method == "POST" and headers.get("origin") != f"http://{host}":
        return 403, "requests from other pages are refused"
    # Browsers say where a request comes from; a link or a typed address is "none".
    if path != "/" and headers.get("sec-fetch-site", "none") in (
        "cross-site",
        "same-site",
    ):
        return 403, "requests from other pages are refused"
    query = urllib.parse.parse_qs(scope["query_string"].decode("latin-1"))
    given = headers.get("x-token", "")
    if method != "POST" and not given:  # pictures and downloads are plain addresses
        given = query.get("token", [""])[0]
    if path.startswith("/api/") and not knows(guard, given):
        return 403, "the program was started again; load the page again"
    if path == "/" and guard.locked and not knows(guard, given):
        return 403, "open the whole address that was printed in the terminal"
    return None


def protect(app: App, guard: Guard) -> App:
    """Returns an ASGI app that refuses what it must and hides what went wrong.

    Args:
      app: what answers the requests that are let in.
      guard: who is let in.
    """

    async def protected(scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        started = False

        async def send_guarded(message: Scope) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = [
                    (name.encode(), value.encode()) for name, value in _HEADERS.items()
                ]
                names = {name for name, _ in own}
                given = [h for h in message["headers"] if h[0].lower() not in names]
                message = {**message, "headers": given + own}
            await send(message)

        async def answer(status: int, line: str) -> None:
            body = json.dumps({"error": line}).encode()
            headers = [(b"content-type", b"application/json")]
            await send_guarded(
                {"type": "http.response.start", "status": status, "headers": headers}
            )
            await send_guarded({"type": "http.response.body", "body": body})

        refused = refusal(guard, scope)
        if refused:
            await answer(*refused)
            return
        try:
            await app(scope, receive, send_guarded)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            if not started:
                await answer(500, BROKEN)

    return protected
