"""TLS over a side of a connection."""

import asyncio
from typing import Final

from services.vm_runner.egress_worker.sides import CHUNK_BYTES, Side
from services.vm_runner.egress_worker.tls import Engine, TlsFailed

_SLICE_BYTES: Final = 8 * 1024
"""What goes through OpenSSL's buffers at once. They keep the size that they once had, four of them
for each connection, however long it is idle afterwards."""


class TlsSide:
    """A side under TLS. The handshake comes first; nothing is written before it has ended."""

    def __init__(self, lower: Side, engine: Engine) -> None:
        self._lower = lower
        self._engine = engine
        self._sending = asyncio.Lock()
        self._outgoing = bytearray()
        self._incoming = b""
        self._fed = 0
        self._ended = False
        self._finished = False

    async def handshake(self) -> None:
        """Carries out the handshake.

        Raises:
            SideLost: it failed; the reason was sent to the other end.
        """
        try:
            while not self._engine.handshake():
                await self._flush()
                if not await self._feed():
                    raise TlsFailed("it ended in the handshake")
        finally:
            await self._flush()

    async def read(self) -> bytes:
        """Waits for plain bytes; empty at the end."""
        while not self._ended:
            data = self._engine.read()
            await self._flush()
            if data is None:
                await self._feed()
                continue
            self._ended = not data
            return data
        return b""

    async def write(self, data: bytes) -> None:
        """Writes everything."""
        for at in range(0, len(data), CHUNK_BYTES):
            for begin in range(at, min(at + CHUNK_BYTES, len(data)), _SLICE_BYTES):
                self._engine.write(data[begin : begin + _SLICE_BYTES])
                self._outgoing += self._engine.take()
            await self._flush(wait=True)

    async def finish(self) -> None:
        """Says that nothing more is written."""
        if not self._finished:
            self._finished = True
            self._engine.end()
            await self._flush(wait=True)
            await self._lower.finish()

    def close(self) -> None:
        """Lets it go."""
        self._lower.close()

    async def _feed(self) -> bool:
        """Gives the engine some of what came, which is read first if need be; False at the end."""
        if not self._incoming:
            self._incoming, self._fed = await self._lower.read(), 0
        given = self._incoming[self._fed : self._fed + _SLICE_BYTES]
        self._fed += len(given)
        if self._fed == len(self._incoming):
            self._incoming = b""  # nothing is kept for as long as nothing comes
        self._engine.feed(given)
        return bool(given)

    async def _flush(self, *, wait: bool = False) -> None:
        """Sends what is encrypted, in its order.

        The holder of the lock also sends what others encrypt meanwhile; only writers wait for that.
        """
        self._outgoing += self._engine.take()
        if not self._outgoing or (self._sending.locked() and not wait):
            return
        async with self._sending:
            while self._outgoing:
                data = bytes(self._outgoing)
                self._outgoing.clear()
                await self._lower.write(data)
                self._outgoing += self._engine.take()
