"""What a live run has of the host: its ports, its volumes, what it binds, its way out."""

import structlog

from services.core.errors import LnsError
from services.vm_runner.boundary.run_boundary import RunBoundary
from services.vm_runner.network.published_ports import PublishedPorts
from services.vm_runner.records.runs import Run
from services.vm_runner.storage.binds import Binds
from services.vm_runner.storage.volumes import Volumes

log = structlog.get_logger()


class Holdings:
    """What one run has, from its start to its end, restarts by its policy included."""

    def __init__(
        self, ports: PublishedPorts, volumes: Volumes, binds: Binds, boundary: RunBoundary
    ) -> None:
        self.ports = ports
        self.are_held = False
        self._volumes = volumes
        self._binds = binds
        self._boundary = boundary

    async def take(self, run: Run) -> list[str]:
        """Takes what a run needs to start; returns what a person should read of it.

        Raises:
            InUse: a port of the host or a volume cannot be had.
            RequestInvalid: a path of the host cannot be bound.
            RunStateConflict: the record of a volume cannot be read.
            CapacityExhausted: there is no room for a new volume.
        """
        self.are_held = True
        try:
            remarks = await self._binds.look(run)
            remarks += await self._boundary.prepare(run)
            await self._volumes.hold(run)
            await self.ports.publish_all(run.plan.ports)
        except BaseException:
            await self.let_go(run)
            raise
        return remarks

    async def take_again(self, run: Run) -> list[str]:
        """Takes what a run has that lives already; returns what could not be had again."""
        self.are_held = True
        lost = []
        for mapping in run.ports:
            try:
                await self.ports.publish(mapping)
            except LnsError as error:
                lost.append(f"{error.message}: it is published no longer")
        try:
            await self._volumes.hold(run)
        except LnsError as error:
            lost.append(f"{error.message}: the volume is not held for this run")
        await self._binds.look_again(run)
        return lost

    async def let_go(self, run: Run) -> None:
        """Gives everything up."""
        self.are_held = False
        await self.ports.close()
        self._volumes.let_go(run.run_id)
        self._binds.let_go(run.run_id)
