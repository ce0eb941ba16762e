"""How a process of the guest ended, in the terms of a shell. Pure."""

import errno
import re
import signal

from services.core.errors import LnsError, RequestInvalid, VmFailed
from services.vm_runner.channel.events import ProcessPhase, ProcessState
from services.vm_runner.records.runs import ExitStatus

NOT_EXECUTABLE = 126
NOT_FOUND = 127
_SIGNALLED = 128


def exit_status(state: ProcessState) -> ExitStatus:
    """Returns the exit status of a process that ended, or whose program could not be executed."""
    if state.phase is ProcessPhase.FAILED:
        return ExitStatus(code=NOT_FOUND if state.errno == errno.ENOENT else NOT_EXECUTABLE)
    if state.signal:
        return ExitStatus(
            code=_SIGNALLED + state.signal,
            signal=signal_name(state.signal),
            oom_killed=state.oom_killed,
        )
    return ExitStatus(code=state.exit_code, oom_killed=state.oom_killed)


def start_failure(state: ProcessState, *, program: str) -> LnsError | None:
    """Returns the error of a process that failed before its program was tried; None otherwise."""
    if state.phase is not ProcessPhase.FAILED or state.stage == "exec":
        return None
    reason = f"{state.stage}: {state.text}"
    if state.errno == errno.ENOENT:
        reason = _MISSING.get(state.stage, reason)
    return VmFailed(
        f"{program} could not be started: {reason}",
        hint=_HINTS.get(state.stage, ""),
        metadata={"stage": state.stage},
    )


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
    return f"lns: {program}: {state.text}\n"


def signal_name(number: int) -> str:
    """Returns the name of a signal without `SIG`."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"RTMIN+{number - 34}"


def signal_number(name: str) -> int:
    """Returns the number of a signal given by name (with or without `SIG`) or number.

    Raises:
        RequestInvalid: there is no such signal.
    """
    text = name.upper().removeprefix("SIG")
    known = signal.Signals.__members__.get(f"SIG{text}")
    number = known.value if known else int(text) if re.fullmatch(r"[0-9]{1,2}", text) else 0
    if not 1 <= number < signal.NSIG - 1:
        raise RequestInvalid(
            f"there is no signal {name!r}", hint="TERM, INT, HUP, QUIT, KILL, USR1, USR2 …"
        )
    return number
