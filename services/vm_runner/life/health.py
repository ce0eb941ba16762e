"""Health checks: a command of the image beside the workload says whether it is well.

The rules are those of Docker's HEALTHCHECK. Nothing is done about a workload that is unhealthy; who
watches the run sees it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from services.core.errors import LnsError
from services.core.run_plan import Healthcheck
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.life.execs import ExecAttachment, start_exec
from services.vm_runner.life.guest_plan import exec_process
from services.vm_runner.records.runs import ExecRequest, Health, HealthStatus, Run, RunState

_OUTPUT_BYTES = 4096
_NOT_RUN = -1


class CheckedRun(Protocol):
    """What health checks need of their run."""

    @property
    def run(self) -> Run:
        """The run as it is."""
        ...

    async def happened(self, change: Callable[[Run], Run]) -> Run:
        """Records what has become of the run, and reports it to those who watch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How one check ended: with an exit code, and what it wrote."""

    exit_code: int
    output: str = ""


def judged(health: Health, check: Check, healthcheck: Healthcheck, *, seconds_up: float) -> Health:
    """Returns what is known of a workload's health after one more check. Pure.

    Args:
        health: what was known before.
        check: how the check ended.
        healthcheck: its rules.
        seconds_up: how long the workload has run.
    """
    if check.exit_code == 0:
        return replace(health, status=HealthStatus.HEALTHY, failing_streak=0)
    is_starting = health.status is HealthStatus.STARTING
    if is_starting and seconds_up < healthcheck.start_period:
        return replace(health, exit_code=check.exit_code, output=check.output)
    streak = health.failing_streak + 1
    return Health(
        status=HealthStatus.UNHEALTHY if streak >= healthcheck.retries else health.status,
        failing_streak=streak,
        exit_code=check.exit_code,
        output=check.output,
    )


def pause(health: Health, healthcheck: Healthcheck, *, seconds_up: float) -> float:
    """Returns the seconds until the next check. Pure."""
    is_starting = health.status is HealthStatus.STARTING
    if is_starting and seconds_up < healthcheck.start_period:
        return min(healthcheck.start_interval, healthcheck.interval)
    return healthcheck.interval


async def check_health(
    owner: CheckedRun,
    session: GuestSession,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Checks a workload until the task is cancelled; returns at once where nothing checks it."""
    healthcheck = owner.run.plan.healthcheck
    if healthcheck is None:
        return
    health = owner.run.health or Health()
    await _record(owner, health)
    while True:
        await asyncio.sleep(pause(health, healthcheck, seconds_up=_seconds_up(owner.run, now())))
        if owner.run.state is not RunState.RUNNING:
            continue  # held, or asked to end
        check = await _check(owner.run, session, healthcheck)
        seconds_up = _seconds_up(owner.run, now())
        health = judged(health, check, healthcheck, seconds_up=seconds_up)
        await _record(owner, health)


async def _record(owner: CheckedRun, health: Health) -> None:
    def changed(run: Run) -> Run:
        return replace(run, health=health) if run.state is RunState.RUNNING else run

    if owner.run.health != health and owner.run.state is RunState.RUNNING:
        await owner.happened(changed)


async def _check(run: Run, session: GuestSession, healthcheck: Healthcheck) -> Check:
    try:
        process_id = session.new_id()
        spec = exec_process(
            run,
            ExecRequest(argv=healthcheck.argv, env={}),
            stdio_stream=session.new_id(),
            stderr_stream=session.new_id(),
            terminal=None,
        )
        async with asyncio.timeout(healthcheck.timeout):
            attachment = await start_exec(session, spec, process_id=process_id)
            return await _result(attachment)
    except TimeoutError:
        return Check(exit_code=_NOT_RUN, output=f"took longer than {healthcheck.timeout:g} s")
    except LnsError as error:
        return Check(exit_code=_NOT_RUN, output=error.message)


async def _result(attachment: ExecAttachment) -> Check:
    """Waits for the end of a check; one that is given up is killed."""
    output = b""
    try:
        await attachment.close_input()
        async for piece in attachment.output():
            output = (output + piece.data)[:_OUTPUT_BYTES]
        code = (await attachment.exit_status()).code
    except (asyncio.CancelledError, LnsError):
        await attachment.signal("KILL")
        attachment.leave()
        raise
    text = output.decode("utf-8", "replace").rstrip()
    shown = "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return Check(exit_code=code, output=shown)


def _seconds_up(run: Run, now: datetime) -> float:
    return (now - (run.start_time or now)).total_seconds()
