"""Manifests from the registry gateway."""

from typing import Any, Final

import grpc.aio
from lns.registry.v1 import registry_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2_grpc as rpc

from services.chassis.messages import format_platform, parse_descriptor
from services.core.descriptor import Descriptor
from services.core.errors import (
    ContentCorrupt,
    DeadlineExceeded,
    LnsError,
    RegistryProtocol,
    ServiceUnavailable,
)
from services.core.manifest import Index, Manifest, parse_manifest
from services.core.platforms import Platform
from services.resolver.ports import FetchedManifest

_RETRY_SECONDS: Final = 1.0


class GatewayManifests:
    """Implements `ManifestSource` on a channel to the gateway.

    The gateway has verified every digest; they are verified once more here, since a plan is only as
    good as what it is pinned to.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # The generated stub is typed for a real channel; ours has its own callables.
        self._gateway: Any = rpc.RegistryServiceStub(channel)

    async def fetch(
        self, reference: str, *, platform: Platform, offline: bool = False
    ) -> FetchedManifest:
        """See `ManifestSource.fetch`."""
        request = pb.GetManifestRequest(
            reference=reference,
            platform=format_platform(platform),
            include_config=True,
            offline=offline,
        )
        try:
            response: pb.GetManifestResponse = await self._gateway.GetManifest(request)
        except ServiceUnavailable as error:
            raise ServiceUnavailable(
                f"the registry gateway is gone: {error.message}",
                hint="try again; `lns service status` shows whether it runs",
                retry_after=error.retry_after or _RETRY_SECONDS,
            ) from error
        except DeadlineExceeded as error:  # the gateway answers by itself: a registry does not
            raise DeadlineExceeded(
                f"the registry gateway did not answer about {reference} in time",
                hint="check that the registry can be reached, and try again",
            ) from error
        descriptor, root = _descriptors(response)
        manifest = parse_manifest(
            response.manifest, media_type=descriptor.media_type, digest=descriptor.digest
        )
        if isinstance(manifest, Index):
            raise RegistryProtocol(f"{reference}: an index led to another index, not to a manifest")
        _verify(response, manifest, descriptor)
        _, at, digest = reference.partition("@")
        if at and root.digest != digest:
            raise ContentCorrupt(
                f"{reference} was answered with {root.digest}", metadata={"digest": root.digest}
            )
        return FetchedManifest(
            reference=response.reference,
            repository=response.repository,
            root=root,
            manifest=manifest,
            config=response.config,
        )


def _descriptors(response: pb.GetManifestResponse) -> tuple[Descriptor, Descriptor]:
    try:
        return (
            parse_descriptor(response.descriptor, "descriptor"),
            parse_descriptor(response.root, "root"),
        )
    except LnsError as error:
        raise RegistryProtocol(f"the gateway's answer cannot be read: {error.message}") from error


def _verify(response: pb.GetManifestResponse, manifest: Manifest, descriptor: Descriptor) -> None:
    if not descriptor.digest.is_of(response.manifest):
        raise ContentCorrupt(
            f"manifest of {response.reference} does not have the digest {descriptor.digest}",
            metadata={"digest": descriptor.digest},
        )
    if not manifest.config.digest.is_of(response.config):
        raise ContentCorrupt(
            f"config of {response.reference} does not have the digest {manifest.config.digest}",
            metadata={"digest": manifest.config.digest},
        )
