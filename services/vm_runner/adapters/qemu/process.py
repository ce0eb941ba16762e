"""Processes of VMMs: started detached, found again, watched without being their parent."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from services.core.errors import VmFailed
from services.vm_runner.ports import MachineUsage

LOG_FILE = "qemu.log"
_LOG_TAIL = 2000
_TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A process, held by a pid descriptor: its number cannot come to mean another one."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self._on_end)
        self._watching = True

    def _on_end(self) -> None:
        self._stop_watching()
        # Our child is reaped; one of an earlier service belongs to whoever adopted it.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
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
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        except OSError:
            return MachineUsage(cpu_time=timedelta(), memory_bytes=0)
        ticks = int(fields[11]) + int(fields[12])  # utime and stime of proc(5), behind the name
        kib = next((int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:"), 0)
        return MachineUsage(cpu_time=timedelta(seconds=ticks / _TICKS), memory_bytes=kib * 1024)


async def start_process(command: Sequence[str], directory: Path) -> Process:
    """Starts a process in a session of its own, in `directory`, its messages in a file there.

    Raises:
        VmFailed: it cannot be started.
    """
    return await asyncio.to_thread(_start, command, directory, asyncio.get_running_loop())


def _start(command: Sequence[str], directory: Path, loop: asyncio.AbstractEventLoop) -> Process:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    messages = os.open(directory / LOG_FILE, flags, 0o600)
    try:
        child = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        raise VmFailed(f"{command[0]} could not be started: {error.strerror}") from error
    finally:
        os.close(messages)
    descriptor = os.pidfd_open(child.pid)
    child.returncode = 0  # reaped by its descriptor, not by the module's list of forgotten ones
    future = asyncio.run_coroutine_threadsafe(_hold(child.pid, descriptor), loop)
    return future.result()


async def _hold(pid: int, descriptor: int) -> Process:
    return Process(pid, descriptor)


def process_arguments(pid: int) -> tuple[str, ...]:
    """Returns the command line of a process; nothing for one that has ended."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(argument) for argument in data.split(b"\0"))


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


def read_messages(directory: Path) -> str:
    """Returns the last lines that a process wrote."""
    try:
        with (directory / LOG_FILE).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL))
            return file.read(_LOG_TAIL).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def find_program(name: str) -> str | None:
    """Returns the path of a program, or None."""
    return shutil.which(name)
