"""Tar files whose members are read where they lie: each is one run of bytes.

An archive that is compressed as a whole is decompressed into a temporary file first, since members
are read in another order than they lie in.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from services.archives.limits import ArchiveUnsafe, TarLimits
from services.archives.stream import FileStream
from services.archives.tar import Kind, TarReader
from services.core.errors import RequestInvalid
from services.registry_gateway.adapters.sources.members import Members
from services.registry_gateway.adapters.sources.spool import Spool
from services.registry_gateway.adapters.sources.uncompressed import (
    Compression,
    compression_of,
    uncompressed,
)
from services.registry_gateway.ports import BlobSource
from services.registry_gateway.progress import Stop

_MAX_MEMBERS: Final = 20_000
_LIMITS: Final = TarLimits(
    file_bytes=1 << 42, header_bytes=64 << 10, all_header_bytes=4 << 20, sparse_segments=0
)
"""Members are named by hexadecimal digests: extended headers have little to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A run of bytes of a file: a blob in an archive, or a whole file. Implements `BlobSource`."""

    path: Path
    start: int = 0
    size: int | None = None

    def open(self) -> BinaryIO:
        """See `BlobSource`."""
        file = self.path.open("rb", buffering=0)
        if self.size is None:
            return file
        return _Window(file, self.start, self.size)


class _Window(io.RawIOBase, BinaryIO):
    """A part of a file as a file."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view)
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def opened_archive(path: Path, spool: Spool, stop: Stop) -> Iterator[Members]:
    """Yields the regular files of a tar file by name; blocks while it is decompressed.

    Raises:
        RequestInvalid: it cannot be read, is no tar file, or has too many members.
        ContentCorrupt: it is compressed and damaged.
        CapacityExhausted: the disk has no room for it uncompressed.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open_regular(path))
        plain = path
        if compression_of(file) is not Compression.NONE:
            plain = stack.enter_context(spool.folder()) / "plain"
            spool.write(plain, stop.watched(uncompressed(file, what=str(path))))
        yield _indexed(plain, stop, place=path)


def _open_regular(path: Path) -> BinaryIO:
    try:
        # Only then opened: opening a FIFO would wait.
        if not stat.S_ISREG(path.stat().st_mode):
            raise RequestInvalid(f"{path} is not a file, and archives are")
        return path.open("rb")
    except OSError as error:
        raise RequestInvalid(
            f"{path} cannot be read: {error.strerror}",
            hint="paths are those of the gateway's host",
        ) from error


def _indexed(path: Path, stop: Stop, *, place: Path) -> Members:
    """Returns what `opened_archive` says of a plain archive, which messages call `place`."""
    found = Members()
    try:
        with path.open("rb", buffering=0) as file:
            stream = FileStream(file, stop.check)
            for count, member in enumerate(TarReader(stream, _LIMITS)):
                if count >= _MAX_MEMBERS:
                    raise RequestInvalid(f"{place} has more than {_MAX_MEMBERS} members")
                name = os.fsdecode(member.name)
                if member.kind is Kind.FILE and not member.is_sparse:
                    part = FilePart(path=path, start=stream.position, size=member.size)
                    found.add_file(name, part)
                elif member.kind in (Kind.SYMLINK, Kind.HARD_LINK):
                    target = os.fsdecode(member.link_name)
                    found.add_link(name, target, symbolic=member.kind is Kind.SYMLINK)
    except (ArchiveUnsafe, OSError) as error:
        raise RequestInvalid(
            f"{place} cannot be read as an archive: {error}",
            hint="give a tar file, compressed or not, of `docker save` or `skopeo copy`",
        ) from error
    return found


def read_small(source: BlobSource, limit: int, what: str) -> bytes:
    """Returns a small file of an archive or directory whole.

    Raises:
        RequestInvalid: it is larger than `limit`, or cannot be read.
    """
    try:
        with source.open() as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise RequestInvalid(f"{what} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise RequestInvalid(f"{what} is larger than {limit} bytes")
    return data
