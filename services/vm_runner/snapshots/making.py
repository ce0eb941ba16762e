"""Makes a snapshot of an image: a machine boots, mounts it, rehearses, is saved, and resumed once.

It happens in the background and gives way to runs that start. A caller that wants a
snapshot which is being made already waits for it.
"""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from services.core.errors import ContentCorrupt, LnsError
from services.vm_runner.machines import Hypervisor, Machine, MachineSpec, SavedMachine
from services.vm_runner.ports import ImageSource
from services.vm_runner.snapshots.rehearsal import prepare
from services.vm_runner.snapshots.snapshot import Root, Snapshot, file_identity, snapshot_key
from services.vm_runner.snapshots.store import Draft, SnapshotStore
from services.vm_runner.snapshots.traffic import Traffic

log = structlog.get_logger()

_REHEARSALS = 2
_MIB = 1 << 20


class Maker:
    """Makes snapshots, one after the other.

    Args:
        hypervisor: of the node.
        images: whose files snapshots are made of.
        store: where they go.
        traffic: what it gives way to.
        answer_seconds: longest time for a guest to boot and to answer.
    """

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        images: ImageSource,
        store: SnapshotStore,
        traffic: Traffic,
        answer_seconds: float,
    ) -> None:
        self._hypervisor = hypervisor
        self._images = images
        self._store = store
        self._traffic = traffic
        self._seconds = answer_seconds
        self._one_at_a_time = asyncio.Lock()

    async def make(self, key: str, spec: MachineSpec, root: Root) -> Snapshot:
        """Makes the snapshot of a machine; the machine's own files are not touched.

        Args:
            key: of the snapshot.
            spec: of a machine that will be resumed from it.
            root: what it has mounted.

        Raises:
            LnsError: it cannot be made; nothing is left of it.
        """
        async with self._one_at_a_time:
            await self._traffic.quiet()
            holder = f"snapshot-{key[:32]}"
            if root.image_digest:
                await self._images.lease(holder, root.image_digest)
            try:
                async with self._store.draft() as draft:
                    return await self._make(key, spec, root, draft)
            finally:
                if root.image_digest:
                    await self._release(holder)

    async def _make(self, key: str, spec: MachineSpec, root: Root, draft: Draft) -> Snapshot:
        began = time.monotonic()
        own = await self._own_spec(spec, root, draft)
        assert own.memory_file is not None  # noqa: S101  # `_own_spec` says so
        saved = SavedMachine(memory=own.memory_file, state=draft.directory / "state")
        await self._save(own, root, saved)
        await self._prove(replace(own, memory_file=None), root, saved)
        sources = tuple(map(file_identity, root.disks))
        fingerprint = await self._hypervisor.fingerprint(spec)
        if snapshot_key(fingerprint, root, sources) != key:
            raise ContentCorrupt("the image or the VMM was replaced while its snapshot was made")
        now = datetime.now(UTC)
        snapshot = Snapshot(
            key=key,
            image_digest=root.image_digest,
            sources=sources,
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
            size_bytes=0,
            create_time=now,
            use_time=now,
            saved=saved,
        )
        snapshot = await draft.keep(snapshot)
        log.info(
            "snapshot_made",
            key=key[:12],
            image_digest=root.image_digest,
            bytes=snapshot.size_bytes,
            seconds=round(time.monotonic() - began, 2),
        )
        return snapshot

    async def _own_spec(self, spec: MachineSpec, root: Root, draft: Draft) -> MachineSpec:
        """Returns the machine with empty disks in place of those of a run."""
        disks = []
        for number, disk in enumerate(spec.disks):
            path = disk.path
            if path not in root.disks:
                path = await draft.make_file(f"disk{number}", _size(disk.path) or disk.size_bytes)
            disks.append(replace(disk, path=path))
        memory = await draft.make_file("memory", spec.memory_mib * _MIB)
        return replace(
            spec,
            run_id=draft.directory.name,
            directory=draft.directory,
            cpu_millis=0,
            disks=tuple(disks),
            memory_file=memory,
        )

    async def _save(self, spec: MachineSpec, root: Root, saved: SavedMachine) -> None:
        machine = await self._hypervisor.start(spec)
        try:
            async with self._traffic.giving_way(machine):
                await self._prepared(machine, root, rehearsals=_REHEARSALS)
            await machine.save(saved.state)
        finally:
            await machine.kill()

    async def _prove(self, spec: MachineSpec, root: Root, saved: SavedMachine) -> None:
        await self._traffic.quiet()
        machine = await self._hypervisor.resume(spec, saved)
        try:
            async with self._traffic.giving_way(machine):
                await self._prepared(machine, root, rehearsals=1)
        finally:
            await machine.kill()

    async def _prepared(self, machine: Machine, root: Root, *, rehearsals: int) -> None:
        await prepare(machine, root, writable=False, rehearsals=rehearsals, seconds=self._seconds)

    async def _release(self, holder: str) -> None:
        try:
            await self._images.release(holder)
        except LnsError as error:  # the image is kept longer than it needs to be, no more
            log.warning("lease_not_released", holder=holder, message=error.message)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
