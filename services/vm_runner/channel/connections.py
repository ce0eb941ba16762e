"""Connections into a guest and out of it, each a stream of its channel."""

import asyncio
import os
from typing import Protocol, TypeVar

from services.core.errors import GuestUnreachable
from services.vm_runner.channel.endpoint import GuestChannel
from services.vm_runner.channel.events import Connected, Opening
from services.vm_runner.channel.handles import GuestStream
from services.vm_runner.channel.wire import FrameType, Tag, encode_fields

T = TypeVar("T")


class Session(Protocol):
    """What connections need of their session."""

    @property
    def channel(self) -> GuestChannel:
        """The rules of the channel."""
        ...

    def new_id(self) -> int:
        """Returns an id that no process or stream of this guest has had."""
        ...

    def open_stream(self, stream_id: int, *, received: int = 0, grant: bool = True) -> GuestStream:
        """Takes part in a stream."""
        ...

    def request(self, frame_type: FrameType, *, message_id: int = 0, fields: bytes = b"") -> None:
        """Sends a control message."""
        ...

    def wake(self) -> None:
        """Has the writer look for what is due."""
        ...

    async def answer(self, answer: asyncio.Future[T]) -> T:
        """Waits for an answer or the end of the session."""
        ...


class Connections:
    """The connections of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked: dict[int, asyncio.Future[Connected]] = {}
        self._too_late: set[int] = set()
        self._openings: asyncio.Queue[Opening] = asyncio.Queue()  # as long as tickets may be open

    async def connect(self, port: int) -> GuestStream:
        """Connects to a loopback port of the guest.

        Raises:
            GuestUnreachable: nobody listens there.
        """
        stream = self._session.open_stream(self._session.new_id(), grant=False)
        fields = encode_fields([(Tag.PORT, port)])
        self._session.request(FrameType.CONNECT, message_id=stream.id, fields=fields)
        return await self._connected(stream, f"port {port} of the guest")

    async def next_opening(self) -> Opening:
        """Waits until a program of the guest wants a connection; it is to be answered."""
        return await self._openings.get()

    async def admit(self, ticket: int) -> GuestStream:
        """Gives a program of the guest the connection that it asked for.

        Raises:
            GuestUnreachable: it has given up meanwhile.
        """
        stream = self._session.open_stream(self._session.new_id(), grant=False)
        self._session.channel.admit(ticket, stream.id)
        self._session.wake()
        return await self._connected(stream, "a connection of the guest")

    def refuse(self, ticket: int) -> None:
        """Tells a program of the guest that nobody listens where it wants to go."""
        self._session.channel.refuse(ticket)
        self._session.wake()

    async def _connected(self, stream: GuestStream, what: str) -> GuestStream:
        """Returns a stream that was asked for, once the guest has it."""
        answer: asyncio.Future[Connected] = asyncio.get_running_loop().create_future()
        self._asked[stream.id] = answer
        try:
            connected = await self._session.answer(answer)
        except BaseException:
            self._too_late.add(stream.id)  # the guest may still come to it
            stream.reset()
            raise
        finally:
            del self._asked[stream.id]
        if connected.errno:
            stream.reset()
            raise GuestUnreachable(f"{what}: {os.strerror(connected.errno)}")
        self._session.channel.grant(stream.id)
        self._session.wake()
        return stream

    def on_event(self, event: Connected | Opening) -> None:
        """Takes what the guest says of a connection."""
        if isinstance(event, Opening):
            self._openings.put_nowait(event)
        elif answer := self._asked.get(event.stream_id):
            if not answer.done():
                answer.set_result(event)
        elif event.stream_id in self._too_late:
            self._too_late.discard(event.stream_id)
            self._session.channel.reset_late(event.stream_id)
