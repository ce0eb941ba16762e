"""Answers the requests of one guest, in their order, until it hangs up or offends.

One thread and no queue: a request is answered before the next one is read, so a guest that asks
without end waits for itself, and what it can hold of the host is its nodes, its open files and one
message.
"""

import errno
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace

from services.vm_runner.file_server import answers, requests, wire
from services.vm_runner.file_server.content import Content
from services.vm_runner.file_server.entries import Entries
from services.vm_runner.file_server.served import Served, refused
from services.vm_runner.file_server.wire import InitFlag, Malformed, Opcode, Request

_WANTED = (
    InitFlag.ASYNC_READ
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.BIG_WRITES
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
)
_SILENT = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT)

Handler = Callable[[Request], bytes]


class Session:
    """One guest's view of one directory."""

    def __init__(self, served: Served) -> None:
        self._served = served
        entries, content = Entries(served), Content(served)
        self._handlers: Mapping[int, Handler] = {
            Opcode.INIT: self._init,
            Opcode.DESTROY: self._destroy,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._batch_forget,
            Opcode.INTERRUPT: lambda _: b"",
            Opcode.LOOKUP: entries.lookup,
            Opcode.GETATTR: entries.getattr,
            Opcode.SETATTR: entries.setattr,
            Opcode.READLINK: entries.readlink,
            Opcode.SYMLINK: entries.symlink,
            Opcode.MKNOD: entries.mknod,
            Opcode.MKDIR: entries.mkdir,
            Opcode.UNLINK: entries.unlink,
            Opcode.RMDIR: entries.rmdir,
            Opcode.RENAME: entries.rename,
            Opcode.RENAME2: entries.rename2,
            Opcode.LINK: entries.link,
            Opcode.STATFS: entries.statfs,
            Opcode.ACCESS: entries.access,
            Opcode.OPEN: content.open,
            Opcode.CREATE: content.create,
            Opcode.TMPFILE: content.tmpfile,
            Opcode.READ: content.read,
            Opcode.WRITE: content.write,
            Opcode.RELEASE: content.release,
            Opcode.FLUSH: content.flush,
            Opcode.FSYNC: content.fsync,
            Opcode.FALLOCATE: content.fallocate,
            Opcode.LSEEK: content.lseek,
            Opcode.COPY_FILE_RANGE: content.copy_file_range,
            Opcode.OPENDIR: content.opendir,
            Opcode.READDIR: content.readdir,
            Opcode.READDIRPLUS: content.readdirplus,
            Opcode.RELEASEDIR: content.releasedir,
            Opcode.FSYNCDIR: content.fsyncdir,
        }

    def answer(self, request: Request) -> tuple[bytes, bytes] | None:
        """Does what a request asks for; returns header and content of the answer, if it has one."""
        error, content = 0, b""
        try:
            content = self._handle(request)
        except OSError as failure:
            error = failure.errno or errno.EIO
        except (Malformed, ValueError, OverflowError):
            error = errno.EINVAL
        except struct.error:  # an attribute of the host's that the format has no room for
            error = errno.EOVERFLOW
        except MemoryError:
            error = errno.ENOMEM
        if request.opcode in _SILENT:
            return None
        return answers.reply_header(request.unique, len(content), error), content

    def _handle(self, request: Request) -> bytes:
        handler = self._handlers.get(request.opcode)
        if handler is None:
            raise refused(errno.ENOSYS)
        return handler(request)

    def serve(self, connection: socket.socket) -> None:
        """Answers until the guest hangs up.

        Raises:
            Malformed: the guest sent what is no message.
        """
        # Twice, so that the rest of one message and the next fit behind each other.
        data = bytearray(2 * wire.MAX_REQUEST)
        view = memoryview(data)
        begin = end = 0
        while True:
            size = wire.message_size(view[begin:end])
            if size == 0 or end - begin < size:
                if begin > wire.MAX_REQUEST:
                    view[: end - begin] = view[begin:end]
                    begin, end = 0, end - begin
                received = connection.recv_into(view[end:])
                if received == 0:
                    return
                end += received
                continue
            answer = self.answer(wire.parse_request(view[begin : begin + size]))
            begin += size
            if begin == end:
                begin = end = 0
            if answer is not None:
                _send(connection, *answer)

    # ---- the guest itself ----

    def _init(self, request: Request) -> bytes:
        """Agrees on what both can do. The guest wants to see the sender as the owner."""
        offer = requests.parse_init(request.body)
        if offer.major != wire.MAJOR or offer.minor < wire.MINOR_LEAST:
            raise refused(errno.EPROTO)
        self._served.owners = replace(
            self._served.owners, shown_uid=request.uid, shown_gid=request.gid
        )
        return answers.format_init(offer.flags & _WANTED, min(offer.max_readahead, wire.MAX_WRITE))

    def _destroy(self, _: Request) -> bytes:
        self._served.handles.close()
        return b""

    def _forget(self, request: Request) -> bytes:
        self._served.nodes.forget(request.node_id, requests.parse_forget(request.body))
        return b""

    def _batch_forget(self, request: Request) -> bytes:
        for node_id, lookups in requests.parse_batch_forget(request.body):
            self._served.nodes.forget(node_id, lookups)
        return b""


def _send(connection: socket.socket, header: bytes, content: bytes) -> None:
    sent = connection.sendmsg((header, content))
    if sent < len(header) + len(content):
        connection.sendall((header + content)[sent:])
