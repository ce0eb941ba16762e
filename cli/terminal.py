"""The user's terminal and standard streams, as an attachment uses them."""

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import click

from services.core.errors import SettingsInvalid

DEFAULT_DETACH_KEYS: Final = "ctrl-p,ctrl-q"
_READ_BYTES: Final = 64 * 1024
_PENDING_READS: Final = 4
_LOCAL_FLAGS: Final = 3
"""Where the list of `tcgetattr` has the flag that shows what is typed."""
_CONTROL_PUNCTUATION: Final = "@[\\]^_"

FORWARDED_SIGNALS: Final[Mapping[signal.Signals, str]] = {
    number: number.name.removeprefix("SIG")
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    )
}
"""Signals that a foreground client passes on to the workload, with their names on the wire."""

ENDING_SIGNALS: Final = frozenset({"INT", "TERM", "HUP", "QUIT"})
"""Names of those that by themselves end a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Size of a terminal in characters."""

    rows: int
    columns: int


def terminal_size(descriptor: int) -> Size | None:
    """Returns the size of the terminal behind a file descriptor, None if it is no terminal."""
    try:
        packed = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8)
    except OSError:
        return None
    rows, columns, _, _ = struct.unpack("HHHH", packed)
    return Size(rows=rows, columns=columns)


@contextlib.contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Makes a terminal pass on every key as it is, until the block ends."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def hidden(descriptor: int) -> Iterator[None]:
    """Makes a terminal show nothing of what is typed, until the block ends."""
    before = termios.tcgetattr(descriptor)
    silent = [*before]
    silent[_LOCAL_FLAGS] = before[_LOCAL_FLAGS] & ~termios.ECHO
    try:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, silent)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def parse_detach_keys(text: str) -> bytes:
    """Returns the bytes of a key sequence such as `ctrl-p,ctrl-q` or `ctrl-],x`.

    Raises:
        SettingsInvalid: it is not one.
    """
    keys = bytearray()
    for key in text.split(","):
        letter = key.removeprefix("ctrl-")
        if len(letter) != 1 or not letter.isascii() or not letter.isprintable():
            raise _bad_keys(text)
        if letter == key:
            keys += letter.encode()
        elif letter.islower() or letter in _CONTROL_PUNCTUATION:
            keys.append(ord(letter.upper()) & 0x1F)
        else:
            raise _bad_keys(text)
    return bytes(keys)


def _bad_keys(text: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{text!r} is not a sequence of keys",
        hint="write keys with commas, for example ctrl-p,ctrl-q or ctrl-],x",
    )


class DetachFilter:
    """Finds the detach keys in what is typed. Keys that only might begin them are held back.

    Args:
        keys: the sequence, not empty.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Returns what is to be sent of `data` and what was held, and whether the keys came."""
        text = self._held + data
        found = text.find(self._keys)
        if found >= 0:
            self._held = b""
            return text[:found], True
        for length in range(min(len(self._keys) - 1, len(text)), 0, -1):
            if text.endswith(self._keys[:length]):
                self._held = text[-length:]
                return text[:-length], False
        self._held = b""
        return text, False


class InputReader:
    """Reads a file descriptor in a thread of its own, a few reads ahead of whoever takes them.

    Regular files cannot be waited for in an event loop, and a terminal that is made non-blocking is
    so for every process that shares it. The thread may hang in its last read; it is a daemon.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(_PENDING_READS)
        self._thread = threading.Thread(target=self._read, name="stdin", daemon=True)
        self._thread.start()

    async def next(self) -> bytes:
        """Returns the next bytes; nothing, once, when the input has ended."""
        piece = await self._pieces.get()
        self._room.release()
        return piece

    def _read(self) -> None:
        while True:
            self._room.acquire()
            try:
                piece = os.read(self._descriptor, _READ_BYTES)
            except OSError:
                piece = b""
            # A loop that was closed meanwhile wants no input.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
            if not piece:
                return


async def write_all(descriptor: int, data: bytes) -> None:
    """Writes to a descriptor without holding up the event loop when its reader is slow."""
    await asyncio.to_thread(_write_all, descriptor, data)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def forwarded_signals(deliver: Callable[[str], None]) -> Iterator[None]:
    """Gives the names of signals to `deliver` while the block runs; they do not end the client."""
    with _handled(FORWARDED_SIGNALS, deliver):
        yield


@contextlib.contextmanager
def cancelled_by_signals() -> Iterator[None]:
    """Has TERM and HUP cancel the current task while the block runs, as ctrl-c does everywhere.

    Raises:
        click.exceptions.Exit: one came; with 128 and its number as exit code.
    """
    task = asyncio.current_task()
    received: list[str] = []

    def cancel(name: str) -> None:
        received.append(name)
        if task is not None:
            task.cancel()

    with _handled({signal.SIGTERM: "TERM", signal.SIGHUP: "HUP"}, cancel):
        try:
            yield
        except asyncio.CancelledError:
            if not received:
                raise
            number = signal.Signals[f"SIG{received[0]}"]
            raise click.exceptions.Exit(128 + number) from None


@contextlib.contextmanager
def resizes(descriptor: int, deliver: Callable[[Size], None]) -> Iterator[None]:
    """Gives the terminal's new size to `deliver` whenever it changes while the block runs."""

    def resized(_: str) -> None:
        size = terminal_size(descriptor)
        if size is not None:
            deliver(size)

    with _handled({signal.SIGWINCH: "WINCH"}, resized):
        yield


@contextlib.contextmanager
def _handled(names: Mapping[signal.Signals, str], deliver: Callable[[str], None]) -> Iterator[None]:
    """Handles signals, but for those that whoever started this process had it ignore: `nohup`."""
    loop = asyncio.get_running_loop()
    handled = [number for number in names if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, deliver, names[number])
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
