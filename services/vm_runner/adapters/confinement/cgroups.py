"""Cgroups of VMMs: where they may be made, and the limits that are written there.

Of version 2: below the folder that the settings name; else below this process's own group where
systemd delegated it (`Delegate=yes`), which this process then leaves for a group `service` beside
the VMMs', since a group with processes cannot hand controllers on; else, for root, at the top. Of
version 1, controller by controller: below this process's own groups.

The formats are those of cgroups(7) and of the kernel's `admin-guide/cgroup-v2`.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.core.errors import VmFailed

log = structlog.get_logger()

CONTROLLERS = ("cpu", "memory", "pids")

_PROC = Path("/proc/self")
_PERIOD_MICROSECONDS = 100_000
_MICROSECONDS_OF_MILLI = _PERIOD_MICROSECONDS // 1000
_DELEGATION_MARKS = ("trusted.delegate", "user.delegate")  # systemd.resource-control(5)
_SERVICE_GROUP = "service"
_SWEEP_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """Limits of one VMM: memory in bytes, CPU time in thousandths of a CPU, threads."""

    memory_bytes: int
    cpu_millis: int
    pids: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupPlace:
    """Where groups of VMMs are made: the folder for each controller that can be used."""

    version: int
    folders: Mapping[str, Path]

    def describe(self) -> str:
        """Returns the place in words."""
        return f"cgroups v{self.version}: {', '.join(sorted(self.folders))}"


def limit_files(version: int, controller: str, limits: CgroupLimits) -> tuple[tuple[str, str], ...]:
    """Returns the files that limit a group, with what is written to them."""
    quota = limits.cpu_millis * _MICROSECONDS_OF_MILLI
    if version == 1:
        return {
            "cpu": (
                ("cpu.cfs_period_us", str(_PERIOD_MICROSECONDS)),
                ("cpu.cfs_quota_us", str(quota)),
            ),
            "memory": (("memory.limit_in_bytes", str(limits.memory_bytes)),),
            "pids": (("pids.max", str(limits.pids)),),
        }[controller]
    return {
        "cpu": (("cpu.max", f"{quota} {_PERIOD_MICROSECONDS}"),),
        "memory": (("memory.max", str(limits.memory_bytes)), ("memory.oom.group", "1")),
        "pids": (("pids.max", str(limits.pids)),),
    }[controller]


class Cgroups:
    """The groups of this node's VMMs.

    Args:
        place: where they are made; None where that is not possible.
    """

    def __init__(self, place: CgroupPlace | None) -> None:
        self._place = place

    @property
    def place(self) -> CgroupPlace | None:
        """Where groups are made."""
        return self._place

    def make(self, run_id: str, limits: CgroupLimits) -> tuple[Path, ...]:
        """Makes the group of a VMM, or takes the one that is there; returns what it is to join.

        Raises:
            VmFailed: it cannot be made.
        """
        if self._place is None:
            return ()
        try:
            for controller, folder in self._place.folders.items():
                group = folder / _name(run_id)
                group.mkdir(exist_ok=True)
                for file, value in limit_files(self._place.version, controller, limits):
                    (group / file).write_text(value)
        except OSError as error:
            self.remove(run_id)
            raise VmFailed(f"the microVM could not be given a cgroup: {error}") from error
        return self._groups(run_id)

    def remove(self, run_id: str) -> None:
        """Removes the group of a VMM that has ended, if there is one."""
        for group in self._groups(run_id):
            try:
                group.rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                log.warning("cgroup_not_removed", group=str(group), error=error.strerror)

    def sweep(self) -> None:
        """Removes groups whose VMMs ended while no service was there to notice.

        They may be another service's, whose VMM is about to join: only old ones go, and the kernel
        keeps those with processes.
        """
        for folder in set(self._place.folders.values()) if self._place else ():
            for group in folder.glob(_name("*")):
                with contextlib.suppress(OSError):
                    if time.time() - group.stat().st_mtime > _SWEEP_SECONDS:
                        group.rmdir()

    def _groups(self, run_id: str) -> tuple[Path, ...]:
        folders = self._place.folders.values() if self._place else ()
        return tuple(sorted({folder / _name(run_id) for folder in folders}))


def _name(run_id: str) -> str:
    return f"lns-{run_id}"


def find_place(
    wanted: Path | None = None,
    *,
    is_root: bool,
    proc: Path = _PROC,
    is_delegated: Callable[[Path], bool] | None = None,
) -> CgroupPlace | None:
    """Returns where groups can be made, having tried it; None where nowhere.

    Args:
        wanted: a folder of version 2 that the settings name.
        is_root: whether the top of version 2 may be used.
        proc: of this process.
        is_delegated: whether systemd handed a group on; by default its marks are read.
    """
    own = _own_groups(proc)
    candidates = _unified(wanted, own.get("", None), is_root, is_delegated or _has_mark)
    for folder in candidates:
        handed_on = _hand_on(folder)
        place = CgroupPlace(version=2, folders=dict.fromkeys(handed_on, folder))
        if handed_on and _works(place):
            return place
    folders = {name: own[name].path for name in CONTROLLERS if name in own}
    usable = [
        name
        for name, folder in folders.items()
        if _works(CgroupPlace(version=1, folders={name: folder}))
    ]
    return CgroupPlace(version=1, folders={n: folders[n] for n in usable}) if usable else None


@dataclass(frozen=True, slots=True)
class _Group:
    """A group as a folder, and the top of what is mounted of its hierarchy."""

    path: Path
    top: Path


def _own_groups(proc: Path) -> dict[str, _Group]:
    """Returns this process's group for each controller of version 1; the key "" is version 2."""
    tops: dict[str, tuple[str, Path]] = {}
    for root, top, kind, options in _mounts(proc):
        for name in ("",) if kind == "cgroup2" else options:
            tops[name] = (root, top)
    groups = {}
    with contextlib.suppress(OSError):
        for line in (proc / "cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            for name in names.split(","):
                if name in tops:
                    root, top = tops[name]
                    below = os.path.relpath(path, root)
                    groups[name] = _Group(top if below.startswith("..") else top / below, top)
    return groups


def _mounts(proc: Path) -> Iterator[tuple[str, Path, str, list[str]]]:
    """Yields root, mount point, type and options of mounted hierarchies; see proc(5)."""
    with contextlib.suppress(OSError):
        for line in (proc / "mountinfo").read_text().splitlines():
            mounted, _, source = line.partition(" - ")
            kind, _, options = source.split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                root, top = mounted.split(" ")[3:5]
                yield root, Path(_unescape(top)), kind, options.split(",")


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _unified(
    wanted: Path | None, own: _Group | None, is_root: bool, is_delegated: Callable[[Path], bool]
) -> Iterator[Path]:
    """Yields folders of version 2 that may be this service's to use."""
    if wanted is not None:
        yield wanted
        return
    if own is None:
        return
    if is_delegated(own.path) and _leave(own.path):
        yield own.path
    if own.path.name == _SERVICE_GROUP and is_delegated(own.path.parent):
        yield own.path.parent
    if is_root:
        yield own.top


def _has_mark(group: Path) -> bool:
    for mark in _DELEGATION_MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    return False


def _leave(group: Path) -> bool:
    """Moves the processes of a group into one below it; returns whether that went well."""
    try:
        below = group / _SERVICE_GROUP
        below.mkdir(exist_ok=True)
        for pid in (group / "cgroup.procs").read_text().split():
            (below / "cgroup.procs").write_text(pid)
    except OSError:
        return False
    return True


def _hand_on(group: Path) -> list[str]:
    """Has a group hand its controllers on; returns those that it does."""
    with contextlib.suppress(OSError):
        for name in (group / "cgroup.controllers").read_text().split():
            if name in CONTROLLERS:
                with contextlib.suppress(OSError):
                    (group / "cgroup.subtree_control").write_text(f"+{name}")
        handed_on = (group / "cgroup.subtree_control").read_text().split()
        return [name for name in CONTROLLERS if name in handed_on]
    return []


def _works(place: CgroupPlace) -> bool:
    trial = Cgroups(place)
    name = f"trial-{os.getpid()}"
    try:
        trial.make(name, CgroupLimits(memory_bytes=1 << 30, cpu_millis=1000, pids=100))
    except VmFailed:
        return False
    trial.remove(name)
    return True
