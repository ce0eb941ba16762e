"""`lns.materializer.v1.MaterializerService`: parses, calls a use case, converts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lns.materializer.v1 import materializer_service_pb2 as pb
from lns.materializer.v1 import materializer_service_pb2_grpc as rpc

from services.chassis.blocking import Blocking
from services.chassis.messages import invalid
from services.chassis.streams import CHUNK_BYTES
from services.materializer import messages
from services.materializer.images import Materialized, Progress
from services.materializer.library import Library
from services.materializer.materialize import Materialize
from services.materializer.verification import Verify


class MaterializerServicer(rpc.MaterializerServiceServicer):
    """The service on top of its use cases."""

    def __init__(
        self, *, materialize: Materialize, library: Library, verify: Verify, blocking: Blocking
    ) -> None:
        self._materialize = materialize
        self._library = library
        self._verify = verify
        self._blocking = blocking

    async def Materialize(
        self, request: pb.MaterializeRequest, context: Any
    ) -> AsyncIterator[pb.MaterializeResponse]:
        """Makes the image of an OCI image with mounts."""
        digest, mounts = messages.parse_materialize(request)
        steps: asyncio.Queue[Progress | None] = asyncio.Queue()

        async def run() -> Materialized:
            try:
                return await self._materialize.run(digest, mounts, steps.put_nowait)
            finally:
                steps.put_nowait(None)

        task = asyncio.create_task(run())
        try:
            while (step := await steps.get()) is not None:
                yield messages.format_progress(step)
            yield messages.format_result(await task)
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def GetImage(self, request: pb.GetImageRequest, context: Any) -> pb.GetImageResponse:
        """Describes an image."""
        image = await self._library.get(request.image)
        return pb.GetImageResponse(image=messages.format_image(image))

    async def ListImages(
        self, request: pb.ListImagesRequest, context: Any
    ) -> pb.ListImagesResponse:
        """Lists images by pages."""
        before, size = messages.parse_page(request)
        images = await self._library.list(before=before, limit=size + 1)
        return messages.format_page(images, size)

    async def VerifyImage(
        self, request: pb.VerifyImageRequest, context: Any
    ) -> pb.VerifyImageResponse:
        """Hashes every object of an image again."""
        found = await self._verify.run(request.image, repair=request.repair)
        return messages.format_verification(found)

    async def RemoveImage(
        self, request: pb.RemoveImageRequest, context: Any
    ) -> pb.RemoveImageResponse:
        """Removes an image."""
        await self._library.remove(request.image)
        return pb.RemoveImageResponse()

    async def PruneImages(
        self, request: pb.PruneImagesRequest, context: Any
    ) -> pb.PruneImagesResponse:
        """Removes what no lease needs."""
        return messages.format_pruned(await self._library.prune(dry_run=request.dry_run))

    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        """Says what the store takes on disk."""
        return messages.format_usage(await self._library.usage())

    async def ReadImageFile(
        self, request: pb.ReadImageFileRequest, context: Any
    ) -> AsyncIterator[pb.ReadImageFileResponse]:
        """Streams one file of an image."""
        what, diff_id, offset = messages.parse_file(request)
        async with self._library.file(request.image, what, diff_id) as path:
            with await self._blocking.run(path.open, "rb") as file:
                if offset > await self._blocking.run(file.seek, 0, 2):
                    raise invalid("offset_bytes", "lies behind the end of the file")
                await self._blocking.run(file.seek, offset)
                while data := await self._blocking.run(file.read, CHUNK_BYTES):
                    yield pb.ReadImageFileResponse(data=data)

    async def AcquireLease(
        self, request: pb.AcquireLeaseRequest, context: Any
    ) -> pb.AcquireLeaseResponse:
        """Keeps an image from being pruned."""
        lease, image = await self._library.acquire_lease(
            lease_id=request.lease_id,
            holder=request.holder,
            name=request.image,
            lasts=messages.parse_time_to_live(request),
        )
        return messages.format_lease(lease, image)

    async def ReleaseLease(
        self, request: pb.ReleaseLeaseRequest, context: Any
    ) -> pb.ReleaseLeaseResponse:
        """Gives a lease up."""
        await self._library.release_lease(request.lease_id)
        return pb.ReleaseLeaseResponse()
