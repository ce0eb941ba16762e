"""A gateway that is served over fakes, for behaviour tests."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lns.registry.v1 import registry_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2_grpc as rpc

from services.chassis.blocking import Blocking
from services.chassis.channel import open_channel
from services.chassis.server import Service, running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core import errors
from services.registry_gateway.adapters.sources.image_sources import LocalImageSources
from services.registry_gateway.adapters.sources.spool import Spool
from services.registry_gateway.bootstrap import Parts, assemble
from services.registry_gateway.login_ports import Credential, DeviceCode
from services.registry_gateway.settings import GatewaySettings
from tests.fakes.registry import FakeRegistry, NoAuthority
from tests.fakes.registry_store import MemoryIndex, MemoryLogins, MemoryStore
from tests.support.images import Built

REFERENCE = "registry.example/team/app:v1"
FULL_NAME = pb.DESCRIPTOR.services_by_name["RegistryService"].full_name


class NoIssuer:
    """Implements `DeviceIssuer` where no registry has one."""

    async def start(self, host: str) -> DeviceCode:
        raise errors.Unimplemented(f"{host} advertises no device login")

    async def poll(self, code: DeviceCode) -> Credential | None:
        return None


@dataclass(slots=True, kw_only=True)
class World:
    """A gateway that is served, its fakes, and a stub."""

    registry: FakeRegistry
    store: MemoryStore
    index: MemoryIndex
    logins: MemoryLogins
    service: Service
    target: str
    stub: Any = None

    def put(self, built: Built, reference: str = REFERENCE) -> str:
        """Puts an image into the registry; returns the reference."""
        for child in built.children:
            pinned = f"{reference.rpartition(':')[0]}@{child.digest}"
            self.put(child, pinned)
        self.registry.put(reference, built.raw, built.media_type, built.all_blobs)
        return reference

    async def pull(self, reference: str = REFERENCE, **fields: Any) -> list[pb.PullResponse]:
        """Returns every message of a pull."""
        call = self.stub.Pull(pb.PullRequest(reference=reference, **fields))
        return [event async for event in call]


@contextlib.asynccontextmanager
async def served(directory: Path) -> AsyncIterator[World]:
    """Serves a gateway over fakes until the block ends."""
    registry, store, index, logins = FakeRegistry(), MemoryStore(), MemoryIndex(), MemoryLogins()
    settings = GatewaySettings.of_environment({"HOME": str(directory)})
    with Blocking(4) as threads:
        parts = Parts(
            registry=registry,
            login_check=registry,
            store=store,
            index=index,
            sources=LocalImageSources(
                threads, spool=Spool(directory), docker_socket=directory / "docker.sock"
            ),
            authority=NoAuthority(),
            login_store=logins,
            device_issuer=NoIssuer(),
            disk=threads,
            calls=threads,
        )
        service = Service(
            add_to_server=rpc.add_RegistryServiceServicer_to_server,
            servicer=assemble(parts, settings),
            full_name=FULL_NAME,
        )
        target = f"unix:{directory}/g.sock"
        world = World(
            registry=registry,
            store=store,
            index=index,
            logins=logins,
            service=service,
            target=target,
        )
        yield world


@contextlib.asynccontextmanager
async def running(world: World, *, grace: float = 1.0) -> AsyncIterator[None]:
    """Runs the server of a world, and opens its stub."""
    server = ServerSettings(listen=(world.target,), grace=grace, reflection=False)
    async with (
        open_channel(PeerSettings(target=world.target), pb.DESCRIPTOR) as channel,
        running_server(server, [world.service]),  # ends first: whoever calls sees it drain
    ):
        world.stub = rpc.RegistryServiceStub(channel)
        yield
