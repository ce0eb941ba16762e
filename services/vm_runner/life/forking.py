"""A run that goes on where a snapshot of another one was made: its first start.

Its machine maps the snapshot's memory as a private copy and has a copy of its disk. The programs
stand still until the agent has given the machine fresh random numbers, the time, and the run's
names and files. What they had open to the outside is closed, as after a crash of the service.
"""

import time
from collections.abc import Awaitable, Callable

from services.vm_runner.channel.events import Configured
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.life.origins import ImageOfRun, Start, renew
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.machines import Machine, MachineSpec
from services.vm_runner.records.run_log import LogChunk, RunLog
from services.vm_runner.records.runs import Run
from services.vm_runner.snapshots.saved_run import SavedRun
from services.vm_runner.snapshots.saved_runs import check_same


class Fork(Start):
    """A machine that goes on from a snapshot of a run; `way` is `fork`."""

    has_workload = True

    def __init__(
        self,
        around: Surroundings,
        image: ImageOfRun,
        *,
        log: RunLog,
        notice: Callable[[str], Awaitable[None]],
    ) -> None:
        super().__init__(around, image, notice=notice)
        self._log = log

    async def machine(self, run: Run, spec: MachineSpec) -> Machine:
        """Has it resumed, with its own copy of what the snapshot's run had on its disk."""
        around = self._around
        saved = around.saved.find(run.from_snapshot)
        await around.saved.give(saved, spec.directory)
        check_same(saved, await around.hypervisor.fingerprint(spec))
        await _place_log(self._log, run, saved)
        machine = await around.hypervisor.resume(spec, saved.machine)
        self.way = "fork"
        return machine

    async def assemble(self, run: Run, session: GuestSession, *, authority: str) -> Configured:
        """Makes it this run's; the authority that its programs know is its own already."""
        return await renew(run, session, self._image, self._around)

    def answered(self, run: Run) -> None:
        """Does nothing: a snapshot of a user's is not discarded."""

    def ran(self, run: Run) -> None:
        """Lets the next machine boot."""
        self.leave()


async def _place_log(log: RunLog, run: Run, saved: SavedRun) -> None:
    """Has the log of a run begin where that of the snapshot's run stood.

    Raises:
        CapacityExhausted: the disk is full.
    """
    known = await log.progress(run.boot)
    begin = [
        LogChunk(
            boot=run.boot,
            stream=stream,
            position=position,
            time_ns=time.time_ns(),
            data=b"",
            ended=ended,
        )
        for stream, (position, ended) in saved.progress.items()
        if stream not in known
    ]
    if begin:
        await log.append(begin)
