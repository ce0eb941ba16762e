"""Writing a file in another thread while its bytes are still being received and hashed."""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

_MOST_PENDING: Final = 8
"""Pieces that wait to be written: with chunks of 1 MiB that much memory."""


class WriteBehind:
    """Appends to a file, in order; used by one thread.

    Receiving, hashing and writing all let go of the interpreter, so two threads do them side by
    side: with one, a blob of 512 MiB from a registry nearby took half as long again. What a write
    could not do is raised by a later call.
    """

    def __init__(self, descriptor: int) -> None:
        """Takes an open file, which stays the caller's to close."""
        self._descriptor = descriptor
        self._thread: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()

    def write(self, data: bytes | memoryview) -> None:
        """Takes the next bytes, which must not change any more; waits when it is far behind.

        Raises:
            OSError: an earlier piece could not be written.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gateway-write")
        self._pending.append(self._thread.submit(_write_whole, self._descriptor, data))
        while len(self._pending) > _MOST_PENDING:
            self._pending.popleft().result()

    def write_last(self, data: bytes | memoryview) -> None:
        """Writes what ends the file; it is all there when this returns.

        Raises:
            OSError: something could not be written.
        """
        self.flush()
        _write_whole(self._descriptor, data)

    def flush(self) -> None:
        """Waits until everything is written.

        Raises:
            OSError: something could not be.
        """
        while self._pending:
            self._pending.popleft().result()

    def discard(self) -> None:
        """Forgets what is not written yet, and whether it could be; ends the thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None
        self._pending.clear()


def _write_whole(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
