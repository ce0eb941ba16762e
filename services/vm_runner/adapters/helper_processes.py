"""Processes of ours that each serve one microVM: started, found again, watched, seen to their end.

`NAME.pid` in the run's directory has the pid and is locked by the process; `NAME.log` what it says.
A helper ends when its microVM does, whatever becomes of the service that started it.
"""

import asyncio
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.chassis.own_threads import OwnThreads
from services.core.errors import VmFailed
from services.vm_runner.adapters.processes import Process, find_process
from services.vm_runner.helper_process.entry import READY

log = structlog.get_logger()

_START_SECONDS = 30.0
_END_SECONDS = 5.0
_CALL_SECONDS = _START_SECONDS + 2 * _END_SECONDS
_STARTS_AT_ONCE = 8
_ANSWER_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """A helper process of a run.

    Attributes:
        run_id: whose it is.
        directory: of its pid file and its log.
        name: of both; one process of each name lives at a time.
    """

    run_id: str
    directory: Path
    name: str

    @property
    def pid_file(self) -> Path:
        """Has its pid, and is locked by it."""
        return self.directory / f"{self.name}.pid"

    @property
    def marker(self) -> str:
        """The argument by which it is known."""
        return f"lns-{self.run_id}-{self.name}"


class HelperProcesses:
    """The helpers of one service."""

    def __init__(self) -> None:
        self._processes: dict[Path, Process] = {}
        # Not where VMMs are launched: what a helper opens may be on a disk that does not answer.
        self._threads = OwnThreads(_STARTS_AT_ONCE, seconds=_CALL_SECONDS, name="helper-start")

    def adopt(self, helper: Helper) -> bool:
        """Takes over one that an earlier service started; returns whether it lives."""
        process = find_process(helper.pid_file, marker=helper.marker)
        if process is not None:
            self._processes[helper.pid_file] = process
        return process is not None

    async def start(
        self, helper: Helper, module: str, arguments: Sequence[str], *, kept: Sequence[int] = ()
    ) -> None:
        """Starts one, and returns when it says that it is ready.

        Args:
            helper: what it is.
            module: its program.
            arguments: behind `--name` and its marker.
            kept: descriptors that it inherits under the same numbers; they stay open here.

        Raises:
            VmFailed: it cannot be started; the message has what it said.
        """
        try:
            pid, descriptor = await self._threads.run(_start, helper, module, arguments, kept)
        except TimeoutError:
            raise VmFailed(f"it did not start within {_CALL_SECONDS:g} s") from None
        self._processes[helper.pid_file] = Process(pid, descriptor)

    async def lost(self, helper: Helper) -> str:
        """Returns when one has ended, and how: a verb first."""
        process = self._processes.get(helper.pid_file)
        if process is None:
            return "does not run"
        await process.wait()
        return process.fate

    async def ended(self, helper: Helper) -> None:
        """Waits for the end of one whose microVM is gone; ends it if it does not notice."""
        process = self._processes.pop(helper.pid_file, None)
        process = process or find_process(helper.pid_file, marker=helper.marker)
        if process is not None:
            await _see_end(process)
            helper.pid_file.unlink(missing_ok=True)


def helper_command(helper: Helper, module: str, arguments: Sequence[str]) -> list[str]:
    """Returns the command line of a helper."""
    return [
        sys.executable, "-s", "-P", "-X", "utf8", "-m", module,
        "--name", helper.marker, *arguments,
    ]  # fmt: skip


def _start(
    helper: Helper, module: str, arguments: Sequence[str], kept: Sequence[int]
) -> tuple[int, int]:
    """Starts a helper; returns its pid, and a descriptor of it, when it says that it is ready.

    It is a child of this process and nothing else of it: whoever waits for it when it ends is
    the service that holds it then.
    """
    command = helper_command(helper, module, arguments)
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    messages = os.open(
        helper.directory / f"{helper.name}.log",
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW,
        0o600,
    )
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            sys.executable,
            command,
            {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, theirs, 1),
                (os.POSIX_SPAWN_DUP2, messages, 2),
                # A descriptor that is copied onto itself stays open in the new program.
                *((os.POSIX_SPAWN_DUP2, number, number) for number in kept),
            ],
            setsid=True,
        )
    except OSError as error:
        os.close(ours)
        raise VmFailed(str(error)) from error
    finally:
        for descriptor in (theirs, messages, null):
            os.close(descriptor)
    answer = _read_answer(ours)
    if answer != READY.encode():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _reap(pid)
        raise VmFailed(answer.decode(errors="replace") or "its process gave no answer")
    return pid, os.pidfd_open(pid)


def _reap(pid: int) -> None:
    """Waits for the end of a killed process; one that hangs in the kernel is left alone."""
    deadline = time.monotonic() + _END_SECONDS
    while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)


async def _see_end(process: Process) -> None:
    """Waits for an end, brings it about, and goes on without it: a file system may hang."""
    for end in (process.wait, process.kill):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await end()
            return
    log.warning("helper_process_hangs", pid=process.pid)


def _read_answer(pipe: int) -> bytes:
    """Reads what a helper says until it closes the pipe or takes too long."""
    answer = b""
    try:
        while len(answer) < _ANSWER_BYTES:
            readable, _, _ = select.select([pipe], [], [], _START_SECONDS)
            data = os.read(pipe, _ANSWER_BYTES) if readable else b""
            if not data:
                break
            answer += data
        return answer
    finally:
        os.close(pipe)
