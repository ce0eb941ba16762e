"""What this host permits, found out by starting QEMU confined."""

import asyncio
import subprocess
import tempfile
from pathlib import Path

import structlog

from services.core.errors import HostUnready
from services.vm_runner.adapters.confinement.measures import (
    NULL_DEVICE,
    Footing,
    Isolation,
    ProgramFiles,
)
from services.vm_runner.adapters.confinement.switches import (
    Device,
    Isolate,
    Switch,
    User,
    Wait,
    launch_line,
)
from services.vm_runner.adapters.provisions import program_remedy
from services.vm_runner.vmm_options import ConfinementMode, UserRange

log = structlog.get_logger()

_SECONDS = 20.0


_PERMIT_USERS = (
    "give the service CAP_SETUID and CAP_SETGID and users from `vm_runner.vmm_user_first` on, or do"
    " not run it as root"
)
_PERMIT_NAMESPACES = (
    "run the service as root with CAP_SYS_ADMIN, or where users may make user namespaces"
    " (kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
)


class HostSupport:
    """What this host permits.

    Args:
        launcher: the program that starts others confined.
        mode: what the settings say.
        users: where VMMs' users are taken from; None if the service is not root.
    """

    def __init__(self, *, launcher: Path, mode: ConfinementMode, users: UserRange | None) -> None:
        self._launcher = launcher
        self._mode = mode
        self._users = users
        self._footing: Footing | None = None
        self._lock = asyncio.Lock()
        self.obstacle = ""
        """Why there are no namespaces, or none of users, where that is so."""

    async def find(self, program: Path, files: ProgramFiles | ValueError) -> Footing:
        """Returns what the host permits; looks once.

        Args:
            program: of QEMU.
            files: what it needs, or why that is not known.

        Raises:
            HostUnready: VMMs cannot be confined as they must be.
        """
        async with self._lock:
            if self._footing is None:
                self._footing = await asyncio.to_thread(self._look, program, files)
                log.info("confinement", isolation=self._footing.isolation, obstacle=self.obstacle)
            return self._footing

    def _look(self, program: Path, files: ProgramFiles | ValueError) -> Footing:
        if not self._launcher.exists():
            raise HostUnready(
                f"the launcher of VMMs {self._launcher} does not exist",
                hint=program_remedy("confine"),
                metadata={"launcher": str(self._launcher)},
            )
        if isinstance(files, ValueError):
            self.obstacle = str(files)
        else:
            isolated = self._find_isolation(program, files)
            if isolated is not None:
                return isolated
        if self._mode is ConfinementMode.REQUIRED:
            raise HostUnready(
                f"VMMs cannot have namespaces of their own: {self.obstacle}",
                hint=f"{_PERMIT_NAMESPACES}; or set vm_runner.confinement to auto",
            )
        bare = Footing(isolation=Isolation.NONE, users=self._users)
        problem = self._try(program, bare, ProgramFiles(code=(), data=()))
        if problem:
            hint = _PERMIT_USERS if self._users else "see what the program says"
            raise HostUnready(f"{program} cannot be started confined: {problem}", hint=hint)
        return bare

    def _find_isolation(self, program: Path, files: ProgramFiles) -> Footing | None:
        """Returns the best footing with namespaces that works; says what stands in the way."""
        found = None
        # Root can have the other namespaces without one of users; others cannot.
        kinds = (Isolation.USER_NAMESPACE, *((Isolation.NAMESPACES,) if self._users else ()))
        for isolation in kinds:
            footing = Footing(isolation=isolation, users=self._users)
            obstacle = self._try(program, footing, files)
            if not obstacle:
                found = footing
                break
            self.obstacle = obstacle
        return found

    def _try(self, program: Path, footing: Footing, files: ProgramFiles) -> str:
        """Starts the program on a footing; returns what went wrong, or nothing."""
        switches: list[Switch] = [Wait()]
        if footing.users is not None:
            switches.append(User(footing.users.first, footing.users.count))
        if footing.isolation is not Isolation.NONE:
            with_users = footing.isolation is Isolation.USER_NAMESPACE
            switches += [Isolate(with_users=with_users), *files.code, *files.data]
            switches.append(Device(NULL_DEVICE))
        command = launch_line(self._launcher, switches, (str(program), "--version"))
        try:
            with tempfile.TemporaryDirectory(prefix="lns-") as directory:
                result = subprocess.run(
                    command,
                    cwd=directory,
                    env={},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_SECONDS,
                    check=False,
                )
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        if result.returncode == 0:
            return ""
        said = result.stderr.decode("utf-8", "replace").strip().splitlines()
        return said[-1].removeprefix("lns-confine: ") if said else f"status {result.returncode}"
