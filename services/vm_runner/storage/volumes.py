"""Named volumes: disks with a life of their own, for one writing run or several reading ones.

A volume is an ext4 file system on a disk image, which two machines cannot both have mounted while
one of them writes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from weakref import WeakValueDictionary

from services.core.errors import (
    InUse,
    NameTaken,
    RequestInvalid,
    RunStateConflict,
    VolumeUnknown,
)
from services.core.run_plan import VolumeKind, VolumeMount
from services.vm_runner.channel.mounts import GuestVolume
from services.vm_runner.machines import Disk
from services.vm_runner.ports import DiskMaker, VolumeStore
from services.vm_runner.records import lifecycle, names
from services.vm_runner.records.answered import AnsweredRequests
from services.vm_runner.records.runs import Run, Volume

_SIZE_LEAST = 1 << 20
_SHORT_ID = 12
_SHOWN = 3  # of the runs that are in the way


class Volumes:
    """The named volumes of a node, and who holds them."""

    def __init__(
        self,
        store: VolumeStore,
        disks: DiskMaker,
        *,
        default_bytes: int,
        answered: AnsweredRequests,
    ) -> None:
        self._store = store
        self._disks = disks
        self._default_bytes = default_bytes
        self._answered = answered
        self._known: dict[str, Volume] = {}
        self._holders: dict[str, dict[str, bool]] = {}
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def load(self) -> None:
        """Reads what is recorded."""
        self._known = {volume.name: volume for volume in await self._store.load()}

    # ---- volumes ----

    async def create(
        self,
        name: str,
        *,
        limit_bytes: int = 0,
        labels: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> Volume:
        """Makes a volume; it is known once its file system exists. The same request makes one.

        Raises:
            NameTaken: there is one of that name.
            RequestInvalid: the name or the size cannot be.
            CapacityExhausted: the disk of the host is full.
        """
        names.check(name, of="volume")
        if limit_bytes and limit_bytes < _SIZE_LEAST:
            raise RequestInvalid(f"a volume has at least {_SIZE_LEAST >> 20} MiB")
        async with self._change(name):
            known = self._known.get(name)
            if known is not None and request_id and known.request_id == request_id:
                return known
            if known is not None:
                raise NameTaken(
                    f"the volume {name} already exists",
                    hint="choose another name",
                    metadata={"volume": name},
                )
            volume = Volume(
                name=name,
                limit_bytes=limit_bytes or self._default_bytes,
                create_time=datetime.now(UTC),
                labels=MappingProxyType(dict(labels or {})),
                request_id=request_id,
            )
            return await self._make(volume)

    async def _make(self, volume: Volume) -> Volume:
        try:
            await self._store.save(volume)
            await self._disks.ensure(self._store.disk(volume.name), size_bytes=volume.limit_bytes)
        except BaseException:
            await self._store.remove(volume.name)
            raise
        self._known[volume.name] = volume
        return volume

    @contextlib.asynccontextmanager
    async def _change(self, name: str) -> AsyncIterator[None]:
        """Makes, or removes, one volume of a name at a time."""
        # Kept by those who use it and those who wait: between the two a lock is not locked.
        lock = self._changing.setdefault(name, asyncio.Lock())
        async with lock:
            yield

    async def get(self, name: str) -> Volume:
        """Describes a volume.

        Raises:
            VolumeUnknown: no volume has that name.
        """
        volume = self._known.get(name)
        if volume is None:
            raise VolumeUnknown(
                f"the volume {name!r} does not exist",
                hint="`lns volume ls` lists them",
                metadata={"volume": name},
            )
        return replace(
            volume,
            used_bytes=await self._store.used_bytes(name),
            run_ids=tuple(sorted(self._holders.get(name, {}))),
        )

    async def all(self) -> list[Volume]:
        """Describes every volume, sorted by name."""
        found = []
        for name in sorted(self._known):
            with contextlib.suppress(VolumeUnknown):  # it was removed meanwhile
                found.append(await self.get(name))
        return found

    async def remove(self, name: str, *, request_id: str = "") -> int:
        """Removes a volume; returns the bytes that became free. The same request removes one.

        Raises:
            VolumeUnknown: no volume has that name.
            InUse: a run holds it.
        """
        async with self._change(name):
            removed = self._answered.answer(request_id)
            if removed and (name not in self._known or _identity(self._known[name]) != removed):
                return 0  # what has the name now is another one
            volume = await self.get(name)
            if volume.run_ids:
                raise _in_use(name, volume.run_ids, hint="stop the runs that use it first")
            await self._answered.keep(request_id, _identity(volume))
            await self._store.remove(name)
            del self._known[name]
            return volume.used_bytes

    def unused(self, needed: frozenset[str]) -> list[str]:
        """Returns the names of volumes that no run holds, other than those needed.

        One whose record cannot be read is never among them.
        """
        held = {name for name, holders in self._holders.items() if holders}
        unread = {name for name, volume in self._known.items() if volume.problem}
        return sorted(self._known.keys() - held - needed - unread)

    # ---- runs ----

    async def hold(self, run: Run) -> None:
        """Holds the volumes of a run, made where they are missing, until `let_go`.

        Raises:
            InUse: another run writes to one of them, or reads what this one would write to.
            RunStateConflict: the record of one of them cannot be read.
            CapacityExhausted: the disk of the host is full.
        """
        mounts = named_mounts(run)
        for mount in mounts:
            self._check_free(run.run_id, mount)
        for mount in mounts:
            holders = self._holders.setdefault(mount.source, {})
            holders[run.run_id] = holders.get(run.run_id, False) or not mount.read_only
        if lifecycle.is_unread(run):
            return  # what it has is held, whatever it is
        try:
            for mount in mounts:
                await self._see_to(mount.source)
        except BaseException:
            self.let_go(run.run_id)
            raise

    async def _see_to(self, name: str) -> None:
        """Makes a volume that a run names, unless it exists."""
        if name not in self._known:
            with contextlib.suppress(NameTaken):  # another run has it made at this moment
                await self.create(name)
        if problem := self._known[name].problem:
            raise RunStateConflict(
                f"the record of volume {name} cannot be read: {problem}",
                hint="use the version of lns that wrote it, or remove the volume",
                metadata={"volume": name},
            )

    def let_go(self, run_id: str) -> None:
        """Gives up what a run holds."""
        for holders in self._holders.values():
            holders.pop(run_id, None)

    def _check_free(self, run_id: str, mount: VolumeMount) -> None:
        holders = self._holders.get(mount.source, {})
        others = [holder for holder in holders if holder != run_id]
        if others and (not mount.read_only or any(holders[other] for other in others)):
            raise _in_use(
                mount.source,
                others,
                hint="a volume has one writer, or readers (`:ro`) only; stop the other run first",
            )

    def disks(self, run: Run) -> tuple[Disk, ...]:
        """Returns the disks of a run's volumes."""
        return tuple(
            Disk(serial=serial, path=self._store.disk(name), read_only=not writes)
            for serial, name, writes in _placed(run)
        )

    async def filled_bytes(self, run: Run) -> int:
        """Returns what the volumes that a run writes to take on the host's disk."""
        written = [name for _, name, writes in _placed(run) if writes]
        return sum([await self._store.used_bytes(name) for name in written])

    def named_by(self, paths: Iterable[Path]) -> list[str]:
        """Returns the names of the volumes whose disks are among some files."""
        disks = {self._store.disk(name): name for name in self._known}
        return sorted({disks[path] for path in paths if path in disks})


def _identity(volume: Volume) -> str:
    """Returns what tells a volume from a later one of its name."""
    return f"{volume.name} {volume.create_time.isoformat()}"


def named_mounts(run: Run) -> tuple[VolumeMount, ...]:
    """Returns the mounts of named volumes of a run."""
    return tuple(mount for mount in run.plan.volumes if mount.kind is VolumeKind.NAMED)


def _placed(run: Run) -> list[tuple[str, str, bool]]:
    """Returns serial, name, and whether it is written to, of each volume of a run."""
    writes: dict[str, bool] = {}
    for mount in named_mounts(run):
        writes[mount.source] = writes.get(mount.source, False) or not mount.read_only
    return [(f"vol{number}", name, writes[name]) for number, name in enumerate(writes)]


def guest_volumes(run: Run) -> tuple[GuestVolume, ...]:
    """Returns the volumes of a run as its agent mounts them."""
    serials = {name: serial for serial, name, _ in _placed(run)}
    return tuple(
        GuestVolume(disk=serials[mount.source], target=mount.target, read_only=mount.read_only)
        for mount in named_mounts(run)
    )


def _in_use(name: str, holders: Sequence[str], *, hint: str) -> InUse:
    who = ", ".join(holder[:_SHORT_ID] for holder in holders[:_SHOWN])
    more = f" and {len(holders) - _SHOWN} more" if len(holders) > _SHOWN else ""
    return InUse(
        f"volume {name} is in use by {who}{more}",
        hint=hint,
        metadata={"volume": name, "run_id": holders[0]},
    )
