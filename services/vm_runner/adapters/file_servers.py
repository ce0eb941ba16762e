"""Processes that serve the host's files to microVMs, and a look at what they would serve.

`bind0.pid` in the run's directory has the first one's pid and is locked by it; `bind0.log` what it
says. A server connects to its port's socket, which QEMU listens at, and ends when QEMU does.
"""

import asyncio
import contextlib
import os
import select
import signal
import stat
import sys
from pathlib import Path

import structlog

from services.core.errors import RequestInvalid, VmFailed
from services.vm_runner.adapters.confinement.cgroups import CgroupLimits, Cgroups
from services.vm_runner.adapters.qemu.process import Process, find_process
from services.vm_runner.storage import secret_names
from services.vm_runner.storage.bind_host import BindSource, ServedBind

log = structlog.get_logger()

_MODULE = "services.vm_runner.file_server"
_READY = b"ready"
_START_SECONDS = 30.0
_END_SECONDS = 5.0
_ANSWER_BYTES = 4096
_SYSTEM = ("/proc", "/sys", "/dev")
_LIMITS = CgroupLimits(memory_bytes=2 << 30, cpu_millis=1000, pids=64)
"""Of all servers of a run. The memory counts the host's page cache of what they read and write."""


class FileServers:
    """Starts servers and finds them again.

    Args:
        home: the state directory, of which nothing is ever bound.
        cgroups: where a run's servers have a group of their own.
        view_required: whether a server that can have no view of its own is an error.
    """

    def __init__(self, home: Path, *, cgroups: Cgroups, view_required: bool) -> None:
        self._home = home
        self._cgroups = cgroups
        self._view_required = view_required
        self._processes: dict[Path, Process] = {}

    async def look(self, source: str) -> BindSource:
        """Looks at what is to be bound."""
        return await asyncio.to_thread(self._look, source)

    def _look(self, source: str) -> BindSource:
        try:
            path = Path(source).resolve(strict=True)
            mode = path.stat().st_mode
        except (OSError, RuntimeError) as error:
            raise _unusable(source, getattr(error, "strerror", None) or str(error)) from error
        home = self._home.resolve()
        if path == Path("/") or any(path.is_relative_to(system) for system in _SYSTEM):
            raise _unusable(source, "the host's root and its system are not bound")
        if path.is_relative_to(home) or home.is_relative_to(path):
            raise _unusable(source, f"lns keeps its own state in {home}")
        if stat.S_ISREG(mode):
            return BindSource(path=path, is_file=True)
        if not stat.S_ISDIR(mode):
            raise _unusable(source, "it is neither a directory nor a file")
        return BindSource(path=path, is_file=False, secrets=_secrets(source, path))

    async def serve(self, bind: ServedBind) -> None:
        """Has a bind served, by the server that is there or a new one."""
        pid_file = _pid_file(bind)
        process = find_process(pid_file, marker=_marker(bind))
        if process is None:
            pid, descriptor = await asyncio.to_thread(self._start, bind)
            process = Process(pid, descriptor)
        self._processes[pid_file] = process

    def _start(self, bind: ServedBind) -> tuple[int, int]:
        """Starts a server; returns its pid, and a descriptor of it, when it says that it is ready.

        It is a child of this process and nothing else of it: whoever waits for it when it ends is
        the service that holds it then.
        """
        command = self._command(bind, self._cgroups.make(_group(bind), _LIMITS))
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        messages = os.open(
            bind.directory / f"{_stem(bind)}.log",
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
                ],
                setsid=True,
            )
        except OSError as error:
            os.close(ours)
            raise VmFailed(f"{bind.source} cannot be served: {error}") from error
        finally:
            for descriptor in (theirs, messages, null):
                os.close(descriptor)
        answer = _read_answer(ours)
        if answer != _READY:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            text = answer.decode(errors="replace") or "the file server gave no answer"
            raise VmFailed(f"{bind.source} cannot be served: {text}")
        return pid, os.pidfd_open(pid)

    def _command(self, bind: ServedBind, cgroups: tuple[Path, ...] = ()) -> list[str]:
        switches = {
            "--read-only": bind.read_only,
            "--keep-secrets": bind.keep_secrets,
            "--view-required": self._view_required,
        }
        return [
            sys.executable, "-s", "-P", "-X", "utf8", "-m", _MODULE,
            "--name", _marker(bind),
            "--directory", str(bind.directory),
            "--pid-file", _pid_file(bind).name,
            "--socket", bind.port.socket,
            "--source", str(bind.source),
            *(f"--cgroup={directory}" for directory in cgroups),
            *(name for name, is_on in switches.items() if is_on),
        ]  # fmt: skip

    async def lost(self, bind: ServedBind) -> str:
        """Returns when a bind is served no longer, and how its server ended."""
        process = self._processes.get(_pid_file(bind))
        if process is None:
            return "is not there"
        await process.wait()
        return process.fate

    async def ended(self, binds: tuple[ServedBind, ...]) -> None:
        """Waits for servers whose VMM is gone, and ends those that do not notice."""
        for bind in binds:
            pid_file = _pid_file(bind)
            process = self._processes.pop(pid_file, None)
            process = process or find_process(pid_file, marker=_marker(bind))
            if process is None:
                continue
            await _see_end(process)
            pid_file.unlink(missing_ok=True)
        for group in {_group(bind) for bind in binds}:
            self._cgroups.remove(group)


async def _see_end(process: Process) -> None:
    """Waits for an end, brings it about, and goes on without it: a file system may hang."""
    for end in (process.wait, process.kill):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await end()
            return
    log.warning("file_server_hangs", pid=process.pid)


def _read_answer(pipe: int) -> bytes:
    """Reads what a server says until it closes the pipe or takes too long."""
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


def _secrets(source: str, path: Path) -> tuple[str, ...]:
    try:
        entries = list(path.iterdir())
    except OSError as error:
        raise _unusable(source, str(error.strerror)) from error
    found = [entry.name for entry in entries if secret_names.is_secret(os.fsencode(entry.name))]
    for folder in entries:
        name = os.fsencode(folder.name)
        if secret_names.holds_secrets(name) and folder.is_dir():
            with contextlib.suppress(OSError):  # then the run cannot look there either
                found += [
                    f"{folder.name}/{entry.name}"
                    for entry in folder.iterdir()
                    if secret_names.is_secret_inside(name, os.fsencode(entry.name))
                ]
    return tuple(sorted(found))


def _unusable(source: str, reason: str) -> RequestInvalid:
    return RequestInvalid(
        f"{source} cannot be bound: {reason}",
        hint="name a directory or a file of yours",
        metadata={"source": source},
    )


def _stem(bind: ServedBind) -> str:
    return Path(bind.port.socket).stem


def _pid_file(bind: ServedBind) -> Path:
    return bind.directory / f"{_stem(bind)}.pid"


def _group(bind: ServedBind) -> str:
    """Returns the name of the group that all servers of a run are in."""
    return f"{bind.run_id}-binds"


def _marker(bind: ServedBind) -> str:
    return f"lns-{bind.run_id}-{_stem(bind)}"
