"""Processes of microVMs: found again by their pid files, watched by whoever holds them."""

import asyncio
import contextlib
import os
import signal
from datetime import timedelta
from pathlib import Path

from services.vm_runner.machines import MachineUsage

_KIB = 1024
_TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A process, held by a pid descriptor: its number cannot come to mean another one."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._ended = asyncio.Event()
        self._status: int | None = None
        asyncio.get_running_loop().add_reader(descriptor, self._on_end)
        self._watching = True

    def _on_end(self) -> None:
        self._stop_watching()
        # Our child is reaped; one of an earlier service belongs to whoever adopted it.
        with contextlib.suppress(ChildProcessError):
            waited, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if waited else None
        self._ended.set()

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching = False
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._ended.is_set()

    @property
    def fate(self) -> str:
        """How the process ended, a verb first: `was killed by SIGSEGV`; empty while it lives."""
        return describe_end(self._status) if self.has_ended else ""

    async def wait(self) -> None:
        """Returns when the process has ended."""
        await self._ended.wait()

    async def kill(self) -> None:
        """Ends the process by force and waits for its end."""
        if self._watching:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        await self.wait()

    def forget(self) -> None:
        """Leaves the process alone, alive or not."""
        self._stop_watching()

    def arguments(self) -> tuple[str, ...]:
        """Returns the command line; nothing once the process has ended."""
        return process_arguments(self.pid)

    def usage(self) -> MachineUsage:
        """Returns what the process uses; zeros once it has ended."""
        process = Path(f"/proc/{self.pid}")
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            memory = _memory_bytes(process)
        except OSError:
            return MachineUsage(cpu_time=timedelta(), memory_bytes=0)
        ticks = int(fields[11]) + int(fields[12])  # utime and stime of proc(5), behind the name
        return MachineUsage(cpu_time=timedelta(seconds=ticks / _TICKS), memory_bytes=memory)


def _memory_bytes(process: Path) -> int:
    """Returns a process's share of memory; all that is resident where that may not be read.

    Another user's share is open only to who may trace it.
    """
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
        return _KIB * next((int(line.split()[1]) for line in lines if line[:4] == "Pss:"), 0)
    except PermissionError:
        lines = (process / "status").read_text().splitlines()
        return _KIB * next((int(line.split()[1]) for line in lines if line[:6] == "VmRSS:"), 0)


def describe_end(status: int | None) -> str:
    """Returns how a process ended by what waiting for it gave; None: another task waited."""
    if status is None:
        return "ended"
    if not os.WIFSIGNALED(status):
        return f"ended with status {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"was killed by signal {number}"


def process_arguments(pid: int) -> tuple[str, ...]:
    """Returns the command line of a process; nothing for one that has ended."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(argument) for argument in data.split(b"\0"))


def open_files(pid: int) -> tuple[Path, ...]:
    """Returns the files that a process has open, where this user may see that; none else."""
    found = []
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(descriptor.readlink())
    return tuple(sorted(set(found)))


def find_process(pid_file: Path, *, marker: str) -> Process | None:
    """Returns the live process that a pid file names, if `marker` is among its arguments."""
    try:
        pid = int(pid_file.read_text())
        descriptor = os.pidfd_open(pid)
    except (OSError, ValueError):
        return None
    # A zombie has no arguments; with the descriptor open the number is not given away.
    if marker not in process_arguments(pid):
        os.close(descriptor)
        return None
    return Process(pid, descriptor)
