"""The step `qemu`: the VMM, and what formats the disks of runs."""

from collections.abc import Mapping
from typing import Final

from cli.setup.apt import Apt, install_command
from cli.setup.machine import Machine
from services.core.errors import HostUnready

_DEBIAN: Final[Mapping[str, str]] = {"x86_64": "x86", "aarch64": "arm"}


class VmmStep:
    """Installs QEMU and `mkfs.ext4` from the distribution.

    Args:
        machine: where.
        foreign: architecture of the guests, if it is not the machine's.
    """

    def __init__(self, machine: Machine, *, foreign: str = "") -> None:
        self.name = "foreign qemu" if foreign else "qemu"
        self._machine = machine
        self._apt = Apt(machine)
        own = "" if foreign else machine.environment.get("LNS_VM_RUNNER__QEMU")
        architecture = foreign or machine.architecture
        vmm = own or f"qemu-system-{architecture}"
        package = f"qemu-system-{_DEBIAN.get(architecture, 'misc')}"
        self._programs = {vmm: package, "mkfs.ext4": "e2fsprogs"}

    def look(self) -> str:
        """Returns the paths of the programs, if all exist."""
        paths = [self._machine.find(program) for program in self._programs]
        return ", ".join(path for path in paths if path) if all(paths) else ""

    def plan(self) -> str:
        """Returns what would be installed.

        Raises:
            HostUnready: this machine has no apt, or the command is not root's.
        """
        missing = self._missing()
        if not self._apt.exists:
            raise HostUnready(
                f"{', '.join(missing)} cannot be found, and this machine has no apt",
                hint="install what has them with this machine's own package manager",
            )
        if not self._machine.is_root:
            raise HostUnready(
                f"{', '.join(missing)} cannot be found, and installing needs root",
                hint=install_command(list(missing.values())),
            )
        return f"install {' and '.join(missing.values())} with apt"

    def do(self) -> str:
        """Installs what is missing.

        Raises:
            HostUnready: apt could not, or what it installed has not what is needed.
        """
        packages = list(self._missing().values())
        self._apt.install(packages)
        if found := self.look():
            return f"installed {', '.join(packages)}: {found}"
        raise HostUnready(
            f"{', '.join(self._missing())} cannot be found, although apt installed the packages",
            hint=f"see `dpkg -L {packages[0]}`, and put its programs on PATH",
        )

    def _missing(self) -> dict[str, str]:
        return {
            program: package
            for program, package in self._programs.items()
            if self._machine.find(program) is None
        }
