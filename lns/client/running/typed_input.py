"""What a client sends to a process, kept until the guest has it.

A connection to a workload may be lost and taken up again. What was typed is then neither lost nor
sent twice: the service says where the workload's standard input stands, and the client goes on from
there. Positions here count the bytes of this client; those of the service count all clients' since
the start of the workload, so where several write at once, what arrived of each is only estimated.
What this client sends only after it lost its connection has not arrived, whatever others sent.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

WINDOW_BYTES = 512 * 1024
"""Bytes that are typed and that the guest is not known to have."""

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Anchor:
    """Two positions that mean the same byte: the client's, and the service's in one boot."""

    own: int
    position: int
    boot: int


class TypedInput:
    """Bytes on their way to a process."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._start = 0  # of what is kept
        self._sent = 0
        self._sent_before = 0  # the connection was lost
        self._end = 0
        self._is_finished = False
        self._is_end_sent = False
        self._connected_at = 0
        self._is_held = False
        self._anchor: _Anchor | None = None
        self._changed = asyncio.Event()

    async def add(self, data: bytes) -> None:
        """Adds bytes, once there is room for them; no bytes are the end."""
        while data and self._end - self._start >= WINDOW_BYTES:
            await self._wait()
        if data:
            self._pieces.append(data)
            self._end += len(data)
        else:
            self._is_finished = True
        self._changed.set()

    def connect(self, *, again: bool) -> None:
        """Begins a connection; one that is taken up again sends once it knows what arrived."""
        if not self._is_held:
            self._sent_before = self._sent
        self._is_end_sent = False
        self._is_held = again
        self._connected_at = self._sent = self._start
        self._changed.set()

    def ready(self, position: int, boot: int) -> None:
        """Notes where the process's input stood when this connection could send.

        What an earlier boot of the run was sent is not sent to a later one.
        """
        anchor, self._anchor = self._anchor, None
        if self._is_held and anchor is not None:
            arrived = min(anchor.own + position - anchor.position, self._sent_before)
            self._forget(arrived if boot == anchor.boot else self._end)
            self._connected_at = self._sent = self._start
        self._anchor = _Anchor(self._connected_at, position, boot)
        self._is_held = False
        self._changed.set()

    def taken(self, count: int) -> None:
        """Notes that the guest has so many bytes of this connection."""
        self._forget(min(self._connected_at + count, self._sent))

    async def next(self) -> bytes:
        """Returns the next bytes to send, none once at their end."""
        while True:
            if data := self.next_now():
                return data
            if not self._is_held and self._is_finished and not self._is_end_sent:
                self._is_end_sent = True
                return b""
            await self._wait()

    async def released(self) -> None:
        """Waits until what is kept may be sent; returns at once if nothing is kept."""
        while self._is_held and self._end > self._start:
            await self._wait()

    def next_now(self) -> bytes:
        """Returns bytes to send if some wait, else none."""
        if self._is_held or self._sent == self._end:
            return b""
        at = self._start
        for piece in self._pieces:
            if at + len(piece) > self._sent:
                data = piece[self._sent - at :][:CHUNK_BYTES]
                self._sent += len(data)
                return data
            at += len(piece)
        raise AssertionError("what is kept begins before what was sent")

    def _forget(self, position: int) -> None:
        """Drops whole pieces, and parts of one, that are before a position."""
        position = max(self._start, min(position, self._end))
        while self._start < position:
            piece = self._pieces.popleft()
            taken = min(len(piece), position - self._start)
            if taken < len(piece):
                self._pieces.appendleft(piece[taken:])
            self._start += taken
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
