"""One run's life: boots it, carries its output to the log, sees its end, starts it again.

A run is owned by one task while it is alive. That task is cancelled when the service ends, and
then leaves the microVM alone: the next service adopts it through `adopt`, which takes the same way
as a start, since everything that the guest is asked for can be asked for twice.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from services.core.errors import GuestUnreachable, Internal, LnsError, VmFailed
from services.vm_runner import lifecycle
from services.vm_runner.exit_status import exec_message, exit_status, start_failure
from services.vm_runner.guest_handles import GuestProcess, GuestStream
from services.vm_runner.guest_plan import (
    MAIN_PROCESS,
    WRITABLE_SERIAL,
    guest_config,
    image_disks,
    workload,
)
from services.vm_runner.guest_session import GuestSession, open_session
from services.vm_runner.history import History
from services.vm_runner.ports import (
    Disk,
    DiskMaker,
    Hypervisor,
    Image,
    ImageSource,
    LogStorage,
    Machine,
    MachineSpec,
    MachineUsage,
    RunStore,
)
from services.vm_runner.run_log import LogChunk, LogPlace, LogStream
from services.vm_runner.runs import (
    BootTimes,
    ExitStatus,
    Failure,
    Run,
    RunEvent,
    RunState,
    RunUsage,
)

log = structlog.get_logger()

_MIB = 1 << 20
_STATS_SECONDS = 2.0
_KILLED = ExitStatus(code=137, signal="KILL")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """Sizes and times that hold for every run.

    Attributes:
        boot_seconds: longest time from the VMM's start to the agent's answer.
        disk_bytes: size of a writable layer where the plan names none.
        pids: processes where the run names none.
        shutdown_seconds: longest time for a guest to write back after its workload ended.
    """

    boot_seconds: float = 60.0
    disk_bytes: int = 8 << 30
    pids: int = 4096
    shutdown_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a run's life needs from outside."""

    hypervisor: Hypervisor
    images: ImageSource
    store: RunStore
    logs: LogStorage
    disks: DiskMaker
    limits: RunnerLimits


class RunLife:
    """One recorded run, alive or not."""

    def __init__(self, run: Run, surroundings: Surroundings) -> None:
        self.run = run
        self.history = History()
        self.log = surroundings.logs.open(run)
        self.log_start = LogPlace()
        self.session: GuestSession | None = None
        self.machine: Machine | None = None
        self.process: GuestProcess | None = None
        self._around = surroundings
        self._task: asyncio.Task[None] | None = None
        self._saving = asyncio.Lock()
        self._changed = asyncio.Event()
        self._restart_given_up = asyncio.Event()
        self._cut_off = False
        self.on_ended: Callable[[RunLife], Awaitable[None]] | None = None
        self._record(run)

    # ---- what others do with a run ----

    async def start(self, *, restarted: bool = False) -> None:
        """Starts the run; returns before the guest is up.

        Raises:
            RunStateConflict: it is alive.
        """
        await self.settle()
        await self.update(lifecycle.starting(self.run, restarted=restarted))
        self._spawn(None)

    async def settle(self) -> None:
        """Waits for the microVM of an ended run, which may still be writing back."""
        if self._task is not None and self.run.state not in lifecycle.LIVE:
            self.give_up_restart()
            await asyncio.wait({self._task})

    def finish(self, machine: Machine) -> None:
        """Ends a microVM that an earlier process left behind after it had recorded the end."""
        self._task = asyncio.create_task(self._finish(machine))

    async def _finish(self, machine: Machine) -> None:
        try:
            connection = await machine.connect()
            seconds = self._around.limits.shutdown_seconds
            async with open_session(connection, answer_seconds=seconds) as session:
                await self._shut_down(session)
        except LnsError as error:
            log.warning("guest_not_shut_down", run_id=self.run.run_id, message=error.message)
        await self._end_machine(machine)

    def signal(self, number: int) -> None:
        """Sends a signal to the workload, if there is one to reach."""
        if self.process is not None:
            self.process.signal(number)

    async def ends_within(self, seconds: float) -> bool:
        """Waits for the end at most that long; returns whether it came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait_ended()
        return self.run.state not in lifecycle.LIVE

    async def cut_off(self) -> None:
        """Ends the microVM by force; the run's task records the end."""
        self._cut_off = True
        if self.machine is not None:
            await self.machine.kill()

    def give_up_restart(self) -> None:
        """Keeps an ended run from being started again by its policy."""
        self.run = replace(self.run, stop_requested=True)
        self._restart_given_up.set()

    def adopt(self, machine: Machine | None) -> None:
        """Takes a run over that an earlier process recorded as alive."""
        self._spawn(machine)

    async def update(self, run: Run) -> None:
        """Records a new state, durably, and tells those who watch."""
        if run == self.run:
            return
        run = replace(run, sequence=self.run.sequence + 1)
        self.run = run
        async with self._saving:
            await self._around.store.save(self.run)
        self._record(run)

    async def notice(self, text: str) -> None:
        """Tells those who watch something that a person should read."""
        self.run = replace(self.run, sequence=self.run.sequence + 1)
        self.history.add(RunEvent(sequence=self.run.sequence, event_time=_now(), notice=text))

    async def wait_for(self, *states: RunState) -> Run:
        """Waits until the run is in one of some states."""
        while self.run.state not in states:
            await self._changed.wait()
        return self.run

    async def wait_ended(self) -> Run:
        """Waits until the run has ended, restarts included."""
        while self.run.state in lifecycle.LIVE:
            await self._changed.wait()
        return self.run

    async def usage(self) -> RunUsage:
        """Returns what the run uses now; zeros for what cannot be asked."""
        machine, session = self.machine, self.session
        used = machine.usage() if machine else MachineUsage(cpu_time=timedelta(), memory_bytes=0)
        pids = 0
        if session is not None:
            with contextlib.suppress(LnsError, TimeoutError):
                async with asyncio.timeout(_STATS_SECONDS):
                    pids = (await session.stats()).pids
        return RunUsage(
            run=self.run,
            cpu_time=used.cpu_time,
            memory_bytes=used.memory_bytes,
            disk_bytes=await self._around.store.size(self.run.run_id),
            channel_in_bytes=session.channel.bytes_in if session else 0,
            channel_out_bytes=session.channel.bytes_out if session else 0,
            pids=pids,
            sample_time=_now(),
        )

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and is not about to be started again by its policy."""
        return self.run.state not in lifecycle.LIVE and not lifecycle.wants_restart(self.run)

    def guest(self) -> tuple[GuestSession, GuestProcess]:
        """Returns the session with the guest and its workload.

        Raises:
            RunStateConflict: the workload does not run.
        """
        lifecycle.require(
            self.run, RunState.RUNNING, RunState.PAUSED, RunState.STOPPING, to="reach"
        )
        if self.session is None or self.process is None:
            raise GuestUnreachable(f"the guest of run {self.run.name} is not reachable right now")
        return self.session, self.process

    async def workload(self) -> tuple[GuestSession, GuestProcess] | None:
        """Waits until the workload can be reached; returns None if it has ended."""
        while self.run.state in lifecycle.LIVE:
            if self.session is not None and self.process is not None:
                return self.session, self.process
            await self._changed.wait()
        return None

    async def close(self) -> None:
        """Leaves a live run to the next service."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # ---- the life ----

    def _record(self, run: Run) -> None:
        self.history.add(RunEvent(sequence=run.sequence, event_time=_now(), run=run))
        self._pulse()

    def _pulse(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _spawn(self, machine: Machine | None) -> None:
        self._cut_off = False
        self.log.begin()
        self._task = asyncio.create_task(self._live(machine), name=f"run {self.run.run_id}")

    async def _live(self, machine: Machine | None) -> None:
        with structlog.contextvars.bound_contextvars(run_id=self.run.run_id):
            try:
                while True:
                    await self._live_once(machine)
                    if not lifecycle.wants_restart(self.run):
                        break
                    machine = None
                    if await self._restart_is_given_up():
                        break
                    await self.update(lifecycle.starting(self.run, restarted=True))
            finally:
                self.log.close()
        if self.on_ended is not None:
            await self.on_ended(self)

    async def _restart_is_given_up(self) -> bool:
        """Waits as long as the policy wants; returns True at once if somebody stops the run."""
        self._restart_given_up.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(lifecycle.restart_delay(self.run)):
                await self._restart_given_up.wait()
        return self.run.stop_requested

    async def _live_once(self, machine: Machine | None) -> None:
        """From the boot (or the adoption) to the recorded end, whatever happens between."""
        try:
            self.log_start = await self.log.end()
            began = time.monotonic()
            if machine is None:
                machine = await self._boot()
            self.machine = machine
            if self._cut_off:  # stopped before there was a machine to kill
                await machine.kill()
            await self._serve(machine, began)
        except LnsError as error:
            await self._fail(error)
        except Exception as error:
            log.exception("run_failed")
            await self._fail(Internal(f"a defect of lns ended the run: {type(error).__name__}"))
        else:
            await self._end_machine(machine)
            return
        finally:
            self.session = self.process = None
        if machine is not None:
            await machine.kill()
        self.machine = None

    async def _lease(self) -> Image | None:
        if not self.run.image_digest:
            return None
        return await self._around.images.lease(self.run.run_id, self.run.image_digest)

    async def _boot(self) -> Machine:
        run, around = self.run, self._around
        image = await self._lease()
        directory = around.store.directory(run.run_id)
        writable = directory / "writable.img"
        size = run.plan.resources.disk_mib * _MIB or around.limits.disk_bytes
        await around.disks.ensure(writable, size_bytes=size)
        disks = image_disks(image) if image else ()
        machine = await around.hypervisor.start(
            MachineSpec(
                run_id=run.run_id,
                directory=directory,
                vcpus=run.plan.resources.vcpus,
                memory_mib=run.plan.resources.memory_mib,
                disks=(*disks, Disk(serial=WRITABLE_SERIAL, path=writable, read_only=False)),
            )
        )
        await self.update(replace(self.run, vmm_pid=machine.pid, accelerator=machine.accelerator))
        return machine

    async def _serve(self, machine: Machine, began: float) -> None:
        """Talks to the guest until its workload has ended and that is recorded."""
        started = time.monotonic()
        try:
            connection = await machine.connect()
            async with open_session(
                connection, answer_seconds=self._around.limits.boot_seconds
            ) as session:
                greeted = time.monotonic()
                self.session = session
                await self._configure(session)
                mounted = time.monotonic()
                process = await self._start_workload(session)
                times = BootTimes(
                    prepare=timedelta(seconds=started - began),
                    boot=timedelta(seconds=greeted - started),
                    mount=timedelta(seconds=mounted - greeted),
                    exec=timedelta(seconds=time.monotonic() - mounted),
                )
                await self._see_to_the_end(session, process, times)
                await self._shut_down(session)
        except GuestUnreachable as error:
            await self._explain(machine, error)

    async def _explain(self, machine: Machine, error: GuestUnreachable) -> None:
        """Ends a run whose guest is gone: as it was asked to, or with what is known."""
        if self.run.state not in lifecycle.LIVE:
            return
        if self.run.stop_requested:
            await self.update(lifecycle.exited(self.run, _KILLED, now=_now()))
            return
        details = await machine.diagnose()
        log.warning("guest_lost", message=error.message, details=details)
        raise VmFailed(
            f"the microVM of run {self.run.name} failed: {error.message}",
            hint="`lns logs --vm` shows its messages",
            metadata={"details": details[-1000:]},
        ) from error

    async def _configure(self, session: GuestSession) -> None:
        if session.is_configured:
            configured = await session.configured()
        else:
            image = await self._lease()
            config = guest_config(self.run, image, pids_limit=self._around.limits.pids)
            configured = await session.configure(config)
        if configured.errno:
            raise VmFailed(
                f"the guest could not be set up: {configured.stage}: {configured.text}",
                metadata={"stage": configured.stage},
            )

    async def _start_workload(self, session: GuestSession) -> GuestProcess:
        """Starts the workload, or finds it again; its streams go on where the log stands."""
        spec = workload(self.run)
        progress = await self.log.progress(self.run.boot)
        for stream in LogStream:
            received, ended = progress.get(stream, (0, False))
            if not ended and stream in (spec.stdio_stream, spec.stderr_stream):
                session.open_stream(stream, received=received)
        session.reset_unclaimed()
        process = session.start_process(MAIN_PROCESS, spec, open_streams=False)
        state = await process.wait_started()
        failure = start_failure(state, program=spec.argv[0])
        if failure is not None:
            raise failure
        if not self.run.options.stdin and session.has_stream(LogStream.STDOUT):
            session.stream(LogStream.STDOUT).finish()
        return process

    async def _see_to_the_end(
        self, session: GuestSession, process: GuestProcess, times: BootTimes
    ) -> None:
        self.process = process
        self._pulse()
        run = self.run
        if run.state in (RunState.STARTING, RunState.STOPPING):
            run = lifecycle.running(replace(run, boot_times=times), now=_now())
        await self.update(run)
        async with asyncio.TaskGroup() as pumps:
            for stream in LogStream:
                if session.has_stream(stream):
                    pumps.create_task(self._pump(session.stream(stream), stream))
            state = await process.wait_ended()
        message = exec_message(state, program=self.run.plan.argv[0])
        if message:
            await self._append(LogStream.STDERR, message.encode(), ended=True)
        oom_kills = self.run.oom_kills + int(state.oom_killed)
        run = replace(self.run, oom_kills=oom_kills)
        await self.update(lifecycle.exited(run, exit_status(state), now=_now()))
        if not lifecycle.wants_restart(self.run):
            self.log.close()  # who is attached need not wait for the guest's shutdown

    async def _pump(self, stream: GuestStream, name: LogStream) -> None:
        """Carries a stream into the log; acknowledged is only what is there."""
        ended = False
        while not ended:
            data, ended = await stream.receive()
            await self._append(name, data, ended=ended)
            stream.acknowledge(len(data), ended=ended)

    async def _append(self, stream: LogStream, data: bytes, *, ended: bool) -> None:
        progress = await self.log.progress(self.run.boot)
        position, _ = progress.get(stream, (0, False))
        chunk = LogChunk(
            boot=self.run.boot,
            stream=stream,
            position=position,
            time_ns=time.time_ns(),
            data=data,
            ended=ended,
        )
        await self.log.append([chunk])

    async def _shut_down(self, session: GuestSession) -> None:
        """Has the guest write back; its end is recorded already, so nothing here fails the run."""
        try:
            async with asyncio.timeout(self._around.limits.shutdown_seconds):
                await session.shut_down()
        except (TimeoutError, LnsError) as error:
            log.warning("guest_not_shut_down", message=str(error))

    async def _end_machine(self, machine: Machine) -> None:
        try:
            async with asyncio.timeout(self._around.limits.shutdown_seconds):
                await machine.wait()
        except TimeoutError:
            await machine.kill()
        self.machine = None

    async def _fail(self, error: LnsError) -> None:
        if self.run.state in lifecycle.LIVE:
            await self.update(lifecycle.failed(self.run, Failure.of(error), now=_now()))


def _now() -> datetime:
    return datetime.now(UTC)
