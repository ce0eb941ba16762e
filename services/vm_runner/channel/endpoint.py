"""The host's end of the guest channel: a state machine without I/O.

Bytes from the guest go in and give events; bytes for the guest are taken out. Positions of streams
are absolute, so a new host (after a crash of this process) says hello with a fresh nonce, learns
where each stream stands and goes on: nothing is lost or doubled that was not acknowledged.
`docs/guest-protocol.md` has the rules.

Memory is bounded by the windows: a guest may send only what it has credit for, and what is sent to
it is kept only until it acknowledges.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from services.vm_runner.channel.events import (
    Cleared,
    Configured,
    Connected,
    Frozen,
    Goodbye,
    GuestEvent,
    GuestStats,
    Notice,
    Opening,
    Prepared,
    ProcessState,
    Ready,
    Renewed,
    StreamData,
    StreamRefused,
    StreamReset,
    StreamWritable,
    Wanted,
    Welcome,
)
from services.vm_runner.channel.requests import Hello
from services.vm_runner.channel.streams import StreamInput, StreamOutput
from services.vm_runner.channel.tickets import Tickets
from services.vm_runner.channel.wire import (
    FRAME_MAX,
    PROTOCOL_VERSION,
    SYNC_MARK,
    Fields,
    Frame,
    FrameDecoder,
    FrameFlag,
    FrameType,
    GuestViolation,
    Tag,
    encode_fields,
    encode_frame,
    encode_message,
)

_CHUNK_BYTES = 16 * 1024
_BATCH_BYTES = 64 * 1024
_STREAMS_MAX = 2048
_NUMBER = struct.Struct("<Q")

_READERS: Mapping[FrameType, Callable[[Fields], GuestEvent]] = {
    FrameType.CONFIGURED: Configured.parse,
    FrameType.PREPARED: Prepared.parse,
    FrameType.CLEARED: lambda _: Cleared(),
    FrameType.FROZEN: Frozen.parse,
    FrameType.RENEWED: Renewed.parse,
    FrameType.STATS: GuestStats.parse,
    FrameType.NOTICE: lambda fields: Notice(text=fields.text(Tag.TEXT)),
    FrameType.GOODBYE: lambda _: Goodbye(),
    FrameType.WANTED: lambda _: Wanted(),
}


class _Stream:
    """One stream, both directions."""

    def __init__(self, source: StreamInput, sink: StreamOutput) -> None:
        self.input = source
        self.output = sink


class GuestChannel:
    """One guest's channel, from a hello on.

    Use: `take` and write until it is empty; `receive` what was read; act on the events. Data is to
    be acknowledged when it is safe (in the log, handed over), which also gives credit for more.
    """

    def __init__(
        self, *, nonce: bytes, hello: Hello, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._decoder = FrameDecoder(nonce)
        self._streams: dict[int, _Stream] = {}
        self._turns: dict[int, None] = {}
        self._unclaimed: dict[int, tuple[int, int, bool]] = {}
        self._welcomed = False
        self._ready = False
        # Zeros complete a frame that an earlier host left half sent; then the guest looks for
        # the mark.
        self._control: deque[bytes] = deque(
            [
                bytes(FRAME_MAX) + SYNC_MARK + nonce,
                encode_message(
                    FrameType.HELLO, message_id=0, fields=hello.encode(PROTOCOL_VERSION)
                ),
            ]
        )
        self._now_ns = now_ns
        self._time_due = False
        self._acks: dict[int, None] = {}
        self._tickets = Tickets()
        self.bytes_in = 0
        self.bytes_out = 0

    # ---- what the guest sent ----

    def receive(self, data: bytes) -> Iterator[GuestEvent]:
        """Yields the events that `data` brings.

        Raises:
            GuestViolation: the guest broke the protocol; the channel is of no more use.
        """
        self.bytes_in += len(data)
        for frame in self._decoder.feed(data):
            event = self._event(frame)
            if event is not None:
                yield event

    def _event(self, frame: Frame) -> GuestEvent | None:
        match frame.type:
            case FrameType.DATA:
                return self._data(frame)
            case FrameType.ACK:
                return self._ack(frame)
            case FrameType.RESET:
                return self._reset(frame)
            case FrameType.WELCOME:
                return self._welcome(frame)
        if not self._welcomed:
            raise GuestViolation("the guest did not greet first")
        return self._control_event(frame)

    def _control_event(self, frame: Frame) -> GuestEvent:
        if frame.flags & FrameFlag.MORE:
            raise GuestViolation("the guest sent a message of several frames")
        fields = Fields.parse(frame.payload)
        read = _READERS.get(frame.type)
        if read is not None:
            return read(fields)
        match frame.type:
            case FrameType.EXEC_STATE:
                return ProcessState.parse(frame.id, fields)
            case FrameType.CONNECTED:
                return Connected(stream_id=frame.id, errno=fields.number(Tag.ERRNO) & 0xFFFF)
            case FrameType.OPEN:
                self._tickets.open(frame.id)
                return Opening.parse(frame.id, fields)
            case FrameType.READY:
                self._ready = True
                return Ready()
            case _:
                raise GuestViolation(f"the guest sent a {frame.type.name}, which is the host's")

    def _welcome(self, frame: Frame) -> Welcome:
        welcome = Welcome.parse(Fields.parse(frame.payload))
        if self._welcomed or welcome.version != PROTOCOL_VERSION:
            raise GuestViolation(f"the guest speaks version {welcome.version} of the protocol")
        self._welcomed = True
        return welcome

    def _data(self, frame: Frame) -> GuestEvent | None:
        stream = self._streams.get(frame.id)
        if stream is None:
            return None  # given up here while this was on its way
        ends = bool(frame.flags & FrameFlag.FIN)
        fresh, ended = stream.input.accept(frame.offset, frame.payload, ends=ends)
        if not fresh and not ended:
            return None
        return StreamData(stream_id=frame.id, data=fresh, ended=ended)

    def _ack(self, frame: Frame) -> GuestEvent | None:
        if len(frame.payload) != _NUMBER.size:
            raise GuestViolation("the guest sent a malformed acknowledgement")
        (limit,) = _NUMBER.unpack(frame.payload)
        refused = bool(frame.flags & FrameFlag.REFUSED)
        stream = self._streams.get(frame.id)
        if stream is None:
            self._keep_unclaimed(frame.id, frame.offset, limit, refused=refused)
            return None
        refused = refused and not stream.output.refused
        stream.output.acknowledge(frame.offset, limit)
        self._has_output(frame.id)
        if refused:
            stream.output.refuse()
        self._forget_if_done(frame.id)
        return (StreamRefused if refused else StreamWritable)(stream_id=frame.id)

    def _keep_unclaimed(self, stream_id: int, offset: int, limit: int, *, refused: bool) -> None:
        """Remembers a stream of an earlier host until this one says what becomes of it."""
        if self._ready:
            return
        if len(self._unclaimed) >= _STREAMS_MAX:
            raise GuestViolation("the guest has too many streams")
        self._unclaimed[stream_id] = (offset, limit, refused)

    def _reset(self, frame: Frame) -> GuestEvent | None:
        self._unclaimed.pop(frame.id, None)
        if self._streams.pop(frame.id, None) is None:
            return None
        return StreamReset(stream_id=frame.id)

    # ---- streams ----

    def open_stream(self, stream_id: int, *, received: int = 0, grant: bool = True) -> None:
        """Takes part in a stream: a new one, or after a hello one that the guest still has.

        Args:
            stream_id: id of the stream.
            received: position up to which its bytes are safe here.
            grant: permit the guest to send; else `grant` does, once the guest has the stream.
        """
        acked, limit, refused = self._unclaimed.pop(stream_id, (0, 0, False))
        output = StreamOutput(acked=acked, limit=limit)
        if refused:
            output.refuse()
        self._streams[stream_id] = _Stream(StreamInput(received=received), output)
        if grant:
            self.grant(stream_id)

    def grant(self, stream_id: int) -> None:
        """Tells the guest where a stream stands and how much it may send."""
        self._acks[stream_id] = None

    def reset_unclaimed(self) -> None:
        """Gives up each stream of an earlier host that was not taken over; the guest frees it."""
        for stream_id in self._unclaimed:
            self._control.append(encode_frame(Frame(type=FrameType.RESET, id=stream_id)))
        self._unclaimed.clear()

    def reset_stream(self, stream_id: int, *, breaks: bool = False) -> None:
        """Gives a stream up: a process's output is read and dropped, a connection is closed.

        With `breaks` the output of a process breaks instead, as a pipe without readers does.
        """
        if self._streams.pop(stream_id, None) is not None:
            flags = FrameFlag.REFUSED if breaks else FrameFlag.NONE
            frame = Frame(type=FrameType.RESET, id=stream_id, flags=flags)
            self._control.append(encode_frame(frame))

    def reset_late(self, stream_id: int) -> None:
        """Gives up a stream that the guest has made after it was given up here."""
        self._control.append(encode_frame(Frame(type=FrameType.RESET, id=stream_id)))

    def acknowledge(self, stream_id: int, size: int, *, ended: bool = False) -> None:
        """Says that the next `size` bytes of a stream (and its end) are safe here."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.input.make_safe(size, ended=ended):
            self._acks[stream_id] = None

    def room(self, stream_id: int) -> int:
        """Returns how many bytes `write` takes now; nothing for a stream that is gone."""
        stream = self._streams.get(stream_id)
        return stream.output.room if stream else 0

    def is_open(self, stream_id: int) -> bool:
        """Returns whether the guest may still take bytes of a stream."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.output.refused

    def is_drained(self, stream_id: int) -> bool:
        """Returns whether the guest has all that a stream is to bring it."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.output.done

    def positions(self, stream_id: int) -> tuple[int, int] | None:
        """Returns how far a stream was written, and how much of that the guest has.

        None where the guest takes no more of it.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.output.refused:
            return None
        return stream.output.end, min(stream.output.acked, stream.output.end)

    def write(self, stream_id: int, data: bytes) -> int:
        """Queues bytes for a stream; returns how many it took."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        self._has_output(stream_id)
        return stream.output.add(data)

    def finish(self, stream_id: int) -> None:
        """Ends a stream's output."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.output.finished = True
            self._has_output(stream_id)

    def _has_output(self, stream_id: int) -> None:
        self._turns.setdefault(stream_id)

    def _forget_if_done(self, stream_id: int) -> None:
        stream = self._streams[stream_id]
        if stream.output.done and stream.input.end_is_safe and stream_id not in self._acks:
            del self._streams[stream_id]

    # ---- requests ----

    @property
    def backlog(self) -> int:
        """Bytes of control messages that the guest was not sent yet."""
        return sum(map(len, self._control))

    def request(self, frame_type: FrameType, *, message_id: int = 0, fields: bytes = b"") -> None:
        """Queues a control message."""
        self._control.append(encode_message(frame_type, message_id=message_id, fields=fields))

    def send_time(self) -> None:
        """Sends the guest the time, as it is at the moment when the frame is written."""
        self._time_due = True

    def admit(self, ticket: int, stream_id: int) -> None:
        """Gives the guest's program the connection that it asked for, as an open stream."""
        self._tickets.admit(ticket)
        fields = encode_fields([(Tag.TICKET, ticket)])
        self.request(FrameType.CONNECT, message_id=stream_id, fields=fields)

    def refuse(self, ticket: int) -> None:
        """Tells the guest's program that nobody listens."""
        self._tickets.refuse(ticket)

    # ---- what goes to the guest ----

    def take(self) -> bytes:
        """Returns the next bytes to write, about 64 KiB beside one message; empty for nothing."""
        pieces: list[bytes] = []
        size = 0
        while size < _BATCH_BYTES:
            piece = self._next_piece()
            if piece is None:
                break
            pieces.append(piece)
            size += len(piece)
        self.bytes_out += size
        return b"".join(pieces)

    def _next_piece(self) -> bytes | None:
        message = self._next_message()
        if message is not None:
            return message
        if not self._ready:
            return None  # positions are known only after the guest has reported them
        while self._acks:
            stream_id = next(iter(self._acks))
            del self._acks[stream_id]
            stream = self._streams.get(stream_id)
            if stream is not None:
                return self._ack_frame(stream_id, stream)
        while self._turns:
            stream_id = next(iter(self._turns))
            del self._turns[stream_id]
            stream = self._streams.get(stream_id)
            chunk = stream.output.next_chunk(_CHUNK_BYTES) if stream else None
            if chunk is not None:
                self._turns[stream_id] = None  # behind the others
                return self._data_frame(stream_id, *chunk)
        return None

    def _next_message(self) -> bytes | None:
        if self._time_due and self._welcomed:
            self._time_due = False
            fields = encode_fields([(Tag.TIME_NS, self._now_ns())])
            return encode_message(FrameType.CLOCK, message_id=0, fields=fields)
        if self._control:
            return self._control.popleft()
        if (ticket := self._tickets.next_refusal()) is not None:
            return encode_message(FrameType.REFUSE, message_id=ticket, fields=b"")
        return None

    def _ack_frame(self, stream_id: int, stream: _Stream) -> bytes:
        position, limit = stream.input.tell()
        self._forget_if_done(stream_id)
        payload = _NUMBER.pack(limit)
        return encode_frame(
            Frame(type=FrameType.ACK, id=stream_id, offset=position, payload=payload)
        )

    @staticmethod
    def _data_frame(stream_id: int, position: int, data: bytes, ends: bool) -> bytes:
        flags = FrameFlag.FIN if ends else FrameFlag.NONE
        return encode_frame(
            Frame(type=FrameType.DATA, id=stream_id, offset=position, flags=flags, payload=data)
        )
