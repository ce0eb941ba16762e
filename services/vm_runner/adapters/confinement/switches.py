"""Switches of the launcher, `lns-confine`: one type for each, named after it.

Each type's `arguments` returns what stands on the command line. `docs/vmm-confinement.md` says what
the measures are for; the launcher's sources are in `services/vm_runner/confine`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

FIRST_DESCRIPTOR = 3


class Switch(Protocol):
    """One switch of the launcher."""

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its values."""
        ...


@dataclass(frozen=True, slots=True)
class Isolate:
    """Namespaces of its own: mounts, network, processes, IPC, host name; and of users.

    Who is not root has the others by means of that one; root's VMM enters it when its view is made.
    """

    with_users: bool

    def arguments(self) -> tuple[str, ...]:
        """Returns the switches."""
        return ("--isolate", *(("--user-namespace",) if self.with_users else ()))


@dataclass(frozen=True, slots=True)
class User:
    """A user and group of its own: `first` plus the process's pid, modulo `count`."""

    first: int
    count: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its values."""
        return ("--user", str(self.first), str(self.count))


@dataclass(frozen=True, slots=True)
class Group:
    """The one supplementary group; there is none otherwise."""

    gid: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("--group", str(self.gid))


@dataclass(frozen=True, slots=True)
class OomScore:
    """How much sooner than others it is killed when the host's memory is full."""

    score: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("--oom-score", str(self.score))


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A cgroup that it joins."""

    directory: Path

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("--cgroup", str(self.directory))


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource limit, soft and hard: `core`, `data`, `fsize`, `memlock`, `nofile`, `nproc`."""

    name: str
    value: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its values."""
        return ("--limit", self.name, str(self.value))


@dataclass(frozen=True, slots=True)
class Data:
    """A file or folder that it sees, read-only and not executable; `source` has no links."""

    source: Path
    target: Path

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its values."""
        return ("--data", str(self.source), str(self.target))


@dataclass(frozen=True, slots=True)
class Code:
    """A file that it sees and may execute, read-only; `source` has no links."""

    source: Path
    target: Path

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its values."""
        return ("--code", str(self.source), str(self.target))


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host that it sees and may use."""

    path: Path

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("--device", str(self.path))


@dataclass(frozen=True, slots=True)
class Read:
    """A descriptor of a file, to read."""

    path: Path

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("--read", str(self.path))


@dataclass(frozen=True, slots=True)
class Write:
    """A descriptor of a file, to read and write."""

    path: Path

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("--write", str(self.path))


@dataclass(frozen=True, slots=True)
class Ram:
    """The file of the guest's memory: what QEMU gets when it makes one."""

    path: Path
    is_shared: bool

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("--shared-ram" if self.is_shared else "--ram", str(self.path))


@dataclass(frozen=True, slots=True)
class Listen:
    """A descriptor of a unix socket that listens; the path is relative and short."""

    path: Path

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("--listen", str(self.path))


@dataclass(frozen=True, slots=True)
class PidFile:
    """Where the program's pid is written before the program is executed."""

    path: Path

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("--pid-file", str(self.path))


@dataclass(frozen=True, slots=True)
class Wait:
    """The launcher stays, and ends with the program's status."""

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch."""
        return ("--wait",)


def launch_line(
    launcher: Path, switches: Iterable[Switch], command: Sequence[str]
) -> tuple[str, ...]:
    """Returns the command line that starts `command` confined; the program's path is absolute.

    The descriptors are numbered from `FIRST_DESCRIPTOR` on in the order of their switches.
    """
    arguments = (argument for switch in switches for argument in switch.arguments())
    return (str(launcher), *arguments, "--", *command)
