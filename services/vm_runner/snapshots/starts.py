"""How a run gets its machine: one that waits, one resumed from a snapshot, or a boot.

The fastest way that is open is taken, and the next run of its kind is given a faster one: behind a
boot a snapshot is made, behind every start a machine is made ready.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import structlog

from services.core.errors import LnsError, RequestInvalid, SnapshotUnknown
from services.vm_runner.machines import Hypervisor, Machine, MachineSpec
from services.vm_runner.ports import DiskMaker
from services.vm_runner.snapshots.ahead import Ahead
from services.vm_runner.snapshots.making import Maker
from services.vm_runner.snapshots.metrics import SNAPSHOT_BYTES, SNAPSHOTS, STARTS
from services.vm_runner.snapshots.snapshot import (
    Root,
    Snapshot,
    file_identity,
    placed,
    snapshot_key,
)
from services.vm_runner.snapshots.store import SnapshotStore

log = structlog.get_logger()

_TEND_SECONDS = 10.0


class Way(StrEnum):
    """How a machine was had."""

    COLD = "cold"
    SNAPSHOT = "snapshot"
    AHEAD = "ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A machine, how it was started, and notices for the user.

    Attributes:
        why: why it was not started in a faster way, for statistics.
        remark: for the run's notices.
    """

    machine: Machine
    way: Way
    why: str = ""
    remark: str = ""


class Starts:
    """Starts machines of runs.

    Args:
        hypervisor: of the node.
        disks: makes writable layers.
        store: where snapshots are; None: every start is a boot.
        maker: makes them.
        ahead: the machines that wait.
        budget_bytes: what snapshots may take on the disk together.
    """

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        disks: DiskMaker,
        store: SnapshotStore | None = None,
        maker: Maker | None = None,
        ahead: Ahead | None = None,
        budget_bytes: int = 0,
    ) -> None:
        self._hypervisor = hypervisor
        self._disks = disks
        self._store = store
        self._maker = maker
        self._ahead = ahead
        self._budget = budget_bytes
        self._known: dict[str, Snapshot] = {}
        self._making: dict[str, asyncio.Task[Snapshot]] = {}
        self._given_up: set[str] = set()
        self._discarded: set[str] = set()
        self._unproved: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.counts: dict[Way, int] = dict.fromkeys(Way, 0)
        if ahead is not None:
            ahead.on_failure = self._failed_ahead

    # ---- beginning and end ----

    async def open(self) -> None:
        """Reads the existing snapshots; removes those of files that were replaced."""
        if self._store is None:
            return
        for snapshot in await self._store.load():
            if await asyncio.to_thread(_is_stale, snapshot):
                await self._store.remove(snapshot.key)
            else:
                self._known[snapshot.key] = snapshot
        self._count_bytes()
        self._spawn(self._tend())

    async def close(self) -> None:
        """Ends what is done in the background, and the machines that wait."""
        tasks = [*self._tasks, *self._making.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._ahead is not None:
            await self._ahead.close()

    # ---- starts ----

    async def start(self, spec: MachineSpec, root: Root, *, cold: bool = False) -> Started:
        """Starts the machine of a run; makes its writable layer where it is not there yet.

        Args:
            spec: of the machine.
            root: what it mounts.
            cold: whether a kernel is booted in any case.

        Raises:
            LnsError: it cannot be started.
        """
        if self._store is None or self._maker is None:
            started = await self._boot(spec, why="turned off")
        elif cold:
            started = await self._boot(spec, why="asked for")
        else:
            started = await self._start(spec, root)
        self.counts[started.way] += 1
        STARTS.labels(started.way.value, started.why).inc()
        return started

    async def _start(self, spec: MachineSpec, root: Root) -> Started:
        key = await self._key(spec, root)
        remark = ""
        if failed := self._unproved.pop(spec.run_id, None):
            remark = await self.discard(failed, "a guest resumed from it did not answer")
        snapshot = self._known.get(key)
        if snapshot is None:
            self._make_behind(key, spec, root)
            why = "snapshot failed" if remark else "no snapshot"
            return replace(await self._boot(spec, why=why), remark=remark)
        self._unproved[spec.run_id] = key
        why = await self._why_not_ahead(spec, root)
        if not why and self._ahead is not None:
            if machine := await self._ahead.claim(key, spec):
                return Started(machine=machine, way=Way.AHEAD)
            why = "none waits"
        await self._make_disks(spec)
        try:
            machine = await self._hypervisor.resume(spec, snapshot.saved)
        except LnsError as error:
            self._unproved.pop(spec.run_id, None)
            remark = await self.discard(key, error.message)
            self._make_behind(key, spec, root)
            return replace(await self._boot(spec, why="snapshot failed"), remark=remark)
        return Started(machine=machine, way=Way.SNAPSHOT, why=why)

    def works(self, spec_run_id: str) -> None:
        """The guest of a run has answered: what it was resumed from is sound."""
        self._unproved.pop(spec_run_id, None)

    def ran(self, spec: MachineSpec, root: Root, *, cold: bool = False) -> None:
        """A run has started: has a machine wait for the next of its kind."""
        if not cold and self._ahead is not None:
            self._spawn(self._want(spec, root))

    async def _want(self, spec: MachineSpec, root: Root) -> None:
        if self._ahead is None or _has_volumes(spec, root) or spec.disk_rate:
            return
        key = await self._key(spec, root)
        if making := self._making.get(key):
            with contextlib.suppress(LnsError):
                await asyncio.shield(making)
        if snapshot := self._known.get(key):
            self._ahead.want(snapshot, spec, root)
            await self._touch(snapshot)

    async def _why_not_ahead(self, spec: MachineSpec, root: Root) -> str:
        """Returns why a run cannot have a machine that waits; empty if it can."""
        if self._ahead is None:
            return "turned off"
        if _has_volumes(spec, root):
            return "volumes"
        if spec.disk_rate:
            return "a rate of its disks"
        if await asyncio.to_thread(placed(spec, root.writable_disk).exists):
            return "writable layer from before"
        return ""

    async def _boot(self, spec: MachineSpec, *, why: str) -> Started:
        await self._make_disks(spec)
        return Started(machine=await self._hypervisor.start(spec), way=Way.COLD, why=why)

    async def _make_disks(self, spec: MachineSpec) -> None:
        for disk in spec.disks:
            if not disk.read_only and disk.size_bytes:
                await self._disks.ensure(disk.path, size_bytes=disk.size_bytes)

    async def _key(self, spec: MachineSpec, root: Root) -> str:
        fingerprint = await self._hypervisor.fingerprint(spec)
        try:
            sources = await asyncio.to_thread(lambda: tuple(map(file_identity, root.disks)))
        except OSError:  # the error is reported where they are opened
            sources = ()
        return snapshot_key(fingerprint, root, sources)

    # ---- snapshots ----

    async def warm(self, spec: MachineSpec, root: Root) -> Snapshot:
        """Makes the snapshot of a machine unless it exists, and a machine that waits.

        Raises:
            RequestInvalid: snapshots are turned off.
            LnsError: it cannot be made.
        """
        if self._maker is None:
            raise RequestInvalid(
                "snapshots are turned off", hint="set vm_runner.snapshot_disk above 0"
            )
        key = await self._key(spec, root)
        self._given_up.discard(key)
        snapshot = self._known.get(key)
        if snapshot is None:
            self._make_behind(key, spec, root)
            snapshot = await asyncio.shield(self._making[key])
        if self._ahead is not None and not _has_volumes(spec, root):
            self._ahead.want(snapshot, spec, root)
            await self._ahead.settled()
        return snapshot

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Returns every snapshot, the one that was used last first."""
        return tuple(sorted(self._known.values(), key=lambda one: one.use_time, reverse=True))

    @property
    def waiting(self) -> tuple[str, ...]:
        """Keys of the snapshots of machines that wait, one for each."""
        return self._ahead.waiting if self._ahead is not None else ()

    @property
    def budget_bytes(self) -> int:
        """What snapshots may take on the disk together."""
        return self._budget

    async def describe(self) -> str:
        """Returns how things stand, in a line."""
        if self._store is None:
            return "turned off: each run boots a kernel"
        taken = sum(one.size_bytes for one in self._known.values())
        making = f", {len(self._making)} in the making" if self._making else ""
        return (
            f"{len(self._known)} snapshots take {taken >> 20} of {self._budget >> 20} MiB{making}; "
            f"{len(self.waiting)} machines wait ahead"
        )

    def find(self, text: str) -> Snapshot:
        """Returns the snapshot of a key, or of a unique prefix of one.

        Raises:
            SnapshotUnknown: no snapshot, or more than one, has that key.
        """
        found = [one for key, one in self._known.items() if text and key.startswith(text)]
        if len(found) != 1:
            why = "several keys begin with it" if found else "it does not exist"
            raise SnapshotUnknown(
                f"the snapshot {text} cannot be chosen: {why}", hint="`lns snapshot ls` lists them"
            )
        return found[0]

    async def remove(self, key: str) -> None:
        """Removes a snapshot with the machines that wait; those of runs go on."""
        self._known.pop(key, None)
        if self._ahead is not None:
            await self._ahead.drop(key)
        if self._store is not None:
            await self._store.remove(key)
        self._count_bytes()

    def _count_bytes(self) -> None:
        SNAPSHOT_BYTES.set(sum(one.size_bytes for one in self._known.values()))

    async def discard(self, key: str, why: str) -> str:
        """Removes a snapshot that does not work; returns a notice for users."""
        log.warning("snapshot_discarded", key=key[:12], why=why)
        SNAPSHOTS.labels("discarded").inc()
        if key in self._discarded:  # whatever is made of it does not work here
            self._given_up.add(key)
        self._discarded.add(key)
        await self.remove(key)
        return f"its snapshot could not be resumed and was discarded ({why}): booting a kernel"

    # ---- in the background ----

    def _make_behind(self, key: str, spec: MachineSpec, root: Root) -> None:
        if key not in self._making and key not in self._given_up:
            self._making[key] = asyncio.create_task(self._make(key, spec, root))

    async def _make(self, key: str, spec: MachineSpec, root: Root) -> Snapshot:
        assert self._maker is not None  # noqa: S101  # not called without one
        try:
            snapshot = await self._maker.make(key, spec, root)
            self._known[key] = snapshot
            SNAPSHOTS.labels("made").inc()
            await self._evict(keep=key)
            self._count_bytes()
        except LnsError as error:
            self._given_up.add(key)  # until this service ends, or a user asks for it by name
            SNAPSHOTS.labels("failed").inc()
            log.warning("snapshot_not_made", key=key[:12], message=error.message)
            raise
        except Exception:
            self._given_up.add(key)
            log.exception("snapshot_not_made", key=key[:12])
            raise
        finally:
            del self._making[key]
        return snapshot

    async def _evict(self, *, keep: str) -> None:
        """Removes the snapshots that were not used for longest until the budget holds."""
        total = sum(one.size_bytes for one in self._known.values())
        for one in reversed(self.snapshots()):
            if total <= self._budget:
                return
            if one.key != keep or total == one.size_bytes:
                SNAPSHOTS.labels("evicted").inc()
                log.info("snapshot_evicted", key=one.key[:12], bytes=one.size_bytes)
                await self.remove(one.key)
                total -= one.size_bytes

    async def _touch(self, snapshot: Snapshot) -> None:
        used = replace(snapshot, use_time=datetime.now(UTC))
        if self._store is not None and snapshot.key in self._known:
            self._known[snapshot.key] = used
            await self._store.touch(used)

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_TEND_SECONDS)
            if self._ahead is not None:
                await self._ahead.tend()

    def _failed_ahead(self, snapshot: Snapshot, error: LnsError) -> None:
        """A machine could not be made ready: its snapshot goes."""
        self._spawn(self.discard(snapshot.key, error.message))

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _has_volumes(spec: MachineSpec, root: Root) -> bool:
    """Whether the machine has disks whose content is neither the image's nor its own."""
    return any(
        disk.serial != root.writable_disk and disk.path not in root.disks for disk in spec.disks
    )


def _is_stale(snapshot: Snapshot) -> bool:
    for source in snapshot.sources:
        path = source.rsplit(":", 3)[0]
        try:
            if file_identity(type(snapshot.saved.state)(path)) != source:
                return True
        except OSError:
            return True
    return False
