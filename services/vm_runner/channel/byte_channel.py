"""What the channel needs from outside: bytes, both ways."""

from typing import Protocol


class ByteChannel(Protocol):
    """A connected, ordered, reliable byte stream."""

    async def read(self, most: int) -> bytes:
        """Waits for bytes; empty at the end.

        Raises:
            OSError: it broke.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Writes everything, at the pace of the other end.

        Raises:
            OSError: it broke.
        """
        ...

    async def close(self) -> None:
        """Closes it; never raises."""
        ...
