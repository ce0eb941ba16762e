"""The control socket of a worker: packets in with their descriptors, packets out in order.

The worker listens; the newest runner that connects is the one that is used. What is to be
reported while no runner is connected waits, up to a bound; beyond it the reporter waits.
"""

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from services.vm_runner.egress_worker import control
from services.vm_runner.egress_worker.control import ControlViolation
from services.vm_runner.egress_worker.orders import ToWorker
from services.vm_runner.egress_worker.reports import ToRunner

QUEUE_MOST: Final = 1024
_DESCRIPTORS_MOST: Final = 4

Handler = Callable[[ToWorker, "socket.socket | None"], None]


def receive_packet(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Receives one packet and its descriptors; an empty one is the end.

    Raises:
        BlockingIOError: none has come yet.
        ControlViolation: it is longer than any may be.
        OSError: the connection broke.
    """
    space = socket.CMSG_SPACE(_DESCRIPTORS_MOST * array.array("i").itemsize)
    data, ancillary, flags, _ = connection.recvmsg(
        control.MESSAGE_MAX + 1, space, socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(descriptors)
        raise ControlViolation("a packet of the control socket is too long")
    return data, list(descriptors)


def send_packet(connection: socket.socket, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Sends one packet with descriptors.

    Raises:
        BlockingIOError: the socket's buffer is full.
        OSError: the connection broke.
    """
    ancillary = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        if descriptors
        else []
    )
    connection.sendmsg([data], ancillary)


def close_all(descriptors: "list[int] | array.array[int]") -> None:
    """Closes descriptors that are not used."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


class ControlSocket:
    """Speaks to the runner, whichever it is by now.

    Args:
        listener: listens for runners.
        greet: returns what is said to a runner that comes, before anything that waits.
        handle: takes what a runner says, with the socket that came along.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        greet: Callable[[], list[ToRunner]],
        handle: Handler,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._greet = greet
        self._handle = handle
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._connection: socket.socket | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._due = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def report(self, message: ToRunner) -> None:
        """Queues a message; waits while the queue is full."""
        while len(self._queue) >= QUEUE_MOST:
            self._room.clear()
            await self._room.wait()
        self.say(message)

    def say(self, message: ToRunner) -> None:
        """Queues a message, even if the queue is full: one of those that are bounded otherwise."""
        self._queue.append((control.encode(message), False))
        self._due.set()

    def ask(self, message: ToRunner) -> None:
        """Queues a question. Without a connected runner it is dropped: `greet` repeats it."""
        if self._connection is not None:
            self._queue.append((control.encode(message), True))
            self._due.set()

    async def serve(self) -> None:
        """Accepts runners, one after the other, until cancelled."""
        serving: asyncio.Task[None] | None = None
        try:
            while True:
                connection, _ = await self._loop.sock_accept(self._listener)
                if serving is not None:
                    serving.cancel()
                    await asyncio.wait([serving])
                connection.setblocking(False)
                serving = asyncio.create_task(self._serve_one(connection))
        finally:
            if serving is not None:
                serving.cancel()

    async def _serve_one(self, connection: socket.socket) -> None:
        """Speaks to one runner until it is gone, or says what no runner says."""
        self._queue = deque(one for one in self._queue if not one[1])
        self._connection = connection
        try:
            for message in self._greet():
                await self._send(connection, control.encode(message))
            ways = [
                asyncio.create_task(self._read(connection)),
                asyncio.create_task(self._write(connection)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            return
        finally:
            self._connection = None
            connection.close()

    async def _read(self, connection: socket.socket) -> None:
        while True:
            try:
                data, descriptors = receive_packet(connection)
            except BlockingIOError:
                await self._ready(connection, self._loop.add_reader, self._loop.remove_reader)
                continue
            if not data:
                close_all(descriptors)
                return
            first, others = descriptors[:1], descriptors[1:]
            close_all(others)
            try:
                message = control.decode_to_worker(data)
            except ControlViolation:
                close_all(first)
                return
            self._handle(message, socket.socket(fileno=first[0]) if first else None)

    async def _write(self, connection: socket.socket) -> None:
        while True:
            while self._queue:
                await self._send(connection, self._queue[0][0])
                self._queue.popleft()
                if len(self._queue) < QUEUE_MOST:
                    self._room.set()
            self._due.clear()
            await self._due.wait()

    async def _send(self, connection: socket.socket, data: bytes) -> None:
        while True:
            try:
                send_packet(connection, data)
            except BlockingIOError:
                await self._ready(connection, self._loop.add_writer, self._loop.remove_writer)
            else:
                return

    @staticmethod
    async def _ready(
        connection: socket.socket,
        add: Callable[..., object],
        remove: Callable[[int], object],
    ) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        add(connection.fileno(), wake)
        try:
            await ready
        finally:
            remove(connection.fileno())
