"""Temporary files on the disk of the store, of which some stays free."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from services.chassis import reserve

_WHAT: Final = "an image that is unpacked"


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
                reserve.require(self._directory, len(chunk), what=_WHAT, kept=self._reserve)
                # Only here: what `chunks` raises is the business of whoever makes them.
                with reserve.full_disk_is_typed(self._directory, what=_WHAT):
                    file.write(chunk)
