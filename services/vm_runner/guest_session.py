"""Talks to one guest agent over a byte stream: processes, streams, connections as awaitable things.

`GuestChannel` has the rules; here are the tasks and events around it. A session ends with its connection
or with the guest's first offence; then every wait raises, and nothing else in the process is touched.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TypeVar

from services.core.errors import GuestUnreachable, LnsError
from services.vm_runner.guest_channel import GuestChannel
from services.vm_runner.guest_messages import (
    Configured,
    Connected,
    Goodbye,
    GuestConfig,
    GuestEvent,
    GuestStats,
    Hello,
    Notice,
    ProcessPhase,
    ProcessSpec,
    ProcessState,
    Ready,
    StreamData,
    StreamRefused,
    StreamReset,
    StreamWritable,
    Welcome,
)
from services.vm_runner.ports import ByteChannel
from services.vm_runner.wire import NONCE_BYTES, FrameType, Tag, encode_fields

_READ_BYTES = 256 * 1024
_ENTROPY_BYTES = 64
_NOTICES_KEPT = 64

T = TypeVar("T")


class GuestStream:
    """One stream: what the guest sends is received and acknowledged, what it gets is written."""

    def __init__(self, session: "GuestSession", stream_id: int) -> None:
        self.id = stream_id
        self._session = session
        self._arrived: deque[bytes] = deque()
        self._ended = False
        self._reset = False
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()

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
        data = b"".join(self._arrived)
        self._arrived.clear()
        return data, self._ended

    def acknowledge(self, size: int, *, ended: bool = False) -> None:
        """Says that the next `size` received bytes (and the end) are safe."""
        self._session.channel.acknowledge(self.id, size, ended=ended)
        self._session.wake()

    async def read_chunks(self) -> AsyncIterator[bytes]:
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

    def reset(self) -> None:
        """Gives the stream up, both ways."""
        self._session.forget_stream(self.id)

    def on_event(self, event: GuestEvent) -> None:
        """Takes an event of this stream."""
        match event:
            case StreamData():
                if event.data:
                    self._arrived.append(event.data)
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

    def __init__(self, session: "GuestSession", process_id: int) -> None:
        self.id = process_id
        self._session = session
        self.state: ProcessState | None = None
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

    def forget(self) -> None:
        """Says that its end is recorded; the guest forgets it."""
        self._session.forget_process(self.id)

    def on_state(self, state: ProcessState) -> None:
        """Takes a new state."""
        self.state = state
        self.wake()

    def wake(self) -> None:
        """Has every waiter look again."""
        self._changed.set()


class GuestSession:
    """The host's side of one guest, while its connection lasts.

    Use as `async with open_session(connection) as session`; `welcome` says what the guest is.
    """

    def __init__(self, connection: ByteChannel) -> None:
        hello = Hello(time_ns=time.time_ns(), entropy=os.urandom(_ENTROPY_BYTES))
        self.channel = GuestChannel(nonce=os.urandom(NONCE_BYTES), hello=hello)
        self.welcome: Welcome | None = None
        self.notices: deque[str] = deque(maxlen=_NOTICES_KEPT)
        self.ended = asyncio.Event()
        self._connection = connection
        self._error: LnsError | None = None
        self._streams: dict[int, GuestStream] = {}
        self._processes: dict[int, GuestProcess] = {}
        self._next_id = 16  # below are the workload's own
        self._due = asyncio.Event()
        self._due.set()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._configured: asyncio.Future[Configured] = loop.create_future()
        self._goodbye: asyncio.Future[None] = loop.create_future()
        self._stats: asyncio.Future[GuestStats] | None = None
        self._connecting: dict[int, asyncio.Future[Connected]] = {}

    # ---- requests ----

    async def wait_ready(self) -> None:
        """Waits until the guest has said how it stands.

        Raises:
            GuestUnreachable: the session ended before.
        """
        await self._answer(self._ready)

    async def configure(self, config: GuestConfig) -> Configured:
        """Has the agent assemble the machine; a second time gives the first answer."""
        self.request(FrameType.CONFIGURE, fields=config.encode())
        return await self._answer(self._configured)

    def new_id(self) -> int:
        """Returns an id that no process or stream of this guest has had."""
        self._next_id += 1
        return self._next_id

    def start_process(self, process_id: int, spec: ProcessSpec) -> GuestProcess:
        """Asks for a process, whose streams are opened."""
        for stream_id in (spec.stdio_stream, spec.stderr_stream):
            if stream_id:
                self.open_stream(stream_id)
        process = self.adopt_process(process_id)
        self.request(FrameType.EXEC, message_id=process_id, fields=spec.encode())
        return process

    def adopt_process(self, process_id: int) -> GuestProcess:
        """Returns a process that an earlier host may have started."""
        return self._processes.setdefault(process_id, GuestProcess(self, process_id))

    def open_stream(self, stream_id: int, *, received: int = 0) -> GuestStream:
        """Takes part in a stream, of which `received` bytes are safe here."""
        self.channel.open_stream(stream_id, received=received)
        stream = self._streams[stream_id] = GuestStream(self, stream_id)
        self.wake()
        return stream

    def stream(self, stream_id: int) -> GuestStream:
        """Returns an open stream."""
        return self._streams[stream_id]

    def reset_unclaimed(self) -> None:
        """Gives up what an earlier host had open and this one did not take over."""
        self.channel.reset_unclaimed()
        self.wake()

    async def connect(self, port: int) -> GuestStream:
        """Connects to a loopback port of the guest.

        Raises:
            GuestUnreachable: nobody listens there.
        """
        stream_id = self.new_id()
        answer: asyncio.Future[Connected] = asyncio.get_running_loop().create_future()
        self._connecting[stream_id] = answer
        stream = self.open_stream(stream_id)
        self.request(
            FrameType.CONNECT, message_id=stream_id, fields=encode_fields([(Tag.PORT, port)])
        )
        try:
            connected = await self._answer(answer)
        except BaseException:
            stream.reset()
            raise
        finally:
            del self._connecting[stream_id]
        if connected.errno:
            stream.reset()
            reason = os.strerror(connected.errno)
            raise GuestUnreachable(f"port {port} of the guest: {reason}")
        return stream

    async def stats(self) -> GuestStats:
        """Asks what the workload uses."""
        if self._stats is None or self._stats.done():
            self._stats = asyncio.get_running_loop().create_future()
            self.request(FrameType.STATS)
        return await self._answer(self._stats)

    async def shut_down(self) -> None:
        """Has the agent end everything, write back and power off; returns when it says so."""
        self.request(FrameType.SHUTDOWN)
        await self._answer(self._goodbye)

    def request(self, frame_type: FrameType, *, message_id: int = 0, fields: bytes = b"") -> None:
        """Sends a control message."""
        self.channel.request(frame_type, message_id=message_id, fields=fields)
        self.wake()

    def forget_stream(self, stream_id: int) -> None:
        """Gives a stream up."""
        self._streams.pop(stream_id, None)
        self.channel.reset_stream(stream_id)
        self.wake()

    def forget_process(self, process_id: int) -> None:
        """Has the guest forget a process that ended."""
        self._processes.pop(process_id, None)
        self.request(FrameType.EXEC_FORGET, message_id=process_id)

    # ---- the connection ----

    def check(self) -> None:
        """Raises why the session ended, if it did."""
        if self.ended.is_set():
            raise self._error or GuestUnreachable("the connection to the guest was closed")

    def wake(self) -> None:
        """Has the writer look for what is due."""
        self._due.set()

    async def serve(self) -> None:
        """Carries bytes both ways until the connection ends or the guest offends."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        except LnsError as error:
            self._error = error
        except OSError as error:
            self._error = GuestUnreachable(f"the connection to the guest broke: {error}")
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await writer
            self._end()

    async def _read(self) -> None:
        while data := await self._connection.read(_READ_BYTES):
            for event in self.channel.receive(data):
                self._dispatch(event)
            self.wake()

    async def _write(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while data := self.channel.take():
                await self._connection.write(data)

    def _end(self) -> None:
        self.ended.set()
        for stream in self._streams.values():
            stream.wake()
        for process in self._processes.values():
            process.wake()

    async def _answer(self, answer: asyncio.Future[T]) -> T:
        """Waits for an answer or the end of the session."""
        ended = asyncio.ensure_future(self.ended.wait())
        try:
            await asyncio.wait((answer, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not answer.done():
            self.check()
        return answer.result()

    def _dispatch(self, event: GuestEvent) -> None:
        match event:
            case StreamData() | StreamRefused() | StreamWritable() | StreamReset():
                if stream := self._streams.get(event.stream_id):
                    stream.on_event(event)
            case ProcessState():
                if process := self._processes.get(event.process_id):
                    process.on_state(event)
            case Welcome():
                self.welcome = event
                self._next_id = max(self._next_id, event.highest_id)
            case Ready():
                _resolve(self._ready, None)
            case Configured():
                _resolve(self._configured, event)
            case Connected():
                if answer := self._connecting.get(event.stream_id):
                    _resolve(answer, event)
            case GuestStats():
                if self._stats is not None:
                    _resolve(self._stats, event)
            case Notice():
                self.notices.append(event.text)
            case Goodbye():
                _resolve(self._goodbye, None)


def _resolve(answer: asyncio.Future[T], value: T) -> None:
    if not answer.done():
        answer.set_result(value)


@contextlib.asynccontextmanager
async def open_session(connection: ByteChannel, *, timeout: float) -> AsyncIterator[GuestSession]:
    """Says hello over a connection and yields the session once the guest has answered.

    Raises:
        GuestUnreachable: no answer within `timeout` seconds.
        GuestViolation: the answer breaks the protocol.
    """
    session = GuestSession(connection)
    task = asyncio.create_task(session.serve())
    try:
        try:
            async with asyncio.timeout(timeout):
                await session.wait_ready()
        except TimeoutError:
            message = f"the guest did not answer within {timeout:g} s"
            raise GuestUnreachable(message) from None
        yield session
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await connection.close()
