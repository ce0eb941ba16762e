"""A resolver on a real gateway and a real registry."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lns.registry.v1 import registry_service_pb2 as registry_pb
from services.chassis.settings import PeerSettings
from services.core.artifacts.documents import canonical_json
from services.core.artifacts.families import Family
from services.core.descriptor import OCI_LAYER_GZIP
from services.resolver.bootstrap import open_resolver
from services.resolver.settings import ResolverSettings
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import Built, upload
from tests.support.registry import RunningRegistry
from tests.support.resolver import served


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Registry, gateway and resolver, with a place of the test's own in the registry."""

    registry: RunningRegistry
    gateway: RunningGateway
    resolver: Any
    """Stub of the resolver."""
    prefix: str
    """`host:port/random`: artifacts of the test are below it."""

    async def push(
        self, path: str, family: Family, document: dict[str, Any], *, layer: bytes | None = None
    ) -> str:
        """Pushes an artifact through the gateway; returns its digest."""
        layers = []
        if layer is not None:
            digest = await self.gateway.write(layer)
            layers = [{"media_type": OCI_LAYER_GZIP, "digest": digest, "size_bytes": len(layer)}]
        response = await self.gateway.stub.PushArtifact(
            registry_pb.PushArtifactRequest(
                reference=f"{self.prefix}/{path}",
                family=family.slug,
                document=canonical_json(document),
                layers=layers,
            )
        )
        return str(response.descriptor.digest)

    def put_image(self, path: str, built: Built) -> str:
        """Puts an image into the registry; returns its reference."""
        repository, _, tag = path.rpartition(":")
        within = self.prefix.partition("/")[2]
        upload(self.registry.url, f"{within}/{repository}", built, tag)
        return f"{self.prefix}/{path}"


@pytest.fixture
async def world(
    registry: RunningRegistry, tmp_path: Path, short_directory: Path
) -> AsyncIterator[World]:
    """Everything, with empty stores."""
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(run_gateway(short_directory))
        peer = PeerSettings(target=f"unix:{short_directory}/gateway.sock")
        settings = ResolverSettings(registry_gateway=peer, platform="linux/amd64")
        service = await stack.enter_async_context(open_resolver(tmp_path, settings))
        resolver = await stack.enter_async_context(served(service, short_directory))
        prefix = registry.new_repository().rpartition("/")[0]
        yield World(registry=registry, gateway=gateway, resolver=resolver, prefix=prefix)
