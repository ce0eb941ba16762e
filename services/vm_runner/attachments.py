"""Connections of clients to a run: to its workload through the log, or to a process of their own.

What is attached to the workload reads the log, so that any number of clients see the same output
and none holds up the guest for long. The output of other processes is not logged: it goes to its
one client at the client's pace, and waits in the guest meanwhile.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from services.core.errors import LnsError
from services.vm_runner.channel.handles import GuestProcess, GuestStream
from services.vm_runner.channel.requests import ProcessSpec
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.life.boot import first_error
from services.vm_runner.life.exit_status import (
    exec_message,
    exit_status,
    signal_number,
    start_failure,
)
from services.vm_runner.life.guest_plan import exec_process, with_environment
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.records import lifecycle
from services.vm_runner.records.run_log import LogPlace, LogStream
from services.vm_runner.records.runs import ExecRequest, ExitStatus, RunState, TerminalSize

_LEFTOVER_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Bytes of a process."""

    stream: LogStream
    data: bytes


class Attachment(Protocol):
    """A client's connection to a process of a run."""

    @property
    def exec_id(self) -> str:
        """Id of the process; empty for the workload."""
        ...

    def output(self) -> AsyncGenerator[Output, None]:
        """Yields what the process writes, until all of it came.

        Raises:
            AttachLagging: the reader fell too far behind.
            LnsError: the run failed.
        """
        ...

    async def exit_status(self) -> ExitStatus:
        """Returns how the process ended, once `output` has.

        Raises:
            LnsError: the run failed.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Sends bytes to its standard input; nothing happens if nobody reads them."""
        ...

    async def close_input(self) -> None:
        """Ends its standard input."""
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Gives its terminal another size."""
        ...

    async def signal(self, name: str) -> None:
        """Sends it a signal.

        Raises:
            RequestInvalid: there is no such signal.
        """
        ...

    def leave(self) -> None:
        """Lets go of the process, which goes on."""
        ...


class WorkloadAttachment:
    """A connection to the workload."""

    exec_id = ""

    def __init__(self, life: RunLife, place: LogPlace) -> None:
        self._life = life
        self._place = place
        self._boot = life.run.boot

    async def output(self) -> AsyncGenerator[Output, None]:
        """Yields what the workload writes, until the run has ended."""
        async for chunks in self._life.log.follow(self._place, held=True):
            wanted = (chunk for chunk in chunks if chunk.data and chunk.boot >= self._boot)
            for stream, pieces in itertools.groupby(wanted, key=lambda chunk: chunk.stream):
                yield Output(stream=stream, data=b"".join(piece.data for piece in pieces))

    async def exit_status(self) -> ExitStatus:
        """Returns how the workload ended."""
        run = await self._life.wait_ended()
        if run.exit is not None:
            return run.exit
        if run.failure is not None:
            raise run.failure.error()
        return ExitStatus(code=0)

    async def write(self, data: bytes) -> None:
        """Sends bytes to its standard input."""
        stream = await self._input()
        if stream is not None:
            await stream.write(data)

    async def close_input(self) -> None:
        """Ends its standard input."""
        stream = await self._input()
        if stream is not None:
            stream.finish()

    async def resize(self, size: TerminalSize) -> None:
        """Gives its terminal another size."""
        found = await self._life.workload()
        if found is not None:
            found[1].resize(rows=size.rows, columns=size.columns)

    async def signal(self, name: str) -> None:
        """Sends it a signal."""
        number = signal_number(name)
        found = await self._life.workload()
        if found is not None:
            found[1].signal(number)

    def leave(self) -> None:
        """Lets go of the workload."""

    async def _input(self) -> GuestStream | None:
        """Returns the stream of the workload's input; None if it takes none (any more)."""
        found = await self._life.workload()
        if found is None or not self._life.run.options.stdin:
            return None
        session, _ = found
        return session.stream(LogStream.STDOUT) if session.has_stream(LogStream.STDOUT) else None


class ExecAttachment:
    """A connection to a process that was started for it."""

    def __init__(self, session: GuestSession, process: GuestProcess, spec: ProcessSpec) -> None:
        self.exec_id = str(process.id)
        self._process = process
        self._program = spec.argv[0]
        self._streams = {LogStream.STDOUT: session.stream(spec.stdio_stream)}
        if spec.stderr_stream:
            self._streams[LogStream.STDERR] = session.stream(spec.stderr_stream)

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

    async def write(self, data: bytes) -> None:
        """Sends bytes to its standard input."""
        await self._streams[LogStream.STDOUT].write(data)

    async def close_input(self) -> None:
        """Ends its standard input."""
        self._streams[LogStream.STDOUT].finish()

    async def resize(self, size: TerminalSize) -> None:
        """Gives its terminal another size."""
        self._process.resize(rows=size.rows, columns=size.columns)

    async def signal(self, name: str) -> None:
        """Sends it a signal."""
        self._process.signal(signal_number(name))

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


async def attach_workload(life: RunLife, *, replay: bool) -> Attachment:
    """Connects to a run's workload.

    Args:
        life: the run.
        replay: begin with what the workload has written since its start.

    Raises:
        RunStateConflict: the run was never started.
    """
    if life.run.state is RunState.CREATED:
        lifecycle.require(life.run, *lifecycle.LIVE, to="attach to")
    return WorkloadAttachment(life, LogPlace() if replay else await life.log.end())


async def attach_exec(
    life: RunLife, request: ExecRequest, *, stdin: bool, terminal: TerminalSize | None
) -> Attachment:
    """Starts a process in a run and connects to it.

    Raises:
        RunStateConflict: the run's workload does not run.
        GuestUnreachable: the guest does not answer.
        VmFailed: the process could not be started: its user is unknown, for example.
    """
    session = life.guest()
    process_id = session.new_id()
    spec = exec_process(
        life.run,
        request,
        stdio_stream=session.new_id(),
        stderr_stream=0 if request.tty else session.new_id(),
        terminal=terminal,
    )
    spec = with_environment(spec, await life.boundary.environment())
    attachment = await start_exec(session, spec, process_id=process_id)
    if not stdin and not request.tty:
        await attachment.close_input()
    return attachment


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
        state = await process.wait_started()
        failure = start_failure(state, program=spec.argv[0])
        if failure is not None:
            raise failure
    except (LnsError, asyncio.CancelledError):
        attachment.leave()
        raise
    return attachment
