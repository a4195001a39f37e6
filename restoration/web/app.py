"""The page's server: what each address answers. Who may ask is `security`'s affair."""

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import secrets
import sys
import traceback
import urllib.parse
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from starlette import applications, requests, responses, routing

from restoration.base import config, errors, files
from restoration.film import container
from restoration.images import picture, preview
from restoration.web import brush, dispatch, pictures, security, store

STATIC = pathlib.Path(__file__).parent / "static"

# The files of the page, by address.
_FILES = {
    "app.css": "text/css",
    "app.js": "text/javascript",
    "api.js": "text/javascript",
    "viewer.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

# Bytes of a request that is no file.
_LARGEST_REQUEST = 16 * 2**20

# Bytes that are passed on at once.
_CHUNK = 1 << 20

# Bytes of an upload after which the disk is looked at again.
_CHECKED = 64 * 2**20

# Pixels of the shorter side of a picture in the list.
_THUMBNAIL = 128

# A color that is seen on greys and on flesh.
_TINT = (255, 64, 120)


_GONE = "this picture is not on the page any more"


class _Refused(Exception):
    """Becomes an answer with a status and one line."""

    def __init__(self, status: int, line: str):
        super().__init__(line)
        self.status, self.line = status, line


async def _refuse(request: requests.Request, error: Exception) -> responses.Response:
    if isinstance(error, errors.InputError):
        return responses.JSONResponse({"error": str(error)}, 400)
    assert isinstance(error, _Refused)
    return responses.JSONResponse({"error": error.line}, error.status)


async def _fail(request: requests.Request, error: Exception) -> responses.Response:
    # `security` prints what it was.
    return responses.JSONResponse({"error": security.BROKEN}, 500)


def _attachment(name: str) -> dict[str, str]:
    """Returns the header with which a browser saves what it is sent."""
    quoted = urllib.parse.quote(name, safe="")
    return {"content-disposition": f"attachment; filename*=UTF-8''{quoted}"}


class _Written:
    """A file that keeps what was written until it is taken, and cannot go back."""

    def __init__(self):
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


def zipped(paths: Mapping[str, pathlib.Path]) -> Iterator[bytes]:
    """Yields a ZIP archive of files by their names, as they are, uncompressed."""
    written = _Written()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for name, path in paths.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while data := source.read(_CHUNK):
                    target.write(data)
                    yield written.take()
    yield written.take()


class _Server:
    """Answers requests about some pictures and the worker that restores them."""

    def __init__(
        self,
        shown: pictures.Pictures,
        worker: dispatch.Worker,
        token: str,
        quit_: Callable[[], None],
    ):
        self.pictures, self.worker, self.token = shown, worker, token
        self.quit = quit_
        # Decoding takes a core; one is left for the worker.
        self._reading = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task] = set()

    # What is sent

    async def index(self, request: requests.Request) -> responses.Response:
        text = (STATIC / "index.html").read_text(encoding="utf-8")
        return responses.HTMLResponse(text.replace("{{token}}", self.token))

    async def file(self, request: requests.Request) -> responses.Response:
        name = request.path_params["name"]
        if name not in _FILES:
            raise _Refused(404, "there is no such file")
        return responses.FileResponse(STATIC / name, media_type=_FILES[name])

    async def state(self, request: requests.Request) -> responses.Response:
        limits = self.pictures.limits
        return responses.JSONResponse(
            {
                "worker": {"state": self.worker.state, **self.worker.about},
                "limits": {
                    "file": limits.file,
                    "film": limits.film,
                    "files": limits.files,
                },
                "suffixes": [*picture.SUFFIXES, *picture.REFUSED],
                "film_suffixes": container.SUFFIXES,
                "tile": preview.TILE,
                "pictures": self.pictures.describe(),
            }
        )

    def _find(self, request: requests.Request) -> pictures.Picture:
        try:
            return self.pictures.get(request.path_params["key"])
        except KeyError:
            raise _Refused(404, _GONE) from None

    def _shown(self, request: requests.Request) -> tuple[pathlib.Path, bool]:
        """Returns the levels that are asked for, and whether they are of a mask."""
        found, where = self._find(request), request.path_params
        side, number = where["side"], where["number"]
        if side == "before" and found.levels:
            return found.folder / "before.levels.tif", False
        if side == "after" and found.result and found.result.version == number:
            return found.result.folder / "after.levels.tif", False
        if side == "damage" and number < len(found.masks):
            return found.masks[number].shown, True
        raise _Refused(404, "this is not there any more")

    async def tile(self, request: requests.Request) -> responses.Response:
        path, mask = self._shown(request)
        place = [request.path_params[name] for name in ("level", "column", "row")]
        tint = _TINT if mask else None
        try:
            data = await asyncio.to_thread(preview.read_tile, path, *place, tint=tint)
        except IndexError as error:
            raise _Refused(404, str(error)) from None
        return responses.Response(data, media_type="image/png")

    async def small(self, request: requests.Request) -> responses.Response:
        path, _ = self._shown(request)
        data = await asyncio.to_thread(preview.read_small, path, _THUMBNAIL)
        return responses.Response(data, media_type="image/png")

    async def result(self, request: requests.Request) -> responses.Response:
        found = self._find(request)
        if not found.result:
            raise _Refused(404, "this picture is not restored yet")
        name = self.pictures.names()[found.key].name
        return responses.FileResponse(
            found.result.path,
            media_type="application/octet-stream",
            headers=_attachment(name),
        )

    async def archive(self, request: requests.Request) -> responses.Response:
        names = self.pictures.names()
        made = {
            str(name): self.pictures.all[key].result.path for key, name in names.items()
        }
        if not made:
            raise _Refused(404, "nothing is restored yet")
        return responses.StreamingResponse(
            zipped(made),
            media_type="application/zip",
            headers=_attachment(f"{pictures.SUFFIX}.zip"),
        )

    # What is received

    async def _receive(
        self, request: requests.Request, path: pathlib.Path, *, film: bool = False
    ) -> None:
        """Writes a request's body to a file, within the limits."""
        limits, size, checked = self.pictures.limits, 0, 0
        declared = request.headers.get("content-length", "0")
        declared = int(declared) if declared.isdecimal() else 0
        try:
            store.check_size(declared, limits, film=film)
            store.check_room(self.pictures.folder, declared, limits.total)
            with path.open("xb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    store.check_size(size, limits, film=film)
                    if size - checked > _CHECKED:
                        left = max(0, declared - size)
                        store.check_room(self.pictures.folder, left, limits.total)
                        checked = size
                    file.write(chunk)
        except errors.InputError as error:
            raise _Refused(413, str(error)) from None
        except OSError as error:
            if not files.is_full(error):
                raise
            raise _Refused(413, store.FULL) from None
        if not size:
            raise _Refused(400, "the file is empty")

    async def _json(self, request: requests.Request) -> Any:
        data = b""
        async for chunk in request.stream():
            data += chunk
            if len(data) > _LARGEST_REQUEST:
                raise _Refused(413, "the request is too large")
        try:
            values = config.parse(data or b"{}")
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise _Refused(400, "not a JSON object")
        return values

    async def upload(self, request: requests.Request) -> responses.Response:
        name = request.query_params.get("name", "")
        found = self.pictures.add(name)
        found.upload = request.query_params.get("upload", "")[:64]
        try:
            await self._receive(request, found.source, film=found.is_film)
        except BaseException as error:
            # Refused, or the client left: nothing of it stays.
            self.pictures.remove(found)
            if isinstance(error, requests.ClientDisconnect):
                return responses.Response(status_code=400)
            raise
        if found.key not in self.pictures.all:
            raise _Refused(404, _GONE)
        found.state = pictures.READING
        task = asyncio.create_task(self._prepare(found))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return responses.JSONResponse({"key": found.key}, 201)

    async def _prepare(self, found: pictures.Picture) -> None:
        """Looks at an uploaded picture and puts it into the queue."""
        async with self._reading:
            try:
                await asyncio.to_thread(self.pictures.read, found)
            except errors.InputError as error:
                self.pictures.fail(found, str(error))
            except Exception as error:  # of a decoder; the other pictures go on
                if found.key in self.pictures.all:
                    traceback.print_exc(file=sys.stderr)
                line = f"{found.source}: {type(error).__name__}; please report this"
                self.pictures.fail(found, line)
            else:
                self.pictures.open(found)
        if found.key not in self.pictures.all:  # removed meanwhile
            store.remove(found.folder)
        self.worker.feed()

    def _choices(
        self, values: Any, *, film: bool
    ) -> pictures.Choices | pictures.FilmChoices:
        if not isinstance(values, dict):
            raise errors.InputError("settings: not a JSON object")
        kind = pictures.FilmChoices if film else pictures.Choices
        choices = config.from_json(json.dumps(values), kind, source="settings")
        if isinstance(choices, pictures.Choices):
            known = self.worker.about.get("models", [])
            if choices.model and choices.model not in known:
                raise errors.InputError(
                    f"settings: there is no model {choices.model!r}"
                )
        return choices

    def _want(
        self,
        found: pictures.Picture,
        choices: pictures.Choices | pictures.FilmChoices,
        mask: pathlib.Path | None,
    ) -> None:
        """Puts a picture into the queue, where the command would take it."""
        only = isinstance(choices, pictures.Choices) and choices.only_damage
        if only and not mask and not self.worker.about.get("finds"):
            raise errors.InputError(
                "nothing is marked, so nothing would be changed; mark damage with the "
                "brush, or let everything be restored"
            )
        self.pictures.want(found, choices, mask)

    async def restore(self, request: requests.Request) -> responses.Response:
        found, values = self._find(request), await self._json(request)
        choices = self._choices(values.get("choices"), film=found.is_film)
        mask = await self._painted(found, values) if "mask" in values else None
        self._want(found, choices, mask)
        self.worker.feed()
        return responses.JSONResponse({})

    async def restore_all(self, request: requests.Request) -> responses.Response:
        values, count = await self._json(request), 0
        film = values.get("film") is True
        wanted = self._choices(values.get("choices"), film=film)
        for found in self.pictures.all.values():
            if found.is_film != film:
                continue
            choices = wanted
            if film and wanted.deinterlace == "ask":  # as it was chosen for this film
                own = found.choices.deinterlace
                choices = dataclasses.replace(wanted, deinterlace=own)
            same = found.choices == choices and found.state in (
                pictures.DONE, pictures.WAITING, pictures.WORKING
            )  # fmt: skip
            if same or not found.levels or found.state == pictures.WORKING:
                continue
            result = found.result
            mask = result.mask if result and result.corrected else -1
            kept = found.masks[mask].path if mask >= 0 else None
            try:
                self._want(found, choices, kept)
            except errors.InputError as error:  # the others are restored all the same
                self.pictures.fail(found, f"{found.relative}: {error}")
            else:
                count += 1
        self.worker.feed()
        return responses.JSONResponse({"count": count})

    async def cancel(self, request: requests.Request) -> responses.Response:
        found = self._find(request)
        if not self.pictures.cancel(found):
            self.worker.cancel(found.key)
        return responses.JSONResponse({})

    async def remove(self, request: requests.Request) -> responses.Response:
        found = self._find(request)
        self.worker.cancel(found.key)
        self.pictures.remove(found)
        return responses.JSONResponse({})

    async def _painted(
        self, found: pictures.Picture, values: Mapping[str, Any]
    ) -> pathlib.Path:
        strokes = brush.parse(values.get("strokes", []))
        number = values["mask"]
        if not isinstance(number, int):
            raise errors.InputError("the mask's number is missing")
        if not found.levels:
            raise errors.InputError("this picture is not read yet; wait a little")
        return await asyncio.to_thread(self.pictures.painted, found, number, strokes)

    async def save_mask(self, request: requests.Request) -> responses.Response:
        found, values = self._find(request), await self._json(request)
        if "mask" not in values:
            raise errors.InputError("the mask's number is missing")
        path = await self._painted(found, values)
        try:
            data = path.read_bytes()
        finally:
            path.unlink()
        return responses.Response(data, media_type="image/png")

    async def upload_mask(self, request: requests.Request) -> responses.Response:
        found = self._find(request)
        if not found.levels:
            raise errors.InputError("this picture is not read yet; wait a little")
        path = found.folder / f"upload-{secrets.token_hex(4)}"
        try:
            await self._receive(request, path)
            number = await asyncio.to_thread(self.pictures.add_mask, found, path)
        except requests.ClientDisconnect:
            return responses.Response(status_code=400)
        finally:
            path.unlink(missing_ok=True)
        return responses.JSONResponse({"mask": number}, 201)

    async def end(self, request: requests.Request) -> responses.Response:
        self.quit()
        return responses.JSONResponse({})


def make_app(
    folder: pathlib.Path,
    limits: store.Limits,
    guard: security.Guard,
    *,
    device: str = "auto",
    quit_: Callable[[], None] = lambda: None,
    stopped: Callable[[errors.InputError], None] = lambda error: None,
    command: tuple[str, ...] = dispatch.COMMAND,
) -> security.App:
    """Returns the ASGI app of the page.

    Args:
      folder: of the uploads, from `store.create`.
      limits: what is taken at most.
      guard: who is let in.
      device: where to compute.
      quit_: ends the program.
      stopped: is called when the worker cannot work at all.
      command: starts a worker.

    Returns:
      The app; its lifespan is that of the worker.
    """
    shown = pictures.Pictures(folder, limits)
    worker = dispatch.Worker(
        folder, device=device, take=shown.take, heard=shown.heard, command=command
    )
    server = _Server(shown, worker, guard.token, quit_)

    async def work() -> None:
        try:
            await worker.run()
        except errors.InputError as error:
            stopped(error)

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(work())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    get, post = {"methods": ["GET"]}, {"methods": ["POST"]}
    one = "/api/pictures/{key}"
    side = one + "/{side}/{number:int}"
    tile = side + "/{level:int}/{column:int}/{row:int}.png"
    app = applications.Starlette(
        routes=[
            routing.Route("/", server.index, **get),
            routing.Route("/static/{name}", server.file, **get),
            routing.Route("/api/state", server.state, **get),
            routing.Route("/api/pictures", server.upload, **post),
            routing.Route("/api/restore", server.restore_all, **post),
            routing.Route("/api/end", server.end, **post),
            routing.Route("/api/archive", server.archive, **get),
            routing.Route(one + "/result", server.result, **get),
            routing.Route(one + "/restore", server.restore, **post),
            routing.Route(one + "/cancel", server.cancel, **post),
            routing.Route(one + "/remove", server.remove, **post),
            routing.Route(one + "/mask", server.upload_mask, **post),
            routing.Route(one + "/mask/save", server.save_mask, **post),
            routing.Route(side + "/small.png", server.small, **get),
            routing.Route(tile, server.tile, **get),
        ],
        exception_handlers={
            errors.InputError: _refuse,
            _Refused: _refuse,
            Exception: _fail,
        },
        lifespan=lifespan,
    )
    return security.protect(app, guard)
