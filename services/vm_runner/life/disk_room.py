"""What happens to a run when the host's disk fills: it stands still, says so, and goes on.

The VMM stops the guest at a write for which the host has no room, rather than have the guest's file
system fail. It stays stopped until it is resumed and does the write again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from services.core.errors import GuestUnreachable, LnsError
from services.vm_runner.machines import Machine
from services.vm_runner.ports import RunStore
from services.vm_runner.records import lifecycle
from services.vm_runner.records.runs import Run, RunState

log = structlog.get_logger()

_LOOK_SECONDS = 2.0


class RunOnDisk(Protocol):
    """The run whose machine may need room."""

    @property
    def run(self) -> Run:
        """The run as it is."""
        ...

    async def notice(self, *lines: str) -> None:
        """Shows users a notice, now and whenever they look at the run."""
        ...


class DiskRoom:
    """The room that the machine of a run has on the host's disk.

    Args:
        owner: the run.
        store: where the room is.
        machine: that may be stopped for want of it.
        look_seconds: between two looks whether there is room again.
    """

    def __init__(
        self,
        owner: RunOnDisk,
        store: RunStore,
        machine: Machine,
        *,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._owner = owner
        self._store = store
        self._machine = machine
        self._look_seconds = look_seconds

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Sees to it while the block runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            for outcome in await asyncio.gather(task, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("disk_room_not_watched", exc_info=outcome)

    async def _watch(self) -> None:
        while True:
            try:
                await self._machine.wait_out_of_room()
                await self._stand_still()
            except LnsError as error:  # it cannot be asked now; its end is seen elsewhere
                log.debug("machine_not_watched", message=error.message)
                await asyncio.sleep(self._look_seconds)

    async def _stand_still(self) -> None:
        run = self._owner.run
        log.warning("run_out_of_room", run_id=run.run_id)
        directory = self._store.directory(run.run_id).parent
        await self._owner.notice(
            f"the disk of {directory} is full: the run is paused until space is free again"
        )
        has_room = False
        while not has_room or self._owner.run.state is RunState.PAUSED:
            await asyncio.sleep(self._look_seconds)
            has_room = await self._store.room() > 0
        try:
            await self._machine.resume()
        except GuestUnreachable as error:
            log.warning("run_not_resumed", run_id=run.run_id, message=error.message)
            return
        if self._owner.run.state in lifecycle.LIVE:
            await self._owner.notice(
                f"the disk of {directory} has free space again: the run continues"
            )
