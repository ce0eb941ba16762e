"""Ports of a guest's loopback, published on the host.

Listening is the host's business and lasts from a run's start to its end, restarts included; each
connection becomes a stream of the guest channel to the port inside. A half-closed connection stays
open the other way, as with a real one.
"""

import asyncio
import contextlib
from dataclasses import replace
from typing import Protocol

import structlog

from services.core.errors import GuestUnreachable, LnsError
from services.core.run_plan import PortMapping
from services.vm_runner.channel.handles import GuestProcess, GuestStream
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.ports import ClientConnection, Listener, PortListeners

log = structlog.get_logger()

CONNECTIONS_MAX = 512
"""Open connections to the published ports of one run; further ones are refused."""

_CONNECT_SECONDS = 10.0
_READ_BYTES = 64 * 1024


class Reachable(Protocol):
    """A run whose guest may be reached."""

    async def workload(self) -> tuple[GuestSession, GuestProcess] | None:
        """Waits until the workload can be reached; returns None if it has ended."""
        ...


class PublishedPorts:
    """The published ports of one run."""

    def __init__(self, run: Reachable, listeners: PortListeners) -> None:
        self._run = run
        self._listeners = listeners
        self._open: dict[PortMapping, Listener] = {}
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def mappings(self) -> tuple[PortMapping, ...]:
        """The ports as they are published, with the host's port filled in."""
        return tuple(self._open)

    async def publish(self, wanted: PortMapping) -> PortMapping:
        """Publishes a port; does nothing where it is published already.

        Raises:
            InUse: another program listens there, or the address cannot be used.
        """
        if wanted in self._open:
            return wanted

        async def serve(connection: ClientConnection) -> None:
            await self._serve(wanted.container_port, connection)

        listener = await self._listeners.listen(wanted.host_ip, wanted.host_port, serve)
        mapping = replace(wanted, host_port=listener.port)
        self._open[mapping] = listener
        return mapping

    async def publish_all(self, wanted: tuple[PortMapping, ...]) -> None:
        """Publishes several ports, or none.

        Raises:
            InUse: one of them cannot be had.
        """
        try:
            for mapping in wanted:
                await self.publish(mapping)
        except LnsError:
            await self.close()
            raise

    async def unpublish(self, mapping: PortMapping) -> None:
        """Takes a port back; connections that stand go on."""
        listener = self._open.pop(mapping, None)
        if listener is not None:
            await listener.close()

    async def close(self) -> None:
        """Takes every port back and ends every connection."""
        for mapping in self.mappings:
            await self.unpublish(mapping)
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    # ---- connections ----

    async def _serve(self, port: int, connection: ClientConnection) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= CONNECTIONS_MAX:
            connection.abort()
            return
        self._connections.add(task)
        try:
            await self._carry(port, connection)
        except (LnsError, OSError, TimeoutError) as error:
            log.debug("connection_failed", port=port, error=str(error))
        finally:
            self._connections.discard(task)
            connection.abort()

    async def _carry(self, port: int, connection: ClientConnection) -> None:
        found = await self._run.workload()  # a client may come while the guest boots
        if found is None:
            return
        session, _ = found
        async with asyncio.timeout(_CONNECT_SECONDS):
            stream = await session.connections.connect(port)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_carry_in(connection, stream))
                ways.create_task(_carry_out(stream, connection))
        except BaseException as error:
            stream.reset()
            if isinstance(error, BaseExceptionGroup):
                raise GuestUnreachable("the connection broke") from error
            raise
        stream.leave()


async def _carry_in(connection: ClientConnection, stream: GuestStream) -> None:
    while data := await connection.read(_READ_BYTES):
        if not await stream.write(data):
            return  # the guest has closed its side for reading
    stream.finish()
    await stream.drain()


async def _carry_out(stream: GuestStream, connection: ClientConnection) -> None:
    async with contextlib.aclosing(stream.read_chunks()) as chunks:
        async for data in chunks:
            await connection.write(data)
    connection.end()
