"""Runs that stand still for a while: paused, with their memory in place, or suspended, on the disk.

To be suspended, a machine is held, its memory and devices are written to a file, that is recorded,
and its VMM ends. To go on, another VMM takes the file up with its CPUs held, that is recorded, and
they are let go. So a crash leaves the run with one of the two: before the record a machine that is
held, after it a file that nothing has run away from.
"""

import contextlib

from services.core.errors import (
    GuestUnreachable,
    LnsError,
    RunNotSuspendable,
    RunStateConflict,
)
from services.core.run_plan import VolumeKind
from services.vm_runner.life import saved_state
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.machines import Machine
from services.vm_runner.records import lifecycle
from services.vm_runner.records.runs import Run, RunState


async def pause(life: RunLife) -> Run:
    """Holds a run's CPUs; a paused one stays so.

    Raises:
        LnsError: it does not run, or the VMM does not answer.
    """

    async def act() -> Run:
        if life.run.state is RunState.PAUSED:
            return life.run
        lifecycle.require(life.run, RunState.RUNNING, to="pause")
        machine = _machine(life)
        await machine.pause()
        try:
            return await life.happened(lifecycle.paused)
        except RunStateConflict:  # it ended meanwhile, and is to write back
            with contextlib.suppress(GuestUnreachable):
                await machine.resume()
            raise

    return await life.in_turn(act)


async def resume(life: RunLife) -> Run:
    """Lets a paused or suspended run go on; a running one does.

    Raises:
        RunStateConflict: it is neither.
        GuestUnreachable: the VMM does not answer.
        SavedMachineUnusable: what was saved cannot be resumed on this host any more.
        VmFailed: the VMM did not start.
    """

    async def act() -> Run:
        if life.run.state is RunState.RUNNING:
            return life.run
        if life.run.state is RunState.SUSPENDED:
            await life.living.revive()
            return life.run
        lifecycle.require(life.run, RunState.PAUSED, to="resume")
        await _machine(life).resume()
        run = await life.happened(lifecycle.resumed)
        boot = life.living.boot
        if boot is not None and boot.session is not None:
            boot.session.send_time()
        return run

    return await life.in_turn(act)


async def suspend(life: RunLife) -> Run:
    """Saves a run's machine on the disk and ends its VMM; a suspended one stays so.

    Its ports and volumes stay its own; connections through its ports and out of it are closed.

    Raises:
        RunStateConflict: its workload does not run.
        RunNotSuspendable: it has a bind.
        CapacityExhausted: the disk has no room for it.
        LnsError: it cannot be saved; then it goes on.
    """

    async def act() -> Run:
        if life.run.state is RunState.SUSPENDED:
            return life.run
        lifecycle.require(life.run, RunState.RUNNING, RunState.PAUSED, to="suspend")
        _check_binds(life.run)
        machine, was_paused = _machine(life), life.run.state is RunState.PAUSED
        try:
            await life.living.save(machine)
            run = await life.record.transition(lifecycle.suspended)
        except BaseException:
            with contextlib.suppress(LnsError):
                if not was_paused:
                    await machine.resume()
            await saved_state.remove(life.living.directory)
            raise
        await machine.kill()
        return run

    return await life.in_turn(act)


def _check_binds(run: Run) -> None:
    bound = [mount.target for mount in run.plan.volumes if mount.kind is VolumeKind.BIND]
    if bound:
        raise RunNotSuspendable(
            f"run {run.name} has a folder or file of the host at {bound[0]}, which cannot be saved",
            hint=f"`lns pause {run.name}` holds it in memory; or run it with a named volume",
        )


def _machine(life: RunLife) -> Machine:
    if life.machine is None:
        raise GuestUnreachable(f"the microVM of run {life.run.name} does not run right now")
    return life.machine
