"""How a service takes up a run that an earlier one has recorded."""

from dataclasses import replace
from datetime import UTC, datetime

import structlog

from services.core.errors import VmFailed
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.machines import Machine
from services.vm_runner.records import lifecycle
from services.vm_runner.records.runs import Failure, RunState

log = structlog.get_logger()


async def take_up(life: RunLife, machine: Machine | None) -> None:
    """Takes a run up: adopts its microVM, or records what has become of it.

    Args:
        life: the run as it is recorded.
        machine: its microVM, if it lives.
    """
    run = life.run
    if lifecycle.is_unread(run):
        log.warning("run_unread", run_id=run.run_id, pid=run.vmm_pid)
        if machine is not None:
            await _adopt(life, machine)
    elif run.state is RunState.SUSPENDED:
        if machine is not None:  # it was saved, and is held: what it would write is written later
            await machine.kill()
        await _keep_suspended(life)
    elif run.state not in lifecycle.LIVE:
        if machine is not None:  # its end was recorded, then the service ended
            life.living.finish(machine)
        elif lifecycle.wants_restart(run):
            life.living.restart_by_policy()
    elif machine is not None or lifecycle.waits_to_boot(run):
        log.info("run_adopted", run_id=run.run_id, pid=machine.pid if machine else 0)
        await _adopt(life, machine)
    else:
        await _lose(life)


async def _keep_suspended(life: RunLife) -> None:
    """Holds what a suspended run has: nobody else may write to its volumes meanwhile."""

    async def keep() -> None:
        lost = await life.holdings.take_again(life.run)
        life.log.begin()  # whoever attaches waits for it to go on
        await life.notice(*lost)

    await life.in_turn(keep)


async def _adopt(life: RunLife, machine: Machine | None) -> None:
    """Takes a run over that lives; without a microVM it waited to boot, and is booted now.

    Notices on it name what it had of the host and cannot have again.
    """

    async def adopt() -> None:
        try:
            lost = await life.holdings.take_again(life.run)
        except Exception:  # the microVM lives, whatever goes wrong with that
            log.exception("holdings_not_taken", run_id=life.run.run_id)
            lost = ["a defect of lns: some ports, volumes or binds are not held for this run"]
        if machine is not None and lifecycle.is_unread(life.run):
            await life.notice(*lost)
            life.living.watch(machine)
            return
        await life.happened(lambda run: replace(run, ports=life.holdings.ports.mappings))
        await life.notice(*lost)
        life.living.spawn(machine)

    await life.in_turn(adopt)


async def _lose(life: RunLife) -> None:
    run = life.run
    failure = Failure.of(
        VmFailed(
            f"the microVM of run {run.name} ended while no service watched it",
            hint="start it again; its writable layer is kept",
        )
    )
    await life.happened(lambda run: lifecycle.lost(run, failure, now=datetime.now(UTC)))
    log.warning("run_lost", run_id=run.run_id)
    if lifecycle.wants_restart(life.run):
        life.living.restart_by_policy()
