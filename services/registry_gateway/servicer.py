"""`lns.registry.v1.RegistryService`: messages in, use cases, messages out; no logic."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from lns.registry.v1 import registry_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2_grpc as rpc

from services.chassis.messages import format_descriptor, parse_descriptor, parse_digest
from services.core.reference import Reference
from services.registry_gateway import messages
from services.registry_gateway.artifact_types import ArtifactTypes
from services.registry_gateway.blobs import Blobs
from services.registry_gateway.copy_image import CopyImage
from services.registry_gateway.device_logins import DeviceLogins
from services.registry_gateway.login_ports import Credential
from services.registry_gateway.logins import Logins
from services.registry_gateway.progress import Board, follow
from services.registry_gateway.pull import Pull, PullWish
from services.registry_gateway.push_artifact import PushArtifact
from services.registry_gateway.push_image import PushImage
from services.registry_gateway.repositories import Repositories
from services.registry_gateway.stored_images import StoredImages

MAX_TAGS = 1000
MAX_IMAGES = 1000
DEFAULT_IMAGES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What the gateway does, by part."""

    repositories: Repositories
    pull: Pull
    push_artifact: PushArtifact
    push_image: PushImage
    copy_image: CopyImage
    blobs: Blobs
    types: ArtifactTypes
    images: StoredImages
    logins: Logins
    device_logins: DeviceLogins


class RegistryServicer(rpc.RegistryServiceServicer):
    """The gateway over gRPC; errors are those of the use cases."""

    def __init__(self, use: UseCases, *, default_registry: str) -> None:
        self._use = use
        self._default_registry = default_registry

    async def GetManifest(
        self, request: pb.GetManifestRequest, context: Any
    ) -> pb.GetManifestResponse:
        """See the proto."""
        found, config = await self._use.repositories.get(
            self._reference(request.reference),
            platform=messages.parse_wanted(request),
            config=request.include_config,
            offline=request.offline,
        )
        return messages.format_manifest(found, config)

    async def Pull(self, request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullResponse]:
        """See the proto."""
        board = Board()
        wanted = PullWish(
            reference=self._reference(request.reference),
            platform=messages.parse_wanted(request),
            all_platforms=request.all_platforms,
            mode=messages.parse_mode(request.mode),
            verify=request.verify,
        )
        work = self._use.pull.run(wanted, board)
        async with aclosing(follow(work, board)) as events:
            async for event in events:
                yield messages.format_pull_event(event)

    async def PushArtifact(
        self, request: pb.PushArtifactRequest, context: Any
    ) -> pb.PushArtifactResponse:
        """See the proto."""
        subject = request.subject if request.HasField("subject") else None
        pushed = await self._use.push_artifact.run(
            self._reference(request.reference),
            family=request.family,
            document=request.document,
            layers=[
                parse_descriptor(layer, f"layers[{at}]") for at, layer in enumerate(request.layers)
            ],
            annotations=dict(request.annotations),
            subject=parse_descriptor(subject, "subject") if subject is not None else None,
        )
        return pb.PushArtifactResponse(
            reference=str(pushed.reference),
            descriptor=format_descriptor(pushed.descriptor),
            family=pushed.family.slug,
            warnings=pushed.warnings,
        )

    async def PushImage(
        self, request: pb.PushImageRequest, context: Any
    ) -> AsyncIterator[pb.PushImageResponse]:
        """See the proto."""
        board = Board()
        work = self._use.push_image.run(
            request.source,
            self._reference(request.reference),
            all_platforms=request.all_platforms,
            board=board,
        )
        async with aclosing(follow(work, board)) as events:
            async for event in events:
                yield messages.format_push_event(event)

    async def WriteBlob(
        self, request_iterator: AsyncIterator[pb.WriteBlobRequest], context: Any
    ) -> pb.WriteBlobResponse:
        """See the proto."""
        written = await self._use.blobs.write(messages.parse_steps(request_iterator))
        return pb.WriteBlobResponse(
            digest=written.digest, size_bytes=written.size, already_existed=written.existed
        )

    async def ReadBlob(
        self, request: pb.ReadBlobRequest, context: Any
    ) -> AsyncIterator[pb.ReadBlobResponse]:
        """See the proto."""
        pieces = self._use.blobs.read(
            parse_digest(request.digest), offset=request.offset_bytes, limit=request.limit_bytes
        )
        async with aclosing(pieces):
            total: int | None = None
            async for piece in pieces:
                yield pb.ReadBlobResponse(
                    offset_bytes=piece.offset,
                    data=piece.data,
                    total_bytes=piece.total if total is None else 0,
                )
                total = piece.total

    async def InspectManifest(
        self, request: pb.InspectManifestRequest, context: Any
    ) -> pb.InspectManifestResponse:
        """See the proto."""
        inspected = await self._use.repositories.inspect(
            self._reference(request.reference), messages.parse_wanted(request)
        )
        return messages.format_inspected(
            inspected.resolved, config=inspected.config, family=inspected.family
        )

    async def TagManifest(
        self, request: pb.TagManifestRequest, context: Any
    ) -> pb.TagManifestResponse:
        """See the proto."""
        reference, descriptor = await self._use.repositories.tag(
            self._reference(request.reference), request.tag
        )
        return pb.TagManifestResponse(
            reference=str(reference), descriptor=format_descriptor(descriptor)
        )

    async def CopyManifest(
        self, request: pb.CopyManifestRequest, context: Any
    ) -> AsyncIterator[pb.CopyManifestResponse]:
        """See the proto."""
        board = Board()
        work = self._use.copy_image.run(
            self._reference(request.source),
            self._reference(request.destination),
            platform=messages.parse_copied(request),
            referrers=not request.without_referrers,
            board=board,
        )
        async with aclosing(follow(work, board)) as events:
            async for event in events:
                yield messages.format_copy_event(event)

    async def DeleteManifest(
        self, request: pb.DeleteManifestRequest, context: Any
    ) -> pb.DeleteManifestResponse:
        """See the proto."""
        deleted = await self._use.repositories.delete(
            self._reference(request.reference), force=request.force
        )
        return pb.DeleteManifestResponse(digest=deleted.digest)

    async def ListTags(self, request: pb.ListTagsRequest, context: Any) -> pb.ListTagsResponse:
        """See the proto."""
        tags, next_tag = await self._use.repositories.list_tags(
            self._reference(request.repository),
            after=messages.parse_token(request.page_token),
            limit=messages.parse_page_size(request.page_size, default=MAX_TAGS, most=MAX_TAGS),
        )
        return pb.ListTagsResponse(tags=tags, next_page_token=messages.format_token(next_tag))

    async def ListReferrers(
        self, request: pb.ListReferrersRequest, context: Any
    ) -> pb.ListReferrersResponse:
        """See the proto."""
        found = await self._use.repositories.referrers(
            self._reference(request.reference), request.artifact_type
        )
        return pb.ListReferrersResponse(referrers=[format_descriptor(one) for one in found])

    async def ListArtifactTypes(
        self, request: pb.ListArtifactTypesRequest, context: Any
    ) -> pb.ListArtifactTypesResponse:
        """See the proto."""
        types, authority = await self._use.types.list_types(request.registry)
        return pb.ListArtifactTypesResponse(
            types=[messages.format_type(one) for one in types], authority=authority
        )

    async def ValidateArtifact(
        self, request: pb.ValidateArtifactRequest, context: Any
    ) -> pb.ValidateArtifactResponse:
        """See the proto."""
        artifact = await self._use.types.validate(
            request.document, family=request.family, registry=request.registry
        )
        return pb.ValidateArtifactResponse(family=artifact.family.slug, name=artifact.name)

    async def Login(self, request: pb.LoginRequest, context: Any) -> pb.LoginResponse:
        """See the proto."""
        credential = Credential(username=request.username, secret=request.secret)
        stored = await self._use.logins.login(request.registry, credential)
        return pb.LoginResponse(stored_in=stored.stored_in, location=stored.location)

    async def Logout(self, request: pb.LogoutRequest, context: Any) -> pb.LogoutResponse:
        """See the proto."""
        return pb.LogoutResponse(removed=await self._use.logins.logout(request.registry))

    async def ListLogins(
        self, request: pb.ListLoginsRequest, context: Any
    ) -> pb.ListLoginsResponse:
        """See the proto."""
        logins = await self._use.logins.list_logins()
        return pb.ListLoginsResponse(logins=[messages.format_login(one) for one in logins])

    async def StartDeviceLogin(
        self, request: pb.StartDeviceLoginRequest, context: Any
    ) -> pb.StartDeviceLoginResponse:
        """See the proto."""
        login_id, code = await self._use.device_logins.start(request.registry)
        return messages.format_device_code(login_id, code)

    async def FinishDeviceLogin(
        self, request: pb.FinishDeviceLoginRequest, context: Any
    ) -> pb.FinishDeviceLoginResponse:
        """See the proto."""
        stored = await self._use.device_logins.finish(request.login_id)
        return pb.FinishDeviceLoginResponse(stored_in=stored.stored_in, location=stored.location)

    async def ListStoredImages(
        self, request: pb.ListStoredImagesRequest, context: Any
    ) -> pb.ListStoredImagesResponse:
        """See the proto."""
        tags, next_reference = await self._use.images.list_tags(
            after=messages.parse_token(request.page_token),
            limit=messages.parse_page_size(
                request.page_size, default=DEFAULT_IMAGES, most=MAX_IMAGES
            ),
        )
        return pb.ListStoredImagesResponse(
            images=[messages.format_stored(tag) for tag in tags],
            next_page_token=messages.format_token(next_reference),
        )

    async def RemoveStoredImage(
        self, request: pb.RemoveStoredImageRequest, context: Any
    ) -> pb.RemoveStoredImageResponse:
        """See the proto."""
        removed = await self._use.images.remove(self._reference(request.reference))
        return pb.RemoveStoredImageResponse(references=removed)

    async def TagStoredImage(
        self, request: pb.TagStoredImageRequest, context: Any
    ) -> pb.TagStoredImageResponse:
        """See the proto."""
        tag = await self._use.images.tag(
            self._reference(request.source), self._reference(request.target)
        )
        return pb.TagStoredImageResponse(
            reference=tag.reference, descriptor=format_descriptor(tag.root)
        )

    async def ListLeases(
        self, request: pb.ListLeasesRequest, context: Any
    ) -> pb.ListLeasesResponse:
        """See the proto."""
        leases = await self._use.images.list_leases(request.prefix)
        return pb.ListLeasesResponse(leases=[messages.format_lease(lease) for lease in leases])

    async def PruneBlobs(
        self, request: pb.PruneBlobsRequest, context: Any
    ) -> pb.PruneBlobsResponse:
        """See the proto."""
        pruned = await self._use.images.prune(
            dry_run=request.dry_run, include_tagged=request.include_tagged
        )
        return pb.PruneBlobsResponse(digests=pruned.digests, freed_bytes=pruned.freed_bytes)

    async def AcquireLease(
        self, request: pb.AcquireLeaseRequest, context: Any
    ) -> pb.AcquireLeaseResponse:
        """See the proto."""
        lease = await self._use.images.acquire(
            request.lease_id,
            holder=request.holder,
            digests=[
                parse_digest(digest, f"digests[{at}]") for at, digest in enumerate(request.digests)
            ],
            life=messages.parse_life(request),
        )
        return pb.AcquireLeaseResponse(lease=messages.format_lease(lease))

    async def ReleaseLease(
        self, request: pb.ReleaseLeaseRequest, context: Any
    ) -> pb.ReleaseLeaseResponse:
        """See the proto."""
        await self._use.images.release(request.lease_id)
        return pb.ReleaseLeaseResponse()

    def _reference(self, text: str) -> Reference:
        return Reference.parse(text, default_registry=self._default_registry)
