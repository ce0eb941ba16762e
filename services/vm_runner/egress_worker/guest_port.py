"""The run's port `lns.egress`: a connected socket, as the byte channel of a guest session."""

import asyncio
import socket


class GuestPort:
    """A connected stream socket, whose other end QEMU holds."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._loop = asyncio.get_running_loop()

    async def read(self, most: int) -> bytes:
        """Waits for bytes; empty at the end."""
        return await self._loop.sock_recv(self._socket, most)

    async def write(self, data: bytes) -> None:
        """Writes everything, at the pace of the other end."""
        await self._loop.sock_sendall(self._socket, data)

    async def close(self) -> None:
        """Closes it; never raises."""
        self._socket.close()
