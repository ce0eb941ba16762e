"""Content from this machine into the gateway's store."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import BinaryIO, Protocol

from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import descriptor_pb2

from lns.client.content.packing import pack_content
from services.chassis.streams import CHUNK_BYTES
from services.core.artifacts.content import PackedLayer


class BlobWriter(Protocol):
    """The gateway, as far as an upload needs it."""

    def WriteBlob(  # noqa: N802 - the RPC's name
        self, requests: AsyncIterator[pb.WriteBlobRequest], /
    ) -> Awaitable[pb.WriteBlobResponse]:
        """Writes one blob."""
        ...


async def upload_content(source: Path, gateway: BlobWriter) -> descriptor_pb2.Descriptor:
    """Packs a directory or file into one layer, puts it into the store and returns its descriptor.

    Raises:
        RequestInvalid: the source cannot be packed.
        LnsError: as the gateway gave it.
    """
    with tempfile.TemporaryFile() as file:
        layer = await asyncio.to_thread(pack_content, source, file)
        await gateway.WriteBlob(_steps(layer, file))
    return descriptor_pb2.Descriptor(
        media_type=layer.descriptor.media_type,
        digest=layer.descriptor.digest,
        size_bytes=layer.descriptor.size,
    )


async def _steps(layer: PackedLayer, file: BinaryIO) -> AsyncIterator[pb.WriteBlobRequest]:
    header = pb.WriteBlobHeader(digest=layer.descriptor.digest, size_bytes=layer.descriptor.size)
    yield pb.WriteBlobRequest(header=header)
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield pb.WriteBlobRequest(chunk=chunk)
    yield pb.WriteBlobRequest(commit=pb.WriteBlobCommit())
