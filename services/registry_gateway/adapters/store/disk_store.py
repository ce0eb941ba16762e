"""The node's blobs as files.

    blobs/<algorithm>/<hex>      whole and verified, mode 0444, byte for byte as it came; the
                                 algorithms are sha256 and sha512, as in an OCI layout
    blobs/ingest/<hex>.part      the beginning of a blob that is being fetched, or was when we died
    blobs/ingest/<hex>.<x>.part  a blob that a client is writing; of no use once its stream ended

A blob gets its name by a rename after its bytes were hashed and synced, so whoever
finds a name finds the whole blob; other services read the files without asking. Names outlast a
power failure once they are settled, which comes before any record of them. One process owns the
directory (`chassis.locks`); inside it one ingest of a blob is at work at a time.
"""

import contextlib
import os
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from services.chassis import reserve
from services.chassis.blocking import Blocking
from services.chassis.durable import sync_directory
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import (
    BlobUnknown,
    ContentCorrupt,
    DigestInvalid,
    LimitExceeded,
)
from services.registry_gateway.adapters.store.disk_ingest import DiskIngest, disk_errors
from services.registry_gateway.ports import BlobSource, Ingest

READ_BYTES: Final = 1 << 20
_PART: Final = ".part"
_ALGORITHMS: Final = ("sha256", "sha512")


class DiskStore:
    """The blob store below one directory; implements `BlobStore`."""

    def __init__(self, root: Path, blocking: Blocking, *, reserve_bytes: int = 0) -> None:
        """Makes the directories.

        Args:
            root: the directory `blobs`.
            blocking: where the disk is waited for.
            reserve_bytes: what must stay free on the disk.
        """
        self._blobs = {name: root / name for name in _ALGORITHMS}
        self._ingests = root / "ingest"
        self._blocking = blocking
        self._reserve = reserve_bytes
        self._guard = threading.Lock()
        self._at_work: set[str] = set()
        for directory in (*self._blobs.values(), self._ingests):
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)

    def path(self, digest: Digest) -> Path:
        """Returns where the blob is, or would be."""
        return self._blobs[digest.algorithm] / digest.hex

    async def size(self, digest: Digest) -> int | None:
        """See `BlobStore`."""
        return await self._blocking.run(self._size, digest)

    async def missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """See `BlobStore`."""

        def look(wanted: frozenset[Digest]) -> frozenset[Digest]:
            return frozenset(digest for digest in wanted if self._size(digest) is None)

        return await self._blocking.run(look, frozenset(digests))

    async def read(self, digest: Digest, *, limit: int) -> bytes:
        """See `BlobStore`."""
        return await self._blocking.run(self._read, digest, limit)

    async def verify(self, digest: Digest) -> bool:
        """See `BlobStore`."""
        stop = threading.Event()
        return await self._blocking.run_cancellable(stop, self._verify, digest, stop)

    async def write(self, data: bytes, *, algorithm: str = "sha256") -> Digest:
        """See `BlobStore`."""

        def write() -> Digest:
            digest = Digest.of(data, algorithm=algorithm)
            if self._size(digest) is not None:
                return digest
            descriptor = Descriptor(media_type="", digest=digest, size=len(data))
            ingest = self._open_ingest(descriptor, resume=False)
            with contextlib.closing(ingest):
                ingest.write(data)
                ingest.commit()
            return digest

        return await self._blocking.run(write)

    def source(self, descriptor: Descriptor) -> BlobSource:
        """See `BlobStore`."""
        return _FileSource(path=self.path(descriptor.digest), digest=descriptor.digest)

    async def ingest(self, descriptor: Descriptor, *, resume: bool) -> Ingest:
        """See `BlobStore`."""
        return await self._blocking.run(self._open_ingest, descriptor, resume=resume)

    async def remove(self, digests: Iterable[Digest]) -> Mapping[Digest, int]:
        """See `BlobStore`."""

        def remove(wanted: tuple[Digest, ...]) -> dict[Digest, int]:
            gone = {}
            for digest in wanted:
                size = self._size(digest)
                if size is not None:
                    self.path(digest).unlink(missing_ok=True)
                    gone[digest] = size
            return gone

        return await self._blocking.run(remove, tuple(digests))

    async def list(self) -> Mapping[Digest, int]:
        """See `BlobStore`."""

        def scan() -> dict[Digest, int]:
            found = {}
            for algorithm, directory in self._blobs.items():
                for entry in os.scandir(directory):
                    with contextlib.suppress(DigestInvalid, FileNotFoundError):
                        digest = Digest(f"{algorithm}:{entry.name}")
                        found[digest] = entry.stat(follow_symlinks=False).st_size
            return found

        return await self._blocking.run(scan)

    async def settle(self) -> None:
        """See `BlobStore`: the renames of many blobs are synced at once."""

        def sync() -> None:
            for directory in self._blobs.values():
                sync_directory(directory)

        await self._blocking.run(sync)

    async def sweep_ingests(self, *, keep: Iterable[Digest]) -> int:
        """See `BlobStore`."""

        def sweep(kept: frozenset[str]) -> int:
            freed = 0
            for entry in list(os.scandir(self._ingests)):
                if entry.name.partition(".")[0] in kept:
                    continue
                with self._guard:
                    if entry.name not in self._at_work:
                        freed += _unlinked(entry)
            return freed

        return await self._blocking.run(sweep, frozenset(digest.hex for digest in keep))

    def _size(self, digest: Digest) -> int | None:
        try:
            return self.path(digest).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def _read(self, digest: Digest, limit: int) -> bytes:
        with _FileSource(path=self.path(digest), digest=digest).open() as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise LimitExceeded(
                f"blob {digest.short} has more than {limit} bytes", metadata={"digest": digest}
            )
        if not digest.is_of(data):
            self.path(digest).unlink(missing_ok=True)
            raise ContentCorrupt(
                f"blob {digest.short} was damaged on the disk and has been removed",
                hint="pull it again",
                metadata={"digest": digest},
            )
        return data

    def _verify(self, digest: Digest, stop: threading.Event) -> bool:
        hasher = digest.hasher()
        try:
            with self.path(digest).open("rb", buffering=0) as file:
                while not stop.is_set() and (chunk := file.read(READ_BYTES)):
                    hasher.update(chunk)
        except FileNotFoundError:
            return False
        if hasher.hexdigest() == digest.hex:
            return True
        if not stop.is_set():
            self.path(digest).unlink(missing_ok=True)
        return False

    def _open_ingest(self, descriptor: Descriptor, *, resume: bool) -> "DiskIngest":
        suffix = "" if resume else f".{secrets.token_hex(4)}"
        part = self._ingests / f"{descriptor.digest.hex}{suffix}{_PART}"
        with self._guard:
            self._at_work.add(part.name)
        try:
            with disk_errors(self._ingests, descriptor):
                self._check_room(descriptor)
                target = self.path(descriptor.digest)
                return DiskIngest(descriptor, part, target, resume=resume, ended=self._ended)
        except BaseException:
            self._ended(part)
            raise

    def _ended(self, part: Path) -> None:
        with self._guard:
            self._at_work.discard(part.name)

    def _check_room(self, descriptor: Descriptor) -> None:
        what = f"blob {descriptor.digest.short}"
        reserve.require(self._ingests, descriptor.size, what=what, kept=self._reserve)


def _unlinked(entry: os.DirEntry[str]) -> int:
    """Removes a file that may be gone already; returns its bytes."""
    try:
        size = entry.stat(follow_symlinks=False).st_size
        Path(entry.path).unlink()
    except FileNotFoundError:
        return 0
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class _FileSource:
    path: Path
    digest: Digest

    def open(self) -> BinaryIO:
        try:
            return self.path.open("rb", buffering=0)
        except FileNotFoundError:
            raise BlobUnknown(
                f"blob {self.digest} is not in the store", metadata={"digest": self.digest}
            ) from None
