"""How the microVM of a boot comes to be: started, or left by an earlier service.

An `Origin` is the whole difference: from the machine on, every boot takes the same way. Whether a
start boots a kernel, resumes a snapshot, or takes a machine that waits is `Starts`' business.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from services.vm_runner.channel.events import Configured
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.life.boot_queue import Place
from services.vm_runner.life.guest_plan import guest_config, guest_root, machine_spec
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.machines import Machine, MachineSpec
from services.vm_runner.ports import Image
from services.vm_runner.records.runs import Run, RunState
from services.vm_runner.snapshots.snapshot import Root

ImageOfRun = Callable[[], Awaitable[Image | None]]
"""Returns the image of a run, held by its lease; None for an imageless run."""


class Origin(Protocol):
    """How one microVM comes to be."""

    @property
    def is_adopted(self) -> bool:
        """Whether it lived before, so that its workload may have begun."""
        ...

    @property
    def way(self) -> str:
        """How it was had, as `BootTimes` says it; known once there is a machine."""
        ...

    @property
    def has_workload(self) -> bool:
        """Whether programs of the workload go on once it is assembled."""
        ...

    async def bring(self, run: Run) -> Machine | None:
        """Returns the machine; None where it was given up before there was one.

        Raises:
            LnsError: it cannot come to be.
        """
        ...

    async def assemble(self, run: Run, session: GuestSession, *, authority: str) -> Configured:
        """Has the machine be as the run wants it; returns what its agent says of that.

        Raises:
            GuestUnreachable: the session ended.
        """
        ...

    def answered(self, run: Run) -> None:
        """Notes that its guest has answered."""
        ...

    def ran(self, run: Run) -> None:
        """Notes that its workload was started, or found again."""
        ...

    def give_up(self) -> None:
        """Ends the wait of `bring` for its turn."""
        ...

    def leave(self) -> None:
        """Lets others come to be; it may be called at any time, and more than once."""
        ...


class Start:
    """A machine that is started: the fastest way that is open, or a boot where it is to be cold.

    Args:
        around: what every run is given.
        image: of the run.
        notice: shows users a line about the way it took.
    """

    is_adopted = False
    has_workload = False

    def __init__(
        self,
        around: Surroundings,
        image: ImageOfRun,
        *,
        notice: Callable[[str], Awaitable[None]],
    ) -> None:
        self.way = ""
        self._around = around
        self._image_of_run = image
        self._notice = notice
        self._image: Image | None = None
        self._start_from: tuple[MachineSpec, Root] | None = None
        self._entering: asyncio.Task[Place] | None = None
        self._place: Place | None = None
        self._is_given_up = False

    async def bring(self, run: Run) -> Machine | None:
        """Waits for a turn to boot, and has the machine started."""
        if not await self._enter():
            return None
        around = self._around
        image = self._image = await self._image_of_run()
        foreign = around.foreign_guest(run.plan)
        if foreign is not None:
            await self._notice(
                f"the image is made for {foreign.platform}: its guest is emulated on this"
                f" {around.platform} machine"
            )
        spec = machine_spec(
            run,
            image,
            directory=around.store.directory(run.run_id),
            volumes=around.volumes.disks(run),
            default_disk=around.limits.disk_bytes,
            default_rate=around.limits.disk_rate_bytes,
            architecture=foreign,
        )
        return await self.machine(run, spec)

    async def machine(self, run: Run, spec: MachineSpec) -> Machine:
        """Has a machine of a run started, in its turn."""
        around = self._around
        self._start_from = spec, guest_root(run, self._image, around.boundary.settings)
        started = await around.starts.start(*self._start_from, cold=run.options.cold)
        self.way = started.way
        if started.remark:
            await self._notice(started.remark)
        return started.machine

    def answered(self, run: Run) -> None:
        """What it was resumed from, if it was, is sound."""
        self._around.starts.works(run.run_id)

    def ran(self, run: Run) -> None:
        """Lets the next machine boot, and one like this be made ready."""
        self.leave()
        if self._start_from is not None:
            self._around.starts.ran(*self._start_from, cold=run.options.cold)

    async def _enter(self) -> bool:
        """Waits until the machine may boot; returns False if it is given up before."""
        if self._is_given_up:
            return False
        self._entering = asyncio.create_task(self._around.boots.enter())
        try:
            self._place = await self._entering
        except asyncio.CancelledError:
            if not self._is_given_up:
                raise
        return self._place is not None

    async def assemble(self, run: Run, session: GuestSession, *, authority: str) -> Configured:
        """Has the agent assemble the run's root, files and mounts."""
        return await _assemble(run, session, self._image, self._around, authority)

    def give_up(self) -> None:
        """Ends the wait for a turn."""
        self._is_given_up = True
        if self._entering is not None:
            self._entering.cancel()

    def leave(self) -> None:
        """Lets the next machine boot."""
        if self._place is not None:
            self._place.leave()


class Adopted:
    """A machine that an earlier service has started, however far it came.

    Args:
        machine: as it was found.
        around: what every run is given.
        image: of the run.
    """

    is_adopted = True
    has_workload = True
    way = ""

    def __init__(self, machine: Machine, around: Surroundings, image: ImageOfRun) -> None:
        self._machine = machine
        self._around = around
        self._image_of_run = image

    async def bring(self, run: Run) -> Machine | None:
        """Returns the machine that was found."""
        return self._machine

    async def assemble(self, run: Run, session: GuestSession, *, authority: str) -> Configured:
        """Returns what the earlier service was answered, or does what it did not come to."""
        if session.is_configured:
            if is_fork(run) and run.state is RunState.STARTING:
                return await renew(run, session, await self._image_of_run(), self._around)
            if session.can_freeze:  # a snapshot of it may have been cut short
                session.thaw()
            return await session.configured()
        return await _assemble(run, session, await self._image_of_run(), self._around, authority)

    def answered(self, run: Run) -> None:
        """What it was resumed from, if it was, is sound."""
        self._around.starts.works(run.run_id)

    def ran(self, run: Run) -> None:
        """Does nothing: nobody waits for its place."""

    def give_up(self) -> None:
        """Does nothing: it waits for no turn."""

    def leave(self) -> None:
        """Does nothing: it does not wait in the queue."""


def is_fork(run: Run) -> bool:
    """Returns whether a run's machine goes on from a snapshot: at its first start alone."""
    return bool(run.from_snapshot) and run.boot == 1


async def renew(
    run: Run, session: GuestSession, image: Image | None, around: Surroundings
) -> Configured:
    """Gives a machine that goes on as this run its names and files; then its programs go on."""
    settings = around.boundary.settings
    return await session.renew(
        guest_config(run, image, binds=(), pids_limit=around.limits.pids, boundary=settings)
    )


async def _assemble(
    run: Run, session: GuestSession, image: Image | None, around: Surroundings, authority: str
) -> Configured:
    binds = around.binds.guest_mounts(run)
    return await session.configure(
        guest_config(
            run,
            image,
            binds=binds,
            pids_limit=around.limits.pids,
            boundary=around.boundary.settings,
            authority=authority,
        )
    )
