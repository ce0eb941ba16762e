"""One microVM of a run: from its start (or its adoption) until it is gone.

What the guest is asked for can be asked for twice, so that an adoption takes the same way as a
start: who finds the machine configured and the workload started goes on from there, with the
streams from where the log stands.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from services.core.errors import GuestUnreachable, LnsError, VmFailed
from services.vm_runner.boundary.run_boundary import RunBoundary
from services.vm_runner.channel.events import ProcessPhase
from services.vm_runner.channel.handles import GuestProcess
from services.vm_runner.channel.session import GuestSession, open_session
from services.vm_runner.life.boot_clock import BootClock
from services.vm_runner.life.boot_queue import Place
from services.vm_runner.life.exit_status import exec_message, exit_status, start_failure
from services.vm_runner.life.guest_plan import (
    MAIN_PROCESS,
    guest_config,
    guest_root,
    machine_spec,
    workload,
)
from services.vm_runner.life.output import WorkloadOutput
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.machines import Machine, MachineSpec
from services.vm_runner.network.outgoing import Outgoing
from services.vm_runner.ports import Image
from services.vm_runner.records import lifecycle
from services.vm_runner.records.run_log import LogStream, RunLog
from services.vm_runner.records.runs import BootTimes, ExitStatus, Run, RunState
from services.vm_runner.snapshots.snapshot import Root

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

    async def update(self, run: Run) -> None:
        """Records a new state and tells those who watch."""
        ...

    async def wait_while(self, *states: RunState) -> Run:
        """Waits until the run is in none of some states."""
        ...

    async def notice(self, text: str) -> None:
        """Tells people something, now and whenever they look at the run."""
        ...

    def count_oom_kills(self, told: int) -> None:
        """Notes how many processes the guest's memory limit has ended since its boot."""
        ...

    def reached(self) -> None:
        """Tells those who wait that the workload can be reached."""
        ...


class Boot:
    """One microVM of a run."""

    def __init__(self, owner: BootedRun, surroundings: Surroundings) -> None:
        self.machine: Machine | None = None
        self.session: GuestSession | None = None
        self.process: GuestProcess | None = None
        self._owner = owner
        self._around = surroundings
        self._cut_off = False
        self._workload_asked = False
        self._entering: asyncio.Task[Place] | None = None
        self._place: Place | None = None
        self._way = ""
        self._start_from: tuple[MachineSpec, Root] | None = None

    async def run(self, machine: Machine | None) -> None:
        """Boots unless a machine is given, carries output, records the end, sees the VMM end.

        Cancelled, it leaves the microVM alone.

        Raises:
            MachineLost: another boot may go better; its VMM is gone.
            LnsError: the run failed; its VMM is gone.
        """
        clock = BootClock()
        adopted = self._workload_asked = machine is not None
        try:
            if not adopted and not await self._enter():
                await self._owner.update(lifecycle.exited(self._owner.run, _KILLED, now=_now()))
                return
            self.machine = machine or await self._start()
            await self._serve_binds(self.machine)
            if self._cut_off:  # stopped before there was a machine to kill
                await self.machine.kill()
            if adopted:
                await self._agree_on_pause(self.machine)
            async with self._around.binds.watching(
                self._owner.run, self._directory(), on_lost=self._on_bind_lost
            ):
                await self._serve(self.machine, clock)
        except Exception:
            if self.machine is not None:
                await self.machine.kill()
                await self._around.binds.ended(self._owner.run, self._directory())
                await self._owner.boundary.ended()
            raise
        finally:
            self.session = self.process = None
            self._leave()
        await self._end(self.machine)

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
        if self._entering is not None:
            self._entering.cancel()
        if self.machine is not None:
            await self.machine.kill()

    def _directory(self) -> Path:
        return self._around.store.directory(self._owner.run.run_id)

    # ---- the way there ----

    async def _enter(self) -> bool:
        """Waits until the machine may boot; returns False if it is cut off before."""
        self._entering = asyncio.create_task(self._around.boots.enter())
        try:
            self._place = await self._entering
        except asyncio.CancelledError:
            if not self._cut_off:
                raise
        return self._place is not None

    def _leave(self) -> None:
        """Lets the next machine boot."""
        if self._place is not None:
            self._place.leave()

    async def _lease(self) -> Image | None:
        run = self._owner.run
        if not run.image_digest:
            return None
        return await self._around.images.lease(run.run_id, run.image_digest)

    async def _start(self) -> Machine:
        run, around = self._owner.run, self._around
        image = await self._lease()
        directory = self._directory()
        spec = machine_spec(
            run,
            image,
            directory=directory,
            volumes=around.volumes.disks(run),
            default_disk=around.limits.disk_bytes,
        )
        self._start_from = (spec, guest_root(run, image))
        started = await around.starts.start(*self._start_from, cold=run.options.cold)
        machine, self._way = started.machine, started.way
        if started.remark:
            await self._owner.notice(started.remark)
        await self._owner.update(
            replace(self._owner.run, vmm_pid=machine.pid, accelerator=machine.accelerator)
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
        run = self._owner.run
        paused = await machine.is_paused()
        if paused and run.state is RunState.RUNNING:
            await self._owner.update(lifecycle.paused(run))
        elif not paused and run.state is RunState.PAUSED:
            await self._owner.update(lifecycle.resumed(run))
        elif paused and run.state is not RunState.PAUSED:
            await machine.resume()

    async def _wait_while_paused(self, machine: Machine) -> None:
        """Waits until somebody in there could answer, or nobody ever will."""
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
                self._around.starts.works(self._owner.run.run_id)
                self.session = session
                await self._configure(session)
                clock.root_mounted()
                output = WorkloadOutput(self._owner.log, self._owner.run.boot)
                process = await self._start_workload(session, output)
                times = replace(clock.workload_started(session.welcome), way=self._way)
                await self._see_to_the_end(session, process, output, times)
                await self._shut_down(session)
        except* GuestUnreachable as errors:
            await self._explain(machine, first_error(errors))

    async def _configure(self, session: GuestSession) -> None:
        if session.is_configured:
            configured = await session.configured()
        else:
            image = await self._lease()
            pids = self._around.limits.pids
            binds = self._around.binds.guest_mounts(self._owner.run)
            configured = await session.configure(
                guest_config(
                    self._owner.run,
                    image,
                    binds=binds,
                    pids_limit=pids,
                    boundary=self._around.boundary.settings,
                )
            )
        if configured.errno:
            raise VmFailed(
                f"the guest could not be set up: {configured.stage}: {configured.text}",
                metadata={"stage": configured.stage},
            )

    async def _start_workload(self, session: GuestSession, output: WorkloadOutput) -> GuestProcess:
        """Starts the workload, or finds it again; its streams go on where the log stands."""
        run = self._owner.run
        spec = workload(run)
        await output.open(session, spec)
        session.reset_unclaimed()
        self._workload_asked = True
        process = session.start_process(MAIN_PROCESS, spec, open_streams=False)
        state = await process.wait_started()
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
        self._leave()
        if self._start_from is not None:
            self._around.starts.ran(*self._start_from, cold=self._owner.run.options.cold)
        self.process = process
        self._owner.reached()
        # What could not be executed never ran: its run goes from starting to exited.
        ran = process.state is not None and process.state.phase is not ProcessPhase.FAILED
        if ran and self._owner.run.state in (RunState.STARTING, RunState.STOPPING):
            run = replace(self._owner.run, boot_times=times)
            await self._owner.update(lifecycle.running(run, now=_now()))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(output.carry(session))
            state = await process.wait_ended()
        run = self._owner.run
        message = exec_message(state, program=run.plan.argv[0])
        if message:
            await output.end_with(message)
        run = replace(self._owner.run, oom_kills=max(run.oom_kills, int(state.oom_killed)))
        await self._owner.update(lifecycle.exited(run, exit_status(state), now=_now()))
        if not lifecycle.wants_restart(self._owner.run):
            self._owner.log.close()  # who is attached need not wait for the guest's shutdown

    # ---- the end ----

    async def _explain(self, machine: Machine, error: LnsError) -> None:
        """Ends a run whose guest is gone: as it was asked to, or with what is known."""
        run = self._owner.run
        if run.state not in lifecycle.LIVE:
            return
        if run.stop_requested:
            await self._owner.update(lifecycle.exited(run, _KILLED, now=_now()))
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


def first_error(errors: BaseExceptionGroup[LnsError]) -> LnsError:
    """Returns one of the errors of a group: its tasks failed for one reason."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, LnsError)  # noqa: S101  # `except*` lets nothing else through
    return error


def _now() -> datetime:
    return datetime.now(UTC)
