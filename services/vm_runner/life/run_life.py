"""One recorded run, alive or not, and everything that is done with it.

Operations (start, stop, publish, remove …) take turns: one ends before the next begins, also where
the client that asked for it has left. What the run becomes is decided in `RunRecord.transition`.
While the run is alive a task of its own lives with its microVM, through restarts by its policy. The
task is cancelled when the service ends and then leaves the microVM alone; the next service takes it
over (`recovery`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import structlog

from services.chassis import context
from services.core.errors import GuestUnreachable, LnsError, RunStateConflict, RunUnknown
from services.core.run_plan import PortMapping
from services.vm_runner.boundary.run_boundary import RunBoundary
from services.vm_runner.channel.handles import GuestProcess
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.life.exit_status import signal_number
from services.vm_runner.life.holdings import Holdings
from services.vm_runner.life.living import Living
from services.vm_runner.life.record import RunRecord
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.machines import Machine
from services.vm_runner.network.outgoing import Outgoing, Peers
from services.vm_runner.network.published_ports import PublishedPorts
from services.vm_runner.ports import Image
from services.vm_runner.records import lifecycle
from services.vm_runner.records.runs import Run, RunState

log = structlog.get_logger()

_KILL_SECONDS = 5.0
_KILL = 9

T = TypeVar("T")


class RunLife:
    """One recorded run.

    Args:
        run: as it is recorded.
        surroundings: what every run is given.
        peers: finds other runs of its group.
        forget: removes what is kept of the run; called once, when it is removed.
        image: that was leased for it just now.
    """

    def __init__(
        self,
        run: Run,
        surroundings: Surroundings,
        *,
        peers: Peers,
        forget: Callable[[Run], Awaitable[None]],
        image: Image | None = None,
    ) -> None:
        is_readable = not lifecycle.is_unread(run)
        publish = surroundings.happened
        self.record = RunRecord(run, surroundings.store, is_readable=is_readable, publish=publish)
        self.log = surroundings.logs.open(run)
        ports = PublishedPorts(self, surroundings.listeners)
        self.outgoing = Outgoing(
            lambda: self.run, peers, boot_seconds=surroundings.limits.boot_seconds
        )
        bounded = surroundings.bounded(lambda: self.run, notice=self.notice)
        self.boundary = RunBoundary(bounded, surroundings.boundary)
        self.holdings = Holdings(ports, surroundings.volumes, surroundings.binds, self.boundary)
        self._around = surroundings
        self._forget = forget
        self._turn = asyncio.Lock()
        self._operations: set[asyncio.Task[object]] = set()
        self._is_closing = False
        self.living = Living(
            self,
            self.record,
            surroundings,
            holdings=self.holdings,
            turn=self._turn,
            on_over=self._over,
            image=image,
        )

    @property
    def run(self) -> Run:
        """The run as it is."""
        return self.record.run

    # ---- operations, one at a time ----

    async def in_turn(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Does an operation behind the others, to its end also where the caller leaves.

        Raises:
            RunUnknown: the run was removed meanwhile.
        """

        async def do() -> T:
            async with self._turn:
                if self.record.is_removed:
                    raise RunUnknown(
                        f"run {self.run.name} was removed", metadata={"run": self.run.run_id}
                    )
                return await operation()

        # It outlives the call that asked for it, and so does what it asks of others.
        task = asyncio.get_running_loop().create_task(do(), context=context.detached())
        self._operations.add(task)
        task.add_done_callback(self._operation_ended)
        return await asyncio.shield(task)

    def _operation_ended(self, task: asyncio.Task[object]) -> None:
        self._operations.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("operation_failed", run_id=self.run.run_id, error=str(error))

    async def start(self, *, request_id: str = "") -> Run:
        """Starts the run, once for each request; returns before the guest is up.

        Raises:
            RunStateConflict: it is alive.
            InUse: a port of the host or a volume cannot be had.
            RequestInvalid: a path of the host cannot be bound.
            CapacityExhausted: it cannot be recorded.
        """

        async def start() -> Run:
            if request_id and self.run.start_request_id == request_id:
                return self.run
            lifecycle.require(self.run, *lifecycle.STARTABLE, to="start")
            await self.living.settle()
            await self.living.begin(restarted=False, request_id=request_id)
            self.living.spawn(None)
            return self.run

        return await self.in_turn(start)

    async def stop(self, *, seconds: float | None = None) -> Run:
        """Asks the workload to end, ends it by force after a time, returns when it has ended."""

        async def begin() -> tuple[bool, bool, int]:
            run = self.run
            begun = self.living.boot is not None and self.living.boot.process is not None
            starts = run.state is RunState.STARTING and not begun
            if run.state is RunState.UNKNOWN:
                await self.living.end_unread()
            if run.state is RunState.SUSPENDED:
                await self.living.end_suspended()
            if self.run.state not in lifecycle.LIVE:
                await self.living.give_up_restart()
                return False, starts, run.boot
            if run.state is RunState.PAUSED and self.machine is not None:
                with contextlib.suppress(GuestUnreachable):  # then it is ended by force
                    await self.machine.resume()
            run = await self.happened(lifecycle.stopping)
            return True, starts, run.boot

        lives, starts, boot = await self.in_turn(begin)
        if not lives:
            return self.run
        if not starts:
            self.signal(signal_number(self.run.stop_signal))
            wait = self.run.options.stop_timeout if seconds is None else seconds
            if await self._ends_within(wait, boot):
                return self.run
            self.signal(_KILL)
            if await self._ends_within(_KILL_SECONDS, boot):
                return self.run
        await self.living.cut_off(boot)
        return await self.record.wait_until(lambda run: _has_ended(run, boot))

    async def rename(self, name: str) -> Run:
        """Gives the run another name, which nothing else has.

        Raises:
            RunStateConflict: its record cannot be read.
            CapacityExhausted: it cannot be recorded.
        """

        async def rename() -> Run:
            lifecycle.require_readable(self.run, to="rename")
            return await self.record.transition(lambda run: replace(run, name=name))

        return await self.in_turn(rename)

    async def publish(self, wanted: PortMapping) -> PortMapping:
        """Publishes a port of a live run.

        Raises:
            RunStateConflict: it is not alive.
            InUse: the host's port cannot be had.
            CapacityExhausted: it cannot be recorded.
        """

        async def publish() -> PortMapping:
            lifecycle.require(self.run, *lifecycle.LIVE, to="publish a port of")
            before = self.holdings.ports.mappings
            mapping = await self.holdings.ports.publish(wanted)
            try:
                await self.record.transition(self.with_ports)
            except BaseException:
                if mapping not in before:
                    await self.holdings.ports.unpublish(mapping)
                raise
            return mapping

        return await self.in_turn(publish)

    async def unpublish(self, mapping: PortMapping) -> None:
        """Takes a published port back, if it is one."""

        async def unpublish() -> None:
            lifecycle.require_readable(self.run, to="take back a port of")
            await self.holdings.ports.unpublish(mapping)
            await self.happened(self.with_ports)

        await self.in_turn(unpublish)

    def with_ports(self, run: Run) -> Run:
        """Returns the run with the ports that are published; an ended one is left as it is."""
        return (
            replace(run, ports=self.holdings.ports.mappings) if run.state in lifecycle.LIVE else run
        )

    async def remove(self, *, force: bool = False, request_id: str = "") -> None:
        """Removes the run with its writable layer and log; the request is remembered.

        Raises:
            RunStateConflict: it is alive, and force is not asked for.
        """

        async def remove() -> None:
            run = self.run
            if lifecycle.has_machine(run) and not force:
                raise RunStateConflict(
                    f"run {run.name} is {run.state}",
                    hint="stop it first, or `lns rm -f` it",
                    metadata={"run_id": run.run_id},
                )
            if run.state in lifecycle.LIVE:
                await self.happened(lifecycle.stopping)
            if lifecycle.has_machine(run):
                await self.living.cut_off(run.boot)
            await self.living.settle()
            await self._around.answered.keep(request_id, run.run_id)
            await self._remove()

        await self.in_turn(remove)

    async def close(self) -> None:
        """Leaves a live run to the next service."""
        self._is_closing = True
        for operation in self._operations:
            operation.cancel()
        await asyncio.gather(*self._operations, return_exceptions=True)
        await self.living.close()
        self.log.close()
        await self.record.close()
        await self.holdings.ports.close()

    async def _remove(self) -> None:
        run = self.run
        await self.record.remove(lambda: self._forget(run))

    async def _over(self) -> None:
        """Removes a run that is over and was to go then."""
        if self.run.options.remove and not self._is_closing and lifecycle.is_over(self.run):
            try:
                await self._remove()
            except LnsError as error:
                log.warning("run_not_removed", message=error.message)
                await self.notice(f"it could not be removed: {error.message}")

    # ---- for the boot ----

    async def happened(self, change: Callable[[Run], Run]) -> Run:
        """Records what has become of the run, and reports it to those who watch."""
        return await self.record.transition(change, happened=True)

    async def notice(self, *lines: str) -> None:
        """Shows users a notice, now and whenever they look at the run."""
        await self.record.notice(*lines)

    def count_oom_kills(self, reported: int) -> None:
        """Notes how many processes the guest's memory limit has ended."""
        self.record.count_oom_kills(reported)

    def reached(self) -> None:
        """Has those who wait for the workload look again."""
        self.record.wake()

    # ---- waiting ----

    async def wait_while(self, *states: RunState) -> Run:
        """Waits until the run is in none of some states, or was removed."""
        return await self.record.wait_until(lambda run: run.state not in states)

    async def wait_ended(self) -> Run:
        """Waits until the run has ended; a restart may follow."""
        return await self.wait_while(*lifecycle.UNENDED)

    async def _ends_within(self, seconds: float, boot: int) -> bool:
        """Waits for the end of a boot at most that long; returns whether it came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.record.wait_until(lambda run: _has_ended(run, boot))
        return _has_ended(self.run, boot)

    # ---- the guest ----

    @property
    def machine(self) -> Machine | None:
        """The microVM, if there is one."""
        return self.living.boot.machine if self.living.boot else None

    def guest(self) -> GuestSession:
        """Returns the session with the guest.

        Raises:
            RunStateConflict: the workload does not run.
            GuestUnreachable: it runs, but cannot be reached right now.
        """
        lifecycle.require(self.run, RunState.RUNNING, RunState.STOPPING, to="reach")
        boot = self.living.boot
        if boot is None or boot.session is None:
            raise GuestUnreachable(f"the guest of run {self.run.name} is not reachable right now")
        return boot.session

    async def workload(self) -> tuple[GuestSession, GuestProcess] | None:
        """Waits until the workload can be reached; returns None if it has ended."""
        while self.run.state in lifecycle.UNENDED:
            boot = self.living.boot
            if boot is not None and boot.session is not None and boot.process is not None:
                return boot.session, boot.process
            await self.record.changed()
        return None

    def signal(self, number: int) -> None:
        """Sends a signal to the workload, if there is one to reach."""
        boot = self.living.boot
        if boot is not None and boot.process is not None:
            boot.process.signal(number)


def _has_ended(run: Run, boot: int) -> bool:
    """Returns whether a boot of a run is over: another may have begun."""
    return run.boot != boot or run.state not in lifecycle.LIVE
