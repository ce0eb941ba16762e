"""What is saved of a live run, from which others go on; and where it is kept, as an interface."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from services.core.errors import RunNotSnapshottable
from services.core.run_plan import VolumeKind
from services.vm_runner.machines import SavedMachine
from services.vm_runner.records.run_log import LogStream
from services.vm_runner.records.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """A snapshot of a run.

    Attributes:
        snapshot_id: 32 hexadecimal digits.
        name: unique among the snapshots of runs.
        request_id: the client's id of the request that made it; may be empty.
        origin: the run as it was then: its plan with its policy, its image, its options.
        fingerprint: of its machine: another one cannot go on from it.
        progress: how far each stream of its output was in its log, and whether it had ended.
        size_bytes: what it takes on the disk.
        directory: where its files are.
    """

    snapshot_id: str
    name: str
    origin: Run
    fingerprint: str
    progress: Mapping[LogStream, tuple[int, bool]]
    create_time: datetime
    directory: Path
    request_id: str = ""
    size_bytes: int = 0

    @property
    def machine(self) -> SavedMachine:
        """What machines go on from, any number of them."""
        return SavedMachine(memory=self.directory / "memory", state=self.directory / "state")


class SavedDraft(Protocol):
    """A snapshot in the making: a directory that is gone unless it is kept."""

    @property
    def directory(self) -> Path:
        """Its directory: the machine that works in it has its name."""
        ...

    @property
    def stream(self) -> Path:
        """Where the machine is written first, memory and state in one; not kept."""
        ...

    @property
    def state(self) -> Path:
        """Where the state of processors and devices goes."""
        ...

    @property
    def disk(self) -> Path:
        """The copy of the writable layer."""
        ...

    async def take_files(self, run_directory: Path) -> None:
        """Copies the writable layer of a run whose machine is held, and its authority.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...

    async def make_memory(self, size_bytes: int) -> Path:
        """Makes the file of the memory; the one of `stream` is not needed from its use on.

        Raises:
            CapacityExhausted: the disk has no room for all of it.
        """
        ...

    async def keep(self, saved: SavedRun) -> SavedRun:
        """Makes it whole and durable; returns it as it is kept.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...


class SavedRunStore(Protocol):
    """The snapshots of runs. Every change is one: a crash leaves a snapshot whole or none."""

    async def load(self) -> tuple[tuple[SavedRun, ...], tuple[str, ...]]:
        """Returns every snapshot, and the ids of those that a crash left half, which are gone now.

        What cannot be read is left alone.
        """
        ...

    def draft(self, snapshot_id: str) -> AbstractAsyncContextManager[SavedDraft]:
        """Yields a snapshot in the making; what is not kept of it is removed with the block."""
        ...

    async def give(self, saved: SavedRun, run_directory: Path) -> None:
        """Gives a run a writable layer and an authority of its own, equal to the snapshot's.

        Raises:
            SnapshotUnknown: it was removed meanwhile.
            CapacityExhausted: the disk is full.
        """
        ...

    async def remove(self, saved: SavedRun) -> None:
        """Removes a snapshot; machines that were resumed from it go on."""
        ...


def check_savable(run: Run) -> None:
    """Checks that what a run has can be had a second time.

    Raises:
        RunNotSnapshottable: it has a bind, a named volume or a group.
    """
    for mount in run.plan.volumes:
        if mount.kind is VolumeKind.BIND:
            raise RunNotSnapshottable(
                f"run {run.name} has a folder or file of the host at {mount.target}: what its "
                "programs have open there cannot be saved",
                hint=f"run it with `lns cp` in place of -v {mount.source}:…, and snapshot that one",
            )
        raise RunNotSnapshottable(
            f"run {run.name} has the volume {mount.source} at {mount.target}: its file system is "
            "in the run's memory, and two runs that go on with it would destroy it",
            hint="keep what a snapshot is to have in the writable layer: run it without -v",
        )
    if run.group is not None:
        raise RunNotSnapshottable(
            f"run {run.name} belongs to the group {run.group.name}, in which its name and address "
            "are taken",
            hint="run its agent by its own reference, and snapshot that one",
        )


def lease_of(snapshot_id: str) -> str:
    """Returns by what name a snapshot leases its image."""
    return f"saved-{snapshot_id}"
