"""A process in a run as a program talks to it: written to, read from, signalled, waited for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.attachment import Attachment
from lns.client.values import Completed, Output
from services.core.errors import LimitExceeded

_WAITING_PIECES = 16
_KILLED_SECONDS = 5.0


class Collector:
    """Keeps what a process writes, up to a bound, and gives it an input; implements `Console`.

    Args:
        given: its standard input, all of it.
        most: bytes of output that are kept; beyond them the process gets a broken pipe.
    """

    def __init__(self, given: bytes, most: int) -> None:
        self._given = [given] if given else []
        self._room = most
        self._kept: dict[bool, bytearray] = {False: bytearray(), True: bytearray()}
        self._control: asyncio.Queue[pb.AttachRequest] = asyncio.Queue(1)

    async def next_input(self) -> bytes:
        """See `Console`."""
        return self._given.pop() if self._given else b""

    async def next_control(self) -> pb.AttachRequest:
        """See `Console`."""
        return await self._control.get()

    async def show(self, data: bytes, *, is_error: bool) -> None:
        """See `Console`."""
        self._room -= len(data)
        if self._room < 0:
            raise BrokenPipeError
        self._kept[is_error] += data

    async def follow(self, attachment: Attachment, within: float | None) -> Completed:
        """Returns how the process of an attachment ended.

        Args:
            attachment: with this console.
            within: seconds after which it gets KILL; None for no limit.

        Raises:
            TimeoutError: it took too long, and was killed.
            LimitExceeded: it wrote too much, and was ended.
            LnsError: as the service gave it.
        """
        following = asyncio.ensure_future(attachment.follow())
        try:
            done, _ = await asyncio.wait({following}, timeout=within)
            if not done:
                self._control.put_nowait(pb.AttachRequest(signal="KILL"))
                await asyncio.wait({following}, timeout=_KILLED_SECONDS)
                raise TimeoutError(f"the process ran longer than {within:g} s and was killed")
            try:
                return completed(await following, self._kept)
            except BrokenPipeError:
                raise LimitExceeded(
                    "the process wrote more than may be kept, and was ended",
                    hint="raise max_output, or read it piece by piece with `process`",
                ) from None
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await following


class Process:
    r"""A process that is talked to while it runs. A context manager: leaving it ends the process.

        async with run.process("python3", "-i") as process:
            await process.write(b"print(6 * 7)\n")
            async for output in process:
                ...

    Made by `Run.process`; `Run.attach` gives one for the workload, which goes on when it is left.
    """

    def __init__(self, connect: Callable[["Process"], Attachment], *, ends: bool) -> None:
        self._connect = connect
        self._ends = ends
        self._input: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_PIECES)
        self._control: asyncio.Queue[pb.AttachRequest] = asyncio.Queue(_WAITING_PIECES)
        self._output: asyncio.Queue[Output] = asyncio.Queue(_WAITING_PIECES)
        self._following: asyncio.Future[run_pb2.ExitStatus | None] | None = None
        self._is_left = False

    async def write(self, data: bytes) -> None:
        """Writes to its standard input; waits while the process takes nothing."""
        if data:
            await self._input.put(data)

    async def close_input(self) -> None:
        """Ends its standard input."""
        await self._input.put(b"")

    async def signal(self, name: str) -> None:
        """Sends it a signal, by its name without `SIG`."""
        await self._control.put(pb.AttachRequest(signal=name))

    async def wait(self) -> Completed:
        """Returns how it ended; what was not read of its output is dropped.

        Raises:
            LnsError: as the service gave it.
        """
        async for _ in self:
            pass
        return completed(await self._connected(), {})

    async def __aiter__(self) -> AsyncIterator[Output]:
        """Yields what it writes, until it ends."""
        following = self._connected()
        while not (following.done() and self._output.empty()):
            getting = asyncio.ensure_future(self._output.get())
            waited: set[asyncio.Future[Any]] = {getting, following}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                yield getting.result()
            else:
                getting.cancel()

    async def __aenter__(self) -> Self:
        """Connects."""
        self._following = asyncio.ensure_future(self._connect(self).follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends it with KILL if it still runs, or leaves the workload."""
        following = self._connected()
        self._is_left = True
        while not self._output.empty():
            self._output.get_nowait()
        if not following.done():
            kill, leave = pb.AttachRequest(signal="KILL"), pb.AttachRequest(detach=pb.Detach())
            with contextlib.suppress(asyncio.QueueFull):
                self._control.put_nowait(kill if self._ends else leave)
            await asyncio.wait({following}, timeout=_KILLED_SECONDS)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await following

    def _connected(self) -> asyncio.Future[run_pb2.ExitStatus | None]:
        if self._following is None:
            raise RuntimeError("a process is used inside `async with`")
        return self._following

    # ---- the side of the attachment: see `Console` ----

    async def next_input(self) -> bytes:
        """See `Console`."""
        return await self._input.get()

    async def next_control(self) -> pb.AttachRequest:
        """See `Console`."""
        return await self._control.get()

    async def show(self, data: bytes, *, is_error: bool) -> None:
        """See `Console`; output that nobody reads holds the process up, as a pipe does."""
        if not self._is_left:
            await self._output.put(Output(data, is_error))


def completed(
    status: run_pb2.ExitStatus | None, kept: Mapping[bool, bytes | bytearray]
) -> Completed:
    """Returns how a process ended; one that was left has not, and counts as code 0."""
    status = status or run_pb2.ExitStatus()
    return Completed(
        code=status.code,
        signal=status.signal,
        oom_killed=status.oom_killed,
        stdout=bytes(kept.get(False, b"")),
        stderr=bytes(kept.get(True, b"")),
    )
