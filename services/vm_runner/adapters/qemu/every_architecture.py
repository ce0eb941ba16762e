"""Starts each microVM with the QEMU of its architecture: the host's own, or one that emulates."""

from collections.abc import Mapping
from pathlib import Path

from services.vm_runner.adapters.qemu.hypervisor import QemuHypervisor
from services.vm_runner.architectures import Architecture
from services.vm_runner.machines import Machine, MachineSpec, SavedMachine


class EveryArchitecture:
    """The hypervisors of a host as one.

    Args:
        own: for guests of the host's architecture.
        foreign: for guests of others, whose programs need not be installed.
    """

    def __init__(self, own: QemuHypervisor, foreign: Mapping[Architecture, QemuHypervisor]) -> None:
        self.own = own
        self.foreign = foreign

    async def start(self, spec: MachineSpec) -> Machine:
        """Starts a microVM that outlives this process."""
        return await self._of(spec).start(spec)

    async def resume(
        self, spec: MachineSpec, saved: SavedMachine, *, is_held: bool = False
    ) -> Machine:
        """Starts a microVM where another one was saved."""
        return await self._of(spec).resume(spec, saved, is_held=is_held)

    async def fingerprint(self, spec: MachineSpec) -> str:
        """Returns a text that is equal where one machine can be resumed from the other's state."""
        return await self._of(spec).fingerprint(spec)

    async def adopt(self, run_id: str, directory: Path) -> Machine | None:
        """Returns the microVM of that name, of whichever architecture, if it is alive."""
        return await self.own.adopt(run_id, directory)

    def _of(self, spec: MachineSpec) -> QemuHypervisor:
        if spec.architecture is None:
            return self.own
        return self.foreign.get(spec.architecture, self.own)
