"""Opens what is kept of snapshots: those of images, and those of runs. Part of the bootstrap."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from services.chassis.blocking import Blocking
from services.chassis.locks import owner_lock
from services.vm_runner.adapters.disk_images import Ext4Images
from services.vm_runner.adapters.materializer_client import MaterializerImages
from services.vm_runner.adapters.memory_pressure import is_memory_tight
from services.vm_runner.adapters.qemu.every_architecture import EveryArchitecture
from services.vm_runner.adapters.saved_run_files import SavedRunFiles
from services.vm_runner.adapters.snapshot_files import SnapshotFiles
from services.vm_runner.settings import VmSettings
from services.vm_runner.snapshots.ahead import Ahead
from services.vm_runner.snapshots.making import Maker
from services.vm_runner.snapshots.saved_runs import SavedRuns
from services.vm_runner.snapshots.starts import Starts
from services.vm_runner.snapshots.traffic import Traffic


@contextlib.asynccontextmanager
async def opened_snapshots(
    home: Path,
    own: VmSettings,
    hypervisor: EveryArchitecture,
    disks: Ext4Images,
    images: MaterializerImages,
    traffic: Traffic,
    blocking: Blocking,
) -> AsyncIterator[tuple[Starts, SavedRuns]]:
    """Yields how machines of runs are started, and the snapshots of runs.

    Raises:
        InUse: another process owns one of the two.
    """
    async with (
        _opened_starts(home, own, hypervisor, disks, images, traffic, blocking) as starts,
        _opened_saved(home, own, hypervisor, images, blocking) as saved,
    ):
        yield starts, saved


@contextlib.asynccontextmanager
async def _opened_starts(
    home: Path,
    own: VmSettings,
    hypervisor: EveryArchitecture,
    disks: Ext4Images,
    images: MaterializerImages,
    traffic: Traffic,
    blocking: Blocking,
) -> AsyncIterator[Starts]:
    """Yields how machines of runs are started; its background work ends with the block."""
    if not own.snapshot_disk:
        yield Starts(hypervisor=hypervisor, disks=disks)
        return
    root = home / "snapshots"
    root.mkdir(mode=0o700, exist_ok=True)
    with owner_lock(root / ".lock", what=f"the snapshots below {home}"):
        store = SnapshotFiles(root, blocking=blocking)
        await _end_left(hypervisor, store.unfinished())
        starts = Starts(
            hypervisor=hypervisor,
            disks=disks,
            store=store,
            maker=Maker(
                hypervisor=hypervisor,
                images=images,
                store=store,
                traffic=traffic,
                answer_seconds=own.boot_time,
            ),
            ahead=Ahead(
                hypervisor=hypervisor,
                disks=disks,
                traffic=traffic,
                room=store.waiting_room(),
                most=own.machines_ahead,
                idle_seconds=own.ahead_idle,
                is_tight=is_memory_tight,
                answer_seconds=own.boot_time,
            ),
            budget_bytes=own.snapshot_disk,
        )
        await starts.open()
        try:
            yield starts
        finally:
            await starts.close()


@contextlib.asynccontextmanager
async def _opened_saved(
    home: Path,
    own: VmSettings,
    hypervisor: EveryArchitecture,
    images: MaterializerImages,
    blocking: Blocking,
) -> AsyncIterator[SavedRuns]:
    """Yields the snapshots of runs; those in the making are given up with the block."""
    root = home / "saved"
    root.mkdir(mode=0o700, exist_ok=True)
    with owner_lock(root / ".lock", what=f"the snapshots of runs below {home}"):
        store = SavedRunFiles(root, blocking=blocking)
        await _end_left(hypervisor, store.unfinished())
        saved = SavedRuns(store, images, budget_bytes=own.saved_disk)
        await saved.open()
        try:
            yield saved
        finally:
            await saved.close()


async def _end_left(hypervisor: EveryArchitecture, directories: Iterable[Path]) -> None:
    """Ends machines of a service that was killed, each in a directory of its name."""
    for left in directories:
        if machine := await hypervisor.adopt(left.name, left):
            await machine.kill()
