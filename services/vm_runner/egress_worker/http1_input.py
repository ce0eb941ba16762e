"""Bytes of a side, of which a head or a body of HTTP/1 is taken at a time."""

import asyncio

from services.vm_runner.egress_worker.bodies import BodyReader
from services.vm_runner.egress_worker.heads import HeadInvalid, split_head
from services.vm_runner.egress_worker.sides import Primed, Side


class Input:
    """Bytes of a side, of which a head or a body is taken at a time."""

    def __init__(self, side: Side) -> None:
        self._side = Primed(side)
        self._buffer = bytearray()

    async def head(self, most: int) -> bytes | None:
        """Waits for a whole head; None if the side ends before one begins.

        Raises:
            HeadInvalid: it is longer than `most`, or cut off.
            SideLost: the side broke off.
        """
        while True:
            while self._buffer[:2] == b"\r\n":  # RFC 9112, 2.2: empty lines before a request
                del self._buffer[:2]
            size = None if self._buffer == b"\r" else split_head(self._buffer, most)
            if size is not None:
                head = bytes(self._buffer[:size])
                del self._buffer[:size]
                return head
            data = await self._side.read()
            if not data:
                if self._buffer.strip():
                    raise HeadInvalid("a head that ends too early")
                return None
            self._buffer += data

    async def piece(self, body: BodyReader) -> bytes:
        """Waits for more of a body; empty when it ends with the connection.

        Raises:
            HeadInvalid: it is malformed, or ends too early.
            SideLost: the side broke off.
        """
        data = bytes(self._buffer) or await self._side.read()
        self._buffer.clear()
        if not data:
            body.end()
            return b""
        taken = body.feed(data)
        self._buffer += data[taken:]
        return data[:taken]

    async def lost(self) -> None:
        """Waits until the side breaks off; what comes instead of that is kept for later.

        Raises:
            SideLost: it did.
        """
        if not self._buffer:
            await asyncio.wait([self._side.read_ahead()])
            await asyncio.shield(self._side.read_ahead())
        await asyncio.get_running_loop().create_future()

    def rest(self) -> bytes:
        """Returns what was read and not taken."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    @property
    def side(self) -> Side:
        """The side, with what is being read of it."""
        return self._side
