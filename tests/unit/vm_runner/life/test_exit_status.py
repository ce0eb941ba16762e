import errno

import pytest

from services.core.errors import RequestInvalid
from services.vm_runner.channel.events import ProcessPhase, ProcessState
from services.vm_runner.life.exit_status import (
    exec_message,
    exit_status,
    signal_name,
    signal_number,
    start_failure,
)
from services.vm_runner.records.runs import ExitStatus


def exited(**values: int) -> ProcessState:
    return ProcessState(process_id=1, phase=ProcessPhase.EXITED, **values)


def failed(stage: str, error: int) -> ProcessState:
    return ProcessState(
        process_id=1, phase=ProcessPhase.FAILED, stage=stage, errno=error, text="why"
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (exited(exit_code=0), ExitStatus(code=0)),
        (exited(exit_code=42), ExitStatus(code=42)),
        (exited(signal=9), ExitStatus(code=137, signal="KILL")),
        (exited(signal=15), ExitStatus(code=143, signal="TERM")),
        (exited(signal=9, oom_killed=True), ExitStatus(code=137, signal="KILL", oom_killed=True)),
        (exited(signal=40), ExitStatus(code=168, signal="RTMIN+6")),
        (failed("exec", errno.ENOENT), ExitStatus(code=127)),
        (failed("exec", errno.EACCES), ExitStatus(code=126)),
        (failed("exec", errno.ENOEXEC), ExitStatus(code=126)),
    ],
)
def test_exit_codes_are_those_of_a_shell(state: ProcessState, expected: ExitStatus) -> None:
    assert exit_status(state) == expected


def test_an_unknown_user_is_a_failure_of_the_run_with_a_way_out() -> None:
    error = start_failure(failed("user", errno.ENOENT), program="agent")

    assert error is not None
    assert error.message == "agent could not be started: the image has no user of that name"
    assert "/etc/passwd" in error.hint


@pytest.mark.parametrize("state", [exited(exit_code=1), failed("exec", errno.ENOENT)])
def test_a_program_that_ended_or_did_not_exist_is_no_failure_of_the_run(
    state: ProcessState,
) -> None:
    assert start_failure(state, program="agent") is None


def test_why_a_program_did_not_run_is_a_line() -> None:
    assert exec_message(failed("exec", errno.ENOENT), program="agent") == "lns: agent: why\n"
    assert exec_message(exited(exit_code=127), program="agent") == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("9", 9), ("HUP", 1), ("RTMIN", 34)],
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "999", "-9", "TERMINATE", "SIG_DFL", "9x"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        signal_number(text)


def test_a_signal_s_name_leads_back_to_it() -> None:
    assert all(signal_number(signal_name(number)) == number for number in range(1, 32))
