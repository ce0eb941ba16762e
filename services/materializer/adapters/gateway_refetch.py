"""Brings back lost and damaged blobs: has the gateway pull a manifest from where it came."""

import grpc.aio
from lns.registry.v1 import registry_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2_grpc as rpc

from services.core.digest import Digest
from services.core.errors import BlobsMissing
from services.materializer.blob_errors import missing

_PAGE = 1000


class GatewayRefetch:
    """The port `Refetch` on a channel to the gateway."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = rpc.RegistryServiceStub(channel)

    async def manifest(self, digest: Digest) -> None:
        """Checks a manifest's blobs and pulls what is not whole.

        Raises:
            BlobsMissing: the gateway does not know where it came from.
            LnsError: what the pull raises.
        """
        reference = await self._reference(digest)
        async for _ in self._stub.Pull(pb.PullRequest(reference=reference, verify=True)):
            pass

    async def _reference(self, digest: Digest) -> str:
        token = ""
        while True:
            page = await self._stub.ListStoredImages(
                pb.ListStoredImagesRequest(page_size=_PAGE, page_token=token)
            )
            for stored in page.images:
                if digest in (stored.descriptor.digest, stored.platform_manifest.digest):
                    return _pinned(stored.reference, digest)
            token = page.next_page_token
            if not token:
                raise _unknown(digest)


def _pinned(reference: str, digest: Digest) -> str:
    """The repository of a reference with that digest."""
    name = reference.partition("@")[0]
    host, slash, path = name.rpartition("/")
    return f"{host}{slash}{path.partition(':')[0]}@{digest}"


def _unknown(digest: Digest) -> BlobsMissing:
    error = missing(digest)
    error.message = f"the gateway does not know where {digest} came from"
    return error
