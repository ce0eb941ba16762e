"""An attachment: what is typed goes to a process, what it writes comes out, until it ends.

A workload goes on without its client, and its log has what it wrote. So a connection that is lost
is taken up again. With `replay` the log is replayed, and as many bytes of each stream as were shown
are left out; without it what was written meanwhile stays in the log.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.run.ports import Runner
from services.core.errors import AttachLagging, GuestUnreachable, ServiceUnavailable

_DETACH_SECONDS = 1.0
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.2


class Console(Protocol):
    """The user's side."""

    async def next(self) -> pb.AttachRequest:
        """Returns the next thing that the user does: input, its end, a new size, leaving."""
        ...

    async def show(self, data: bytes, *, is_error: bool) -> None:
        """Writes output of the process, all of it."""
        ...


class Attachment:
    """Connects a console with the workload of a run, or with a process that it starts in it.

    Args:
        runner: the VM runner.
        start: what to attach to; of a workload, with `replay`.
        console: the user's side.
        revive: called before a lost connection is taken up again; makes the services answer.
        note: shows a line to the person, who may have missed output without `replay`.
    """

    def __init__(
        self,
        runner: Runner,
        start: pb.AttachStart,
        console: Console,
        *,
        revive: Callable[[], Awaitable[None]],
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._runner = runner
        self._start = start
        self._console = console
        self._revive = revive
        self._note = note
        self._shown = {False: 0, True: 0}
        self._replayed = {False: 0, True: 0}
        self._input_ended = False
        self._leaving = asyncio.Event()
        self._is_connected = False

    async def follow(self) -> run_pb2.ExitStatus | None:
        """Returns how the process ended, or None when the user left it.

        Raises:
            LnsError: the service refused, or stayed out of reach.
        """
        failures = 0
        while True:
            try:
                return await self._leave_or(self._connect())
            except (ServiceUnavailable, GuestUnreachable, AttachLagging):
                failures = 1 if self._is_connected else failures + 1
                if self._start.HasField("exec") or failures > _ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS * failures)
                await self._revive()
                if self._is_connected and not self._start.replay:
                    run = self._start.run
                    self._note(f"lns: attached again; `lns logs {run}` has what was missed")

    async def _leave_or(
        self, connection: Awaitable[run_pb2.ExitStatus | None]
    ) -> run_pb2.ExitStatus | None:
        """Waits for the connection's end, but not for long once the user has left."""
        connected = asyncio.ensure_future(connection)
        left = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait({connected, left}, return_when=asyncio.FIRST_COMPLETED)
            return await connected if connected.done() else None
        finally:
            for task in (connected, left):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _left(self) -> None:
        await self._leaving.wait()
        await asyncio.sleep(_DETACH_SECONDS)

    async def _connect(self) -> run_pb2.ExitStatus | None:
        self._is_connected = False
        self._replayed = {False: 0, True: 0}
        if not self._start.replay:
            self._shown = {False: 0, True: 0}
        ended = asyncio.Event()
        exited: run_pb2.ExitStatus | None = None
        async for response in self._runner.Attach(self._requests(ended)):
            self._is_connected = True
            kind = response.WhichOneof("message")
            if kind == "stdout":
                await self._show(response.stdout, is_error=False)
            elif kind == "stderr":
                await self._show(response.stderr, is_error=True)
            elif kind == "exited":
                exited = response.exited
                ended.set()
            elif kind == "detached":
                ended.set()
                return None
        if exited is None:
            raise ServiceUnavailable("the connection to the run ended before the process did")
        return exited

    async def _show(self, data: bytes, *, is_error: bool) -> None:
        skip = max(0, min(len(data), self._shown[is_error] - self._replayed[is_error]))
        self._replayed[is_error] += len(data)
        if skip < len(data):
            await self._console.show(data[skip:], is_error=is_error)
            self._shown[is_error] += len(data) - skip

    async def _requests(self, ended: asyncio.Event) -> AsyncIterator[pb.AttachRequest]:
        yield pb.AttachRequest(start=self._start)
        if self._input_ended:
            yield pb.AttachRequest(stdin_closed=pb.StdinClosed())
        over = asyncio.ensure_future(ended.wait())
        try:
            while True:
                coming = asyncio.ensure_future(self._console.next())
                try:
                    await asyncio.wait({coming, over}, return_when=asyncio.FIRST_COMPLETED)
                except BaseException:
                    coming.cancel()
                    raise
                if over.done():
                    coming.cancel()
                    return
                request = coming.result()
                self._input_ended |= request.HasField("stdin_closed")
                yield request
                if request.HasField("detach"):
                    self._leaving.set()
        finally:
            over.cancel()
