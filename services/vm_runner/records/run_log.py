"""A run's log: values, and the interface of where it is kept."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class LogStream(IntEnum):
    """Where a piece of a log comes from; the numbers are those of the guest's streams."""

    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """A piece of a log.

    Attributes:
        boot: number of the start of the run it belongs to.
        stream: where it comes from.
        position: of its first byte in that stream, from the boot on.
        time_ns: when it came, nanoseconds since the epoch.
        data: the bytes.
        ended: nothing more comes from the stream.
    """

    boot: int
    stream: LogStream
    position: int
    time_ns: int
    data: bytes
    ended: bool = False


@dataclass(frozen=True, slots=True, order=True)
class LogPlace:
    """A place in a log; the default is its beginning."""

    segment: int = 0
    offset: int = 0


class RunLog(Protocol):
    """A run's log: bounded, append-only, read while it is written."""

    async def append(self, chunks: Sequence[LogChunk]) -> None:
        """Appends pieces; waits for held readers before it gives up what they have not read.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...

    async def progress(self, boot: int) -> dict[LogStream, tuple[int, bool]]:
        """Returns, for each stream of a boot, the bytes recorded and whether it ended."""
        ...

    async def end(self) -> LogPlace:
        """Returns the place behind everything that was appended."""
        ...

    def follow(
        self, place: LogPlace, *, held: bool = False, wait: bool = True
    ) -> AsyncGenerator[Sequence[LogChunk], None]:
        """Yields what was appended from a place on.

        Args:
            place: where to begin; what was given up is skipped.
            held: the reader must miss nothing: the writer waits for it, and lets it go when it
                does not move.
            wait: go on with what is appended, until `close`; else end at the end.

        Raises:
            AttachLagging: a held reader did not move for too long.
        """
        ...

    def begin(self) -> None:
        """Has readers wait at the end from now on: more will be appended."""
        ...

    def close(self) -> None:
        """Ends readers that wait, once they have read everything."""
        ...
