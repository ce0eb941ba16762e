"""A registry gateway inside a test: its real server on a unix socket, and a stub to call it."""

import contextlib
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import message
from lns.registry.v1 import registry_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2_grpc as rpc

from services.chassis.channel import open_channel
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core.digest import Digest
from services.registry_gateway.bootstrap import open_gateway
from services.registry_gateway.settings import GatewaySettings
from tests.support.processes import serving, started


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """A gateway that answers."""

    stub: Any
    home: Path
    """Its state directory."""
    settings: GatewaySettings

    def blob_path(self, digest: str) -> Path:
        """Where its store has a blob, or would."""
        return self.home / "blobs" / "sha256" / Digest(digest).hex

    def stored(self) -> set[str]:
        """The digests of the blobs in its store."""
        return {f"sha256:{path.name}" for path in (self.home / "blobs" / "sha256").iterdir()}

    def unfinished(self) -> set[str]:
        """The names of what ingests left."""
        return {path.name for path in (self.home / "blobs" / "ingest").iterdir()}

    async def pull(self, reference: str, **fields: Any) -> pb.PullResult:
        """Pulls and returns the result."""
        return (await self.pull_events(reference, **fields))[-1].result

    async def pull_events(self, reference: str, **fields: Any) -> list[pb.PullResponse]:
        """Pulls and returns every message."""
        request = pb.PullRequest(reference=reference, **fields)
        return [response async for response in self.stub.Pull(request)]

    async def push_image(self, source: str, reference: str, **fields: Any) -> pb.PushImageResult:
        """Pushes an image and returns the result."""
        request = pb.PushImageRequest(source=source, reference=reference, **fields)
        return [response async for response in self.stub.PushImage(request)][-1].result

    async def write(self, data: bytes) -> str:
        """Writes a blob into the store and returns its digest."""
        digest = Digest.of(data)
        header = pb.WriteBlobHeader(digest=digest, size_bytes=len(data))
        step = 512 * 1024
        steps = [
            pb.WriteBlobRequest(header=header),
            *(pb.WriteBlobRequest(chunk=data[at : at + step]) for at in range(0, len(data), step)),
            pb.WriteBlobRequest(commit=pb.WriteBlobCommit()),
        ]
        await self.stub.WriteBlob(iter(steps))
        return digest

    async def read(self, digest: str, **fields: Any) -> bytes:
        """Reads a blob of the store."""
        request = pb.ReadBlobRequest(digest=digest, **fields)
        return b"".join([response.data async for response in self.stub.ReadBlob(request)])

    async def call(self, name: str, **fields: Any) -> message.Message:
        """Calls a method with a single answer by its name."""
        response: message.Message = await getattr(self.stub, name)(
            getattr(pb, f"{name}Request")(**fields)
        )
        return response


@contextlib.asynccontextmanager
async def run_gateway(home: Path, **settings: Any) -> AsyncIterator[RunningGateway]:
    """Runs a gateway whose state is below `home`, which must have a short path.

    Args:
        home: an existing directory; files of logins are in it unless settings say otherwise.
        settings: those of `GatewaySettings` that differ from the default.
    """
    defaults: dict[str, Any] = {
        "auth_path": home / "logins.json",
        "docker_config": home / "docker" / "config.json",
        "auth_file": home / "containers" / "auth.json",
        "docker_socket": home / "docker.sock",
        "reserve": 0,
    }
    made = GatewaySettings(**(defaults | settings))
    target = f"unix:{home}/gateway.sock"
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(open_gateway(home, made))
        server = ServerSettings(listen=(target,), grace=1.0, reflection=False)
        await stack.enter_async_context(running_server(server, [service]))
        channel = await stack.enter_async_context(
            open_channel(PeerSettings(target=target), pb.DESCRIPTOR)
        )
        stub = rpc.RegistryServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
        yield RunningGateway(stub=stub, home=home, settings=made)


@contextlib.asynccontextmanager
async def run_gateway_process(home: Path) -> AsyncIterator[tuple[Process, Any]]:
    """A gateway process of its own, and a stub to call it."""
    target = f"unix:{home}/gateway.sock"
    environment = {
        "LNS_HOME": str(home),
        "HOME": str(home),
        "LNS_SERVER__LISTEN": target,
        "LNS_LOG__LEVEL": "warning",
    }
    peer = PeerSettings(target=target)
    async with started("services.registry_gateway", environment=environment) as process:
        await serving(peer)
        async with open_channel(peer, pb.DESCRIPTOR) as channel:
            yield process, rpc.RegistryServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
