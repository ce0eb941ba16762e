"""An attachment: what is typed goes to a process, what it writes comes out, until it ends.

A workload goes on without its client, and its log has what it wrote. So a connection that is lost
is taken up again. With `replay` the log is replayed, and as many bytes of each stream as were shown
are left out; without it what was written meanwhile stays in the log. What was typed meanwhile is
sent then. Signals, sizes and leaving go ahead of what is typed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.losing import run_goes_on
from lns.client.running.ports import Runner
from lns.client.running.typed_input import TypedInput
from services.core.errors import AttachLagging, GuestUnreachable, ServiceUnavailable

_HELD_SECONDS = 10.0
"""How long a user who leaves waits until what was typed after a lost connection can be sent."""

_DETACH_SECONDS = 1.0
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.2


class Console(Protocol):
    """The user's side."""

    async def next_input(self) -> bytes:
        """Returns what the user types next; nothing, once, at its end."""
        ...

    async def next_control(self) -> pb.AttachRequest:
        """Returns the next thing that the user does beside typing: a signal, a size, leaving."""
        ...

    async def show(self, data: bytes, *, is_error: bool) -> None:
        """Writes output of the process, all of it.

        Raises:
            BrokenPipeError: nobody reads it any more.
        """
        ...


class Attachment:
    """Connects a console with the workload of a run, or with a process that it starts in it.

    Args:
        runner: the VM runner.
        start: what to attach to; of a workload, with `replay`.
        console: the user's side.
        revive: called before a lost connection is taken up again; makes the services answer.
        note: shows a line to the user, who may have missed output without `replay`.
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
        self._input = TypedInput()
        self._control: asyncio.Future[pb.AttachRequest] | None = None
        self._leaving = asyncio.Event()
        self._broken = asyncio.Event()
        self._is_connected = False
        self._is_exec = start.HasField("exec")

    async def follow(self) -> run_pb2.ExitStatus | None:
        """Returns how the process ended, or None when the user left it.

        Raises:
            BrokenPipeError: nobody reads the output; an exec was ended by that.
            LnsError: the service refused, or stayed out of reach.
        """
        typing = asyncio.ensure_future(self._type())
        lasting = contextlib.nullcontext() if self._is_exec else run_goes_on(self._start.run)
        try:
            with lasting:
                return await self._follow()
        finally:
            typing.cancel()
            if self._control is not None:
                self._control.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await typing

    async def _type(self) -> None:
        while data := await self._console.next_input():
            await self._input.add(data)
        await self._input.add(b"")

    async def _follow(self) -> run_pb2.ExitStatus | None:
        failures = 0
        again = False
        while True:
            self._input.connect(again=again)
            try:
                return await self._leave_or(self._connect())
            except (ServiceUnavailable, GuestUnreachable, AttachLagging):
                failures = 1 if self._is_connected else failures + 1
                if self._is_exec or failures > _ATTEMPTS:
                    raise
                again = again or self._is_connected
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
            if self._broken.is_set():
                raise BrokenPipeError
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
            elif kind == "stdin_ready":
                self._input.ready(response.stdin_ready.position, response.stdin_ready.boot)
            elif kind == "stdin_taken":
                self._input.taken(response.stdin_taken)
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
        if skip >= len(data) or self._broken.is_set():
            return
        try:
            await self._console.show(data[skip:], is_error=is_error)
        except BrokenPipeError:
            if not self._is_exec:
                raise
            self._broken.set()
            self._leaving.set()  # the process has a moment to end by itself
        self._shown[is_error] += len(data) - skip

    async def _requests(self, ended: asyncio.Event) -> AsyncIterator[pb.AttachRequest]:
        """Yields what the user does, ahead of what they type, until the process has ended."""
        yield pb.AttachRequest(start=self._start)
        data = asyncio.ensure_future(self._input.next())
        over = asyncio.ensure_future(ended.wait())
        broken = asyncio.ensure_future(self._broken.wait())
        waiting: set[asyncio.Future[Any]] = {data, over, broken}
        try:
            while True:
                control = self._next_control()
                await asyncio.wait({control, *waiting}, return_when=asyncio.FIRST_COMPLETED)
                if over.done():
                    return
                if control.done():
                    if control.result().HasField("detach"):
                        async for rest in self._last_words(data):
                            yield pb.AttachRequest(stdin=rest)
                        waiting.discard(data)
                        self._leaving.set()
                    self._control = None  # not before: a connection that is lost meanwhile keeps it
                    yield control.result()
                elif broken in waiting and broken.done():
                    waiting.remove(broken)
                    yield pb.AttachRequest(output_closed=pb.OutputClosed())
                elif data.done():
                    waiting.remove(data)
                    if data.result():
                        yield pb.AttachRequest(stdin=data.result())
                        data = asyncio.ensure_future(self._input.next())
                        waiting.add(data)
                    else:
                        yield pb.AttachRequest(stdin_closed=pb.StdinClosed())
        finally:
            for task in (data, over, broken):
                task.cancel()

    async def _last_words(self, data: "asyncio.Future[bytes]") -> AsyncIterator[bytes]:
        """Yields what was typed before the user left; `data` waits for the next of it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._input.released(), _HELD_SECONDS)
        data.cancel()
        await asyncio.wait({data})
        if not data.cancelled() and data.result():
            yield data.result()
        while rest := self._input.next_now():
            yield rest

    def _next_control(self) -> asyncio.Future[pb.AttachRequest]:
        """Returns what the user does next; what a lost connection left is for the next one."""
        if self._control is None:
            self._control = asyncio.ensure_future(self._console.next_control())
        return self._control
