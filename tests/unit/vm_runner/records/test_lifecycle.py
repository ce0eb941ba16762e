from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.core.errors import RunStateConflict
from services.core.run_plan import PortMapping
from services.vm_runner.records import lifecycle
from services.vm_runner.records.runs import (
    ExitStatus,
    Failure,
    RestartMode,
    RestartPolicy,
    Run,
    RunOptions,
    RunState,
)
from tests.support.runs import a_run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOST = Failure(reason="VM_FAILED", message="gone")
STEPS = {
    RunState.STARTING: lifecycle.starting,
    RunState.RUNNING: lambda run: lifecycle.running(run, now=NOW),
    RunState.PAUSED: lifecycle.paused,
    RunState.SUSPENDED: lifecycle.suspended,
    RunState.STOPPING: lifecycle.stopping,
    RunState.EXITED: lambda run: lifecycle.exited(run, ExitStatus(code=0), now=NOW),
    RunState.FAILED: lambda run: lifecycle.failed(run, LOST, now=NOW),
    RunState.LOST: lambda run: lifecycle.lost(run, LOST, now=NOW),
}
KEEPS_ITS_STATE = {(RunState.STOPPING, RunState.STOPPING), (RunState.STOPPING, RunState.RUNNING)}


def in_state(state: RunState) -> Run:
    return replace(a_run(), state=state)


@pytest.mark.parametrize("before", RunState)
@pytest.mark.parametrize("after", STEPS)
def test_exactly_the_documented_transitions_are_possible(before: RunState, after: RunState) -> None:
    run = in_state(before)
    if (before, after) in KEEPS_ITS_STATE:
        assert STEPS[after](run).state is before
    elif after in lifecycle.TRANSITIONS[before]:
        assert STEPS[after](run).state is after
    else:
        with pytest.raises(RunStateConflict, match=before):
            STEPS[after](run)


def test_every_state_but_an_unknown_one_has_a_way_on() -> None:
    assert set(lifecycle.TRANSITIONS) == set(RunState)
    stuck = {state for state, following in lifecycle.TRANSITIONS.items() if not following}
    assert stuck == {RunState.UNKNOWN}


def test_a_run_whose_record_cannot_be_read_says_what_can_be_done_with_it() -> None:
    with pytest.raises(RunStateConflict, match="unknown") as caught:
        lifecycle.require_readable(in_state(RunState.UNKNOWN), to="rename")
    assert "lns stop" in caught.value.hint


@pytest.mark.parametrize("state", RunState)
def test_a_run_is_over_or_may_have_a_machine_and_never_both(state: RunState) -> None:
    for pid in (0, 7):
        run = replace(in_state(state), vmm_pid=pid)
        assert not (lifecycle.is_over(run) and lifecycle.has_machine(run))
        created = state is RunState.CREATED
        assert created or lifecycle.is_over(run) or lifecycle.has_machine(run)


def test_an_ended_run_has_its_ports_only_until_its_policy_starts_it_again() -> None:
    port = PortMapping(host_port=80, container_port=80)
    always = RunOptions(restart=RestartPolicy(mode=RestartMode.ALWAYS))
    run = replace(in_state(RunState.RUNNING), ports=(port,))
    ended = lifecycle.exited(run, ExitStatus(code=1), now=NOW)
    restarts = lifecycle.exited(replace(run, options=always), ExitStatus(code=1), now=NOW)
    assert (ended.ports, restarts.ports) == ((), (port,))


def test_a_start_forgets_how_the_last_one_ended() -> None:
    run = replace(
        in_state(RunState.EXITED),
        exit=ExitStatus(code=1),
        failure=LOST,
        end_time=NOW,
        stop_requested=True,
        boot=3,
        oom_kills=2,
    )
    started = lifecycle.starting(run)

    assert (started.exit, started.failure, started.end_time) == (None, None, None)
    assert (started.boot, started.oom_kills, started.stop_requested) == (4, 0, False)


@pytest.mark.parametrize(
    ("mode", "limit", "count", "state", "code", "expected"),
    [
        (RestartMode.NO, 0, 0, RunState.EXITED, 1, False),
        (RestartMode.ON_FAILURE, 0, 0, RunState.EXITED, 0, False),
        (RestartMode.ON_FAILURE, 0, 99, RunState.EXITED, 1, True),
        (RestartMode.ON_FAILURE, 2, 1, RunState.EXITED, 1, True),
        (RestartMode.ON_FAILURE, 2, 2, RunState.EXITED, 1, False),
        (RestartMode.ON_FAILURE, 0, 0, RunState.FAILED, None, True),
        (RestartMode.ON_FAILURE, 0, 0, RunState.LOST, None, True),
        (RestartMode.ALWAYS, 0, 99, RunState.EXITED, 0, True),
        (RestartMode.ALWAYS, 0, 0, RunState.RUNNING, None, False),
        (RestartMode.ALWAYS, 0, 0, RunState.CREATED, None, False),
    ],
)
def test_the_restart_policy_decides(
    mode: RestartMode, limit: int, count: int, state: RunState, code: int | None, expected: bool
) -> None:
    run = replace(
        in_state(state),
        options=RunOptions(restart=RestartPolicy(mode=mode, max_restarts=limit)),
        restart_count=count,
        exit=None if code is None else ExitStatus(code=code),
    )

    assert lifecycle.wants_restart(run) is expected
    assert not lifecycle.wants_restart(replace(run, stop_requested=True))


def test_restarts_wait_longer_each_time_up_to_a_minute() -> None:
    delays = [lifecycle.restart_delay(replace(a_run(), restart_count=count)) for count in range(12)]

    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == 60.0


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        (RunState.PAUSED, "resume"),
        (RunState.SUSPENDED, "lns resume"),
        (RunState.RUNNING, "stop it first"),
        (RunState.EXITED, "start it first"),
    ],
)
def test_a_refusal_says_the_state_and_the_way_out(state: RunState, hint: str) -> None:
    with pytest.raises(RunStateConflict, match=state) as caught:
        lifecycle.require(in_state(state), RunState.CREATED, to="start")

    assert hint in caught.value.hint


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize("stop_requested", [False, True])
@pytest.mark.parametrize("tried", [1, 2, 3])
def test_only_a_run_that_starts_is_booted_once_more(
    state: RunState, stop_requested: bool, tried: int
) -> None:
    run = replace(in_state(state), stop_requested=stop_requested)

    assert lifecycle.boots_again(run, tried=tried) is (
        state is RunState.STARTING and not stop_requested and tried == 1
    )


def test_notices_are_kept_until_a_user_starts_the_run_again() -> None:
    run = lifecycle.noticed(lifecycle.noticed(in_state(RunState.EXITED), "one"), "two")
    assert run.notices == ("one", "two")
    assert lifecycle.noticed(run, "one").notices == ("two", "one")

    assert lifecycle.starting(run, restarted=True).notices == ("one", "two")
    assert lifecycle.starting(run).notices == ()


def test_only_the_newest_lines_are_kept() -> None:
    run = in_state(RunState.RUNNING)
    for number in range(3 * lifecycle.NOTICES_MOST):
        run = lifecycle.noticed(run, str(number))

    assert len(run.notices) == lifecycle.NOTICES_MOST
    assert run.notices[-1] == str(3 * lifecycle.NOTICES_MOST - 1)
