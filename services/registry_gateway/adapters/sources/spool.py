"""Temporary files on the disk of the store, of which some stays free."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from services.core.errors import CapacityExhausted

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Spool:
    """A directory for what is needed for a moment only."""

    def __init__(self, directory: Path, *, reserve_bytes: int = 0) -> None:
        """Touches nothing yet.

        Args:
            directory: an existing one.
            reserve_bytes: what must stay free on its disk.
        """
        self._directory = directory
        self._reserve = reserve_bytes

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """Yields an empty directory that goes away with everything in it."""
        with tempfile.TemporaryDirectory(dir=self._directory) as folder:
            yield Path(folder)

    def write(self, target: Path, chunks: Iterable[bytes]) -> None:
        """Writes a file below a folder of this spool, chunk by chunk.

        Raises:
            CapacityExhausted: the disk has no more room for it.
        """
        with target.open("wb") as file:
            for chunk in chunks:
                disk = os.statvfs(self._directory)
                if len(chunk) > disk.f_bavail * disk.f_frsize - self._reserve:
                    raise _no_room()
                # Only here: what `chunks` raises is the business of whoever makes them.
                try:
                    file.write(chunk)
                except OSError as error:
                    raise (_no_room() if error.errno in _FULL else error) from error


def _no_room() -> CapacityExhausted:
    return CapacityExhausted(
        "the disk of the store has no room to unpack the image",
        hint="free space with `lns image prune`",
    )
