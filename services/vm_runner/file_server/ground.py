"""Confines the file server to the one thing that it serves: `docs/binds.md` says how.

Afterwards there are no files but the bind's.
"""

import errno
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.isolation import steps, system_calls
from services.isolation.allowed_calls import Kind
from services.isolation.call_filter import install_filter
from services.vm_runner.file_server.wire import Owners

FILES_MOST = 4096
_DESCRIPTORS = 8192
_MEMORY_BYTES = 768 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """On what the server stands when it is confined.

    Attributes:
        root: descriptor of what is served.
        descriptors: of `/proc/self/fd`, in a procfs of this process alone.
        owners: the user whose rights apply to the host's files.
        open_files: how many descriptors it may have.
        obstacle: why there is no view of its own; empty where there is.
    """

    root: int
    descriptors: int
    owners: Owners
    open_files: int
    obstacle: str


def confine(
    source: Path,
    *,
    read_only: bool,
    view_required: bool,
    record: Callable[[int], None] = lambda _: None,
) -> Ground:
    """Leaves everything behind but what is served, and the rights of its owner.

    Args:
        source: absolute, without links.
        read_only: whether the mount is, too.
        view_required: whether a host that permits no view of its own is an error.
        record: called with the pid of the process in which the server goes on, by the one that it
            leaves behind.

    Raises:
        OSError: a step failed that has to succeed.
    """
    owners = owners_of(source.lstat())
    is_parted = True
    try:
        descriptors, obstacle = steps.part_processes(record)
    except OSError as error:
        is_parted = False
        obstacle = str(error)
        descriptors = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if view_required and obstacle:
        raise OSError(errno.EPERM, obstacle)
    try:
        root = steps.enter_view(source, read_only=read_only, is_parted=is_parted)
    except OSError as error:
        if view_required:
            raise
        obstacle = str(error)
        root = os.open(source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    steps.become(owners.uid, owners.gids)
    if is_parted:
        system_calls.end_with_parent()
    open_files = steps.set_limits(descriptors=_DESCRIPTORS, memory_bytes=_MEMORY_BYTES)
    system_calls.drop_capabilities()
    install_filter(Kind.FILE_SERVER)
    os.umask(0)
    return Ground(
        root=root,
        descriptors=descriptors,
        owners=owners,
        open_files=open_files,
        obstacle=obstacle,
    )


def owners_of(status: os.stat_result) -> Owners:
    """Returns the user that something is served as: its owner where we are root, else ourselves."""
    if os.geteuid() != 0:
        return Owners(uid=os.geteuid(), gids=(os.getegid(), *os.getgroups()))
    try:
        entry = pwd.getpwuid(status.st_uid)
    except KeyError:
        return Owners(uid=status.st_uid, gids=(status.st_gid,))
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Owners(uid=status.st_uid, gids=tuple(dict.fromkeys((entry.pw_gid, *groups))))
