"""One microVM of a run: from its coming to be until it is gone.

What the guest is asked for can be asked for twice, so that an adoption takes the same way as a
start: who finds the machine configured and the workload started goes on from there, with the
streams from where the log stands.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from services.chassis import tracing
from services.chassis.tasks import first_error
from services.core.errors import GuestUnreachable, LnsError, VmFailed
from services.vm_runner import metrics
from services.vm_runner.boundary.run_boundary import RunBoundary
from services.vm_runner.channel.events import ProcessPhase
from services.vm_runner.channel.handles import GuestProcess
from services.vm_runner.channel.session import GuestSession, open_session
from services.vm_runner.life.boot_clock import BootClock
from services.vm_runner.life.disk_room import DiskRoom
from services.vm_runner.life.exit_status import exec_message, exit_status, start_failure
from services.vm_runner.life.guest_plan import MAIN_PROCESS, with_environment, workload
from services.vm_runner.life.health import check_health
from services.vm_runner.life.origins import Origin
from services.vm_runner.life.output import WorkloadOutput
from services.vm_runner.life.patience import patiently
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.machines import Machine
from services.vm_runner.network.outgoing import Outgoing
from services.vm_runner.records import lifecycle
from services.vm_runner.records.run_log import LogStream, RunLog
from services.vm_runner.records.runs import BootTimes, ExitStatus, Run, RunState

log = structlog.get_logger()

_KILLED = ExitStatus(code=137, signal="KILL")
_DETAIL_CHARACTERS = 1000


class MachineLost(VmFailed):
    """A microVM was lost before its workload was asked for: nothing of it can have happened."""


class BootedRun(Protocol):
    """What a boot needs of the run that it is one of."""

    @property
    def run(self) -> Run:
        """The run as it is."""
        ...

    @property
    def log(self) -> RunLog:
        """Where its output goes."""
        ...

    @property
    def boundary(self) -> RunBoundary:
        """What it reaches beyond its machine."""
        ...

    @property
    def outgoing(self) -> Outgoing:
        """The connections that its programs begin."""
        ...

    async def happened(self, change: Callable[[Run], Run]) -> Run:
        """Records what has become of the run, and reports it to those who watch."""
        ...

    async def wait_while(self, *states: RunState) -> Run:
        """Waits until the run is in none of some states."""
        ...

    async def notice(self, *lines: str) -> None:
        """Shows users a notice, now and whenever they look at the run."""
        ...

    def count_oom_kills(self, reported: int) -> None:
        """Notes how many processes the guest's memory limit has ended since its boot."""
        ...

    def reached(self) -> None:
        """Tells those who wait that the workload can be reached."""
        ...


class Boot:
    """One microVM of a run.

    Args:
        owner: the run.
        surroundings: what every run is given.
        origin: how the machine comes to be.
    """

    def __init__(self, owner: BootedRun, surroundings: Surroundings, origin: Origin) -> None:
        self.machine: Machine | None = None
        self.session: GuestSession | None = None
        self.process: GuestProcess | None = None
        self._owner = owner
        self._around = surroundings
        self._origin = origin
        self._cut_off = False
        self._workload_asked = origin.is_adopted

    async def run(self) -> None:
        """Has the machine come to be, carries output, records the end, sees the VMM end.

        Cancelled, it leaves the microVM alone.

        Raises:
            MachineLost: another boot may go better; its VMM is gone.
            LnsError: the run failed; its VMM is gone.
        """
        clock = BootClock()
        try:
            with tracing.span("vm.boot", lns_run=self._owner.run.run_id):
                machine = self.machine = await self._bring()
            if machine is None:
                await self._owner.happened(lambda run: lifecycle.exited(run, _KILLED, now=_now()))
                return
            await self._serve_binds(machine)
            if self._cut_off:  # stopped before there was a machine to kill
                await machine.kill()
            if self._origin.is_adopted:
                await self._agree_on_pause(machine)
            room = DiskRoom(self._owner, self._around.store, machine)
            async with (
                self._around.binds.watching(
                    self._owner.run, self._directory(), on_lost=self._on_bind_lost
                ),
                room.watching(),
            ):
                await self._serve(machine, clock)
        except asyncio.CancelledError:
            if self.machine is not None:
                await self.machine.leave()
            raise
        except Exception:
            if self.machine is not None:
                await self.machine.kill()
                await self._around.binds.ended(self._owner.run, self._directory())
                await self._owner.boundary.ended()
            raise
        finally:
            self.session = self.process = None
            self._origin.leave()
        await self._end(machine)

    async def finish(self, machine: Machine) -> None:
        """Ends a microVM that was left behind after its end had been recorded."""
        try:
            connection = await machine.connect()
            seconds = self._around.limits.shutdown_seconds
            async with open_session(connection, answer_seconds=seconds) as session:
                await self._shut_down(session)
        except LnsError as error:
            log.warning("guest_not_shut_down", message=error.message)
        await self._end(machine)

    async def cut_off(self) -> None:
        """Ends the VMM by force; `run` then records how the run ended."""
        self._cut_off = True
        self._origin.give_up()
        if self.machine is not None:
            await self.machine.kill()

    def _directory(self) -> Path:
        return self._around.store.directory(self._owner.run.run_id)

    # ---- the way there ----

    async def _bring(self) -> Machine | None:
        machine = await self._origin.bring(self._owner.run)
        if machine is None or self._origin.is_adopted:
            return machine
        self.machine = machine
        await self._owner.happened(
            lambda run: replace(run, vmm_pid=machine.pid, accelerator=machine.accelerator)
        )
        return machine

    async def _serve_binds(self, machine: Machine) -> None:
        try:
            await self._around.binds.serve(self._owner.run, self._directory())
        except VmFailed as error:
            if not (await machine.diagnose()).end:
                raise
            await self._explain(machine, error)  # there was nobody any more to serve

    async def _on_bind_lost(self, text: str) -> None:
        """Tells that nobody serves a bind any more, unless its machine has ended, too."""
        if self.machine is None or (await self.machine.diagnose()).end:
            return
        if self._owner.run.state in lifecycle.LIVE:
            log.warning("bind_lost", message=text)
            await self._owner.notice(text)

    async def _agree_on_pause(self, machine: Machine) -> None:
        """Has the record say what the machine does; a crash may have come between the two."""
        paused = await machine.is_paused()
        run = await self._owner.happened(lambda run: lifecycle.agreeing_on_pause(run, paused))
        if paused and run.state is not RunState.PAUSED:
            await machine.resume()

    async def _wait_while_paused(self, machine: Machine) -> None:
        """Waits until the guest could answer, or never will."""
        ways = [
            asyncio.ensure_future(self._owner.wait_while(RunState.PAUSED)),
            asyncio.ensure_future(machine.wait()),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _serve(self, machine: Machine, clock: BootClock) -> None:
        """Talks to the guest until its workload has ended and that is recorded."""
        clock.machine_started()
        await self._wait_while_paused(machine)
        seconds = self._around.limits.boot_seconds
        try:
            connection = await machine.connect()
            async with (
                open_session(
                    connection, answer_seconds=seconds, on_oom_kills=self._owner.count_oom_kills
                ) as session,
                self._owner.outgoing.serving(session),
                self._owner.boundary.serving(session),
            ):
                clock.guest_greeted()
                self._origin.answered(self._owner.run)
                self.session = session
                with tracing.span("guest.mount"):
                    await self._assemble(session)
                clock.root_mounted()
                output = WorkloadOutput(
                    self._owner.log, self._owner.run.boot, on_trouble=self._owner.notice
                )
                with tracing.span("guest.exec"):
                    process = await self._start_workload(session, output)
                times = replace(clock.workload_started(session.welcome), way=self._origin.way)
                await self._see_to_the_end(session, process, output, times)
                await self._shut_down(session)
        except* GuestUnreachable as errors:
            await self._explain(machine, first_error(errors))

    async def _assemble(self, session: GuestSession) -> None:
        """Has the machine be as the run wants it, for as long as that gets on.

        The first filling of a volume takes what it takes; others may boot meanwhile.
        """
        run = self._owner.run
        self._workload_asked = self._workload_asked or self._origin.has_workload
        configured = await patiently(
            self._origin.assemble(run, session, authority=await self._owner.boundary.trust()),
            seconds=self._around.limits.boot_seconds,
            progress=lambda: self._around.volumes.filled_bytes(run),
            on_progress=self._origin.leave,
            what="set the machine up",
        )
        if configured.errno:
            raise VmFailed(
                f"the guest could not be set up: {configured.stage}: {configured.text}",
                metadata={"stage": configured.stage},
            )

    async def _start_workload(self, session: GuestSession, output: WorkloadOutput) -> GuestProcess:
        """Starts the workload, or finds it again; its streams go on where the log stands."""
        run = self._owner.run
        spec = with_environment(workload(run), await self._owner.boundary.environment())
        await output.open(session, spec)
        session.reset_unclaimed()
        self._workload_asked = True
        process = session.start_process(MAIN_PROCESS, spec, open_streams=False)
        state = await patiently(
            process.wait_started(),
            seconds=self._around.limits.boot_seconds,
            what="start the workload",
        )
        failure = start_failure(state, program=spec.argv[0])
        if failure is not None:
            raise failure
        if not run.options.stdin and session.has_stream(LogStream.STDOUT):
            session.stream(LogStream.STDOUT).finish()
        return process

    # ---- the workload's time ----

    async def _see_to_the_end(
        self, session: GuestSession, process: GuestProcess, output: WorkloadOutput, times: BootTimes
    ) -> None:
        self._origin.ran(self._owner.run)
        self.process = process
        self._owner.reached()
        # What could not be executed never ran: its run goes from starting to exited.
        if process.state is not None and process.state.phase is not ProcessPhase.FAILED:
            await self._owner.happened(lambda run: _begun(run, times))
            metrics.booted(times)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(output.carry(session))
            checking = tasks.create_task(check_health(self._owner, session))
            state = await process.wait_ended()
            checking.cancel()
        message = exec_message(state, program=self._owner.run.plan.argv[0])
        if message:
            await output.end_with(message)
        status, killed = exit_status(state), int(state.oom_killed)
        run = await self._owner.happened(
            lambda run: lifecycle.exited(
                replace(run, oom_kills=max(run.oom_kills, killed)), status, now=_now()
            )
        )
        if not lifecycle.wants_restart(run):
            self._owner.log.close()  # who is attached need not wait for the guest's shutdown

    # ---- the end ----

    async def _explain(self, machine: Machine, error: LnsError) -> None:
        """Ends a run whose guest is gone: as it was asked to, or with what is known."""
        run = self._owner.run
        if run.state not in lifecycle.LIVE:
            return
        if run.stop_requested:
            await self._owner.happened(lambda run: lifecycle.exited(run, _KILLED, now=_now()))
            return
        found = await machine.diagnose()
        reason = found.end or error.message
        log.warning("guest_lost", message=error.message, end=found.end, details=found.messages)
        failure = VmFailed if self._workload_asked else MachineLost
        raise failure(
            f"the microVM of run {run.name} failed: {reason}",
            metadata={"details": found.messages[-_DETAIL_CHARACTERS:]},
        ) from error

    async def _shut_down(self, session: GuestSession) -> None:
        """Has the guest write back; its end is recorded already, so nothing here fails the run."""
        try:
            async with asyncio.timeout(self._around.limits.shutdown_seconds):
                await session.shut_down()
        except (TimeoutError, LnsError) as error:
            log.warning("guest_not_shut_down", message=str(error))

    async def _end(self, machine: Machine) -> None:
        try:
            async with asyncio.timeout(self._around.limits.shutdown_seconds):
                await machine.wait()
        except TimeoutError:
            await machine.kill()
        await self._around.binds.ended(self._owner.run, self._directory())
        await self._owner.boundary.ended()
        self.machine = None


def _begun(run: Run, times: BootTimes) -> Run:
    """Returns the run as its workload runs; one that is adopted while it runs is as it was."""
    if run.state not in (RunState.STARTING, RunState.STOPPING):
        return run
    return lifecycle.running(replace(run, boot_times=times), now=_now())


def _now() -> datetime:
    return datetime.now(UTC)
