"""Talks to one guest agent over a byte stream: processes, streams, connections as awaitable things.

`GuestChannel` has the rules; here are the tasks and events around it. A session ends with its
connection or with the guest's first offence; then every wait raises, and nothing else is touched.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from services.core.errors import GuestUnreachable, LnsError
from services.vm_runner.channel.byte_channel import ByteChannel
from services.vm_runner.channel.connections import Connections
from services.vm_runner.channel.endpoint import GuestChannel
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
from services.vm_runner.channel.handles import GuestProcess, GuestStream
from services.vm_runner.channel.pace import Pace
from services.vm_runner.channel.requests import GuestConfig, Hello, ProcessSpec, encode_clock
from services.vm_runner.channel.wire import NONCE_BYTES, FrameType

_READ_BYTES = 256 * 1024
_ENTROPY_BYTES = 64
_NOTICES_KEPT = 64
_CLOCK_SECONDS = 30.0
_WITHOUT_FREEZE = frozenset({"1", "2"})
_WITHOUT_CLOCK = "1"  # an agent of an earlier version, in a machine that was adopted
_BACKLOG_MOST = 4 << 20

T = TypeVar("T")
E = TypeVar("E", bound=GuestEvent)


class GuestSession:
    """The host's side of one guest, while its connection lasts.

    Use as `async with open_session(connection) as session`; `welcome` says what the guest is.
    """

    def __init__(
        self, connection: ByteChannel, *, on_oom_kills: Callable[[int], None] = lambda _: None
    ) -> None:
        hello = Hello(time_ns=time.time_ns(), entropy=os.urandom(_ENTROPY_BYTES))
        self.channel = GuestChannel(nonce=os.urandom(NONCE_BYTES), hello=hello)
        self.welcome: Welcome | None = None
        self.notices: deque[str] = deque(maxlen=_NOTICES_KEPT)
        self.ended = asyncio.Event()
        self._connection = connection
        self._on_oom_kills = on_oom_kills
        self._error: LnsError | None = None
        self._streams: dict[int, GuestStream] = {}
        self._processes: dict[int, GuestProcess] = {}
        self._next_id = 16  # below are the workload's own
        self._due = asyncio.Event()
        self._due.set()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._configured: asyncio.Future[Configured] = loop.create_future()
        self._answers: dict[type, asyncio.Future[Any]] = {}
        self._goodbye: asyncio.Future[None] = loop.create_future()
        self._stats: asyncio.Future[GuestStats] | None = None
        self.connections = Connections(self)
        self.egress_wanted = asyncio.Event()

    # ---- requests ----

    async def wait_ready(self) -> None:
        """Waits until the guest has said how it stands.

        Raises:
            GuestUnreachable: the session ended before.
        """
        await self.answer(self._ready)

    def set_clock(self) -> None:
        """Sets the guest's clock to the host's: what the hello said is as old as the boot."""
        self.request(FrameType.HELLO, fields=encode_clock(time.time_ns()))

    async def prepare(self, config: GuestConfig) -> Prepared:
        """Has the agent mount the disks of an image, before there is a run."""
        return await self._ask(FrameType.PREPARE, Prepared, config.encode())

    async def clear(self) -> None:
        """Has the agent forget a rehearsal: a configuration of disks alone, and what ran in it.

        The session is of no further use: its ids begin anew.
        """
        await self._ask(FrameType.CLEAR, Cleared)

    @property
    def can_freeze(self) -> bool:
        """Whether the agent knows what follows; one of an earlier version may have been adopted."""
        return self.welcome is not None and self.welcome.agent not in _WITHOUT_FREEZE

    async def freeze(self) -> Frozen:
        """Has every process of the workload stand still, until `thaw`."""
        return await self._ask(FrameType.FREEZE, Frozen)

    def thaw(self) -> None:
        """Lets the workload go on."""
        self.request(FrameType.THAW)

    async def renew(self, config: GuestConfig) -> Renewed:
        """Makes the machine that of another run: its names, files and limits; then it goes on."""
        return await self._ask(FrameType.RENEW, Renewed, config.encode())

    @property
    def is_configured(self) -> bool:
        """Whether an earlier host has had the machine assembled."""
        return self.welcome is not None and self.welcome.configured

    async def configure(self, config: GuestConfig) -> Configured:
        """Has the agent assemble the machine."""
        self.request(FrameType.CONFIGURE, fields=config.encode())
        return await self.answer(self._configured)

    async def configured(self) -> Configured:
        """Returns what an earlier host was answered."""
        return await self.answer(self._configured)

    def new_id(self) -> int:
        """Returns an id that no process or stream of this guest has had.

        Raises:
            GuestUnreachable: it does not take what it was sent before.
        """
        if self.channel.backlog > _BACKLOG_MOST:
            raise GuestUnreachable("the guest does not take what it is sent")
        self._next_id += 1
        return self._next_id

    def start_process(
        self, process_id: int, spec: ProcessSpec, *, open_streams: bool = True
    ) -> GuestProcess:
        """Asks for a process; the guest tells only how it stands if it has it already.

        Args:
            process_id: fresh, or that of a process of an earlier host.
            spec: what to start.
            open_streams: whether its streams begin with it.
        """
        for stream_id in (spec.stdio_stream, spec.stderr_stream):
            if stream_id and open_streams:
                self.open_stream(stream_id)
        process = self.adopt_process(process_id)
        self.request(FrameType.EXEC, message_id=process_id, fields=spec.encode())
        return process

    def adopt_process(self, process_id: int) -> GuestProcess:
        """Returns a process that an earlier host may have started."""
        return self._processes.setdefault(process_id, GuestProcess(self, process_id))

    def open_stream(self, stream_id: int, *, received: int = 0, grant: bool = True) -> GuestStream:
        """Takes part in a stream, of which `received` bytes are safe here."""
        self.channel.open_stream(stream_id, received=received, grant=grant)
        stream = self._streams[stream_id] = GuestStream(self, stream_id)
        self.wake()
        return stream

    def has_stream(self, stream_id: int) -> bool:
        """Returns whether a stream is open here."""
        return stream_id in self._streams

    def stream(self, stream_id: int) -> GuestStream:
        """Returns an open stream."""
        return self._streams[stream_id]

    def reset_unclaimed(self) -> None:
        """Gives up what an earlier host had open and this one did not take over."""
        self.channel.reset_unclaimed()
        self.wake()

    async def stats(self) -> GuestStats:
        """Asks what the workload uses."""
        if self._stats is None or self._stats.done():
            self._stats = asyncio.get_running_loop().create_future()
            self.request(FrameType.STATS)
        return await self.answer(self._stats)

    async def shut_down(self) -> None:
        """Has the agent end everything, write back and power off; returns when it says so."""
        self.request(FrameType.SHUTDOWN)
        await self.answer(self._goodbye)

    def request(self, frame_type: FrameType, *, message_id: int = 0, fields: bytes = b"") -> None:
        """Sends a control message."""
        self.channel.request(frame_type, message_id=message_id, fields=fields)
        self.wake()

    def send_time(self) -> None:
        """Tells the guest the time, if its agent knows that message."""
        if self.welcome is not None and self.welcome.agent != _WITHOUT_CLOCK:
            self.channel.send_time()
            self.wake()

    def forget_stream(self, stream_id: int, *, breaks: bool = False) -> None:
        """Gives a stream up."""
        self._streams.pop(stream_id, None)
        self.channel.reset_stream(stream_id, breaks=breaks)
        self.wake()

    def leave_stream(self, stream_id: int) -> None:
        """Lets a stream that has ended both ways go; the rest of it happens by itself."""
        self._streams.pop(stream_id, None)

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
        directions = [
            asyncio.create_task(self._read()),
            asyncio.create_task(self._write()),
            asyncio.create_task(self._keep_time()),
        ]
        try:
            ended, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            await ended.pop()
        except LnsError as error:
            self._error = error
        except OSError as error:
            self._error = GuestUnreachable(f"the connection to the guest broke: {error}")
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            self._end()

    async def _read(self) -> None:
        pace = Pace(time.monotonic())
        while data := await self._connection.read(_READ_BYTES):
            before = time.thread_time()  # a system call, and not a cheap one everywhere
            at = 0
            while at < len(data):
                following = at + pace.slice_bytes
                for event in self.channel.receive(data[at:following]):
                    self._dispatch(event)
                self.wake()
                at = following
                now = time.thread_time()
                wait = pace.spend(now - before, now=time.monotonic())
                before = now
                if wait:
                    await asyncio.sleep(wait)
                    before = time.thread_time()

    async def _write(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while data := self.channel.take():
                await self._connection.write(data)

    async def _keep_time(self) -> None:
        """Tells the guest the time now and then: its clock drifts, and stands still with it."""
        while True:
            await asyncio.sleep(_CLOCK_SECONDS)
            self.send_time()

    def _end(self) -> None:
        self.ended.set()
        for stream in self._streams.values():
            stream.wake()
        for process in self._processes.values():
            process.wake()

    async def _ask(self, request: FrameType, wanted: type[E], fields: bytes = b"") -> E:
        """Sends a control message and returns the guest's answer to it."""
        answer: asyncio.Future[E] = asyncio.get_running_loop().create_future()
        self._answers[wanted] = answer
        self.request(request, fields=fields)
        return await self.answer(answer)

    async def answer(self, answer: asyncio.Future[T]) -> T:
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
                self._on_oom_kills(event.oom_kills)
                if process := self._processes.get(event.process_id):
                    process.on_state(event)
            case _:
                self._dispatch_machine_event(event)

    def _dispatch_machine_event(self, event: GuestEvent) -> None:
        match event:
            case Welcome():
                self.welcome = event
                self._next_id = max(self._next_id, event.highest_id)
                self.send_time()  # what the greeting said is as old as the boot is long
            case Ready():
                _resolve(self._ready, None)
            case Prepared() | Cleared() | Frozen() | Renewed():
                if answer := self._answers.pop(type(event), None):
                    _resolve(answer, event)
            case Configured():
                _resolve(self._configured, event)
            case Connected() | Opening():
                self.connections.on_event(event)
            case Wanted():
                self.egress_wanted.set()
            case GuestStats():
                self._on_oom_kills(event.oom_kills)
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
async def open_session(
    connection: ByteChannel,
    *,
    answer_seconds: float,
    on_oom_kills: Callable[[int], None] = lambda _: None,
) -> AsyncIterator[GuestSession]:
    """Says hello over a connection and yields the session once the guest has answered.

    Args:
        connection: is closed at the end.
        answer_seconds: longest time for the answer.
        on_oom_kills: called with how many processes the guest's memory limit ended, whenever the
            guest says so.

    Raises:
        GuestUnreachable: no answer within `answer_seconds`.
        GuestViolation: the answer breaks the protocol.
    """
    session = GuestSession(connection, on_oom_kills=on_oom_kills)
    task = asyncio.create_task(session.serve())
    try:
        try:
            async with asyncio.timeout(answer_seconds):
                await session.wait_ready()
                session.set_clock()
        except TimeoutError:
            message = f"the guest did not answer within {answer_seconds:g} s"
            raise GuestUnreachable(message) from None
        yield session
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await connection.close()
