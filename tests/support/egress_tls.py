"""TLS of a guest's program over a connection of the fake agent."""

import ssl
from collections.abc import Awaitable, Callable

from tests.fakes.egress_agent import AgentConnection

Reads = Callable[[], Awaitable[bytes]]
Writes = Callable[[bytes], Awaitable[None]]


async def over_tls(
    connection: AgentConnection, context: ssl.SSLContext, name: str
) -> tuple[Reads, Writes]:
    """Shakes hands as a client of a name; returns what reads and what writes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)

    async def read() -> bytes:
        while True:
            try:
                return tls.read(65536)
            except ssl.SSLWantReadError:
                data = await connection.read()
                if not data:
                    return b""
                incoming.write(data)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(data: bytes) -> None:
        tls.write(data)
        await connection.write(outgoing.read())

    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            await connection.write(outgoing.read())
            incoming.write(await connection.read())
        else:
            await connection.write(outgoing.read())
            return read, write
