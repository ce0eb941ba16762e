"""What a VMM writes to its standard output and error: the last of it, in bounded room.

A named pipe that the VMM itself keeps open holds what nobody has read yet, across restarts of the
service. When it is full, what follows is lost and the VMM goes on.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PIPE = "qemu.messages"
LOG_FILE = "qemu.log"

_TAIL_BYTES = 4000
_PIPE_BYTES = 65536  # the kernel's default, pipe(7)
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


class MessagePipe:
    """The reading end of a VMM's messages; `qemu.log` keeps them when the VMM is gone.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tail = b""
        self._reader = -1

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

    def open(self) -> None:
        """Opens the pipe that an earlier process made; without one there are no messages."""
        with contextlib.suppress(OSError):
            self._reader = os.open(self._directory / PIPE, os.O_RDONLY | _FLAGS)

    def read(self) -> str:
        """Returns the last lines that the VMM wrote."""
        left = 2 * _PIPE_BYTES  # it may write as fast as it is read
        while self._reader >= 0 and left > 0:
            try:
                data = os.read(self._reader, _PIPE_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            left -= len(data)
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
        return self._tail.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Keeps what was written in a file, and removes the pipe; the VMM has ended."""
        if self._reader < 0:
            return
        text = self.read()
        os.close(self._reader)
        self._reader = -1
        with contextlib.suppress(OSError):
            (self._directory / PIPE).unlink(missing_ok=True)
            if text:
                (self._directory / LOG_FILE).write_text(f"{text}\n")
