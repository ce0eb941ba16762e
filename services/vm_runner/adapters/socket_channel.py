"""Byte channels over unix sockets, whatever the length of their path."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from services.vm_runner.channel.byte_channel import ByteChannel

_BUFFER_BYTES = 256 * 1024


class _Buffered(asyncio.BufferedProtocol):
    """Receives into one buffer that is used again and again, and says when there is room to send.

    A stream reader makes an object of the largest size for each read, has the kernel map and unmap
    its pages, and copies twice: that was half of what a guest's output cost.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(_BUFFER_BYTES)
        self._filled = 0
        self._ended = False
        self._error: Exception | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # of a stream socket
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == _BUFFER_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._arrived.set()
        return True  # what is to be sent is sent

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error = True, exc
        self._arrived.set()
        self._room.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    async def read(self, most: int) -> bytes:
        """Waits for bytes; empty at the end."""
        while not self._filled:
            if self._error is not None:
                raise ConnectionResetError(str(self._error)) from self._error
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        was_full = self._filled == _BUFFER_BYTES
        size = min(most, self._filled)
        data = bytes(memoryview(self._buffer)[:size])
        self._buffer[: self._filled - size] = self._buffer[size : self._filled]
        self._filled -= size
        if was_full and self._transport is not None and not self._ended:
            self._transport.resume_reading()
        return data

    async def drain(self) -> None:
        """Waits until there is room to send.

        Raises:
            OSError: the connection broke.
        """
        await self._room.wait()
        if self._ended and self._error is not None:
            raise ConnectionResetError(str(self._error)) from self._error


class SocketChannel:
    """A connected socket."""

    def __init__(self, transport: asyncio.Transport, protocol: _Buffered) -> None:
        self._transport = transport
        self._protocol = protocol

    async def read(self, most: int) -> bytes:
        """Waits for bytes; empty at the end."""
        return await self._protocol.read(most)

    async def write(self, data: bytes) -> None:
        """Writes everything, at the pace of the other end."""
        if self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(data)
        await self._protocol.drain()

    async def close(self) -> None:
        """Closes it; never raises."""
        # Not `close`: that would wait for a peer that stands still to take what is buffered.
        self._transport.abort()


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yields another name of a socket, short enough for an address while the block runs.

    The kernel takes at most 107 bytes of a path; a name below an open directory is short enough.

    Raises:
        OSError: the directory cannot be opened.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


async def connect_unix(path: Path) -> ByteChannel:
    """Connects to a unix socket.

    Raises:
        OSError: nobody listens there.
    """
    with short_path(path) as short:
        return SocketChannel(*await _loop().create_unix_connection(_Buffered, short))


async def adopt_socket(sock: socket.socket) -> ByteChannel:
    """Returns a channel over a socket that is connected already."""
    return SocketChannel(*await _loop().create_unix_connection(_Buffered, sock=sock))


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
