"""The server's side of the worker process: one task at a time, whatever happens to it.

A worker that dies fails the picture it worked on, in one line, and is replaced. One
that does not stop when a picture is cancelled is killed, and replaced.
"""

import asyncio
import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from restoration.base import errors

# Seconds that a worker has to stop by itself.
_PATIENCE = 4.0

# So often a worker may die before it was ready; then the program gives up.
_STARTS = 3

COMMAND = (sys.executable, "-m", "restoration.web.worker")


class Worker:
    """Keeps one worker process busy.

    Attributes:
      state: "starting", "ready" or "stopped".
      about: what the worker said of itself when it was ready.
      process: the running one, or None.
      current: the key of the task that it works on, or "".
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        device: str,
        take: Callable[[], dict[str, Any] | None],
        heard: Callable[[dict[str, Any]], None],
        command: Sequence[str] = COMMAND,
    ):
        """Starts nothing yet; see `run`.

        Args:
          folder: of the uploads, which a worker deletes when the server is killed.
          device: where to compute.
          take: gives the fields of the next `worker.Task`, or None.
          heard: is given each message about a task.
          command: starts a worker.
        """
        self.state, self.about, self.current = "starting", {}, ""
        self.process: asyncio.subprocess.Process | None = None
        self._folder, self._device, self._command = folder, device, command
        self._take, self._heard = take, heard
        self._cancelled = ""

    async def run(self) -> None:
        """Keeps a worker running until the task is cancelled.

        Raises:
          InputError: when the worker cannot work at all, such as without its device.
        """
        deaths = 0
        try:
            while deaths < _STARTS:
                self.state = "starting"
                self.process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=1 << 22,
                )
                self._say(folder=str(self._folder), device=self._device)
                ready = await self._listen()
                deaths = 0 if ready else deaths + 1
                await self._end()
                self._bury()
            raise errors.InputError(
                "the process that restores pictures does not start; the lines above "
                "say why, please report it"
            )
        finally:
            self.state = "stopped"
            await self._end(farewell=True)

    async def _listen(self) -> bool:
        """Passes on what the worker says until it dies; returns if it was ready."""
        ready = False
        while line := await self.process.stdout.readline():
            message = json.loads(line)
            event = message.pop("event")
            if event == "refused":
                raise errors.InputError(message["error"])
            if event == "ready":
                ready, self.state, self.about = True, "ready", message
            else:
                if event != "progress":
                    self.current = ""
                self._heard({"event": event, **message})
            self.feed()
        return ready

    def _bury(self) -> None:
        """Tells of the task that a dead worker leaves behind."""
        key, self.current = self.current, ""
        if not key:
            return
        if key == self._cancelled:
            self._heard({"event": "cancelled", "key": key})
            return
        code = self.process.returncode
        reason = "it was killed" if code and code < 0 else f"code {code}"
        line = (
            f"the process that restores pictures ended in the middle ({reason}; "
            "perhaps the memory was used up); try again, or a smaller picture"
        )
        self._heard({"event": "done", "key": key, "error": line})

    def _say(self, **fields: Any) -> None:
        with contextlib.suppress(OSError):  # a dead worker is noticed by `_listen`
            self.process.stdin.write(json.dumps(fields).encode() + b"\n")

    def feed(self) -> None:
        """Gives the worker its next task, where it has none."""
        if self.state != "ready" or self.current:
            return
        task = self._take()
        if task:
            self.current, self._cancelled = task["key"], ""
            self._say(task=task)

    def cancel(self, key: str) -> None:
        """Stops the work on a task, at the latest by killing the worker."""
        if key != self.current or self._cancelled == key:
            return
        self._cancelled = key
        self._say(cancel=key)
        process = self.process

        def insist() -> None:
            if self.current == key == self._cancelled and process is self.process:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

        asyncio.get_running_loop().call_later(_PATIENCE, insist)

    async def _end(self, *, farewell: bool = False) -> None:
        """Makes sure that the worker is gone."""
        process = self.process
        if process is None:
            return
        if farewell and process.returncode is None:
            self._say(end=True)
        # One that has just died is waited for, since a signal to it would lose its
        # return code.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _PATIENCE if farewell else 1.0)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
