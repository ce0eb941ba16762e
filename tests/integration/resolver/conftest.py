"""A resolver on a real gateway and a real registry."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lns.registry.v1 import registry_service_pb2 as registry_pb

from services.chassis.settings import PeerSettings
from services.core.artifacts import families
from services.core.artifacts.documents import canonical_json
from services.core.artifacts.families import Family
from services.core.descriptor import OCI_LAYER_GZIP
from services.resolver.bootstrap import open_resolver
from services.resolver.settings import ResolverSettings
from tests.support.documents import document
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import Built, build_image, build_index, tar_layer, upload
from tests.support.registry import RunningRegistry
from tests.support.resolver import served


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Registry, gateway and resolver, with a place of the test's own in the registry."""

    registry_url: str
    gateway: RunningGateway
    resolver: Any
    """Stub of the resolver."""
    prefix: str
    """`host:port/random`: artifacts of the test are below it."""

    @property
    def path(self) -> str:
        """The prefix without the host: components of bundles begin with it."""
        return self.prefix.partition("/")[2]

    async def push(
        self,
        family: Family,
        name: str,
        spec: dict[str, Any],
        *,
        layer: bytes | None = None,
        **more: Any,
    ) -> str:
        """Pushes an artifact through the gateway; returns its reference without the host."""
        layers = []
        if layer is not None:
            digest = await self.gateway.write(layer)
            layers = [{"media_type": OCI_LAYER_GZIP, "digest": digest, "size_bytes": len(layer)}]
        reference = f"{self.path}/{family.path_segment}/{name}:1"
        await self.gateway.stub.PushArtifact(
            registry_pb.PushArtifactRequest(
                reference=f"{self.prefix.partition('/')[0]}/{reference}",
                document=canonical_json(document(family, name, spec, **more)),
                layers=layers,
            )
        )
        return reference

    def put_image(self, path: str, built: Built) -> str:
        """Puts an image into the registry; returns its reference."""
        repository, _, tag = path.rpartition(":")
        upload(self.registry_url, f"{self.path}/{repository}", built, tag)
        return f"{self.prefix}/{path}"

    async def put_bundle(self) -> str:
        """Puts a bundle of everything that mounts or limits; returns its reference."""
        layer, _ = tar_layer({"hello.txt": b"hello"})
        image = self.put_image("images/base:1", build_index(("amd64", build_image(layer))))
        route = {"match": "api.example.com", "verdict": "allow"}
        components = {
            "agent": await self.push(
                families.AGENT, "hello", {"image": image, "command": "echo hello"}
            ),
            "sandbox": await self.push(
                families.SANDBOX, "small", {"resources": {"cpu": "1500m", "memory": "2Gi"}}
            ),
            "model": await self.push(families.MODEL, "m", {"provider": "p", "model": "m"}),
            "filesets": await self.push(
                families.FILESET, "data", {}, layer=layer, mount={"path": "/opt/data"}
            ),
            "policies": await self.push(
                families.POLICY, "base", {"network": {"allowedRoutes": [route]}}
            ),
        }
        spec = {"components": {name: {"ref": ref} for name, ref in components.items()}}
        reference = await self.push(families.BUNDLE, "system", spec)
        return f"{self.prefix.partition('/')[0]}/{reference}"


OpenWorld = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def open_world(tmp_path: Path, short_directory: Path) -> OpenWorld:
    """Opens gateway and resolver with empty stores before a registry, or a proxy before it."""

    @contextlib.asynccontextmanager
    async def opened(registry: RunningRegistry, host: str = "") -> AsyncIterator[World]:
        async with contextlib.AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(run_gateway(short_directory, attempts=1))
            peer = PeerSettings(target=f"unix:{short_directory}/gateway.sock")
            settings = ResolverSettings(registry_gateway=peer, platform="linux/amd64")
            service = await stack.enter_async_context(open_resolver(tmp_path, settings))
            resolver = await stack.enter_async_context(served(service, short_directory))
            path = registry.new_repository().partition("/")[2].rpartition("/")[0]
            yield World(
                registry_url=registry.url,
                gateway=gateway,
                resolver=resolver,
                prefix=f"{host or registry.host}/{path}",
            )

    return opened


@pytest.fixture
async def world(registry: RunningRegistry, open_world: OpenWorld) -> AsyncIterator[World]:
    """Everything, with empty stores."""
    async with open_world(registry) as opened:
        yield opened
