"""Confines the file server to the one thing that it serves: `docs/binds.md` says how.

Everything that Python has to load is loaded before; afterwards there are no files but the bind's.
"""

import contextlib
import os
import pwd
import resource
import stat
from dataclasses import dataclass
from pathlib import Path

from services.vm_runner.file_server import system_calls
from services.vm_runner.file_server.system_calls import Mount, Namespace
from services.vm_runner.file_server.wire import Owners

FILES_MOST = 4096
_DESCRIPTORS = 8192
_MEMORY_BYTES = 768 << 20
_SPARE = 64
_NAMESPACES = Namespace.MOUNTS | Namespace.NETWORK | Namespace.IPC | Namespace.HOST_NAME
_SAFE = Mount.NO_SETUID | Mount.NO_DEVICES | Mount.NO_EXEC
_FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """On what the server stands when it is confined.

    Attributes:
        root: descriptor of what is served.
        descriptors: of `/proc/self/fd`.
        owners: as whom the host's files are used.
        open_files: how many descriptors it may have.
        obstacle: why there is no view of its own; empty where there is.
    """

    root: int
    descriptors: int
    owners: Owners
    open_files: int
    obstacle: str


def confine(source: Path, *, read_only: bool, view_required: bool) -> Ground:
    """Leaves everything behind but what is served, and the rights of its owner.

    Args:
        source: absolute, without links.
        read_only: whether the mount is, too.
        view_required: whether a host that permits no view of its own is an error.

    Raises:
        OSError: a step failed that has to succeed.
    """
    descriptors = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    owners = owners_of(source.lstat())
    obstacle = ""
    try:
        root = _enter_view(source, read_only=read_only)
    except OSError as error:
        if view_required:
            raise
        obstacle = str(error)
        root = os.open(source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    _become(owners)
    open_files = _set_limits()
    system_calls.drop_capabilities()
    system_calls.install_filter()
    os.umask(0)
    return Ground(
        root=root,
        descriptors=descriptors,
        owners=owners,
        open_files=open_files,
        obstacle=obstacle,
    )


def owners_of(status: os.stat_result) -> Owners:
    """Returns as whom something is served: its owner where we are root, else as ourselves."""
    if os.geteuid() != 0:
        return Owners(uid=os.geteuid(), gids=(os.getegid(), *os.getgroups()))
    try:
        entry = pwd.getpwuid(status.st_uid)
    except KeyError:
        return Owners(uid=status.st_uid, gids=(status.st_gid,))
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Owners(uid=status.st_uid, gids=tuple(dict.fromkeys((entry.pw_gid, *groups))))


def _enter_view(source: Path, *, read_only: bool) -> int:
    """Makes what is served the root of the file system, in namespaces without a network."""
    _unshare()
    system_calls.mount(None, b"/", None, Mount.RECURSIVE | Mount.PRIVATE, b"")
    found = os.open(source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    is_folder = stat.S_ISDIR(os.fstat(found).st_mode)
    place = source if is_folder else _make_place()
    itself = b"/proc/self/fd/%d" % found  # whatever is mounted over its path by now
    system_calls.mount(itself, os.fsencode(place), None, Mount.BIND | Mount.RECURSIVE, b"")
    os.close(found)
    flags = Mount.REMOUNT | Mount.BIND | _SAFE | _kept_flags(place)
    if read_only:
        flags |= Mount.READ_ONLY
    system_calls.mount(None, os.fsencode(place), None, flags, b"")
    os.chdir(place if is_folder else place.parent)
    system_calls.make_root()
    return os.open("/" if is_folder else f"/{_FILE}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)


def _unshare() -> None:
    try:
        system_calls.unshare(_NAMESPACES)
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        system_calls.unshare(_NAMESPACES | Namespace.USER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            Path("/proc/self", name).write_text(text)


def _make_place() -> Path:
    """Makes a root with a place for one file, over the current directory."""
    here = Path.cwd()
    system_calls.mount(b"lns", os.fsencode(here), b"tmpfs", _SAFE, b"size=4k,mode=0755")
    place = here / _FILE
    place.touch()
    return place


def _kept_flags(place: Path) -> int:
    """Returns what a mount of a user namespace may not take back."""
    flags = os.statvfs(place).f_flag
    kept = flags & (os.ST_NODEV | os.ST_NOSUID | os.ST_NOEXEC | os.ST_RDONLY)
    if flags & os.ST_NOATIME:
        kept |= 1 << 10
    if flags & os.ST_NODIRATIME:
        kept |= 1 << 11
    if flags & os.ST_RELATIME:
        kept |= 1 << 21
    return kept


def _become(owners: Owners) -> None:
    if os.geteuid() != 0:
        return
    os.setgroups(owners.gids[: _limit_of_groups()])
    os.setresgid(owners.gids[0], owners.gids[0], owners.gids[0])
    os.setresuid(owners.uid, owners.uid, owners.uid)


def _limit_of_groups() -> int:
    return max(1, os.sysconf("SC_NGROUPS_MAX"))


def _set_limits() -> int:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = _DESCRIPTORS if most == resource.RLIM_INFINITY else min(_DESCRIPTORS, most)
    limits = {
        resource.RLIMIT_NOFILE: open_files,
        resource.RLIMIT_DATA: _MEMORY_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for name, value in limits.items():
        with contextlib.suppress(ValueError):  # it is lower already
            resource.setrlimit(name, (value, value))
    return open_files - _SPARE
