"""What a guest session hands out: its streams and its processes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from services.core.errors import GuestUnreachable
from services.vm_runner.channel.endpoint import GuestChannel
from services.vm_runner.channel.events import (
    GuestEvent,
    ProcessPhase,
    ProcessState,
    StreamData,
    StreamReset,
)
from services.vm_runner.channel.wire import FrameType, Tag, encode_fields


class Session(Protocol):
    """What handles need of their session."""

    @property
    def channel(self) -> GuestChannel:
        """The rules of the channel."""
        ...

    def check(self) -> None:
        """Raises why the session ended, if it did."""
        ...

    def wake(self) -> None:
        """Has the writer look for what is due."""
        ...

    def request(self, frame_type: FrameType, *, message_id: int = 0, fields: bytes = b"") -> None:
        """Sends a control message."""
        ...

    def forget_stream(self, stream_id: int, *, breaks: bool = False) -> None:
        """Gives a stream up."""
        ...

    def leave_stream(self, stream_id: int) -> None:
        """Lets a stream that has ended both ways go."""
        ...

    def forget_process(self, process_id: int) -> None:
        """Has the guest forget a process that ended."""
        ...


class GuestStream:
    """One stream: what the guest sends is received and acknowledged, what it gets is written."""

    def __init__(self, session: Session, stream_id: int) -> None:
        self.id = stream_id
        self._session = session
        self._arrived = bytearray()  # never a list: a guest may send single bytes
        self._ended = False
        self._reset = False
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()

    @property
    def held_bytes(self) -> int:
        """How much has come that was not received."""
        return len(self._arrived)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes."""
        return self._ended or self._reset

    async def receive(self) -> tuple[bytes, bool]:
        """Waits for bytes; returns all that came, and whether the stream's end is behind them.

        They are to be acknowledged once they are safe; without that the guest sends no more.

        Raises:
            GuestUnreachable: the session ended, or the guest gave the stream up.
        """
        while not self._arrived and not self._ended:
            if self._reset:
                raise GuestUnreachable("the guest gave the stream up")
            self._session.check()
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._arrived)
        self._arrived.clear()
        return data, self._ended

    def acknowledge(self, size: int, *, ended: bool = False) -> None:
        """Says that the next `size` received bytes (and the end) are safe."""
        self._session.channel.acknowledge(self.id, size, ended=ended)
        self._session.wake()

    async def read_chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields what comes until the end; a chunk is acknowledged when the next one is asked for.

        Raises:
            GuestUnreachable: the session ended before the stream did.
        """
        ended = False
        while not ended:
            data, ended = await self.receive()
            if data:
                yield data
            self.acknowledge(len(data), ended=ended)

    async def write(self, data: bytes) -> bool:
        """Writes everything, at the pace of the guest's reader; returns False if nobody reads.

        Raises:
            GuestUnreachable: the session ended.
        """
        channel = self._session.channel
        while data:
            self._session.check()
            if not channel.is_open(self.id):
                return False
            taken = channel.write(self.id, data)
            data = data[taken:]
            self._session.wake()
            if data:
                self._writable.clear()
                await self._writable.wait()
        return True

    def finish(self) -> None:
        """Ends what the guest gets."""
        self._session.channel.finish(self.id)
        self._session.wake()

    async def drain(self) -> None:
        """Waits until the guest has everything, its end included.

        Raises:
            GuestUnreachable: the session ended.
        """
        while not self._session.channel.is_drained(self.id):
            self._session.check()
            self._writable.clear()
            await self._writable.wait()

    def leave(self) -> None:
        """Lets the stream go after it has ended both ways; what is still under way arrives."""
        self._session.leave_stream(self.id)

    def reset(self) -> None:
        """Gives the stream up, both ways; a process's output is read on and dropped."""
        self._session.forget_stream(self.id)

    def break_off(self) -> None:
        """Gives the stream up; a process that writes to it gets a broken pipe."""
        self._session.forget_stream(self.id, breaks=True)

    @property
    def written(self) -> int:
        """Position up to which the stream was written; 0 once the guest takes no more."""
        positions = self._session.channel.positions(self.id)
        return positions[0] if positions else 0

    async def wait_taken(self, position: int) -> None:
        """Waits until the guest has what was written up to a position, or takes no more of it.

        The guest says so after some 64 KiB, not at once.

        Raises:
            GuestUnreachable: the session ended.
        """
        while (positions := self._session.channel.positions(self.id)) and positions[1] < position:
            self._session.check()
            self._writable.clear()
            await self._writable.wait()

    def on_event(self, event: GuestEvent) -> None:
        """Takes an event of this stream."""
        match event:
            case StreamData():
                self._arrived += event.data
                self._ended = self._ended or event.ended
            case StreamReset():
                self._reset = True
        self.wake()

    def wake(self) -> None:
        """Has every waiter look again."""
        self._changed.set()
        self._writable.set()


class GuestProcess:
    """A process of the guest."""

    def __init__(self, session: Session, process_id: int) -> None:
        self.id = process_id
        self._session = session
        self.state: ProcessState | None = None
        self._unwanted = False
        self._changed = asyncio.Event()

    async def wait_started(self) -> ProcessState:
        """Waits until the program runs, has ended, or could not be started."""
        while self.state is None:
            await self._wait()
        return self.state

    async def wait_ended(self) -> ProcessState:
        """Waits until it has ended or could not be started."""
        while self.state is None or self.state.phase is ProcessPhase.RUNNING:
            await self._wait()
        return self.state

    async def _wait(self) -> None:
        self._session.check()
        self._changed.clear()
        await self._changed.wait()

    def signal(self, number: int) -> None:
        """Sends a signal."""
        fields = encode_fields([(Tag.SIGNAL, number)])
        self._session.request(FrameType.SIGNAL, message_id=self.id, fields=fields)

    def resize(self, *, rows: int, columns: int) -> None:
        """Gives its terminal another size."""
        fields = encode_fields([(Tag.ROWS, rows), (Tag.COLUMNS, columns)])
        self._session.request(FrameType.RESIZE, message_id=self.id, fields=fields)

    def forget_when_ended(self) -> None:
        """Says that nobody asks about it any more; the guest forgets it once it has ended."""
        self._unwanted = True
        self._forget_if_possible()

    def _forget_if_possible(self) -> None:
        ended = self.state is not None and self.state.phase is not ProcessPhase.RUNNING
        if self._unwanted and ended:
            self._session.forget_process(self.id)

    def on_state(self, state: ProcessState) -> None:
        """Takes a new state."""
        self.state = state
        self.wake()
        self._forget_if_possible()

    def wake(self) -> None:
        """Has every waiter look again."""
        self._changed.set()
