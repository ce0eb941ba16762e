"""Names and attributes: what is found, made, moved and removed in a bound directory."""

import ctypes
import errno
import os
import stat

from services.vm_runner.file_server import answers, requests, room, wire
from services.vm_runner.file_server.nodes import Node, identity_of
from services.vm_runner.file_server.served import Served, refused
from services.vm_runner.file_server.wire import AttrField, Request

_PERMISSIONS = 0o1777
"""Of a mode that the guest wants; it cannot make anything that runs as another user."""

_OF_DIRECTORY = _PERMISSIONS | stat.S_ISGID
"""The same of a directory, whose set-group-id bit only says which group new entries get."""

_MADE_WITHOUT_OPENING = (stat.S_IFIFO, stat.S_IFSOCK)
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


class Entries:
    """Requests about names and attributes."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._nodes = served.nodes

    # ---- looking ----

    def lookup(self, request: Request) -> bytes:
        """Finds an entry."""
        parent = self._nodes.get(request.node_id)
        name = requests.parse_name(request.body)
        try:
            status = self._served.find(parent, name)
        except FileNotFoundError:
            return answers.NO_ENTRY
        return self._served.entry(parent, name, status)

    def getattr(self, request: Request) -> bytes:
        """Returns attributes, of an open file where the guest names one."""
        handle = requests.parse_getattr(request.body)
        if handle is not None:
            status = os.fstat(self._served.handles.file(handle).descriptor)
        else:
            status = self._nodes.status(self._nodes.get(request.node_id))
        return answers.format_attr_out(status, self._served.owners)

    def readlink(self, request: Request) -> bytes:
        """Returns where a link leads; the guest follows it, in its own tree."""
        node = self._nodes.get(request.node_id)
        return os.readlink(b"", dir_fd=self._nodes.descriptor(node))

    def access(self, request: Request) -> bytes:
        """Tells whether the host would permit something."""
        mask = requests.parse_access(request.body) & (os.R_OK | os.W_OK | os.X_OK)
        if mask & os.W_OK:
            self._served.check_writable()
        name = self._served.link_to(self._nodes.get(request.node_id))
        if not os.access(name, mask, dir_fd=self._served.descriptors, effective_ids=True):
            raise refused(errno.EACCES)
        return b""

    def statfs(self, request: Request) -> bytes:
        """Tells how full the host's file system is."""
        node = self._nodes.get(request.node_id)
        return answers.format_statfs(os.statvfs(self._nodes.descriptor(node)))

    # ---- attributes ----

    def setattr(self, request: Request) -> bytes:
        """Changes mode, size and times; the owner stays the host's, without an error."""
        self._served.check_writable()
        node = self._nodes.get(request.node_id)
        wanted = requests.parse_setattr(request.body)
        if wanted.valid & AttrField.MODE:
            self._change_mode(node, wanted.mode)
        if wanted.valid & AttrField.SIZE:
            self._change_size(node, wanted)
        if wanted.valid & (AttrField.ATIME | AttrField.MTIME):
            self._change_times(node, wanted)
        return answers.format_attr_out(self._nodes.status(node), self._served.owners)

    def _change_mode(self, node: Node, mode: int) -> None:
        kind = self._nodes.status(node).st_mode
        if stat.S_ISLNK(kind):
            raise refused(errno.EOPNOTSUPP)
        permitted = _OF_DIRECTORY if stat.S_ISDIR(kind) else _PERMISSIONS
        os.chmod(self._served.link_to(node), mode & permitted, dir_fd=self._served.descriptors)

    def _change_size(self, node: Node, wanted: requests.SetattrIn) -> None:
        if wanted.size >= 1 << 63:
            raise refused(errno.EINVAL)
        if wanted.valid & AttrField.FH:
            os.ftruncate(self._served.handles.file(wanted.fh).descriptor, wanted.size)
            return
        descriptor = self._served.open(node, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, wanted.size)
        finally:
            os.close(descriptor)

    def _change_times(self, node: Node, wanted: requests.SetattrIn) -> None:
        place = self._served.link_to(node)
        both_now = AttrField.ATIME_NOW | AttrField.MTIME_NOW
        if wanted.valid & both_now == both_now:
            os.utime(place, dir_fd=self._served.descriptors)
            return
        status = self._nodes.status(node)
        accessed, modified = status.st_atime_ns, status.st_mtime_ns
        if wanted.valid & AttrField.ATIME:
            accessed = _nanoseconds(wanted.atime, wanted.atime_ns)
        if wanted.valid & AttrField.MTIME:
            modified = _nanoseconds(wanted.mtime, wanted.mtime_ns)
        os.utime(place, ns=(accessed, modified), dir_fd=self._served.descriptors)

    # ---- what is made ----

    def mkdir(self, request: Request) -> bytes:
        """Makes a directory."""
        name, mode = requests.parse_mkdir(request.body)
        parent = self._new(request, name)
        os.mkdir(name, mode & _PERMISSIONS, dir_fd=self._nodes.descriptor(parent))
        return self._made(parent, name)

    def mknod(self, request: Request) -> bytes:
        """Makes a file, a pipe or a socket; pipes and sockets only the guest ever opens."""
        name, mode = requests.parse_mknod(request.body)
        parent = self._new(request, name)
        directory = self._nodes.descriptor(parent)
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFREG:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(name, flags, mode & _PERMISSIONS, dir_fd=directory))
        elif kind in _MADE_WITHOUT_OPENING:
            os.mknod(name, kind | mode & _PERMISSIONS, dir_fd=directory)
        else:
            raise refused(errno.EPERM)
        return self._made(parent, name)

    def symlink(self, request: Request) -> bytes:
        """Makes a symbolic link."""
        name, target = requests.parse_symlink(request.body)
        parent = self._new(request, name)
        os.symlink(target, name, dir_fd=self._nodes.descriptor(parent))
        return self._made(parent, name)

    def link(self, request: Request) -> bytes:
        """Gives a file a further name."""
        node_id, name = requests.parse_link(request.body)
        parent = self._new(request, name)
        node = self._nodes.get(node_id)
        with self._served.directory(parent) as directory:
            os.link(
                self._served.link_to(node),
                name,
                src_dir_fd=self._served.descriptors,
                dst_dir_fd=directory,
                follow_symlinks=True,
            )
        return self._made(parent, name)

    def _new(self, request: Request, name: bytes) -> Node:
        parent = self._nodes.get(request.node_id)
        self._served.check_new_name(parent, name)
        room.check_name(self._nodes.descriptor(parent))
        return parent

    def _made(self, parent: Node, name: bytes) -> bytes:
        return self._served.entry(parent, name, self._served.find(parent, name))

    # ---- what is moved and removed ----

    def unlink(self, request: Request) -> bytes:
        """Removes a name of a file."""
        parent, name = self._removal(request)
        os.unlink(name, dir_fd=self._nodes.descriptor(parent))
        return b""

    def rmdir(self, request: Request) -> bytes:
        """Removes an empty directory."""
        parent, name = self._removal(request)
        os.rmdir(name, dir_fd=self._nodes.descriptor(parent))
        return b""

    def _removal(self, request: Request) -> tuple[Node, bytes]:
        self._served.check_writable()
        parent, name = self._nodes.get(request.node_id), requests.parse_name(request.body)
        self._keep(self._served.find(parent, name))
        return parent, name

    def _keep(self, status: os.stat_result) -> None:
        """Keeps what is about to lose its name for those who have it open."""
        node = self._nodes.find(identity_of(status))
        if node is not None:
            self._nodes.keep(node)

    def rename(self, request: Request) -> bytes:
        """Moves an entry, over another one if there is one."""
        return self._rename(request, *requests.parse_rename(request.body, with_flags=False))

    def rename2(self, request: Request) -> bytes:
        """Moves an entry, not over another one, or exchanges the two."""
        return self._rename(request, *requests.parse_rename(request.body, with_flags=True))

    def _rename(
        self, request: Request, old: bytes, new_parent: int, new: bytes, flags: int
    ) -> bytes:
        source, target = self._nodes.get(request.node_id), self._nodes.get(new_parent)
        for parent, name in ((source, old), (target, new)):
            if self._served.pins(parent, name):
                raise refused(errno.EACCES)
        moved = self._served.find(source, old)
        self._served.check_new_name(target, new)
        replaced = self._found(target, new)
        if replaced is not None and not flags and identity_of(replaced) != identity_of(moved):
            self._keep(replaced)
        with self._served.directory(source) as left, self._served.directory(target) as entered:
            _move(left, old, entered, new, flags)
        self._relocate(moved, target, new)
        if replaced is not None and flags & wire.RENAME_EXCHANGE:
            self._relocate(replaced, source, old)
        return b""

    def _found(self, parent: Node, name: bytes) -> os.stat_result | None:
        try:
            return self._served.find(parent, name)
        except FileNotFoundError:
            return None

    def _relocate(self, status: os.stat_result, parent: Node, name: bytes) -> None:
        node = self._nodes.find(identity_of(status))
        if node is not None:
            self._nodes.move(node, parent, name)


def _move(source: int, old: bytes, target: int, new: bytes, flags: int) -> None:
    if not flags:
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
        return
    if _renameat2 is None or flags not in (wire.RENAME_NOREPLACE, wire.RENAME_EXCHANGE):
        raise refused(errno.EINVAL)
    if _renameat2(source, old, target, new, ctypes.c_uint(flags)) < 0:
        raise refused(ctypes.get_errno())


def _nanoseconds(seconds: int, nanoseconds: int) -> int:
    if seconds >= 1 << 63:
        seconds -= 1 << 64
    return seconds * 10**9 + min(nanoseconds, 10**9 - 1)
