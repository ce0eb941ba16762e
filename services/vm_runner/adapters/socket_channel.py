"""Byte channels over unix sockets, whatever the length of their path."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from services.vm_runner.channel.byte_channel import ByteChannel


class SocketChannel:
    """A connected socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, most: int) -> bytes:
        """Waits for bytes; empty at the end."""
        return await self._reader.read(most)

    async def write(self, data: bytes) -> None:
        """Writes everything, at the pace of the other end."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Closes it; never raises."""
        # Not `close`: that would wait for a peer that stands still to take what is buffered.
        self._writer.transport.abort()


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
        reader, writer = await asyncio.open_unix_connection(short)
    return SocketChannel(reader, writer)


async def adopt_socket(sock: socket.socket) -> ByteChannel:
    """Returns a channel over a socket that is connected already."""
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    return SocketChannel(reader, writer)
