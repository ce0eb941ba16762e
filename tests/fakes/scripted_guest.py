"""A guest in memory: speaks the channel's protocol and does what a test says, with no process.

It answers at the moment that the test chooses, or never; it keeps its state when its connection
ends, as the agent does.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable

from services.vm_runner.channel.wire import (
    NONCE_BYTES,
    PROTOCOL_VERSION,
    SYNC_MARK,
    Fields,
    Frame,
    FrameFlag,
    FrameType,
    Tag,
    encode_fields,
    encode_frame,
    encode_message,
)

_HEADER = struct.Struct("<BBHIIQ")
_RUNNING, _EXITED = 1, 2
_WORKLOAD = 1
_STREAMS = (1, 2)


class ScriptedGuest:
    """The guest of one machine.

    Args:
        pace: awaited before each answer, with what it is about; what it raises is the guest's end.
        on_end: called when the guest powers off, or came to its end.
    """

    def __init__(self, pace: Callable[[str], Awaitable[None]], on_end: Callable[[], None]) -> None:
        self._pace = pace
        self._on_end = on_end
        self._connection: GuestConnection | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self.is_configured = False
        self.is_started = False
        self.exit_code: int | None = None

    def connect(self) -> "GuestConnection":
        """Returns the host's end of a new connection, which takes the place of an older one."""
        if self._connection is not None:
            self._connection.end()
        self._connection = GuestConnection(self._on_frame, self._greet)
        return self._connection

    def exit(self, code: int) -> None:
        """Has the workload end, if it runs."""
        if self.is_started and self.exit_code is None:
            self.exit_code = code
            self._say_state()
            self._end_streams()

    def connection_lost(self) -> None:
        """Ends the connection, as the end of a service does."""
        if self._connection is not None:
            self._connection.end()
            self._connection = None

    def end(self) -> None:
        """Ends the connection, as the end of the VMM does."""
        for answer in self._answers:
            answer.cancel()
        if self._connection is not None:
            self._connection.end()

    # ---- the protocol ----

    def _greet(self) -> None:
        fields = [
            (Tag.VERSION, PROTOCOL_VERSION),
            (Tag.AGENT, "test"),
            (Tag.CONFIGURED, int(self.is_configured)),
            (Tag.HIGHEST_ID, 16),
        ]
        self._say(FrameType.WELCOME, encode_fields(fields))
        if self.is_configured:
            self._say(FrameType.CONFIGURED, encode_fields([(Tag.ERRNO, 0)]))
        if self.is_started:
            self._say_state()
        self._say(FrameType.READY)

    def _on_frame(self, frame: Frame) -> None:
        match frame.type:
            case FrameType.CONFIGURE:
                if not frame.flags & FrameFlag.MORE:
                    self._later("configured", self._configure)
            case FrameType.EXEC:
                self._later("started", self._start)
            case FrameType.SIGNAL:
                self.exit(128 + Fields.parse(frame.payload).number(Tag.SIGNAL))
            case FrameType.ACK if self.exit_code is not None:
                self._end_streams()
            case FrameType.SHUTDOWN:
                self._later("goodbye", self._power_off)

    def _configure(self) -> None:
        self.is_configured = True
        self._say(FrameType.CONFIGURED, encode_fields([(Tag.ERRNO, 0)]))

    def _start(self) -> None:
        self.is_started = True
        self._say_state()

    def _power_off(self) -> None:
        self._say(FrameType.GOODBYE)
        self._on_end()

    def _say_state(self) -> None:
        ended = self.exit_code is not None
        fields = encode_fields(
            [(Tag.STATE, _EXITED if ended else _RUNNING), (Tag.EXIT_CODE, self.exit_code or 0)]
        )
        self._say(FrameType.EXEC_STATE, fields, message_id=_WORKLOAD)

    def _end_streams(self) -> None:
        connection = self._connection
        if connection is None:
            return
        for stream in _STREAMS:
            if stream not in connection.ended_streams:
                connection.ended_streams.add(stream)
                connection.send(
                    encode_frame(Frame(type=FrameType.DATA, id=stream, flags=FrameFlag.FIN))
                )

    def _say(self, frame_type: FrameType, fields: bytes = b"", *, message_id: int = 0) -> None:
        if self._connection is not None:
            self._connection.send(encode_message(frame_type, message_id=message_id, fields=fields))

    def _later(self, what: str, then: Callable[[], None]) -> None:
        async def answer() -> None:
            try:
                await self._pace(what)
            except Exception:  # noqa: BLE001 - a guest ends however it ends
                self._on_end()
            else:
                then()

        task = asyncio.get_running_loop().create_task(answer())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)


class GuestConnection:
    """The host's end of a connection to a guest."""

    def __init__(self, on_frame: Callable[[Frame], None], greet: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._greet = greet
        self._received = b""
        self._in_step = False
        self._outgoing = bytearray()
        self._changed = asyncio.Event()
        self._has_ended = False
        self.ended_streams: set[int] = set()

    async def read(self, most: int) -> bytes:
        while not self._outgoing and not self._has_ended:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._outgoing[:most])
        del self._outgoing[:most]
        return data

    async def write(self, data: bytes) -> None:
        self._received += data
        if not self._in_step and not self._find_mark():
            return
        while len(self._received) >= _HEADER.size:
            _, kind, flags, length, frame_id, offset = _HEADER.unpack_from(self._received)
            total = _HEADER.size + length + 1
            if len(self._received) < total:
                return
            payload = self._received[_HEADER.size : total - 1]
            self._received = self._received[total:]
            self._on_frame(
                Frame(
                    type=FrameType(kind),
                    id=frame_id,
                    offset=offset,
                    flags=FrameFlag(flags),
                    payload=payload,
                )
            )

    def _find_mark(self) -> bool:
        at = self._received.find(SYNC_MARK)
        start = at + len(SYNC_MARK)
        if at < 0 or len(self._received) < start + NONCE_BYTES:
            return False
        nonce = self._received[start : start + NONCE_BYTES]
        self._received = self._received[start + NONCE_BYTES :]
        self._in_step = True
        self.send(SYNC_MARK + nonce)
        self._greet()
        return True

    async def close(self) -> None:
        self.end()

    def send(self, data: bytes) -> None:
        if not self._has_ended:
            self._outgoing += data
            self._changed.set()

    def end(self) -> None:
        self._has_ended = True
        self._changed.set()
