"""The two directions of a stream of the guest channel, by absolute position.

The end of a direction takes one position, so that it is acknowledged like a byte.
"""

from collections import deque

from services.vm_runner.channel.wire import GuestViolation

WINDOW_BYTES = 256 * 1024
"""Bytes of a direction that may be under way: sent and not acknowledged."""


class StreamInput:
    """Bytes from the guest: what came, what is safe here, what was acknowledged."""

    def __init__(self, *, received: int = 0) -> None:
        self.received = received
        self.safe = received
        self.acknowledged: int | None = None
        self.ended = False
        self.end_is_safe = False

    def accept(self, offset: int, data: bytes, *, ends: bool) -> tuple[bytes, bool]:
        """Returns what is new of `data`, and whether the end is.

        Raises:
            GuestViolation: it is not where the stream stands, or there was no credit for it.
        """
        if offset > self.received or self.acknowledged is None:
            raise GuestViolation("the guest sent data that is not where its stream stands")
        fresh = data[self.received - offset :]
        if fresh and (self.ended or self.received + len(fresh) > self.acknowledged + WINDOW_BYTES):
            raise GuestViolation("the guest sent data that it had no credit for")
        self.received += len(fresh)
        newly_ended = ends and not self.ended and offset + len(data) == self.received
        self.ended = self.ended or newly_ended
        return fresh, newly_ended

    def make_safe(self, size: int, *, ended: bool) -> bool:
        """Notes that `size` more bytes are safe; returns whether to acknowledge now."""
        self.safe = min(self.safe + size, self.received)
        self.end_is_safe = self.end_is_safe or ended
        return (
            ended or self.acknowledged is None or self.safe - self.acknowledged >= WINDOW_BYTES // 4
        )

    def tell(self) -> tuple[int, int]:
        """Returns the position to acknowledge and the limit to grant."""
        self.acknowledged = self.safe
        return self.safe + int(self.end_is_safe), self.safe + WINDOW_BYTES


class StreamOutput:
    """Bytes for the guest: kept from the acknowledged position to the end."""

    def __init__(self, *, acked: int = 0, limit: int = 0) -> None:
        self._pieces: deque[bytes] = deque()
        self._base = acked
        self.acked = acked
        self.sent = acked
        self.end = acked
        self.limit = limit
        self.finished = False
        self.refused = False

    @property
    def done(self) -> bool:
        """Whether nothing more has to reach the guest."""
        return self.refused or (self.finished and self.acked == self.end + 1)

    @property
    def room(self) -> int:
        """How many bytes can be added."""
        if self.finished or self.refused:
            return 0
        return WINDOW_BYTES - (self.end - self.acked)

    def add(self, data: bytes) -> int:
        """Adds what there is room for; returns how much that was."""
        taken = data[: self.room]
        if taken:
            self._pieces.append(taken)
            self.end += len(taken)
        return len(taken)

    def acknowledge(self, position: int, limit: int) -> None:
        """Forgets what the guest has.

        Raises:
            GuestViolation: it cannot have that.
        """
        if position > self.sent or limit >= 1 << 63:
            raise GuestViolation("the guest acknowledged what was not sent")
        self.acked = max(self.acked, position)
        self.limit = max(self.limit, limit)
        while self._pieces and self._base + len(self._pieces[0]) <= self.acked:
            self._base += len(self._pieces.popleft())

    def refuse(self) -> None:
        """Forgets everything: nobody takes it."""
        self.refused = True
        self._pieces.clear()

    def next_chunk(self, most: int) -> tuple[int, bytes, bool] | None:
        """Returns position, bytes and whether the end goes along; None if nothing may be sent."""
        if self.refused or self.sent > self.end:
            return None
        size = max(0, min(most, self.end - self.sent, self.limit - self.sent))
        position = self.sent
        data = self._slice(position, size)
        ends = self.finished and position + len(data) == self.end
        if not data and not ends:
            return None
        self.sent = position + len(data) + int(ends)
        return position, data, ends

    def _slice(self, position: int, size: int) -> bytes:
        base = self._base
        for piece in self._pieces:
            if base + len(piece) > position:
                return piece[position - base : position - base + size]
            base += len(piece)
        return b""
