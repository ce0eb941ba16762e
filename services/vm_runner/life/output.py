"""What a workload writes, on its way from the guest into the run's log."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from services.core.errors import CapacityExhausted
from services.vm_runner.channel.handles import GuestStream
from services.vm_runner.channel.requests import ProcessSpec
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.records.run_log import LogChunk, LogStream, RunLog

_BULK_BYTES = 16 * 1024
_GATHERED_BYTES = 160 * 1024
_GATHER_SECONDS = 0.003
_GATHER_TIMES = 4


class WorkloadOutput:
    """The output of one boot of a run.

    Args:
        log: where it goes.
        boot: number of the boot; positions of its streams begin at 0.
        on_trouble: is given a line for users when the log cannot take it now.
        retry_seconds: before the log is tried again.
    """

    def __init__(
        self,
        log: RunLog,
        boot: int,
        *,
        on_trouble: Callable[[str], Awaitable[None]],
        retry_seconds: float = 1.0,
    ) -> None:
        self._log = log
        self._boot = boot
        self._on_trouble = on_trouble
        self._retry_seconds = retry_seconds

    async def open(self, session: GuestSession, spec: ProcessSpec) -> None:
        """Takes part in the workload's streams, which go on where the log stands."""
        progress = await self._log.progress(self._boot)
        for stream in LogStream:
            received, ended = progress.get(stream, (0, False))
            if not ended and stream in (spec.stdio_stream, spec.stderr_stream):
                session.open_stream(stream, received=received)

    async def carry(self, session: GuestSession) -> None:
        """Carries all open streams to their ends."""
        async with asyncio.TaskGroup() as streams:
            for stream in LogStream:
                if session.has_stream(stream):
                    streams.create_task(self._carry(session.stream(stream), stream))

    async def _carry(self, stream: GuestStream, name: LogStream) -> None:
        """Carries a stream; acknowledged is only what is in the log."""
        ended = False
        while not ended:
            data, ended = await stream.receive()
            await self._append(name, data, ended=ended)
            stream.acknowledge(len(data), ended=ended)
            if len(data) >= _BULK_BYTES and not ended:
                await _gather(stream)

    async def end_with(self, message: str) -> None:
        """Adds a last line of the host's own to the workload's standard error."""
        await self._append(LogStream.STDERR, message.encode(), ended=True)

    async def _append(self, stream: LogStream, data: bytes, *, ended: bool) -> None:
        """Appends to the log; where its disk is full the output waits in the guest meanwhile."""
        came_ns = time.time_ns()
        progress = await self._log.progress(self._boot)
        position, _ = progress.get(stream, (0, False))
        chunk = LogChunk(
            boot=self._boot,
            stream=stream,
            position=position,
            time_ns=came_ns,
            data=data,
            ended=ended,
        )
        while True:
            try:
                await self._log.append([await self._rest(chunk)])
            except CapacityExhausted as error:
                await self._on_trouble(f"{error.message}: the run's output waits for room")
                await asyncio.sleep(self._retry_seconds)
            else:
                return

    async def _rest(self, chunk: LogChunk) -> LogChunk:
        """Returns what of a piece is not in the log yet: an append may have come half the way."""
        done, _ = (await self._log.progress(self._boot)).get(chunk.stream, (0, False))
        done = max(done, chunk.position)
        return replace(chunk, position=done, data=chunk.data[done - chunk.position :])


async def _gather(stream: GuestStream) -> None:
    """Waits a little while much comes: a write and a message cost the same for any size.

    The stream's window bounds what can come meanwhile.
    """
    for _ in range(_GATHER_TIMES):
        if stream.held_bytes >= _GATHERED_BYTES or stream.has_ended:
            return
        await asyncio.sleep(_GATHER_SECONDS)
