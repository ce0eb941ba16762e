"""Content: files that are open, and directories that are read."""

import ctypes
import errno
import os
import time

from services.vm_runner.file_server import answers, requests, room, wire
from services.vm_runner.file_server.handles import Listed, OpenDirectory
from services.vm_runner.file_server.nodes import Node, identity_of
from services.vm_runner.file_server.served import Served, refused
from services.vm_runner.file_server.wire import Request

_KEPT_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_TRUNC | os.O_SYNC | os.O_DSYNC
"""Flags of an open file that the host sees; the others are the guest's own affair."""

_PERMISSIONS = 0o1777
_COPY_MAX = 8 << 20
_SETTLED_NS = 2 * 10**9
"""More than the clock of any file system stands still for between two changes."""

# Python has only posix_fallocate(3), which writes zeros without end where a file system cannot.
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_GIVES_BACK = 3
_FALLOCATE_MODES = (0, 1, _GIVES_BACK)  # take room; the same beyond the end; give a hole back

_WHENCE = (os.SEEK_DATA, os.SEEK_HOLE)


class Content:
    """Requests about content."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._nodes = served.nodes
        self._handles = served.handles

    # ---- files ----

    def open(self, request: Request) -> bytes:
        """Opens a file."""
        flags = self._checked_flags(requests.parse_open(request.body))
        self._handles.check_room()
        node = self._nodes.get(request.node_id)
        descriptor = self._served.open(node, flags)
        keep_cache = _is_as_read(node, os.fstat(descriptor))
        return answers.format_open(self._handles.add_file(node, descriptor), keep_cache=keep_cache)

    def _checked_flags(self, flags: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._served.check_writable()
        return flags & _KEPT_FLAGS

    def create(self, request: Request) -> bytes:
        """Makes a file and opens it; opens an existing one if the guest permits that."""
        name, wanted, mode = requests.parse_create(request.body)
        parent = self._nodes.get(request.node_id)
        self._served.check_new_name(parent, name)
        self._handles.check_room()
        status, descriptor = self._make(parent, name, wanted, mode & _PERMISSIONS)
        try:
            node = self._nodes.tell(parent, name, identity_of(status))
        except BaseException:
            if descriptor is not None:
                os.close(descriptor)
            raise
        if descriptor is None:
            try:
                descriptor = self._served.open(node, wanted & _KEPT_FLAGS)
            except BaseException:
                self._nodes.forget(node.node_id, 1)  # the guest does not learn of it
                raise
        answer = answers.format_entry(node.node_id, status, self._served.owners)
        return answer + answers.format_open(self._handles.add_file(node, descriptor))

    def _make(
        self, parent: Node, name: bytes, wanted: int, mode: int
    ) -> tuple[os.stat_result, int | None]:
        """Makes a file; returns no descriptor of an existing one: its kind must be looked at."""
        flags = wanted & _KEPT_FLAGS | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = self._nodes.descriptor(parent)
        room.check_name(directory)
        try:
            descriptor = os.open(name, flags, mode, dir_fd=directory)
        except FileExistsError:
            if wanted & os.O_EXCL:
                raise
            return self._served.find(parent, name), None
        return os.fstat(descriptor), descriptor

    def tmpfile(self, request: Request) -> bytes:
        """Makes a file without a name, for `O_TMPFILE`; it may be given one later."""
        wanted, mode = requests.parse_tmpfile(request.body)
        self._served.check_writable()
        self._handles.check_room()
        directory = self._nodes.descriptor(self._nodes.get(request.node_id))
        room.check_name(directory)
        flags = wanted & (os.O_ACCMODE | os.O_APPEND | os.O_EXCL) | os.O_TMPFILE | os.O_CLOEXEC
        descriptor = os.open(b".", flags, mode & _PERMISSIONS, dir_fd=directory)
        try:
            status = os.fstat(descriptor)
            kept = os.open(
                b"%d" % descriptor, os.O_PATH | os.O_CLOEXEC, dir_fd=self._served.descriptors
            )
            parent = self._nodes.get(request.node_id)
            node = self._nodes.tell_nameless(parent, identity_of(status), kept)
        except BaseException:
            os.close(descriptor)
            raise
        answer = answers.format_entry(node.node_id, status, self._served.owners)
        return answer + answers.format_open(self._handles.add_file(node, descriptor))

    def read(self, request: Request) -> bytes:
        """Reads from an open file."""
        wanted = requests.parse_read(request.body)
        file = self._handles.file(wanted.fh)
        data = os.pread(file.descriptor, min(wanted.size, wire.MAX_WRITE), wanted.offset)
        self._served.pace.pass_on(len(data))
        return data

    def write(self, request: Request) -> bytes:
        """Writes to an open file."""
        wanted, data = requests.parse_write(request.body)
        file = self._handles.file(wanted.fh)
        room.check_write(file.descriptor, wanted.offset, len(data))
        self._served.pace.pass_on(len(data))
        return answers.format_write(os.pwrite(file.descriptor, data, wanted.offset))

    def release(self, request: Request) -> bytes:
        """Closes a file."""
        self._handles.close_file(requests.parse_handle(request.body))
        return b""

    def flush(self, request: Request) -> bytes:
        """Has nothing to do: what was written is the host's."""
        self._handles.file(requests.parse_handle(request.body))
        return b""

    def fsync(self, request: Request) -> bytes:
        """Has the host write a file back."""
        handle, data_only = requests.parse_fsync(request.body)
        (os.fdatasync if data_only else os.fsync)(self._handles.file(handle).descriptor)
        return b""

    def fallocate(self, request: Request) -> bytes:
        """Takes room for a file, or gives it back."""
        wanted = requests.parse_fallocate(request.body)
        descriptor = self._handles.file(wanted.fh).descriptor
        if wanted.mode not in _FALLOCATE_MODES:
            raise refused(errno.EOPNOTSUPP)
        if wanted.mode != _GIVES_BACK:
            room.check_write(descriptor, wanted.offset, wanted.length)
        if _fallocate(descriptor, wanted.mode, wanted.offset, wanted.length) < 0:
            raise refused(ctypes.get_errno())
        return b""

    def lseek(self, request: Request) -> bytes:
        """Finds data or a hole."""
        wanted = requests.parse_lseek(request.body)
        if wanted.whence not in _WHENCE:
            raise refused(errno.EINVAL)
        descriptor = self._handles.file(wanted.fh).descriptor
        return answers.format_lseek(os.lseek(descriptor, wanted.offset, wanted.whence))

    def copy_file_range(self, request: Request) -> bytes:
        """Copies from file to file without a byte in the guest."""
        wanted = requests.parse_copy(request.body)
        if wanted.flags:
            raise refused(errno.EINVAL)
        source = self._handles.file(wanted.fh_in).descriptor
        target = self._handles.file(wanted.fh_out).descriptor
        length = self._served.pace.portion(min(wanted.length, _COPY_MAX))
        room.check_write(target, wanted.offset_out, length)
        copied = os.copy_file_range(source, target, length, wanted.offset_in, wanted.offset_out)
        self._served.pace.pass_on(copied)
        return answers.format_write(copied)

    # ---- directories ----

    def opendir(self, request: Request) -> bytes:
        """Opens a directory."""
        self._handles.check_room()
        node = self._nodes.get(request.node_id)
        descriptor = self._served.open(node, os.O_RDONLY | os.O_DIRECTORY)
        return answers.format_open(self._handles.add_directory(node, descriptor))

    def readdir(self, request: Request) -> bytes:
        """Lists a directory from a position on."""
        return self._list(request, plus=False)

    def readdirplus(self, request: Request) -> bytes:
        """Lists a directory from a position on, each entry as if it had been looked up."""
        return self._list(request, plus=True)

    def _list(self, request: Request, *, plus: bool) -> bytes:
        wanted = requests.parse_read(request.body)
        directory = self._handles.directory(wanted.fh)
        room = min(wanted.size, wire.MAX_WRITE)
        answer = bytearray()
        position = wanted.offset
        while (listed := directory.at(position)) is not None:
            if len(answer) + answers.dirent_size(listed.name, plus=plus) > room:
                break
            position += 1
            if not self._served.is_hidden(directory.node, listed.name):
                entry = self._entry(directory, listed) if plus else None
                answer += answers.format_dirent(
                    listed.name, listed.ino, listed.kind, position, entry
                )
        return bytes(answer)

    def _entry(self, directory: OpenDirectory, listed: Listed) -> bytes:
        """Tells the guest of an entry; nothing for one that it has to look up itself."""
        if listed.name in (b".", b".."):
            return b""
        try:
            status = os.stat(listed.name, dir_fd=directory.descriptor, follow_symlinks=False)
            return self._served.entry(directory.node, listed.name, status)
        except OSError:
            return b""

    def releasedir(self, request: Request) -> bytes:
        """Closes a directory."""
        self._handles.close_directory(requests.parse_handle(request.body))
        return b""

    def fsyncdir(self, request: Request) -> bytes:
        """Has the host write a directory back."""
        handle, _ = requests.parse_fsync(request.body)
        os.fsync(self._handles.directory(handle).descriptor)
        return b""


def _is_as_read(node: Node, status: os.stat_result) -> bool:
    """Returns whether a file is what the guest read at its last opening; remembers what it is."""
    changed = status.st_ctime_ns
    is_same = node.settled == changed
    node.settled = changed if time.time_ns() - changed > _SETTLED_NS else 0
    return is_same
