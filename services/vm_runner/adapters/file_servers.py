"""Processes that serve the host's files to microVMs, and a look at what they would serve.

`bind0.pid` in the run's directory has the first one's pid and is locked by it; `bind0.log` what it
says. A server connects to its port's socket, which QEMU listens at, and ends when QEMU does.
"""

import contextlib
import os
import stat
from pathlib import Path

from services.chassis.own_threads import OwnThreads
from services.core.errors import RequestInvalid, VmFailed
from services.vm_runner.adapters.confinement.cgroups import CgroupLimits, Cgroups
from services.vm_runner.adapters.helper_processes import Helper, HelperProcesses, helper_command
from services.vm_runner.storage import secret_names
from services.vm_runner.storage.bind_host import BindSource, ServedBind

_MODULE = "services.vm_runner.file_server"
_LOOK_SECONDS = 10.0
_LOOKS_AT_ONCE = 8
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
        self._helpers = HelperProcesses()
        self._looks = OwnThreads(_LOOKS_AT_ONCE, seconds=_LOOK_SECONDS, name="bind-look")

    async def look(self, source: str) -> BindSource:
        """Looks at what is to be bound."""
        try:
            return await self._looks.run(self._look, source)
        except TimeoutError:
            raise _unusable(source, f"its disk did not answer within {_LOOK_SECONDS:g} s") from None

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
        """Has a bind served, by the server of its run or a new one."""
        helper = _helper(bind)
        if self._helpers.adopt(helper):
            return
        try:
            await self._helpers.start(helper, _MODULE, self._arguments(bind))
        except VmFailed as error:
            raise VmFailed(f"{bind.source} cannot be served: {error.message}") from error

    def command(self, bind: ServedBind) -> list[str]:
        """Returns the command line of a bind's server."""
        return helper_command(_helper(bind), _MODULE, self._arguments(bind))

    def _arguments(self, bind: ServedBind) -> list[str]:
        cgroups = self._cgroups.make(_group(bind), _LIMITS)
        switches = {
            "--read-only": bind.read_only,
            "--keep-secrets": bind.keep_secrets,
            "--view-required": self._view_required,
        }
        return [
            "--directory", str(bind.directory),
            "--pid-file", _helper(bind).pid_file.name,
            "--socket", bind.port.socket,
            "--source", str(bind.source),
            "--rate", str(bind.rate),
            *(f"--cgroup={directory}" for directory in cgroups),
            *(name for name, is_on in switches.items() if is_on),
        ]  # fmt: skip

    async def lost(self, bind: ServedBind) -> str:
        """Returns when a bind is served no longer, and how its server ended."""
        return await self._helpers.lost(_helper(bind))

    async def ended(self, binds: tuple[ServedBind, ...]) -> None:
        """Waits for servers whose VMM is gone, and ends those that do not notice."""
        for bind in binds:
            await self._helpers.ended(_helper(bind))
        for group in {_group(bind) for bind in binds}:
            self._cgroups.remove(group)


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


def _helper(bind: ServedBind) -> Helper:
    name = Path(bind.port.socket).stem
    return Helper(run_id=bind.run_id, directory=bind.directory, name=name)


def _group(bind: ServedBind) -> str:
    """Returns the name of the group that all servers of a run are in."""
    return f"{bind.run_id}-binds"
