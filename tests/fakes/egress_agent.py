"""Stands in for a guest's agent on the egress port: speaks the wire protocol over a socket."""

import asyncio
import contextlib
import itertools
import socket
from collections import deque

from services.vm_runner.channel.wire import (
    NONCE_BYTES,
    PAYLOAD_MAX,
    PROTOCOL_VERSION,
    SYNC_MARK,
    Fields,
    Frame,
    FrameDecoder,
    FrameFlag,
    FrameType,
    Tag,
    encode_fields,
    encode_frame,
    encode_message,
)

_WINDOW = 256 * 1024


class Refused(Exception):
    """The host refused a connection."""


class Reset(Exception):
    """The host gave a connection up."""


class AgentConnection:
    """A connection of a program of the guest."""

    def __init__(self, agent: "FakeAgent", number: int) -> None:
        self._agent = agent
        self.number = number
        self.received = 0
        self._told = 0
        self._arrived: deque[bytes] = deque()
        self._ended = False
        self._reset = False
        self._sent = 0
        self._limit = 0
        self._changed = asyncio.Event()

    def on_frame(self, frame: Frame) -> None:
        """Takes a frame of the stream."""
        if frame.type is FrameType.DATA:
            assert frame.offset == self.received
            self.received += len(frame.payload)
            if frame.payload:
                self._arrived.append(frame.payload)
            if frame.flags & FrameFlag.FIN:
                self._ended = True
                self._acknowledge(self.received + 1)
        elif frame.type is FrameType.ACK:
            self._limit = max(self._limit, int.from_bytes(frame.payload, "little"))
        else:
            self._reset = True
        self._changed.set()

    def _acknowledge(self, position: int) -> None:
        limit = self.received + _WINDOW
        self._agent.send(
            Frame(
                type=FrameType.ACK,
                id=self.number,
                offset=position,
                payload=limit.to_bytes(8, "little"),
            )
        )

    def grant(self) -> None:
        """Gives the host its first credit."""
        self._acknowledge(0)

    async def read(self) -> bytes:
        """Waits for bytes; empty at the end."""
        while not self._arrived and not self._ended:
            if self._reset:
                raise Reset
            self._changed.clear()
            await self._changed.wait()
        data = b"".join(self._arrived)
        self._arrived.clear()
        if data and not self._ended:
            self._acknowledge(self.received)
        return data

    async def read_until(self, mark: bytes) -> bytes:
        """Reads until some bytes have come."""
        data = b""
        while mark not in data:
            more = await self.read()
            if not more:
                raise EOFError(data)
            data += more
        return data

    async def read_all(self) -> bytes:
        """Reads to the end."""
        data = b""
        while more := await self.read():
            data += more
        return data

    async def write(self, data: bytes) -> None:
        """Writes everything, as there is credit for it."""
        while data:
            if self._reset:
                raise Reset
            size = min(len(data), PAYLOAD_MAX, self._limit - self._sent)
            if size <= 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            self._agent.send(
                Frame(type=FrameType.DATA, id=self.number, offset=self._sent, payload=data[:size])
            )
            self._sent += size
            data = data[size:]
            await self._agent.drain()

    def finish(self) -> None:
        """Ends what the host gets."""
        self._agent.send(
            Frame(type=FrameType.DATA, id=self.number, offset=self._sent, flags=FrameFlag.FIN)
        )

    def reset(self) -> None:
        """Breaks the connection."""
        self._agent.send(Frame(type=FrameType.RESET, id=self.number))


class FakeAgent:
    """The agent of one guest. Use as `async with FakeAgent(socket) as agent`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._tickets = itertools.count(1)
        self._asked: dict[int, asyncio.Future[AgentConnection]] = {}
        self._streams: dict[int, AgentConnection] = {}
        self._ready = asyncio.Event()

    async def __aenter__(self) -> "FakeAgent":
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        self._task = asyncio.create_task(self._serve())
        await self._ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await self._task
        self._writer.transport.abort()

    def send(self, frame: Frame) -> None:
        """Sends a frame."""
        self._writer.write(encode_frame(frame))

    async def drain(self) -> None:
        """Waits until there is room."""
        await self._writer.drain()

    async def connect(self, address: str, port: int) -> AgentConnection:
        """Begins a connection, as a program of the guest does.

        Raises:
            Refused: the host does not permit it.
        """
        return await self.ask(self.open_fields(address, port))

    @staticmethod
    def open_fields(address: str, port: int) -> bytes:
        """Returns the fields by which an address is asked for."""
        whole = bytes(10) + b"\xff\xff" + socket.inet_aton(address)
        return encode_fields([(Tag.ADDRESS, whole), (Tag.PORT, port)])

    async def ask(self, fields: bytes) -> AgentConnection:
        """Asks for a connection."""
        ticket = next(self._tickets)
        answer = self._asked[ticket] = asyncio.get_running_loop().create_future()
        self._writer.write(encode_message(FrameType.OPEN, message_id=ticket, fields=fields))
        return await answer

    async def _serve(self) -> None:
        data = b""
        while SYNC_MARK not in data or len(data) < data.index(SYNC_MARK) + 16 + NONCE_BYTES:
            data += await self._reader.read(65536)
        at = data.index(SYNC_MARK)
        nonce = data[at + len(SYNC_MARK) : at + len(SYNC_MARK) + NONCE_BYTES]
        self._writer.write(SYNC_MARK + nonce)
        welcome = encode_fields(
            [(Tag.VERSION, PROTOCOL_VERSION), (Tag.AGENT, "fake"), (Tag.CONFIGURED, 1)]
        )
        self._writer.write(encode_message(FrameType.WELCOME, message_id=0, fields=welcome))
        self._writer.write(encode_message(FrameType.READY, message_id=0, fields=b""))
        decoder = FrameDecoder(nonce)
        data = data[at:]
        self._ready.set()
        while data:
            for frame in decoder.feed(data):
                self._on_frame(frame)
            data = await self._reader.read(256 * 1024)

    def _on_frame(self, frame: Frame) -> None:
        match frame.type:
            case FrameType.CONNECT:
                ticket = Fields.parse(frame.payload).number(Tag.TICKET)
                connection = self._streams[frame.id] = AgentConnection(self, frame.id)
                fields = encode_fields([(Tag.ERRNO, 0)])
                self._writer.write(
                    encode_message(FrameType.CONNECTED, message_id=frame.id, fields=fields)
                )
                connection.grant()
                self._asked.pop(ticket).set_result(connection)
            case FrameType.REFUSE:
                self._asked.pop(frame.id).set_exception(Refused())
            case FrameType.DATA | FrameType.ACK | FrameType.RESET:
                if stream := self._streams.get(frame.id):
                    stream.on_frame(frame)
