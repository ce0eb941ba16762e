"""Where snapshots are kept, as an interface."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from services.vm_runner.snapshots.snapshot import Snapshot


class Draft(Protocol):
    """A snapshot in the making: a directory that is gone unless it is kept."""

    @property
    def directory(self) -> Path:
        """Its directory; `memory` and `state` in it are what a machine is resumed from.

        The machine that works in it has its name.
        """
        ...

    async def make_file(self, name: str, size_bytes: int) -> Path:
        """Makes a sparse file.

        Raises:
            CapacityExhausted: the disk has no room for what may be written to it.
        """
        ...

    async def keep(self, snapshot: Snapshot) -> Snapshot:
        """Makes it whole and durable under its key; returns it as it is kept.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...


class SnapshotStore(Protocol):
    """The snapshots of a node. Every change is one: a crash leaves a snapshot whole or none."""

    async def load(self) -> tuple[Snapshot, ...]:
        """Returns every snapshot; sweeps what a crash left, and what cannot be read."""
        ...

    def draft(self) -> AbstractAsyncContextManager[Draft]:
        """Yields a snapshot in the making; what is not kept of it is removed with the block."""
        ...

    async def touch(self, snapshot: Snapshot) -> None:
        """Records its time of use."""
        ...

    async def remove(self, key: str) -> None:
        """Removes a snapshot; machines that were resumed from it go on."""
        ...

    def waiting_room(self) -> Path:
        """Returns the directory for machines that were resumed ahead, which exists."""
        ...
