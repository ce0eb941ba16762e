"""A snapshot of a live run: it stands still for a moment, and goes on.

Its programs are frozen before its machine is held, so that in the runs that go on from it they
execute nothing before those have their own random numbers, names and clock. What is written first
is the whole machine in one stream, as when it is suspended: only so can a machine be saved whose
memory is in no file. Afterwards a VMM whose CPUs never run takes the stream up into a file of the
memory, which the machines of all those runs map.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.core.errors import GuestUnreachable, LnsError, RunNotSnapshottable, VmFailed
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.life.guest_plan import WRITABLE_SERIAL
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.machines import Machine, MachineSpec, SavedMachine
from services.vm_runner.records import lifecycle
from services.vm_runner.records.run_log import LogStream
from services.vm_runner.records.runs import Run, RunState
from services.vm_runner.snapshots.saved_run import SavedDraft, SavedRun, check_savable

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What a run was when it stood still."""

    run: Run
    spec: MachineSpec
    fingerprint: str
    progress: dict[LogStream, tuple[int, bool]]


def check(run: Run) -> None:
    """Checks that a snapshot of a run can be made as it is now.

    Raises:
        RunStateConflict: its workload does not run.
        RunNotSnapshottable: it has something that cannot be had a second time.
    """
    lifecycle.require(run, RunState.RUNNING, to="snapshot")
    check_savable(run)


async def take(life: RunLife, around: Surroundings, draft: SavedDraft) -> SavedRun:
    """Fills a draft with a live run, which goes on; returns what it is of.

    Raises:
        RunStateConflict: its workload does not run.
        RunNotSnapshottable: it has something that cannot be had a second time.
        GuestUnreachable: its guest does not answer.
        CapacityExhausted: the disk has no room for it.
        VmFailed: it cannot be saved.
    """
    taken = await life.in_turn(lambda: _stand_still(life, around, draft))
    place = await around.boots.enter()
    try:
        await _write_memory(taken.spec, around, draft)
    finally:
        place.leave()
    return SavedRun(
        snapshot_id="",
        name="",
        origin=taken.run,
        fingerprint=taken.fingerprint,
        progress=taken.progress,
        create_time=datetime.now(UTC),
        directory=draft.directory,
    )


async def _stand_still(life: RunLife, around: Surroundings, draft: SavedDraft) -> _Taken:
    run, machine, session = life.run, life.machine, life.guest()
    check(run)
    if machine is None:
        raise GuestUnreachable(f"the microVM of run {run.name} does not run right now")
    spec = await life.living.spec()
    fingerprint = await around.hypervisor.fingerprint(spec)
    async with _held(run, machine, session, seconds=around.limits.shutdown_seconds):
        await machine.save_whole(draft.stream)
        await draft.take_files(life.living.directory)
        progress = await life.log.progress(run.boot)
    return _Taken(run=run, spec=spec, fingerprint=fingerprint, progress=progress)


@contextlib.asynccontextmanager
async def _held(
    run: Run, machine: Machine, session: GuestSession, *, seconds: float
) -> AsyncIterator[None]:
    """Has the programs of a run stand still; they and its machine go on after the block."""
    if not session.can_freeze:
        raise RunNotSnapshottable(
            f"the microVM of run {run.name} was started by an earlier version of lns",
            hint=f"`lns restart {run.name}` starts it anew",
        )
    try:
        await _freeze(run, session, seconds=seconds)
        yield
    finally:
        with contextlib.suppress(LnsError):  # it has ended: whoever lives with it finds that out
            await machine.resume()
        session.thaw()
        session.send_time()


async def _freeze(run: Run, session: GuestSession, *, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            frozen = await session.freeze()
    except TimeoutError:
        message = f"the guest of run {run.name} did not answer within {seconds:g} s"
        raise GuestUnreachable(message) from None
    if frozen.errno:
        raise VmFailed(
            f"the programs of run {run.name} cannot be made to stand still: {frozen.text}"
        )


async def _write_memory(spec: MachineSpec, around: Surroundings, draft: SavedDraft) -> None:
    """Has a VMM whose CPUs are held take the stream up, and save it with its memory in a file."""
    own = replace(
        spec,
        run_id=draft.directory.name,
        directory=draft.directory,
        cpu_millis=0,
        disk_rate=0,
        disks=tuple(
            replace(disk, path=draft.disk) if disk.serial == WRITABLE_SERIAL else disk
            for disk in spec.disks
        ),
        memory_file=await draft.make_memory(spec.memory_mib * _MIB),
    )
    saved = SavedMachine(memory=None, state=draft.stream)
    machine = await around.hypervisor.resume(own, saved, is_held=True)
    try:
        await machine.save(draft.state)
    finally:
        await machine.kill()
