"""What a VMM and its guest's console say: the last of it, in bounded room.

A named pipe that the VMM itself keeps open holds what nobody has read yet, across restarts of the
service and behind the VMM's own end. When it is full, the VMM's messages are lost, the guest's
console stands still, and the VMM goes on.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

PIPE = "qemu.messages"
LOG_FILE = "qemu.log"

_TAIL_BYTES = 8000
_PIPE_BYTES = 65536  # the kernel's default, pipe(7)
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|.)", re.DOTALL)  # ECMA-48, 5.4


class MessagePipe:
    """The reading end of a VMM's messages; `qemu.log` keeps them when the VMM is gone.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tail = b""
        self._reader = -1
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def create(self) -> Iterator[int]:
        """Makes the pipe anew; yields the VMM's end of it while the block runs.

        Raises:
            OSError: the disk is full, or the directory is gone.
        """
        path = self._directory / PIPE
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        self._reader = os.open(path, os.O_RDONLY | _FLAGS)
        # Read and write: the VMM never finds itself without a reader.
        writer = os.open(path, os.O_RDWR | _FLAGS)
        try:
            yield writer
        finally:
            os.close(writer)

    def move(self, directory: Path) -> None:
        """Moves the pipe to another directory.

        Raises:
            OSError: it cannot be moved.
        """
        (self._directory / PIPE).rename(directory / PIPE)
        self._directory = directory

    def open(self) -> None:
        """Opens the pipe that an earlier process made; without one there are no messages."""
        with contextlib.suppress(OSError):
            self._reader = os.open(self._directory / PIPE, os.O_RDONLY | _FLAGS)

    def watch(self) -> None:
        """Reads on from now on whatever comes, so that the guest's console never stands still."""
        if self._reader >= 0 and self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._reader, self._take)

    def read(self) -> str:
        """Returns the last lines that VMM and guest wrote, with nothing that moves a terminal."""
        left = 2 * _PIPE_BYTES  # it may be written as fast as it is read
        while left > 0 and (size := self._take()):
            left -= size
        return printable(self._tail)

    def _take(self) -> int:
        """Takes what is in the pipe, once; returns how much that was."""
        if self._reader < 0:
            return 0
        try:
            data = os.read(self._reader, _PIPE_BYTES)
        except BlockingIOError:
            return 0
        if not data:  # nobody can write any more
            self._stop_watching()
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        return len(data)

    def _stop_watching(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._reader)
            self._loop = None

    def close(self) -> None:
        """Keeps what was written in a file, and removes the pipe; the VMM has ended."""
        if self._reader < 0:
            return
        text = self.read()
        self._stop_watching()
        os.close(self._reader)
        self._reader = -1
        with contextlib.suppress(OSError):
            (self._directory / PIPE).unlink(missing_ok=True)
            if text:
                (self._directory / LOG_FILE).write_text(f"{text}\n")


def printable(data: bytes) -> str:
    """Returns text of a stranger: lines and printable characters, all else replaced."""
    text = _ESCAPES.sub("", data.decode("utf-8", "replace")).replace("\r\n", "\n")
    shown = (c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(shown).strip()
