"""One recorded run, alive or not: its record, its history, the task that owns it while it lives.

The task is cancelled when the service ends and then leaves the microVM alone; the next service
takes it over through `adopt`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from services.chassis import context
from services.core.errors import GuestUnreachable, Internal, LnsError
from services.core.run_plan import PortMapping
from services.vm_runner.boundary.boundary import BoundedRun
from services.vm_runner.boundary.run_boundary import RunBoundary
from services.vm_runner.channel.handles import GuestProcess
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.life.boot import Boot, MachineLost, first_error
from services.vm_runner.life.history import History
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.machines import Machine, MachineUsage
from services.vm_runner.network.outgoing import Outgoing, Peers
from services.vm_runner.network.published_ports import PublishedPorts
from services.vm_runner.records import lifecycle
from services.vm_runner.records.runs import Failure, Run, RunEvent, RunState, RunUsage

log = structlog.get_logger()

_STATS_SECONDS = 2.0


class RunLife:
    """One recorded run."""

    def __init__(
        self,
        run: Run,
        surroundings: Surroundings,
        *,
        peers: Peers,
        on_ended: Callable[["RunLife"], Awaitable[None]],
    ) -> None:
        self.run = run
        self.history = History()
        self.log = surroundings.logs.open(run)
        self._around = surroundings
        self._on_ended = on_ended
        self.ports = PublishedPorts(self, surroundings.listeners)
        self.outgoing = Outgoing(
            lambda: self.run, peers, boot_seconds=surroundings.limits.boot_seconds
        )
        self.boundary = RunBoundary(
            BoundedRun(
                run=lambda: self.run,
                directory=surroundings.store.directory(run.run_id),
                notice=self.notice,
            ),
            surroundings.boundary,
        )
        self._boot: Boot | None = None
        self._task: asyncio.Task[None] | None = None
        self._saving = asyncio.Lock()
        self._changed = asyncio.Event()
        self._restart_given_up = asyncio.Event()
        self._record(run)

    # ---- beginning and end ----

    async def start(self, *, restarted: bool = False) -> None:
        """Starts the run; returns before the guest is up.

        Raises:
            RunStateConflict: it is alive.
            InUse: a port of the host or a volume cannot be had.
            RequestInvalid: a path of the host cannot be bound.
            CapacityExhausted: it cannot be recorded.
        """
        await self.settle()
        run = lifecycle.starting(self.run, restarted=restarted)
        remarks = await self._around.binds.look(run)
        remarks += await self.boundary.prepare(run)
        for remark in remarks:
            run = lifecycle.noticed(run, remark)
        try:
            await self._around.volumes.hold(run)
            await self.ports.publish_all(run.plan.ports)
            await self.update(replace(run, ports=self.ports.mappings))
        except LnsError:
            await self._let_go()
            raise
        for remark in remarks:
            self._tell(remark)
        self._spawn(self._live(None))

    async def start_by_policy(self) -> None:
        """Starts a lost run again; one that cannot be, for a port that is taken, stays lost."""
        try:
            await self.start(restarted=True)
        except LnsError as error:
            log.warning("run_not_restarted", run_id=self.run.run_id, message=error.message)
            await self.notice(f"it is not started again: {error.message}")

    async def adopt(self, machine: Machine | None) -> None:
        """Takes a run over that an earlier process recorded as alive, with its microVM.

        Without one the run waited to boot, and is booted now.
        """
        for mapping in self.run.ports:
            try:
                await self.ports.publish(mapping)
            except LnsError as error:
                await self.notice(f"{error.message}: it is published no longer")
        self.run = replace(self.run, ports=self.ports.mappings)
        await self._around.volumes.hold(self.run)
        await self._around.binds.look_again(self.run)
        self._spawn(self._live(machine))

    async def _let_go(self) -> None:
        """Gives up what only a live run has."""
        await self.ports.close()
        self._around.volumes.let_go(self.run.run_id)
        self._around.binds.let_go(self.run.run_id)

    async def publish(self, wanted: PortMapping) -> PortMapping:
        """Publishes a port of a live run.

        Raises:
            RunStateConflict: it is not alive.
            InUse: the host's port cannot be had.
        """
        lifecycle.require(self.run, *lifecycle.LIVE, to="publish a port of")
        mapping = await self.ports.publish(wanted)
        await self.update(replace(self.run, ports=self.ports.mappings))
        return mapping

    async def unpublish(self, mapping: PortMapping) -> None:
        """Takes a published port back, if it is one."""
        await self.ports.unpublish(mapping)
        await self.update(replace(self.run, ports=self.ports.mappings))

    def finish(self, machine: Machine) -> None:
        """Ends a microVM that an earlier process left behind after it had recorded the end."""
        self._task = asyncio.create_task(Boot(self, self._around).finish(machine))

    async def settle(self) -> None:
        """Waits for the microVM of an ended run, which may still be writing back."""
        if self._task is not None and self.run.state not in lifecycle.LIVE:
            await self.give_up_restart()
            await asyncio.wait({self._task})

    async def give_up_restart(self) -> None:
        """Keeps an ended run from being started again by its policy."""
        if lifecycle.wants_restart(self.run):
            await self.update(replace(self.run, stop_requested=True))
            self._restart_given_up.set()

    async def cut_off(self) -> None:
        """Ends the microVM by force; the run's task records the end."""
        if self._boot is not None:
            await self._boot.cut_off()

    async def close(self) -> None:
        """Leaves a live run to the next service."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.ports.close()

    # ---- the record ----

    async def update(self, run: Run) -> None:
        """Records a new state, durably, and tells those who watch.

        Raises:
            CapacityExhausted: the disk is full; the state holds all the same.
        """
        if run == self.run:
            return
        self.run = run = replace(run, sequence=self.run.sequence + 1)
        try:
            await self._save()
        finally:
            self._record(run)

    async def notice(self, text: str) -> None:
        """Tells those who watch something that a person should read, and records it."""
        self.run = lifecycle.noticed(self.run, text)
        self._tell(text)
        try:
            await self._save()
        except LnsError as error:  # it stays in memory, and was told
            log.warning("notice_not_recorded", run_id=self.run.run_id, message=error.message)

    def count_oom_kills(self, told: int) -> None:
        """Notes how many processes the guest's memory limit has ended since its boot.

        It is not worth a write of its own: the guest tells it again.
        """
        self.run = replace(self.run, oom_kills=max(self.run.oom_kills, told))

    async def _save(self) -> None:
        async with self._saving:
            await self._around.store.save(self.run)

    def _tell(self, text: str) -> None:
        self.run = replace(self.run, sequence=self.run.sequence + 1)
        self.history.add(RunEvent(sequence=self.run.sequence, event_time=_now(), notice=text))

    def removed(self) -> None:
        """Tells those who watch that the run was removed."""
        self.history.add(RunEvent(sequence=self.run.sequence + 1, event_time=_now(), removed=True))
        self.reached()

    def reached(self) -> None:
        """Has those who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _record(self, run: Run) -> None:
        self.history.add(RunEvent(sequence=run.sequence, event_time=_now(), run=run))
        self.reached()

    # ---- waiting ----

    async def wait_while(self, *states: RunState) -> Run:
        """Waits until the run is in none of some states."""
        while self.run.state in states:
            await self._changed.wait()
        return self.run

    async def wait_ended(self) -> Run:
        """Waits until the run has ended; a restart may follow."""
        return await self.wait_while(*lifecycle.LIVE)

    async def ends_within(self, seconds: float) -> bool:
        """Waits for the end at most that long; returns whether it came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait_ended()
        return self.run.state not in lifecycle.LIVE

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and is not about to be started again by its policy."""
        return self.run.state in lifecycle.ENDED and not lifecycle.wants_restart(self.run)

    # ---- the guest ----

    @property
    def machine(self) -> Machine | None:
        """The microVM, if there is one."""
        return self._boot.machine if self._boot else None

    def guest(self) -> GuestSession:
        """Returns the session with the guest.

        Raises:
            RunStateConflict: the workload does not run.
            GuestUnreachable: it runs, but cannot be reached right now.
        """
        lifecycle.require(self.run, RunState.RUNNING, RunState.STOPPING, to="reach")
        if self._boot is None or self._boot.session is None:
            raise GuestUnreachable(f"the guest of run {self.run.name} is not reachable right now")
        return self._boot.session

    async def workload(self) -> tuple[GuestSession, GuestProcess] | None:
        """Waits until the workload can be reached; returns None if it has ended."""
        while self.run.state in lifecycle.LIVE:
            boot = self._boot
            if boot is not None and boot.session is not None and boot.process is not None:
                return boot.session, boot.process
            await self._changed.wait()
        return None

    def signal(self, number: int) -> None:
        """Sends a signal to the workload, if there is one to reach."""
        if self._boot is not None and self._boot.process is not None:
            self._boot.process.signal(number)

    async def usage(self) -> RunUsage:
        """Returns what the run uses now; zeros for what cannot be asked."""
        boot = self._boot
        machine, session = (boot.machine, boot.session) if boot else (None, None)
        used = machine.usage() if machine else MachineUsage(cpu_time=timedelta(), memory_bytes=0)
        pids = 0
        if session is not None and self.run.state is not RunState.PAUSED:
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

    # ---- the life ----

    def _spawn(self, life: Coroutine[Any, Any, None]) -> None:
        self.log.begin()
        self._boot = Boot(self, self._around)
        # A run outlives the call that started it, and so does what it asks of others.
        self._task = asyncio.get_running_loop().create_task(life, context=context.detached())

    async def _live(self, machine: Machine | None) -> None:
        with structlog.contextvars.bound_contextvars(run_id=self.run.run_id):
            try:
                await self._live_through_restarts(machine)
            finally:
                self._boot = None
                self.log.close()
                await self._let_go()
        await self._on_ended(self)

    async def _live_through_restarts(self, machine: Machine | None) -> None:
        while True:
            await self._live_once(machine)
            if not lifecycle.wants_restart(self.run) or await self._restart_is_given_up():
                return
            machine = None
            self._boot = Boot(self, self._around)
            await self.update(lifecycle.starting(self.run, restarted=True))

    async def _restart_is_given_up(self) -> bool:
        """Waits as long as the policy wants; returns True at once if somebody stops the run."""
        self._restart_given_up.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(lifecycle.restart_delay(self.run)):
                await self._restart_given_up.wait()
        return self.run.stop_requested

    async def _live_once(self, machine: Machine | None) -> None:
        """Lives from a start to its end, which is recorded whatever happens."""
        tried = 1
        while (error := await self._boot_once(machine)) is not None:
            if not isinstance(error, MachineLost) or not lifecycle.boots_again(
                self.run, tried=tried
            ):
                await self._fail(error)
                return
            tried += 1
            log.warning("boot_tried_again", message=error.message)
            self._boot = Boot(self, self._around)  # whoever stops the run now stops this one
            await self.notice(f"{error.message}; its workload had not begun: trying once more")

    async def _boot_once(self, machine: Machine | None) -> LnsError | None:
        """Lives through one boot; returns why it failed."""
        boot = self._boot or Boot(self, self._around)
        failure: LnsError | None = None
        try:
            await boot.run(machine)
        except* LnsError as errors:
            failure = first_error(errors)
        except* Exception:
            log.exception("run_failed")
            failure = Internal("a defect of lns ended the run; its log says more")
        return failure

    async def _fail(self, error: LnsError) -> None:
        log.warning("run_failed", reason=error.reason, message=error.message)
        if self.run.state not in lifecycle.LIVE:
            return
        try:
            await self.update(lifecycle.failed(self.run, Failure.of(error), now=_now()))
        except LnsError as further:  # the disk is full: the next service will find the run lost
            log.warning("run_not_recorded", message=further.message)


def _now() -> datetime:
    return datetime.now(UTC)
