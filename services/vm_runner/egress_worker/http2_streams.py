"""The streams of an HTTP/2 connection in both countings, and its header blocks."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from hpack import Decoder, HeaderTuple

from services.vm_runner.egress_worker import frames
from services.vm_runner.egress_worker.frames import Flag, FrameHead, FrameInvalid, Kind
from services.vm_runner.egress_worker.judge import Asked
from services.vm_runner.egress_worker.meters import Metered
from services.vm_runner.egress_worker.traces import BodyScanner

TABLE_MOST: Final = 64 * 1024
"""Bytes of a table for decoding; a larger one is not announced to either end."""

Action = Callable[[], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Stream:
    """One stream.

    Attributes:
        number: the guest's.
        host_number: towards the host; 0 before it begins there.
        ends_with_head: whether its request has no body.
        guest_ended: whether the guest sends no more.
        host_ended: whether the host sends no more.
        is_over: whether it is given up.
        judging: the task that judges its request, while it does.
        waiting: what is to be done for it then, in order.
        held: bytes of DATA in `waiting`.
        asked: its request, once it was let through.
        scanner: of its body.
        metered: counts it, once it was let through.
    """

    number: int
    host_number: int = 0
    ends_with_head: bool = False
    guest_ended: bool = False
    host_ended: bool = False
    is_over: bool = False
    judging: "asyncio.Task[None] | None" = None
    waiting: deque[Action] = field(default_factory=deque)
    held: int = 0
    asked: Asked | None = None
    scanner: BodyScanner | None = None
    metered: Metered | None = None


class Streams:
    """The streams that are open.

    Attributes:
        highest: the guest's highest number so far.
        held: bytes of DATA that wait for their requests to be judged.
        uncredited: bytes of such DATA of streams that are over: the guest is to get credit back.
    """

    def __init__(self) -> None:
        self._by_guest: dict[int, Stream] = {}
        self._by_host: dict[int, Stream] = {}
        self._next_host = 1
        self.highest = 0
        self.held = 0
        self.uncredited = 0

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._by_guest.values()))

    def __len__(self) -> int:
        return len(self._by_guest)

    def begin(self, number: int) -> Stream:
        """Begins a stream of the guest's."""
        self.highest = number
        stream = self._by_guest[number] = Stream(number)
        return stream

    def name_at_host(self, stream: Stream) -> None:
        """Gives a stream its number towards the host."""
        stream.host_number = self._next_host
        self._next_host += 2
        if not stream.is_over:
            self._by_host[stream.host_number] = stream

    def by_guest(self, number: int) -> Stream | None:
        """Returns an open stream by the guest's number."""
        return self._by_guest.get(number)

    def by_host(self, number: int) -> Stream | None:
        """Returns an open stream by its number towards the host."""
        return self._by_host.get(number)

    def hold(self, stream: Stream, act: Action, size: int) -> None:
        """Has something wait until the request of a stream is judged."""
        stream.waiting.append(self._held(stream, act, size))
        stream.held += size
        self.held += size

    def _held(self, stream: Stream, act: Action, size: int) -> Action:
        async def later() -> None:
            stream.held -= size
            self.held -= size
            await act()

        return later

    def drop(self, stream: Stream) -> None:
        """Gives a stream up; what waits for it is forgotten."""
        self.held -= stream.held
        self.uncredited += stream.held
        stream.held = 0
        stream.is_over = True
        stream.waiting.clear()
        self._by_guest.pop(stream.number, None)
        self._by_host.pop(stream.host_number, None)

    def drop_if_over(self, stream: Stream) -> None:
        """Forgets a stream that both ends have ended."""
        if stream.guest_ended and stream.host_ended and not stream.waiting:
            self.drop(stream)

    def split_at_host(self, last: int) -> tuple[int, list[Stream]]:
        """Says which streams a host has taken that took none behind `last`.

        Returns the guest's highest number that it took, and lower ones that it did not take; those
        are dropped.
        """
        taken = [one.number for one in self._by_guest.values() if 0 < one.host_number <= last]
        highest = max(taken, default=0)
        untaken = [
            one
            for one in self._by_guest.values()
            if one.number < highest and not 0 < one.host_number <= last
        ]
        for stream in untaken:
            self.drop(stream)
        return highest, untaken


@dataclass(frozen=True, slots=True)
class Decoded:
    """A whole header block."""

    stream: int
    headers: list[HeaderTuple]
    ends: bool


class HeaderBlocks:
    """Joins the frames of header blocks and decodes them, in their order.

    Args:
        most: bytes of a block, encoded and decoded.
    """

    def __init__(self, most: int) -> None:
        self._decoder: Any = Decoder(max_header_list_size=most)
        self._decoder.max_allowed_table_size = TABLE_MOST
        self._most = most
        self._stream = 0
        self._block = b""
        self._ends = False

    def take(self, frame: FrameHead) -> Decoded | None:
        """Returns the block that a frame completes.

        Raises:
            FrameInvalid: frames of a block are not behind each other, or it is too long.
            HPACKError: it cannot be decoded, or is too long when decoded.
        """
        if self._stream and (frame.kind != Kind.CONTINUATION or frame.stream != self._stream):
            raise FrameInvalid("a header block that another frame interrupts")
        if frame.kind == Kind.HEADERS:
            if not frame.stream:
                raise FrameInvalid("headers of no stream")
            payload = frames.unpadded(frame)
            if frame.flags & Flag.PRIORITY:
                payload = payload[5:]
            self._stream, self._block = frame.stream, payload
            self._ends = bool(frame.flags & Flag.END_STREAM)
        elif frame.kind == Kind.CONTINUATION:
            if not self._stream or not frame.payload:
                raise FrameInvalid("a continuation of nothing")
            self._block += frame.payload
        else:
            return None
        if len(self._block) > self._most:
            raise FrameInvalid("a header block that is too long")
        if not frame.flags & Flag.END_HEADERS:
            return None
        stream, block = self._stream, self._block
        self._stream, self._block = 0, b""
        return Decoded(stream, self._decoder.decode(block, raw=True), self._ends)
