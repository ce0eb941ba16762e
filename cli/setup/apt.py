"""Debian's package manager: what is known, what is fetched, what is installed.

Where it fetches from, and whose signatures count, is this machine's own configuration.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from cli.setup.machine import Machine
from services.core.errors import HostUnready

_SECONDS = 900.0
_LOOK_SECONDS = 60.0
_LOCK = ("-q", "-o", "DPkg::Lock::Timeout=300")


class Apt:
    """The apt of a machine.

    Args:
        machine: where it runs.
        lists: folder for the lists of packages of another architecture; None for the machine's own.
            What apt and dpkg know and install on the machine stays as it is.
        architecture: the distribution's name of the other one.
    """

    def __init__(
        self, machine: Machine, *, lists: Path | None = None, architecture: str = ""
    ) -> None:
        self._machine = machine
        self._lists = lists
        self._options = () if lists is None else _apart(lists, architecture)

    @property
    def exists(self) -> bool:
        """Whether this machine has it."""
        return self._machine.find("apt-get") is not None

    def find_newest(self, pattern: str) -> str:
        """Returns the package of the highest version in its name; empty if none is known.

        Args:
            pattern: what the whole name must match.
        """
        _, found = self._machine.call(
            *("apt-cache", *self._options, "search", "--names-only", f"^{pattern}$"),
            seconds=_LOOK_SECONDS,
        )
        names = [line.split(" ", 1)[0] for line in found.splitlines()]
        known = [name for name in names if re.fullmatch(pattern, name)]
        return max(known, key=_version, default="")

    def refresh(self) -> None:
        """Fetches the lists of packages.

        Raises:
            HostUnready: apt could not, or this needs root.
            OSError: the folder of the lists cannot be written.
        """
        command = ("apt-get", *_LOCK, *self._options, "update")
        if self._lists is not None:
            for name in ("lists/partial", "archives/partial"):
                (self._lists / name).mkdir(parents=True, exist_ok=True)
            (self._lists / "status").touch()
        elif not self._machine.is_root:
            raise HostUnready("apt's lists of packages are missing or old", hint=_as_root(command))
        self._checked(command)

    def install(self, packages: Sequence[str]) -> None:
        """Installs packages; if they cannot be fetched, once more with fresh lists.

        Raises:
            HostUnready: apt could not.
        """
        command = ("apt-get", "-y", *_LOCK, "--no-install-recommends", "install", *packages)
        code, _ = self._machine.call(*command, seconds=_SECONDS)
        if code:
            self.refresh()
            self._checked(command)

    def download(self, package: str, folder: Path) -> Path:
        """Fetches a package without installing it, its signature checked by apt.

        Raises:
            HostUnready: apt could not.
        """
        sandbox = ("-q", "-o", "APT::Sandbox::User=root")
        command = ("apt-get", *sandbox, *self._options, "download", package)
        inside = ("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(folder), *command)
        code, _ = self._machine.call(*inside, seconds=_SECONDS)
        if code:
            self.refresh()
            self._checked(inside, shown=command)
        return next(folder.glob("*.deb"))

    def _checked(self, command: Sequence[str], *, shown: Sequence[str] = ()) -> None:
        code, output = self._machine.call(*command, seconds=_SECONDS)
        if code:
            # Warnings stand around the reason, which apt marks.
            lines = [line for line in output.splitlines() if line.startswith("E: ")]
            why = (lines or output.splitlines() or [f"status {code}"])[-1].removeprefix("E: ")
            raise HostUnready(f"apt could not: {why[:300]}", hint=_repeated(shown or command))


def _apart(lists: Path, architecture: str) -> tuple[str, ...]:
    """Returns what has apt keep another architecture's packages apart, in a folder."""
    options = (
        f"APT::Architecture={architecture}",
        f"APT::Architectures::={architecture}",
        "APT::Sandbox::User=root",
        f"Dir::State={lists}",
        f"Dir::State::status={lists}/status",
        f"Dir::Cache={lists}",
        "Acquire::Languages=none",
    )
    return tuple(word for option in options for word in ("-o", option))


def install_command(packages: Sequence[str]) -> str:
    """Returns what installs packages, for a user to type."""
    return _as_root(("apt-get", "install", "--no-install-recommends", *packages))


def _as_root(command: Sequence[str]) -> str:
    words = " ".join(word for word in command if word not in _LOCK)
    return f"`sudo {words}`, then this step again"


def _repeated(command: Sequence[str]) -> str:
    words = " ".join(word for word in command if word not in _LOCK)
    return f"mend that until `{words}` works, then this step again"


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))
