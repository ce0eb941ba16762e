"""Blobs over the gateway's RPCs, where the two services do not share a store."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
from lns.registry.v1 import registry_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2_grpc as rpc

from services.chassis.streams import check_chunk
from services.core.digest import Digest
from services.core.errors import BlobUnknown, ContentCorrupt
from services.materializer.adapters.shared_blobs import checked
from services.materializer.adapters.store_files import StoreFiles, translated
from services.materializer.blob_errors import missing


class GatewayBlobs:
    """The port `Blobs` on a channel to the gateway; large blobs go to the store's work area."""

    def __init__(self, channel: grpc.aio.Channel, files: StoreFiles) -> None:
        self._stub = rpc.RegistryServiceStub(channel)
        self._files = files

    async def read(self, digest: Digest, *, limit: int) -> bytes:
        """Returns a small blob whole; raises BlobsMissing, LimitExceeded, ContentCorrupt."""
        data = bytearray()
        async for chunk in self._chunks(digest, limit_bytes=limit + 1):
            data += chunk
        return checked(bytes(data), digest, limit)

    @contextlib.asynccontextmanager
    async def file(self, digest: Digest) -> AsyncIterator[Path]:
        """Yields a verified copy of the blob; raises BlobsMissing, ContentCorrupt."""
        with self._files.scratch() as directory:
            path = directory / "blob"
            hasher = digest.hasher()
            with translated(), path.open("wb") as file:
                async for chunk in self._chunks(digest, limit_bytes=0):
                    hasher.update(chunk)
                    file.write(chunk)
            if hasher.hexdigest() != digest.hex:
                raise ContentCorrupt(
                    f"the gateway sent other bytes than those of {digest}",
                    metadata={"digest": digest},
                )
            yield path

    async def _chunks(self, digest: Digest, *, limit_bytes: int) -> AsyncIterator[bytes]:
        request = pb.ReadBlobRequest(digest=digest, limit_bytes=limit_bytes)
        try:
            async for response in self._stub.ReadBlob(request):
                check_chunk(response.data)
                yield response.data
        except BlobUnknown:
            raise missing(digest) from None
