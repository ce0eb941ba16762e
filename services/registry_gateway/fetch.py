"""Blobs from registries into the store, each once however many ask for it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.chassis.single_flight import SingleFlight
from services.chassis.tasks import together
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import BlobUnknown, ContentCorrupt, LnsError
from services.core.reference import Reference
from services.registry_gateway.metrics import BLOBS, TRANSFER_SECONDS, TRANSFERRED_BYTES
from services.registry_gateway.ports import BlobStore, Ingest, Registry
from services.registry_gateway.progress import Board, Meter, Stage


@dataclass(slots=True)
class _Waiting:
    """Who waits for one blob, and the transfer that brings it."""

    boards: list[Board] = field(default_factory=list)
    meter: Meter | None = None
    repository: Reference | None = None


class BlobFetcher:
    """Brings blobs into the store."""

    def __init__(self, registry: Registry, store: BlobStore) -> None:
        self._registry = registry
        self._store = store
        self._flights: SingleFlight[Digest, None] = SingleFlight()
        self._waiting: dict[Digest, _Waiting] = {}

    async def fetch_all(
        self,
        repository: Reference,
        blobs: Iterable[Descriptor],
        board: Board,
        *,
        verify: bool = False,
    ) -> None:
        """Sees to it that the store has blobs; the first failure ends the others.

        Args:
            repository: where they are.
            blobs: which.
            board: shows the progress.
            verify: whether stored blobs are read, and damaged ones fetched again.

        Raises:
            BlobUnknown: the repository does not have one.
            ContentCorrupt: what came is not the blob, or its descriptor's size is wrong.
            CapacityExhausted: the disk is full.
        """
        wanted = {blob.digest: blob for blob in blobs}
        if verify:
            await self.drop_damaged(wanted)
        missing = await self._store.missing(wanted)
        for digest, blob in wanted.items():
            meter = Meter(digest, blob.size)
            if digest not in missing:
                meter.finish(Stage.EXISTS)
                BLOBS.labels("in", "exists").inc()
            board.add(meter)
        await together(
            self.fetch(repository, blob, board)
            for digest, blob in wanted.items()
            if digest in missing
        )

    async def drop_damaged(self, digests: Iterable[Digest]) -> None:
        """Reads blobs of the store and removes those that are damaged."""
        await together(self._store.verify(digest) for digest in digests)

    async def fetch(self, repository: Reference, blob: Descriptor, board: Board) -> None:
        """Sees to it that the store has one blob; raises as `fetch_all` does."""
        waiting = self._waiting.setdefault(blob.digest, _Waiting())
        waiting.boards.append(board)
        if waiting.meter is not None:
            board.add(waiting.meter)
        joined = blob.digest in self._flights
        try:
            try:
                await self._run(repository, blob)
            except LnsError:
                # The source of another request failed; this one's may not.
                if not joined or waiting.repository in (None, repository):
                    raise
                await self._run(repository, blob)
        finally:
            waiting.boards.remove(board)
            if not waiting.boards:
                self._waiting.pop(blob.digest, None)

    async def _run(self, repository: Reference, blob: Descriptor) -> None:
        await self._flights.run(blob.digest, lambda: self._bring(repository, blob))

    async def _bring(self, repository: Reference, blob: Descriptor) -> None:
        waiting = self._waiting.setdefault(blob.digest, _Waiting())
        meter = waiting.meter = Meter(blob.digest, blob.size)
        waiting.repository = repository
        for board in waiting.boards:
            board.add(meter)
        size = await self._store.size(blob.digest)
        if size is not None:
            if size != blob.size:
                raise ContentCorrupt(
                    f"{repository.repository}: blob {blob.digest.short} has {size} bytes, its"
                    f" descriptor says {blob.size}",
                    metadata={"digest": blob.digest},
                )
            meter.finish(Stage.EXISTS)
            return
        ingest = await self._store.ingest(blob, resume=True)
        try:
            with TRANSFER_SECONDS.labels("in").time():
                await self._fetch(repository, blob, ingest, meter)
            meter.finish(Stage.DONE)
        finally:
            ingest.close()
            TRANSFERRED_BYTES.labels("in").inc(meter.moved)
            BLOBS.labels("in", "moved" if meter.stage is Stage.DONE else "failed").inc()

    async def _fetch(
        self, repository: Reference, blob: Descriptor, ingest: Ingest, meter: Meter
    ) -> None:
        try:
            await self._registry.fetch_blob(repository, ingest, meter)
        except BlobUnknown as error:
            if not blob.is_foreign:
                raise
            raise BlobUnknown(
                f"{repository.host} does not distribute the foreign layer {blob.digest.short} of"
                f" {repository.repository}, and lns asks no address that a manifest names",
                hint="use an image without foreign layers, or push that layer to the registry too",
                metadata={"digest": blob.digest},
            ) from error
