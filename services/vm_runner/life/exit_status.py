"""How a process of the guest ended, in the terms of a shell. Pure."""

import errno

from services.core.errors import LnsError, RequestInvalid, VmFailed
from services.core.signals import parse_signal, signal_name
from services.vm_runner.channel.events import ProcessPhase, ProcessState
from services.vm_runner.records.runs import ExitStatus

NOT_EXECUTABLE = 126
NOT_FOUND = 127
_SIGNALLED = 128


def exit_status(state: ProcessState) -> ExitStatus:
    """Returns the exit status of a process that ended, or whose program could not be executed."""
    if state.phase is ProcessPhase.FAILED:
        missing = state.errno == errno.ENOENT and state.stage != _WORKDIR
        return ExitStatus(code=NOT_FOUND if missing else NOT_EXECUTABLE)
    if state.signal:
        return ExitStatus(
            code=_SIGNALLED + state.signal,
            signal=signal_name(state.signal),
            oom_killed=state.oom_killed,
        )
    return ExitStatus(code=state.exit_code, oom_killed=state.oom_killed)


def start_failure(state: ProcessState, *, program: str) -> LnsError | None:
    """Returns the error of a process that lns could not start; None otherwise.

    A program that cannot be executed, or a working directory that cannot be entered, is an end of
    the process: 126 or 127.
    """
    if state.phase is not ProcessPhase.FAILED or state.stage in _ENDINGS:
        return None
    reason = f"{state.stage}: {state.text}"
    if state.errno == errno.ENOENT:
        reason = _MISSING.get(state.stage, reason)
    return VmFailed(
        f"{program} could not be started: {reason}",
        hint=_HINTS.get(state.stage, ""),
        metadata={"stage": state.stage},
    )


_WORKDIR = "working directory"
_ENDINGS = frozenset({"exec", _WORKDIR})
_MISSING = {
    "user": "the image has no user of that name",
    "group": "the image has no group of that name",
}
_HINTS = {
    "user": "give a name from the image's /etc/passwd, or a number",
    "group": "give a name from the image's /etc/group, or a number",
}


def exec_message(state: ProcessState, *, program: str) -> str:
    """Returns a line that says why a program could not be executed; empty if it was."""
    if state.phase is not ProcessPhase.FAILED:
        return ""
    where = "its working directory: " if state.stage == _WORKDIR else ""
    return f"lns: {program}: {where}{state.text}\n"


def signal_number(name: str) -> int:
    """Returns the number of a signal given by name (with or without `SIG`) or number.

    Raises:
        RequestInvalid: there is no such signal.
    """
    number = parse_signal(name)
    if number is None:
        raise RequestInvalid(
            f"the signal {name!r} does not exist",
            hint="known are TERM, INT, HUP, QUIT, KILL, USR1, RTMIN+3 …",
        )
    return number
