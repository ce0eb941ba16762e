"""One call of Attach: a client's messages to a process, and what the process writes back.

What a client does besides sending data (signals, sizes, leaving) never waits behind its data: its
messages are read as they come, and data waits here, up to a bound, for the process to take it. The
client learns how much was taken, and keeps what is under way below that bound.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from lns.vm.v1 import vm_service_pb2 as pb

from services.chassis.streams import check_chunk
from services.core.errors import LnsError, RequestInvalid
from services.vm_runner import messages
from services.vm_runner.attachments import Attachment
from services.vm_runner.records.run_log import LogStream

_PENDING_BYTES = 1 << 20
"""Data of one client that waits here; twice what clients have under way."""

_ANSWER_BYTES = 512 * 1024
_LEAVING_SECONDS = 1.0


async def converse(
    attachment: Attachment, requests: AsyncIterator[pb.AttachRequest]
) -> AsyncGenerator[pb.AttachResponse, None]:
    """Yields a process's output while the client's messages are taken; the end comes last.

    Raises:
        RequestInvalid: the client sent what it may not.
        LnsError: the run failed, or the guest was lost.
    """
    answers: asyncio.Queue[pb.AttachResponse] = asyncio.Queue(maxsize=2)
    data = _Input(attachment, answers)
    output = asyncio.create_task(_put_output(attachment, answers))
    inputs = asyncio.create_task(_take_requests(attachment, requests, data))
    answer = asyncio.ensure_future(answers.get())
    try:
        while True:
            await asyncio.wait({answer, output, inputs}, return_when=asyncio.FIRST_COMPLETED)
            if inputs.done() and inputs.result():  # raises what the client did wrong
                yield pb.AttachResponse(detached=pb.Detach())
                return
            if inputs.done():
                # The client's side is over without a word: it may be lost, or only listen.
                await asyncio.wait({answer, output}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                yield answer.result()
                answer = asyncio.ensure_future(answers.get())
                continue
            answer.cancel()
            output.result()
            while not answers.empty():
                yield answers.get_nowait()
            return
    finally:
        tasks = (answer, output, inputs, data.writing, data.telling)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        attachment.leave()


async def let_go(attachment: Attachment) -> AsyncGenerator[pb.AttachResponse, None]:
    """Leaves a process that was just started; yields why and how it ended if it never ran."""
    if attachment.is_running:
        attachment.leave()
        yield pb.AttachResponse(detached=pb.Detach())
        return
    async for output in attachment.output():
        yield pb.AttachResponse(stderr=output.data)
    yield pb.AttachResponse(exited=messages.format_exit(await attachment.exit_status()))


class _Input:
    """A client's data on its way into a process.

    A guest that is lost takes no data, and what comes is dropped: the output reports how the run or
    the process ended.

    Attributes:
        writing, telling: carry it until they are cancelled.
    """

    def __init__(self, attachment: Attachment, answers: asyncio.Queue[pb.AttachResponse]) -> None:
        self._attachment = attachment
        self._answers = answers
        self._pending: deque[bytes | None] = deque()
        self._pending_bytes = 0
        self._written = 0
        self._told = 0
        self._is_lost = False
        self._changed = asyncio.Condition()
        self.writing = asyncio.create_task(self._write())
        self.telling = asyncio.create_task(self._tell())

    async def add(self, chunk: bytes | None) -> None:
        """Adds data, or its end; waits where a client has sent more than it may."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._is_lost or self._pending_bytes < _PENDING_BYTES
            )
            if not self._is_lost:
                self._pending.append(chunk)
                self._pending_bytes += len(chunk or b"")
                self._changed.notify_all()

    async def emptied(self) -> None:
        """Waits until the process has taken what was added."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_lost or not self._pending)

    async def _write(self) -> None:
        try:
            place = await self._attachment.input_place()
            if place is not None:
                ready = pb.StdinReady(position=place.position, boot=place.boot)
                await self._answers.put(pb.AttachResponse(stdin_ready=ready))
            while True:
                await self._write_next()
        except LnsError:
            async with self._changed:
                self._is_lost = True
                self._pending.clear()
                self._changed.notify_all()

    async def _write_next(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._pending))
            chunk = self._pending[0]
        if chunk is None:
            await self._attachment.close_input()
        else:
            await self._attachment.write(chunk)
        async with self._changed:
            self._pending.popleft()
            self._pending_bytes -= len(chunk or b"")
            self._written += len(chunk or b"")
            self._changed.notify_all()

    async def _tell(self) -> None:
        """Tells the client how much was taken, whenever the guest says so."""
        with contextlib.suppress(LnsError):
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._written > self._told)
                    written = self._written
                await self._attachment.wait_input_taken()
                await self._answers.put(pb.AttachResponse(stdin_taken=written))
                self._told = written


async def _put_output(attachment: Attachment, answers: asyncio.Queue[pb.AttachResponse]) -> None:
    async with contextlib.aclosing(attachment.output()) as outputs:
        async for output in outputs:
            for at in range(0, len(output.data), _ANSWER_BYTES):
                piece = output.data[at : at + _ANSWER_BYTES]
                if output.stream is LogStream.STDOUT:
                    await answers.put(pb.AttachResponse(stdout=piece))
                else:
                    await answers.put(pb.AttachResponse(stderr=piece))
    status = await attachment.exit_status()
    await answers.put(pb.AttachResponse(exited=messages.format_exit(status)))


async def _take_requests(
    attachment: Attachment, requests: AsyncIterator[pb.AttachRequest], data: _Input
) -> bool:
    """Takes a client's messages; returns whether it asked to be let go."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "stdin":
                check_chunk(request.stdin)
                await data.add(request.stdin)
            case "stdin_closed":
                await data.add(None)
            case "resize":
                await attachment.resize(messages.parse_terminal(request.resize, "resize"))
            case "signal":
                await attachment.signal(request.signal)
            case "output_closed":
                attachment.break_output()
            case "detach":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(data.emptied(), _LEAVING_SECONDS)
                return True
            case _:
                raise RequestInvalid("a message of Attach is `start` again, or empty")
    return False
