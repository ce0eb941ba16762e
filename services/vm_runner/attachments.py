"""Connections of clients to a run: to its workload through the log, or to a process of their own.

What is attached to the workload reads the log, so that any number of clients see the same output
and none holds up the guest for long. The output of other processes is not logged: it goes to its
one client at the client's pace, and waits in the guest meanwhile.
"""

import itertools
from collections.abc import AsyncGenerator
from typing import Protocol

from services.vm_runner.channel.handles import GuestStream
from services.vm_runner.life.execs import InputPlace, Output, start_exec
from services.vm_runner.life.exit_status import signal_number
from services.vm_runner.life.guest_plan import exec_process, with_environment
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.records import lifecycle
from services.vm_runner.records.run_log import LogPlace, LogStream
from services.vm_runner.records.runs import ExecRequest, ExitStatus, RunState, TerminalSize

_WITH_WORKLOAD = (RunState.RUNNING, RunState.STOPPING)


class Attachment(Protocol):
    """A client's connection to a process of a run."""

    @property
    def exec_id(self) -> str:
        """Id of the process; empty for the workload."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether the process runs, as far as is known."""
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

    async def input_place(self) -> InputPlace | None:
        """Returns where its standard input stands, once it can take some; None if it takes none."""
        ...

    async def write(self, data: bytes) -> None:
        """Sends bytes to its standard input; nothing happens if nobody reads them."""
        ...

    async def wait_input_taken(self) -> None:
        """Waits until the guest has all that was sent so far, or takes no more.

        Raises:
            GuestUnreachable: the guest was lost.
        """
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

    def break_output(self) -> None:
        """Breaks what a process of the client's own writes to: nobody reads it any more."""
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

    @property
    def is_running(self) -> bool:
        """Whether the workload runs."""
        return self._life.run.state in _WITH_WORKLOAD

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

    async def input_place(self) -> InputPlace | None:
        """Returns where its standard input stands, once the workload runs."""
        stream = await self._input()
        if stream is None:
            return None
        return InputPlace(position=stream.written, boot=self._life.run.boot)

    async def write(self, data: bytes) -> None:
        """Sends bytes to its standard input."""
        stream = await self._input()
        if stream is not None:
            await stream.write(data)

    async def wait_input_taken(self) -> None:
        """Waits until the guest has all that was sent so far."""
        stream = await self._input()
        if stream is not None:
            await stream.wait_taken(stream.written)

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

    def break_output(self) -> None:
        """Does nothing: the log goes on reading."""

    def leave(self) -> None:
        """Lets go of the workload."""

    async def _input(self) -> GuestStream | None:
        """Returns the stream of the workload's input; None if it takes none (any more)."""
        found = await self._life.workload()
        if found is None or not self._life.run.options.stdin:
            return None
        session, _ = found
        return session.stream(LogStream.STDOUT) if session.has_stream(LogStream.STDOUT) else None


async def attach_workload(
    life: RunLife, *, replay: bool, terminal: TerminalSize | None
) -> Attachment:
    """Connects to a run's workload.

    Args:
        life: the run.
        replay: begin with what the workload has written since its start.
        terminal: the size that its terminal takes; what it shows it then draws again.

    Raises:
        RunStateConflict: the run was never started.
    """
    if life.run.state is RunState.CREATED:
        lifecycle.require(life.run, *lifecycle.LIVE, to="attach to")
    attachment = WorkloadAttachment(life, LogPlace() if replay else await life.log.end())
    if terminal is not None and not replay and life.run.state in _WITH_WORKLOAD:
        # Programs draw again when the size changes, so it changes also where it is as before.
        await attachment.resize(TerminalSize(rows=terminal.rows + 1, columns=terminal.columns))
        await attachment.resize(terminal)
    return attachment


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
