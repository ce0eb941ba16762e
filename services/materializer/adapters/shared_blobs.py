"""Blobs out of the gateway's store, where both services share the state directory."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from services.chassis.blocking import Blocking
from services.core.digest import Digest
from services.core.errors import LimitExceeded
from services.materializer.blob_errors import damaged, missing


class SharedBlobs:
    """The port `Blobs` on `blobs/` of a state directory; it is only ever read."""

    def __init__(self, home: Path, blocking: Blocking) -> None:
        self._directory = home / "blobs"
        self._blocking = blocking

    async def read(self, digest: Digest, *, limit: int) -> bytes:
        """Returns a small blob whole; raises BlobsMissing, LimitExceeded, ContentCorrupt."""
        return await self._blocking.run(self._read, digest, limit)

    @contextlib.asynccontextmanager
    async def file(self, digest: Digest) -> AsyncIterator[Path]:
        """Yields the blob's file; raises BlobsMissing."""
        path = self._path(digest)
        if not await self._blocking.run(path.is_file):
            raise missing(digest)
        yield path

    def _path(self, digest: Digest) -> Path:
        return self._directory / digest.algorithm / digest.hex

    def _read(self, digest: Digest, limit: int) -> bytes:
        try:
            with self._path(digest).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise missing(digest) from None
        return checked(data, digest, limit)


def checked(data: bytes, digest: Digest, limit: int) -> bytes:
    """Returns a small blob's bytes; raises LimitExceeded, ContentCorrupt."""
    if len(data) > limit:
        raise LimitExceeded(f"{digest} has more than {limit} bytes")
    if not digest.is_of(data):
        raise damaged(digest)
    return data
