"""Machines that wait for a run: resumed from a snapshot, and rehearsed, in advance.

What emulation has executed before it executes three times faster, and what a guest has read before
is in its memory. A machine is claimed once, by the run whose disk and sockets then are its own.
"""

import asyncio
import contextlib
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from services.core.errors import LnsError
from services.vm_runner.machines import Hypervisor, Machine, MachineSpec
from services.vm_runner.ports import DiskMaker
from services.vm_runner.snapshots.rehearsal import prepare
from services.vm_runner.snapshots.snapshot import Root, Snapshot, placed
from services.vm_runner.snapshots.traffic import Traffic

log = structlog.get_logger()

REHEARSALS = 2
_SETTLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A kind of machine that was asked for, of which one is to wait."""

    snapshot: Snapshot
    spec: MachineSpec
    root: Root


@dataclass(slots=True, kw_only=True)
class Waiting:
    """A machine that waits."""

    wanted: Wanted
    spec: MachineSpec
    machine: Machine
    since: float


class Ahead:
    """The machines that wait.

    `on_failure` is called with a snapshot from which nothing could be resumed.

    Args:
        hypervisor: of the node.
        disks: makes their writable layers.
        traffic: what it gives way to.
        room: directory for theirs.
        most: how many wait at most.
        idle_seconds: how long one waits at most.
        is_tight: whether the host's memory is short.
        answer_seconds: longest time for a guest to answer.
    """

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        disks: DiskMaker,
        traffic: Traffic,
        room: Path,
        most: int,
        idle_seconds: float,
        is_tight: Callable[[], bool],
        answer_seconds: float,
    ) -> None:
        self._hypervisor = hypervisor
        self._disks = disks
        self._traffic = traffic
        self._room = room
        self._most = most
        self._idle = idle_seconds
        self._is_tight = is_tight
        self.on_failure: Callable[[Snapshot, LnsError], None] = _ignored
        self._seconds = answer_seconds
        self._recent: deque[Wanted] = deque(maxlen=max(1, most))
        self._waiting: list[Waiting] = []
        self._filling: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> tuple[str, ...]:
        """Keys of the snapshots of the machines that wait."""
        return tuple(one.wanted.snapshot.key for one in self._waiting)

    async def claim(self, key: str, spec: MachineSpec) -> Machine | None:
        """Gives a run a machine that waits, with its writable layer; None if none waits.

        Args:
            key: of the snapshot that the run could be resumed from.
            spec: of the run's machine; the file of its writable layer does not exist.
        """
        for one in self._waiting:
            if one.wanted.snapshot.key == key:
                break
        else:
            return None
        self._waiting.remove(one)  # from here on no other run can claim it
        serial = one.wanted.root.writable_disk
        try:
            disk = placed(one.spec, serial)
            await asyncio.to_thread(disk.rename, placed(spec, serial))
            await one.machine.hand_over(spec)
        except (LnsError, OSError) as error:
            log.warning("machine_not_handed_over", error=str(error))
            await self._end(one)
            await asyncio.to_thread(placed(spec, serial).unlink, missing_ok=True)
            return None
        await asyncio.to_thread(shutil.rmtree, one.spec.directory, ignore_errors=True)
        return one.machine

    def want(self, snapshot: Snapshot, spec: MachineSpec, root: Root) -> None:
        """Has a machine wait for the next run like this one, in the place of the oldest one."""
        wanted = Wanted(snapshot=snapshot, spec=spec, root=root)
        for one in list(self._recent):
            if one.snapshot.key == snapshot.key:
                self._recent.remove(one)
        self._recent.append(wanted)
        self._fill()

    async def drop(self, key: str = "") -> None:
        """Ends the machines of a snapshot, or all, and makes no new ones for it."""
        for wanted in list(self._recent):
            if not key or wanted.snapshot.key == key:
                self._recent.remove(wanted)
        for one in list(self._waiting):
            if not key or one.wanted.snapshot.key == key:
                self._waiting.remove(one)
                await self._end(one)

    async def tend(self) -> None:
        """Ends machines that waited too long or have died, and all where memory is short."""
        if self._is_tight():
            await self.drop()
            return
        now = time.monotonic()
        for one in list(self._waiting):
            ended = bool((await one.machine.diagnose()).end)
            if one not in self._waiting or not (ended or now - one.since > self._idle):
                continue
            self._waiting.remove(one)
            if not ended and one.wanted in self._recent:
                self._recent.remove(one.wanted)
            await self._end(one)
        self._fill()

    async def settled(self) -> None:
        """Returns when no machine is being made ready."""
        while self._filling is not None and not self._filling.done():
            await asyncio.wait({self._filling})

    async def close(self) -> None:
        """Ends every machine that waits."""
        if self._filling is not None:
            self._filling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._filling
        await self.drop()

    # ---- inside ----

    def _fill(self) -> None:
        if self._most and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._fill_up())

    def _missing(self) -> Wanted | None:
        """Returns what should wait and does not: one of each kind, the most recent first."""
        if self._is_tight() or not self._recent:
            return None
        waiting = list(self.waiting)
        for wanted in reversed(self._recent):
            if wanted.snapshot.key not in waiting:
                return wanted
        return self._recent[-1] if len(waiting) < self._most else None

    async def _fill_up(self) -> None:
        while (wanted := self._missing()) is not None:
            await asyncio.sleep(_SETTLE_SECONDS)
            await self._traffic.quiet()
            try:
                one = await self._resume(wanted)
            except LnsError as error:
                if wanted in self._recent:
                    self._recent.remove(wanted)
                self.on_failure(wanted.snapshot, error)
                continue
            self._waiting.append(one)
            while len(self._waiting) > self._most:
                kept = {recent.snapshot.key for recent in self._recent}
                old = next(
                    (w for w in self._waiting if w.wanted.snapshot.key not in kept),
                    self._waiting[0],
                )
                self._waiting.remove(old)
                await self._end(old)

    async def _resume(self, wanted: Wanted) -> Waiting:
        name = f"ahead-{secrets.token_hex(8)}"
        directory = self._room / name
        await asyncio.to_thread(directory.mkdir, mode=0o700)
        machine: Machine | None = None
        try:
            spec = await self._own_spec(wanted, name, directory)
            machine = await self._hypervisor.resume(spec, wanted.snapshot.saved)
            async with self._traffic.giving_way(machine):
                await prepare(
                    machine,
                    wanted.root,
                    writable=True,
                    rehearsals=REHEARSALS,
                    seconds=self._seconds,
                )
        except BaseException:
            if machine is not None:
                await machine.kill()
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
            raise
        return Waiting(wanted=wanted, spec=spec, machine=machine, since=time.monotonic())

    async def _own_spec(self, wanted: Wanted, name: str, directory: Path) -> MachineSpec:
        disks = []
        for disk in wanted.spec.disks:
            path = disk.path
            if disk.serial == wanted.root.writable_disk:
                path = directory / disk.path.name
                await self._disks.ensure(path, size_bytes=disk.size_bytes)
            disks.append(replace(disk, path=path))
        return replace(wanted.spec, run_id=name, directory=directory, disks=tuple(disks))

    @staticmethod
    async def _end(one: Waiting) -> None:
        await one.machine.kill()
        await asyncio.to_thread(shutil.rmtree, one.spec.directory, ignore_errors=True)


def _ignored(snapshot: Snapshot, error: LnsError) -> None:
    log.warning("machine_not_ready", key=snapshot.key[:12], message=error.message)
