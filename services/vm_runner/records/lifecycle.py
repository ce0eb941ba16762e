"""The life of a run as a state machine. Pure; `docs/run-lifecycle.md` has its diagram.

created ──► starting ──► running ◄──► paused, suspended
│  │         │            │
│  └────► stopping ◄──────┘
▼            ▼
failed  ◄──  exited / lost ──► starting (start, restart policy)

unknown: what is recorded cannot be read; it is shown, and only its microVM can be ended
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from services.core.errors import RunStateConflict
from services.vm_runner.records.runs import ExitStatus, Failure, RestartMode, Run, RunState

ENDED = frozenset({RunState.EXITED, RunState.FAILED, RunState.LOST})
"""States in which a run's workload has ended."""

TRANSITIONS: Mapping[RunState, frozenset[RunState]] = {
    RunState.CREATED: frozenset({RunState.STARTING}),
    RunState.STARTING: frozenset({RunState.RUNNING, RunState.STOPPING}) | ENDED,
    RunState.RUNNING: frozenset({RunState.PAUSED, RunState.SUSPENDED, RunState.STOPPING}) | ENDED,
    RunState.PAUSED: frozenset({RunState.RUNNING, RunState.SUSPENDED, RunState.STOPPING}) | ENDED,
    RunState.SUSPENDED: frozenset({RunState.RUNNING, RunState.EXITED}),
    RunState.STOPPING: ENDED,
    RunState.EXITED: frozenset({RunState.STARTING}),
    RunState.FAILED: frozenset({RunState.STARTING}),
    RunState.LOST: frozenset({RunState.STARTING}),
    RunState.UNKNOWN: frozenset(),
}
"""Which states may follow which."""

BOOT_TRIES = 2
"""Boots of one start, of which only the last may have reached the workload."""

NOTICES_MOST = 16
"""Lines for users that are kept of a run, the newest."""

LIVE = frozenset({RunState.STARTING, RunState.RUNNING, RunState.PAUSED, RunState.STOPPING})
"""States in which a microVM may live."""

UNENDED = LIVE | {RunState.SUSPENDED}
"""States in which the workload has not ended, or will go on."""

STARTABLE = frozenset({RunState.CREATED}) | ENDED
"""States in which a run can be started."""


def require(run: Run, *states: RunState, to: str) -> None:
    """Checks that a run is in one of `states`.

    Raises:
        RunStateConflict: it is not; the message says what could not be done (`to`).
    """
    if run.state not in states:
        raise RunStateConflict(
            f"run {run.name} is {run.state}; cannot {to} it",
            hint=_way_out(run.state),
            metadata={"run_id": run.run_id, "state": run.state},
        )


def require_readable(run: Run, *, to: str) -> None:
    """Checks that what is recorded of a run could be read.

    Raises:
        RunStateConflict: it could not; the message says what could not be done (`to`).
    """
    require(run, *(set(RunState) - {RunState.UNKNOWN}), to=to)


def _way_out(state: RunState) -> str:
    if state is RunState.UNKNOWN:
        return "its record cannot be read: `lns stop` ends its microVM, `lns rm` removes it"
    if state is RunState.SUSPENDED:
        return "`lns resume` it, or end it with `lns stop`"
    if state is RunState.PAUSED:
        return "resume it first"
    if state in LIVE:
        return "wait for it, or stop it first"
    return "start it first"


def _advance(run: Run, state: RunState) -> Run:
    if state not in TRANSITIONS[run.state]:
        raise RunStateConflict(
            f"run {run.name} is {run.state}; it cannot become {state}",
            metadata={"run_id": run.run_id, "state": run.state},
        )
    return replace(run, state=state)


def starting(run: Run, *, restarted: bool = False) -> Run:
    """Returns the run as its microVM is about to boot."""
    return replace(
        _advance(run, RunState.STARTING),
        boot=run.boot + 1,
        restart_count=run.restart_count + 1 if restarted else 0,
        start_time=None,
        end_time=None,
        exit=None,
        failure=None,
        ports=(),
        stop_requested=False,
        vmm_pid=0,
        oom_kills=0,
        notices=run.notices if restarted else (),
        health=None,
    )


def running(run: Run, *, now: datetime) -> Run:
    """Returns the run as its workload runs."""
    if run.state is RunState.STOPPING:
        return replace(run, start_time=now)
    return replace(_advance(run, RunState.RUNNING), start_time=now)


def paused(run: Run) -> Run:
    """Returns the run with its CPUs held."""
    return _advance(run, RunState.PAUSED)


def resumed(run: Run) -> Run:
    """Returns the run with its CPUs going on."""
    return _advance(run, RunState.RUNNING)


def suspended(run: Run) -> Run:
    """Returns the run with its machine saved; no VMM of it is there any more."""
    return replace(_advance(run, RunState.SUSPENDED), vmm_pid=0)


def ended_suspended(run: Run, *, now: datetime) -> Run:
    """Returns a suspended run as it is ended without going on: its workload was killed."""
    status = ExitStatus(code=137, signal="KILL")
    return exited(replace(run, stop_requested=True), status, now=now)


def stopping(run: Run) -> Run:
    """Returns the run with the wish that it ends; a second wish changes nothing."""
    if run.state is RunState.STOPPING:
        return run
    return replace(_advance(run, RunState.STOPPING), stop_requested=True)


def noticed(run: Run, text: str) -> Run:
    """Returns the run with a line for users, the newest last; an equal earlier line moves there."""
    others = [line for line in run.notices if line != text]
    return replace(run, notices=(*others, text)[-NOTICES_MOST:])


def agreeing_on_pause(run: Run, paused: bool) -> Run:
    """Returns the run as its machine is found: with its CPUs held, or not."""
    if paused and run.state is RunState.RUNNING:
        return _advance(run, RunState.PAUSED)
    if not paused and run.state is RunState.PAUSED:
        return _advance(run, RunState.RUNNING)
    return run


def exited(run: Run, status: ExitStatus, *, now: datetime) -> Run:
    """Returns the run after its workload ended."""
    return _ended(replace(_advance(run, RunState.EXITED), exit=status, end_time=now))


def failed(run: Run, failure: Failure, *, now: datetime) -> Run:
    """Returns the run after lns or the machine failed it."""
    return _ended(replace(_advance(run, RunState.FAILED), failure=failure, end_time=now))


def lost(run: Run, failure: Failure, *, now: datetime) -> Run:
    """Returns the run after its microVM vanished unseen."""
    return _ended(replace(_advance(run, RunState.LOST), failure=failure, end_time=now))


def _ended(run: Run) -> Run:
    """Returns an ended run: its ports stay published only for a restart by its policy."""
    return replace(run, vmm_pid=0, ports=run.ports if wants_restart(run) else ())


def has_machine(run: Run) -> bool:
    """Returns whether a microVM of a run may live."""
    return run.state in UNENDED or (run.state is RunState.UNKNOWN and run.vmm_pid > 0)


def is_unread(run: Run) -> bool:
    """Returns whether what is recorded of a run could not be read."""
    return run.state is RunState.UNKNOWN


def is_over(run: Run) -> bool:
    """Returns whether a run has ended and is not started again by its policy."""
    if run.state is RunState.UNKNOWN:
        return run.vmm_pid == 0
    return run.state in ENDED and not wants_restart(run)


def wants_restart(run: Run) -> bool:
    """Returns whether the restart policy starts an ended run again."""
    if run.stop_requested or run.state not in ENDED:
        return False
    policy = run.options.restart
    if policy.mode in (RestartMode.ALWAYS, RestartMode.UNLESS_STOPPED):
        return True
    if policy.mode is RestartMode.NO or (run.exit is not None and run.exit.code == 0):
        return False
    return policy.max_restarts == 0 or run.restart_count < policy.max_restarts


def boots_again(run: Run, *, tried: int) -> bool:
    """Returns whether a run whose microVM was lost before its workload is booted once more.

    Whatever may have begun is not begun a second time: callers ask only before that.
    """
    return run.state is RunState.STARTING and not run.stop_requested and tried < BOOT_TRIES


def waits_to_boot(run: Run) -> bool:
    """Returns whether a run was to boot and no VMM of it was recorded: nothing of it has begun."""
    return run.state is RunState.STARTING and run.vmm_pid == 0


def restart_delay(run: Run) -> float:
    """Returns the seconds before a restart: they double from 0.1 s to a minute."""
    return float(min(60.0, 0.1 * 2 ** min(run.restart_count, 10)))
