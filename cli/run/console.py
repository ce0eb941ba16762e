"""The user's side of an attachment: this process's terminal or pipes."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli import terminal
from cli.context import Context
from cli.render.lines import PrefixedLines

STDIN, STDOUT, STDERR = 0, 1, 2
_PENDING_INPUTS = 4


class ProcessConsole:
    """What the user types and does, as requests; what the process writes, to the descriptors."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue[pb.AttachRequest] = asyncio.Queue()
        self._room = asyncio.Semaphore(_PENDING_INPUTS)

    async def next(self) -> pb.AttachRequest:
        """Returns the next thing that the user does."""
        request = await self._requests.get()
        if request.HasField("stdin"):
            self._room.release()
        return request

    async def show(self, data: bytes, *, is_error: bool) -> None:
        """Writes to standard output or standard error."""
        await terminal.write_all(STDERR if is_error else STDOUT, data)

    async def typed(self, data: bytes) -> None:
        """Adds input; waits while the other side is slow."""
        await self._room.acquire()
        self.did(pb.AttachRequest(stdin=data))

    def did(self, request: pb.AttachRequest) -> None:
        """Adds what the user does besides giving input."""
        self._requests.put_nowait(request)


@contextlib.asynccontextmanager
async def open_console(
    *, stdin: bool, tty: bool, detach_keys: bytes, on_signal: Callable[[str], None] | None = None
) -> AsyncIterator[ProcessConsole]:
    """Yields the console of this process; the terminal is as before when the block ends.

    Args:
        stdin: whether standard input is read.
        tty: whether the terminal is the process's: raw, with its size followed.
        detach_keys: the keys that leave the process alone, where standard input is a terminal.
        on_signal: takes the names of signals for the process, where it has no terminal of its own;
            by default they go with the input.
    """
    console = ProcessConsole()

    def resized(size: terminal.Size) -> None:
        console.did(
            pb.AttachRequest(resize=run_pb2.TerminalSize(rows=size.rows, columns=size.columns))
        )

    def signalled(name: str) -> None:
        console.did(pb.AttachRequest(signal=name))

    async with contextlib.AsyncExitStack() as stack:
        is_terminal = terminal.terminal_size(STDIN) is not None
        if tty:
            stack.enter_context(terminal.resizes(STDOUT, resized))
        else:
            stack.enter_context(terminal.forwarded_signals(on_signal or signalled))
        if stdin and tty and is_terminal:
            stack.enter_context(terminal.raw_mode(STDIN))
        if stdin:
            keys = terminal.DetachFilter(detach_keys) if is_terminal else None
            reading = asyncio.ensure_future(_read(console, keys))
            stack.push_async_callback(_end, reading)
        yield console


async def _read(console: ProcessConsole, keys: terminal.DetachFilter | None) -> None:
    reader = terminal.InputReader(STDIN)
    while data := await reader.next():
        leaves = False
        if keys is not None:
            data, leaves = keys.feed(data)
        if data:
            await console.typed(data)
        if leaves:
            console.did(pb.AttachRequest(detach=pb.Detach()))
            return
    console.did(pb.AttachRequest(stdin_closed=pb.StdinClosed()))


async def _end(task: asyncio.Future[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def open_lines(context: Context, names: Sequence[str]) -> PrefixedLines:
    """Returns this process's outputs for the lines of several runs, coloured on a terminal."""

    async def write(data: bytes, is_error: bool) -> None:
        await terminal.write_all(STDERR if is_error else STDOUT, data)

    wanted = not context.is_set("NO_COLOR")
    coloured = (wanted and os.isatty(STDOUT), wanted and os.isatty(STDERR))
    return PrefixedLines(names, write=write, coloured=coloured)


def process_terminal_size() -> run_pb2.TerminalSize | None:
    """Returns the size of this process's terminal, None without one."""
    size = terminal.terminal_size(STDOUT) or terminal.terminal_size(STDIN)
    return run_pb2.TerminalSize(rows=size.rows, columns=size.columns) if size else None
