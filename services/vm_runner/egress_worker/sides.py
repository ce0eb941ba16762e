"""The two sides of a connection: the guest's program, and what the runner dialled.

A side is read until it ends and written at the pace of its reader. Bytes that were read count as
taken when the next are asked for, so that what is not passed on holds up its sender.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from services.core.errors import GuestUnreachable
from services.vm_runner.channel.handles import GuestStream

CHUNK_BYTES: Final = 64 * 1024


class SideLost(Exception):
    """A side broke off: a reset, a failed handshake, a session that ended."""


class Side(Protocol):
    """One side of a connection."""

    async def read(self) -> bytes:
        """Waits for bytes; empty at the end.

        Raises:
            SideLost: it broke off.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Writes everything.

        Raises:
            SideLost: it broke off, or takes no more.
        """
        ...

    async def finish(self) -> None:
        """Says that nothing more is written; reading goes on."""
        ...

    def close(self) -> None:
        """Lets it go; what has not ended in order is reset."""
        ...


class GuestSide:
    """A program of the guest, by the stream of its connection."""

    def __init__(self, stream: GuestStream) -> None:
        self._stream = stream
        self._taken = 0
        self._ended = False
        self._finished = False

    async def read(self) -> bytes:
        """Waits for bytes; empty at the end."""
        if self._ended:
            return b""
        try:
            if self._taken:
                self._stream.acknowledge(self._taken)
                self._taken = 0
            data, self._ended = await self._stream.receive()
        except GuestUnreachable as error:
            raise SideLost(error.message) from error
        self._taken = len(data)
        if self._ended:
            self._stream.acknowledge(self._taken, ended=True)
            self._taken = 0
        return data

    async def write(self, data: bytes) -> None:
        """Writes everything, at the pace of the guest's reader."""
        try:
            taken = await self._stream.write(data)
        except GuestUnreachable as error:
            raise SideLost(error.message) from error
        if not taken:
            raise SideLost("the guest's program reads no more")

    async def finish(self) -> None:
        """Ends what the guest's program gets."""
        if not self._finished:
            self._finished = True
            self._stream.finish()

    async def settle(self, seconds: float) -> None:
        """Waits, no longer than that, until the guest's program has all that it gets."""
        if not self._finished:
            return
        with contextlib.suppress(GuestUnreachable, TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stream.drain()

    def close(self) -> None:
        """Lets the stream go; it is reset unless both ways have ended."""
        if self._ended and self._finished:
            self._stream.leave()
        else:
            self._stream.reset()


class SocketSide:
    """What the runner dialled."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # it is no TCP connection
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._finished = False
        self.sent = 0
        self.received = 0

    async def read(self) -> bytes:
        """Waits for bytes; empty at the end."""
        if self._ended:
            return b""
        try:
            data = await self._loop.sock_recv(self._socket, CHUNK_BYTES)
        except OSError as error:
            raise SideLost(error.strerror or "connection lost") from error
        self._ended = not data
        self.received += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Writes everything."""
        try:
            await self._loop.sock_sendall(self._socket, data)
        except OSError as error:
            raise SideLost(error.strerror or "connection lost") from error
        self.sent += len(data)

    async def finish(self) -> None:
        """Shuts the way there."""
        if not self._finished:
            self._finished = True
            with contextlib.suppress(OSError):  # it is gone already
                self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes it, with a reset unless both ways have ended."""
        if not (self._ended and self._finished):
            with contextlib.suppress(OSError):
                self._socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        # A task that waits for it is cancelled by its connection.
        self._socket.close()


class Primed:
    """A side of which bytes were read before, or are being read."""

    def __init__(self, side: Side, first: bytes = b"") -> None:
        self._side = side
        self._first = first
        self._pending: asyncio.Task[bytes] | None = None

    def read_ahead(self) -> "asyncio.Task[bytes]":
        """Begins to read; the next `read` has what comes of it."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._side.read())
        return self._pending

    def put_back(self, data: bytes) -> None:
        """Has the next `read` give these bytes first."""
        self._first = data + self._first

    async def read(self) -> bytes:
        """Waits for bytes; empty at the end."""
        if self._first:
            data, self._first = self._first, b""
            return data
        if self._pending is not None:
            pending, self._pending = self._pending, None
            return await pending
        return await self._side.read()

    async def write(self, data: bytes) -> None:
        """Writes everything."""
        await self._side.write(data)

    async def finish(self) -> None:
        """Says that nothing more is written."""
        await self._side.finish()

    def close(self) -> None:
        """Lets it go."""
        if self._pending is not None:
            self._pending.cancel()
        self._side.close()


async def relay(one: Side, other: Side) -> None:
    """Passes bytes on, both ways, until both have ended; one may end before the other.

    Raises:
        SideLost: one of them broke off.
    """
    await both(pass_on(one, other), pass_on(other, one))


async def both(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Runs both ways of a connection; the first that fails ends the other.

    Raises:
        SideLost: a side broke off.
        Ended: whatever else one of them raised first.
    """
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(one)
            ways.create_task(other)
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None


async def pass_on(source: Side, sink: Side) -> None:
    """Passes bytes on, one way, and their end.

    Raises:
        SideLost: one of them broke off.
    """
    while data := await source.read():
        await sink.write(data)
    await sink.finish()


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Returns the first error of a group."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
