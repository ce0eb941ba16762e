"""Steps by which a process gives up what it does not need; which ones, each program says.

Everything that Python has to load is loaded before the first of them.
"""

import contextlib
import functools
import operator
import os
import resource
import signal
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from services.isolation import system_calls
from services.isolation.system_calls import Mount, Namespace

_SPARE = 64
_DESCRIPTORS_MOST = 1 << 20
_NAMESPACES = Namespace.MOUNTS | Namespace.NETWORK | Namespace.IPC | Namespace.HOST_NAME
_SAFE = Mount.NO_SETUID | Mount.NO_DEVICES | Mount.NO_EXEC
_FILE = "file"


def enter_view(source: Path, *, read_only: bool, is_parted: bool = False) -> int:
    """Makes a directory or file the root of the file system, in namespaces without a network.

    Args:
        source: absolute, without links; the current directory is covered where it is a file.
        read_only: whether the mount is, too.
        is_parted: whether there are namespaces already: see `part_processes`.

    Returns:
        A descriptor of it.

    Raises:
        OSError: the host does not permit it.
    """
    if not is_parted:
        _unshare()
    system_calls.mount(None, b"/", None, Mount.RECURSIVE | Mount.PRIVATE, b"")
    found = os.open(source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    is_folder = stat.S_ISDIR(os.fstat(found).st_mode)
    place = source if is_folder else _make_place()
    itself = b"/proc/self/fd/%d" % found  # whatever is mounted over its path by now
    system_calls.mount(itself, os.fsencode(place), None, Mount.BIND | Mount.RECURSIVE, b"")
    os.close(found)
    _restrict(place, read_only=read_only)
    os.chdir(place if is_folder else place.parent)
    system_calls.make_root()
    return os.open("/" if is_folder else f"/{_FILE}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)


def enter_empty_view() -> None:
    """Makes an empty directory that nobody can write to the root, in namespaces without a network.

    The current directory, which has to be one of the caller's, is covered by it.

    Raises:
        OSError: the host does not permit it.
    """
    _unshare()
    system_calls.mount(None, b"/", None, Mount.RECURSIVE | Mount.PRIVATE, b"")
    here = Path.cwd()
    flags = _SAFE | Mount.READ_ONLY
    system_calls.mount(b"lns", os.fsencode(here), b"tmpfs", flags, b"size=4k,mode=0555")
    os.chdir(here)
    system_calls.make_root()


def enter_directories(*, read: Sequence[Path], write: Sequence[Path]) -> None:
    """Makes a root with nothing but directories, under their own paths, in namespaces of our own.

    They are not executable, and have no devices. The first of `write` becomes the current directory
    and is covered by the root, which holds it anew.

    Args:
        read: absolute; read-only then. None is inside another one.
        write: absolute, and at least one.

    Raises:
        OSError: the host does not permit it, or one of them does not exist.
    """
    system_calls.mount(None, b"/", None, Mount.RECURSIVE | Mount.PRIVATE, b"")
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    found = [(path, os.open(path, flags), path in read) for path in (*read, *write)]
    os.chdir(write[0])
    root = Path.cwd()
    system_calls.mount(b"lns", os.fsencode(root), b"tmpfs", _SAFE, b"size=64k,mode=0755")
    os.chdir(root)
    for path, descriptor, is_read_only in found:
        place = root / path.relative_to("/")
        place.mkdir(parents=True, exist_ok=True)
        itself = b"/proc/self/fd/%d" % descriptor
        # What is mounted below one comes with it; below the covered one that is the root.
        bind = Mount.BIND if path == write[0] else Mount.BIND | Mount.RECURSIVE
        system_calls.mount(itself, os.fsencode(place), None, bind, b"")
        os.close(descriptor)
        _restrict(place, read_only=is_read_only)
    _restrict(root, read_only=True)
    system_calls.make_root()


def _restrict(place: Path, *, read_only: bool) -> None:
    """Takes programs, devices and privileges from a mount, and writing to it on request."""
    flags = Mount.REMOUNT | Mount.BIND | _SAFE | _kept_flags(place)
    if read_only:
        flags |= Mount.READ_ONLY
    system_calls.mount(None, os.fsencode(place), None, flags, b"")


def part_processes(record: Callable[[int], None]) -> tuple[int, str]:
    """Goes on in a child that is process 1 of 1, in users, processes and namespaces of its own.

    This process waits for the child, and ends as that does; it holds nothing meanwhile. Users keep
    their numbers, and what they may do with the host's files; but no capability that anybody gains
    in there means anything outside.

    Args:
        record: called with the child's pid, in this process, before the child goes on.

    Returns:
        A descriptor of the child's `/proc/self/fd`, in a procfs that has no other process and is
        mounted nowhere; and what the host does not permit of all this, for users.

    Raises:
        OSError: the host permits no namespaces; the process is as it was.
    """
    is_root = os.geteuid() == 0
    _unshare(Namespace.PROCESSES)
    system = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    asking, answering = os.pipe(), os.pipe()
    child = os.fork()
    if child:
        record(child)
        _stand_behind(child, system, asked=asking, answer=answering, maps_users=is_root)
    os.close(asking[0])
    os.close(answering[1])
    descriptors, obstacle = _own_descriptors(system)
    os.close(system)
    if is_root:
        try:
            system_calls.unshare(Namespace.USER | _NAMESPACES)
            os.write(asking[1], b"m")
        except OSError as error:
            obstacle = str(error)
            os.write(asking[1], b"-")
    os.close(asking[1])
    if not os.read(answering[0], 1):
        os._exit(1)  # the parent has ended
    os.close(answering[0])
    return descriptors, obstacle


def _own_descriptors(system: int) -> tuple[int, str]:
    """Returns `/proc/self/fd`: of a procfs of its own, or else of the host's, and why of that."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        processes = system_calls.own_processes()
    except OSError as error:
        return os.open("self/fd", flags, dir_fd=system), str(error)
    try:
        return os.open("self/fd", flags, dir_fd=processes), ""
    finally:
        os.close(processes)


def _stand_behind(
    child: int, system: int, *, asked: tuple[int, int], answer: tuple[int, int], maps_users: bool
) -> NoReturn:
    """Gives a child its users, waits for its end, and ends in the same way."""
    os.close(asked[1])
    os.close(answer[0])
    if maps_users and os.read(asked[0], 1) == b"m":
        for name in ("uid_map", "gid_map"):
            text = _own_map(name)
            descriptor = os.open(f"{child}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=system)
            os.write(descriptor, text)
            os.close(descriptor)
    os.write(answer[1], b"g")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for stream in range(3):
        os.dup2(null, stream)
    os.closerange(3, _DESCRIPTORS_MOST)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def _own_map(name: str) -> bytes:
    """Returns a map in which every existing user or group has its own number."""
    ranges = (line.split() for line in Path("/proc/self", name).read_text().splitlines())
    return "".join(f"{first} {first} {count}\n" for first, _, count in ranges).encode()


def _unshare(*further: Namespace) -> None:
    namespaces = functools.reduce(operator.or_, further, _NAMESPACES)
    try:
        system_calls.unshare(namespaces)
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        system_calls.unshare(namespaces | Namespace.USER)
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


def become(uid: int, gids: Sequence[int]) -> None:
    """Becomes a user with a group and supplementary groups, for good, where we are root.

    Raises:
        OSError: the kernel refuses.
    """
    if os.geteuid() != 0:
        return
    os.setgroups(gids[: max(1, os.sysconf("SC_NGROUPS_MAX"))])
    os.setresgid(gids[0], gids[0], gids[0])
    os.setresuid(uid, uid, uid)


def set_limits(*, descriptors: int, memory_bytes: int, locked_bytes: int = 0) -> int:
    """Limits what this process may hold, and that it leaves no core dump.

    Args:
        descriptors: open at once, at most; fewer where the host gives fewer.
        memory_bytes: of data.
        locked_bytes: that may be kept from being swapped.

    Returns:
        How many descriptors are left to use.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = descriptors if most == resource.RLIM_INFINITY else min(descriptors, most)
    limits = {
        resource.RLIMIT_NOFILE: open_files,
        resource.RLIMIT_DATA: memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: locked_bytes,
    }
    for name, value in limits.items():
        with contextlib.suppress(ValueError):  # it is lower already
            resource.setrlimit(name, (value, value))
    return open_files - _SPARE
