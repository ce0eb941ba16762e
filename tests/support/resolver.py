"""A resolver inside a test: its real server on a unix socket, and a stub to call it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lns.resolver.v1 import resolver_service_pb2 as pb
from lns.resolver.v1 import resolver_service_pb2_grpc as rpc

from services.chassis.channel import open_channel
from services.chassis.server import Service, running_server
from services.chassis.settings import PeerSettings, ServerSettings


@contextlib.asynccontextmanager
async def served(service: Service, directory: Path) -> AsyncIterator[Any]:
    """Serves a resolver at a socket in a directory with a short path and yields a stub."""
    target = f"unix:{directory}/resolver.sock"
    settings = ServerSettings(listen=(target,), grace=0.5, reflection=False)
    async with (
        running_server(settings, [service]),
        open_channel(PeerSettings(target=target), pb.DESCRIPTOR) as channel,
    ):
        yield rpc.ResolverServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
