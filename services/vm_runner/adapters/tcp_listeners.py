"""TCP ports of the host."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable

from services.core.errors import InUse, RequestInvalid
from services.vm_runner.ports import ClientConnection, Listener

_BACKLOG = 256


class TcpConnection:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, most: int) -> bytes:
        """Waits for bytes; empty at the end."""
        return await self._reader.read(most)

    async def write(self, data: bytes) -> None:
        """Writes everything, at the client's pace."""
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Says that nothing more follows."""
        self._writer.write_eof()

    def abort(self) -> None:
        """Closes the connection: at once if bytes are left that nobody takes."""
        transport = self._writer.transport
        if transport.get_write_buffer_size():
            transport.abort()
        else:
            transport.close()


class TcpListener:
    """A port that is listened at."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        """The port's number."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stops listening; connections that stand go on."""
        self._server.close()


class TcpListeners:
    """Listens at ports of this host."""

    async def listen(
        self, ip: str, port: int, serve: Callable[[ClientConnection], Awaitable[None]]
    ) -> Listener:
        """Listens at an address."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve(TcpConnection(reader, writer))

        try:
            server = await asyncio.start_server(accept, ip, port, backlog=_BACKLOG)
        except OSError as error:
            raise _refusal(ip, port, error) from error
        return TcpListener(server)


def _refusal(ip: str, port: int, error: OSError) -> InUse | RequestInvalid:
    address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    metadata = {"address": address}
    if error.errno == errno.EADDRINUSE:
        return InUse(
            f"port {address} is in use",
            hint="another program uses this port; choose another host port, or 0 for a free one",
            metadata=metadata,
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return InUse(
            f"port {address} may not be used by the user of the service",
            hint="ports below 1024 are root's; publish at a higher one",
            metadata=metadata,
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return RequestInvalid(
        f"port {address} cannot be published: {reason}",
        hint="the address must be one of this machine",
        metadata=metadata,
    )
