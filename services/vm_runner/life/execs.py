"""Processes beside a workload; their output goes to the one client that started them."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from services.chassis import tracing
from services.chassis.tasks import first_error
from services.core.errors import LnsError
from services.vm_runner.channel.events import ProcessPhase
from services.vm_runner.channel.handles import GuestProcess, GuestStream
from services.vm_runner.channel.requests import ProcessSpec
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.life.exit_status import (
    exec_message,
    exit_status,
    signal_number,
    start_failure,
)
from services.vm_runner.records.run_log import LogStream
from services.vm_runner.records.runs import ExitStatus, TerminalSize

_LEFTOVER_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Bytes of a process."""

    stream: LogStream
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPlace:
    """Where the standard input of a process stands.

    Attributes:
        position: bytes that it was sent since its start.
        boot: which start of the run it is of.
    """

    position: int
    boot: int


class ExecAttachment:
    """A connection to a process that was started for it."""

    def __init__(self, session: GuestSession, process: GuestProcess, spec: ProcessSpec) -> None:
        self.exec_id = str(process.id)
        self._process = process
        self._program = spec.argv[0]
        self._streams = {LogStream.STDOUT: session.stream(spec.stdio_stream)}
        if spec.stderr_stream:
            self._streams[LogStream.STDERR] = session.stream(spec.stderr_stream)

    @property
    def is_running(self) -> bool:
        """Whether the process runs, or has at least been executed."""
        state = self._process.state
        return state is None or state.phase is not ProcessPhase.FAILED

    async def output(self) -> AsyncGenerator[Output, None]:
        """Yields what the process writes, until its streams have ended.

        A child that it left behind may hold them open: then they are given up a little later.
        """
        arrived: asyncio.Queue[Output | None] = asyncio.Queue(maxsize=1)
        carrying = asyncio.create_task(self._carry(arrived))
        try:
            while (output := await arrived.get()) is not None:
                yield output
            await carrying
        finally:
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)
        message = exec_message(await self._process.wait_ended(), program=self._program)
        if message:
            yield Output(stream=LogStream.STDERR, data=message.encode())

    async def _carry(self, arrived: asyncio.Queue[Output | None]) -> None:
        """Puts all that the streams bring, and None behind it.

        Raises:
            LnsError: the guest was lost.
        """
        failure: LnsError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                pumps = [
                    tasks.create_task(_pump(stream, name, arrived))
                    for name, stream in self._streams.items()
                ]
                await self._process.wait_ended()
                _, late = await asyncio.wait(pumps, timeout=_LEFTOVER_SECONDS)
                for pump in late:
                    pump.cancel()
        except* LnsError as errors:
            failure = first_error(errors)
        await arrived.put(None)
        if failure is not None:
            raise failure

    async def exit_status(self) -> ExitStatus:
        """Returns how the process ended."""
        state = await self._process.wait_ended()
        self.leave()
        failure = start_failure(state, program=self._program)
        if failure is not None:
            raise failure
        return exit_status(state)

    async def input_place(self) -> InputPlace | None:
        """Returns the beginning: nobody else writes to it."""
        return InputPlace(position=0, boot=0)

    async def write(self, data: bytes) -> None:
        """Sends bytes to its standard input."""
        await self._streams[LogStream.STDOUT].write(data)

    async def wait_input_taken(self) -> None:
        """Waits until the guest has all that was sent so far."""
        stream = self._streams[LogStream.STDOUT]
        await stream.wait_taken(stream.written)

    async def close_input(self) -> None:
        """Ends its standard input."""
        self._streams[LogStream.STDOUT].finish()

    async def resize(self, size: TerminalSize) -> None:
        """Gives its terminal another size."""
        self._process.resize(rows=size.rows, columns=size.columns)

    async def signal(self, name: str) -> None:
        """Sends it a signal."""
        self._process.signal(signal_number(name))

    def break_output(self) -> None:
        """Gives its streams up: what it writes from now on fails."""
        for stream in self._streams.values():
            stream.break_off()

    def leave(self) -> None:
        """Lets go of the process; the guest reads on what it writes, and drops it."""
        for stream in self._streams.values():
            stream.reset()
        self._process.forget_when_ended()


async def _pump(
    stream: GuestStream, name: LogStream, arrived: asyncio.Queue[Output | None]
) -> None:
    async for data in stream.read_chunks():
        await arrived.put(Output(stream=name, data=data))


async def start_exec(
    session: GuestSession, spec: ProcessSpec, *, process_id: int
) -> ExecAttachment:
    """Starts a process beside the workload and connects to it once it runs.

    Raises:
        GuestUnreachable: the guest does not answer.
        VmFailed: the process could not be started.
    """
    process = session.start_process(process_id, spec)
    attachment = ExecAttachment(session, process, spec)
    try:
        with tracing.span("guest.exec"):
            state = await process.wait_started()
        failure = start_failure(state, program=spec.argv[0])
        if failure is not None:
            raise failure
    except (LnsError, asyncio.CancelledError):
        attachment.leave()
        raise
    return attachment
