"""The user's side of an attachment: this process's terminal or pipes."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli import terminal
from cli.context import Context
from cli.render.lines import PrefixedLines
from cli.run.screen import Screen

STDIN, STDOUT, STDERR = 0, 1, 2
_PENDING_INPUTS = 4
_HELD_MOST = 4 << 20
_SETTLE_SECONDS = 0.7
_REDRAW_SECONDS = 0.3
_LINE_MOST = 64 * 1024
"""Bytes of a line that is typed: a key may be long."""
_FLUSH_SECONDS = 1.0


class ProcessConsole:
    """What the user types and does; what the process writes, to the descriptors.

    Attributes:
        left_by: name of the signal that made the client leave, if one did.
    """

    def __init__(self) -> None:
        self._input: asyncio.Queue[bytes] = asyncio.Queue(_PENDING_INPUTS)
        self._control: asyncio.Queue[pb.AttachRequest] = asyncio.Queue()
        self.left_by = ""
        self._screen = Screen()
        self._held: list[tuple[int, bytes]] | None = None
        self._held_bytes = 0
        self._released = asyncio.Event()
        self._answers: TerminalAnswers | None = None

    async def next_input(self) -> bytes:
        """Returns what the user types next; nothing, once, at its end."""
        data = await self._input.get()
        self._input.task_done()
        return data

    async def next_control(self) -> pb.AttachRequest:
        """Returns the next thing that the user does beside typing."""
        return await self._control.get()

    async def show(self, data: bytes, *, is_error: bool) -> None:
        """Writes to standard output or standard error; keeps it while a question stands there."""
        descriptor = STDERR if is_error else STDOUT
        while self._held is not None:
            if self._held_bytes < _HELD_MOST:
                self._held.append((descriptor, data))
                self._held_bytes += len(data)
                return
            await self._released.wait()
        self._screen.feed(data)
        await terminal.write_all(descriptor, data)

    @contextlib.asynccontextmanager
    async def asking(self, lines: list[str]) -> AsyncIterator["TerminalAnswers"]:
        """Shows a question on a screen of its own while the block runs."""
        self._held, self._held_bytes, self._released = [], 0, asyncio.Event()
        self._answers = answers = TerminalAnswers()
        was_alternate = self._screen.is_alternate
        try:
            await terminal.write_all(STDOUT, b"\a" + self._screen.open())
            for line in lines:
                await answers.say(line)
            yield answers
        finally:
            self._answers = None
            await terminal.write_all(STDOUT, self._screen.close())
            held, self._held = self._held, None
            for descriptor, data in held:
                self._screen.feed(data)
                await terminal.write_all(descriptor, data)
            self._released.set()
            if was_alternate:
                self._draw_again()

    def _draw_again(self) -> None:
        """Has a program that fills the screen draw it: the size changes, and changes back.

        A program that looked only after both would find its size unchanged, and draw nothing.
        """
        size = process_terminal_size()
        if size is None:
            return
        smaller = run_pb2.TerminalSize(rows=max(1, size.rows - 1), columns=size.columns)
        self.did(pb.AttachRequest(resize=smaller))
        asyncio.get_running_loop().call_later(_REDRAW_SECONDS, self._tell_size)

    def _tell_size(self) -> None:
        size = process_terminal_size()
        if size is not None:
            self.did(pb.AttachRequest(resize=size))

    async def typed(self, data: bytes) -> None:
        """Adds input, or its end; waits while the other side is slow.

        It answers a question that stands there.
        """
        if self._answers is not None and data:
            self._answers.typed(data)
            return
        await self._input.put(data)

    async def flushed(self) -> None:
        """Waits until what was typed was taken, though not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._input.join()

    def did(self, request: pb.AttachRequest) -> None:
        """Adds what the user does beside typing."""
        self._control.put_nowait(request)

    def resized(self, size: terminal.Size) -> None:
        """Adds a new size of the terminal."""
        self.did(
            pb.AttachRequest(resize=run_pb2.TerminalSize(rows=size.rows, columns=size.columns))
        )

    def signalled(self, name: str) -> None:
        """Adds a signal for the process."""
        self.did(pb.AttachRequest(signal=name))

    def left(self, name: str) -> None:
        """Leaves because of a signal."""
        self.left_by = name
        self.did(pb.AttachRequest(detach=pb.Detach()))


class TerminalAnswers:
    """Lines that a person types at a raw terminal while a question stands there.

    What was typed for the program, and arrives in the first moment, is no answer.
    """

    def __init__(self) -> None:
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._line = b""
        self._since = asyncio.get_running_loop().time()

    def typed(self, data: bytes) -> None:
        """Takes keys."""
        if asyncio.get_running_loop().time() - self._since < _SETTLE_SECONDS:
            return
        for key in data:
            if key in b"\r\n":
                self._lines.put_nowait(self._line.decode(errors="replace"))
                self._line = b""
            elif key in (8, 127):
                self._line = self._line[:-1]
            elif len(self._line) < _LINE_MOST:
                self._line += bytes([key])

    async def line(self) -> str:
        """Returns the next line that is typed."""
        return await self._lines.get()

    async def secret(self) -> str:
        """Returns the next line that is typed; a raw terminal shows no keys."""
        return await self._lines.get()

    async def say(self, text: str) -> None:
        """Shows a line below the question."""
        await terminal.write_all(STDOUT, text.encode() + b"\r\n")


class LineAsker:
    """Asks in lines at a terminal that is not the run's."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._reader: terminal.InputReader | None = None

    @contextlib.asynccontextmanager
    async def asking(self, lines: list[str]) -> AsyncIterator["LineAsker"]:
        """Shows a question while the block runs."""
        for line in lines:
            self._note(line)
        yield self

    async def line(self) -> str:
        """Returns the next line that is typed."""
        self._reader = self._reader or terminal.InputReader(STDIN)
        data = await self._reader.next()
        if not data:
            await asyncio.Event().wait()  # the terminal was closed: no answer will come
        return data.decode(errors="replace")

    async def secret(self) -> str:
        """Returns the next line that is typed; it is not shown."""
        with terminal.hidden(STDIN):
            return await self.line()

    async def say(self, text: str) -> None:
        """Shows a line below the question."""
        self._note(text)


@contextlib.asynccontextmanager
async def open_console(
    *, stdin: bool, tty: bool, detach_keys: bytes, on_signal: Callable[[str], None] | None = None
) -> AsyncIterator[ProcessConsole]:
    """Yields the console of this process; the terminal is as before when the block ends.

    Signals go to the process. Only where the keys of this terminal reach the process as they are,
    and it goes on without its client, signals that end a client end this one alone: they come from
    a terminal that was closed, or from `kill`.

    Args:
        stdin: whether standard input is read.
        tty: whether the process has a terminal: this one is raw then, its size followed.
        detach_keys: the keys that leave the process alone, where standard input is a terminal.
        on_signal: takes the names of signals for a workload; for other processes they go with what
            the user does.
    """
    console = ProcessConsole()
    deliver = on_signal or console.signalled
    is_terminal = terminal.terminal_size(STDIN) is not None
    is_raw = stdin and tty and is_terminal

    def signalled(name: str) -> None:
        leaves = is_raw and on_signal is not None and name in terminal.ENDING_SIGNALS
        (console.left if leaves else deliver)(name)

    async with contextlib.AsyncExitStack() as stack:
        if tty:
            stack.enter_context(terminal.resizes(STDOUT, console.resized))
        if is_raw:
            stack.enter_context(terminal.raw_mode(STDIN))
        stack.enter_context(terminal.forwarded_signals(signalled))
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
            await console.flushed()
            console.did(pb.AttachRequest(detach=pb.Detach()))
            return
    await console.typed(b"")


def note_detached(context: Context, name: str, console: ProcessConsole) -> int:
    """Says how a run that was left goes on; returns the exit code of its client."""
    context.note(f"lns: detached from {name}; `lns attach {name}` goes on")
    return 128 + signal.Signals[f"SIG{console.left_by}"] if console.left_by else 0


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
