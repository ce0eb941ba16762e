"""Reading and writing single blobs of the store."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from services.chassis.blocking import Blocking
from services.chassis.streams import CHUNK_BYTES, MAX_CHUNK_BYTES
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import BlobUnknown, ContentCorrupt, DigestMismatch, RequestInvalid
from services.registry_gateway.pins import Pins
from services.registry_gateway.ports import BlobStore, Ingest
from services.registry_gateway.stored_images import StoredImages

MAX_WRITTEN_BYTES: Final = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Says what a write writes; its first step."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Says that every byte was sent; the last step of a write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a write left in the store."""

    digest: Digest
    size: int
    existed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of a blob; `total` is the size of the whole blob."""

    offset: int
    data: bytes
    total: int


class Blobs:
    """The store's blobs, one at a time."""

    def __init__(
        self, *, store: BlobStore, pins: Pins, images: StoredImages, blocking: Blocking
    ) -> None:
        self._store = store
        self._pins = pins
        self._images = images
        self._blocking = blocking

    async def write(self, steps: AsyncIterator[Header | bytes | Commit]) -> Written:
        """Stores a blob that comes as header, chunks, commit; keeps it for an hour.

        Steps that end without a commit store nothing: a client that died looks like one that ended.

        Raises:
            DigestMismatch: the bytes are not those of the header.
            RequestInvalid: the steps come in another order, or a chunk is larger than 1 MiB.
            CapacityExhausted: the disk is full.
        """
        header = await anext(steps, None)
        if not isinstance(header, Header):
            raise RequestInvalid("the first step of a write is its header")
        if not 0 <= header.size <= MAX_WRITTEN_BYTES:
            raise RequestInvalid(f"a blob has between 0 and {MAX_WRITTEN_BYTES} bytes")
        async with self._pins.session() as pins:
            await pins.add([header.digest])
            existed = await self._store.size(header.digest) is not None
            ingest = await self._store.ingest(
                Descriptor(media_type="", digest=header.digest, size=header.size), resume=False
            )
            try:
                await self._receive(steps, ingest)
                if not existed:
                    await self._blocking.run(ingest.commit)
            except ContentCorrupt as error:
                raise DigestMismatch(
                    f"what was sent is not {header.digest}: {error.message}",
                    metadata={"digest": header.digest},
                ) from error
            finally:
                ingest.close()
            await self._images.keep_written(header.digest)
        return Written(digest=header.digest, size=header.size, existed=existed)

    async def _receive(self, steps: AsyncIterator[Header | bytes | Commit], ingest: Ingest) -> None:
        async for step in steps:
            if isinstance(step, Commit):
                if await anext(steps, None) is not None:
                    raise RequestInvalid("nothing follows the commit of a write")
                return
            if isinstance(step, Header):
                raise RequestInvalid("a write has one header")
            if len(step) > MAX_CHUNK_BYTES:
                raise RequestInvalid(f"a chunk has at most {MAX_CHUNK_BYTES} bytes")
            await self._blocking.run(ingest.write, step)
        raise RequestInvalid("the write ended without a commit; nothing was stored")

    async def read(self, digest: Digest, *, offset: int, limit: int) -> AsyncGenerator[Piece, None]:
        """Yields a blob from an offset, at most `limit` bytes of it; 0 is all.

        Raises:
            BlobUnknown: the store does not have it.
            RequestInvalid: the offset is negative or past the end, or the limit is negative.
        """
        total = await self._store.size(digest)
        if total is None:
            raise BlobUnknown(f"blob {digest} is not in the store", metadata={"digest": digest})
        if not 0 <= offset <= total or limit < 0:
            raise RequestInvalid(
                f"blob {digest.short} has {total} bytes; offset {offset} is not one"
            )
        end = total if limit == 0 else min(total, offset + limit)
        source = self._store.source(Descriptor(media_type="", digest=digest, size=total))
        file = await self._blocking.run(source.open)
        try:
            await self._blocking.run(file.seek, offset)
            if offset == end:
                yield Piece(offset=offset, data=b"", total=total)
            while offset < end:
                data = await self._blocking.run(_read_some, file, min(CHUNK_BYTES, end - offset))
                if not data:
                    raise ContentCorrupt(
                        f"blob {digest.short} ends before its size", metadata={"digest": digest}
                    )
                yield Piece(offset=offset, data=data, total=total)
                offset += len(data)
        finally:
            file.close()


def _read_some(file: BinaryIO, size: int) -> bytes:
    return file.read(size)
