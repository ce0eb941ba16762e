"""The suite's log: what this process and its libraries write to standard output and error.

Everything goes through file descriptors 1 and 2, also what gRPC's C core and a dying interpreter
say. So the file is rotated by exchanging what the descriptors stand for, not by a logging handler.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

_MODE = 0o600
_CHECK_SECONDS = 10.0


class LogFile:
    """A log file with older parts beside it, the newest first: `suite.log.1`, `suite.log.2`.

    Args:
        path: the file; its directory exists.
        limit: bytes after which a new one is begun.
        kept: how many older parts stay.
        descriptors: those that write to it.
        rotates: whether this process begins new files, or follows one that does.
    """

    def __init__(
        self,
        path: Path,
        *,
        limit: int,
        kept: int,
        descriptors: tuple[int, ...] = (1, 2),
        rotates: bool = True,
    ) -> None:
        self._path = path
        self._rotates = rotates
        self._follows = False
        self._limit = limit
        self._kept = kept
        self._descriptors = descriptors

    def is_current(self) -> bool:
        """Says whether the descriptors write to the file, rather than to a terminal or a pipe."""
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and all(
            os.path.samestat(found, os.fstat(descriptor)) for descriptor in self._descriptors
        )

    def follow(self) -> bool:
        """Writes to the file that has taken the place of ours, if one has; returns whether."""
        if self.is_current() or not self._path.is_file():
            return False
        self._reopen()
        return True

    def rotate(self) -> bool:
        """Begins a new file if the limit is reached; returns whether it did."""
        if not self.is_current() or self._path.stat().st_size < self._limit:
            return False
        self._part(self._kept).unlink(missing_ok=True)
        for number in range(self._kept - 1, -1, -1):
            with contextlib.suppress(FileNotFoundError):
                self._part(number).replace(self._part(number + 1))
        self._reopen()
        return True

    def _reopen(self) -> None:
        fresh = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        for descriptor in self._descriptors:
            os.dup2(fresh, descriptor)
        os.close(fresh)

    @contextlib.asynccontextmanager
    async def rotated(self) -> AsyncIterator[None]:
        """Rotates the file now and, while the block runs, whenever it has grown too large.

        One that follows another process takes up its new files instead.
        """
        self._follows = not self._rotates and self.is_current()
        self._check()
        watching = asyncio.ensure_future(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            self._check()

    def _check(self) -> None:
        if self._rotates:
            self.rotate()
        elif self._follows:
            self.follow()

    def _part(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
