"""Streams without data: pings keep them, and a server takes no ping of ours for abuse."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from services.chassis.channel import open_channel
from services.chassis.keepalive import Keepalive
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core.errors import LnsError, ServiceUnavailable
from tests.support.echo import DESCRIPTOR, EchoStub, Text, echo_service, text

# As the real ones, with pings as often as gRPC sends them at most: one a second.
_SHORT = Keepalive(client_interval=0.1, server_interval=0.2, permitted_interval=0.01)
_DISAGREEING = Keepalive(server_interval=0.2, permitted_interval=600)


async def outcome(
    address: str, server: Keepalive, go_on: asyncio.Event
) -> list[str] | type[LnsError]:
    """What a client with short times hears on a stream that is quiet until `go_on`."""

    async def quiet(request: Text, context: Any) -> AsyncIterator[Text]:
        yield text("began")
        await go_on.wait()
        yield text("ended")

    settings = ServerSettings(listen=(address,), plaintext_tcp=True, grace=0.2)
    async with running_server(settings, [echo_service(Count=quiet)], keepalive=server) as (bound,):
        peer = PeerSettings(target=bound)
        async with open_channel(peer, DESCRIPTOR, keepalive=_SHORT) as channel:
            try:
                return [answer.value async for answer in EchoStub(channel).Count(text(""))]
            except LnsError as error:
                return type(error)


async def test_a_quiet_stream_lives_on_where_a_server_that_disagrees_cuts_it(
    short_directory: Path,
) -> None:
    """Over unix sockets and TCP; those that are cut say when the others have had pings enough."""
    go_on = asyncio.Event()
    tcp = "127.0.0.1:0"
    agreeing = [
        asyncio.ensure_future(outcome(address, _SHORT, go_on))
        for address in (f"unix:{short_directory}/agrees.sock", tcp)
    ]

    cut = await asyncio.gather(
        *(
            outcome(address, _DISAGREEING, asyncio.Event())
            for address in (f"unix:{short_directory}/disagrees.sock", tcp)
        )
    )
    go_on.set()

    assert cut == [ServiceUnavailable, ServiceUnavailable]
    assert await asyncio.gather(*agreeing) == [["began", "ended"], ["began", "ended"]]
