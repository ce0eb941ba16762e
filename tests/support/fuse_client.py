"""A guest's kernel as far as the file server's tests need one: requests as bytes, answers read."""

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.vm_runner.file_server import wire
from services.vm_runner.file_server.handles import Handles
from services.vm_runner.file_server.nodes import NodeTable
from services.vm_runner.file_server.pace import Pace
from services.vm_runner.file_server.served import Served
from services.vm_runner.file_server.session import Session
from services.vm_runner.file_server.wire import Opcode

ROOT = wire.ROOT_ID
INIT = struct.pack("<IIII", 7, 41, 1 << 20, 0xFFFFFFFF) + bytes(48)


def message(opcode: int, node: int, body: bytes = b"", *, unique: int = 1, uid: int = 0) -> bytes:
    """Return a request as the kernel would write it."""
    header = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, unique, node, uid, uid, 1, 0, 0)
    return header + body


class FuseError(Exception):
    """The server answered with an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, str(number)))
        self.number = number


@dataclass(frozen=True)
class Attr:
    """Attributes as the guest sees them."""

    ino: int
    size: int
    mode: int
    nlink: int
    uid: int
    gid: int
    mtime: int


@dataclass(frozen=True)
class Entry:
    """What a lookup gives."""

    node: int
    attr: Attr


def parse_attr(data: bytes) -> Attr:
    values = struct.unpack_from("<6Q10I", data)
    return Attr(
        ino=values[0], size=values[1], mtime=values[4], mode=values[9], nlink=values[10],
        uid=values[11], gid=values[12],
    )  # fmt: skip


def parse_entry(data: bytes) -> Entry:
    return Entry(node=struct.unpack_from("<Q", data)[0], attr=parse_attr(data[40:]))


def parse_listing(data: bytes, *, plus: bool = False) -> tuple[dict[bytes, int], int]:
    """Return names with their nodes, 0 where the guest was not given one; where to go on."""
    names, at, position = {}, 0, 0
    while at < len(data):
        node = struct.unpack_from("<Q", data, at)[0] if plus else 0
        start = at + (128 if plus else 0)
        _, position, length, _ = struct.unpack_from("<QQII", data, start)
        names[data[start + 24 : start + 24 + length]] = node
        at = -(-(start + 24 + length) // 8) * 8
    return names, position


class FuseClient:
    """Asks a file server, as one process of the guest after the other would.

    Args:
        exchange: takes a request and returns the answer, header and content; None if it has none.
        session: that answers, where it is in this process.
    """

    def __init__(
        self, exchange: Callable[[bytes], bytes | None], session: Session | None = None
    ) -> None:
        self._exchange = exchange
        self._session = session

    @property
    def session(self) -> Session:
        """The session of this process."""
        assert self._session is not None
        return self._session

    def ask(self, opcode: int, node: int = ROOT, body: bytes = b"", *, uid: int = 0) -> bytes:
        answer = self._exchange(message(opcode, node, body, uid=uid))
        assert answer is not None
        header, content = answer[:16], answer[16:]
        size, error, unique = struct.unpack("<IiQ", header)
        assert (size, unique) == (len(answer), 1)
        if error:
            assert content == b""
            raise FuseError(-error)
        return content

    def tell(self, opcode: int, node: int = ROOT, body: bytes = b"") -> None:
        """Send what has no answer."""
        assert self._exchange(message(opcode, node, body)) is None

    def init(self, *, uid: int = 0) -> bytes:
        return self.ask(Opcode.INIT, 0, INIT, uid=uid)

    def lookup(self, name: bytes, parent: int = ROOT) -> Entry:
        """Find an entry; raise ENOENT where the answer is that it does not exist."""
        entry = parse_entry(self.ask(Opcode.LOOKUP, parent, name + b"\0"))
        if entry.node == 0:
            raise FuseError(errno.ENOENT)
        return entry

    def walk(self, path: str) -> Entry:
        node = ROOT
        entry = Entry(ROOT, self.getattr(ROOT))
        for part in path.split("/"):
            entry = self.lookup(part.encode(), node)
            node = entry.node
        return entry

    def getattr(self, node: int) -> Attr:
        return parse_attr(self.ask(Opcode.GETATTR, node, bytes(16))[16:])

    def setattr(self, node: int, valid: int, **values: int) -> Attr:
        order = ("fh", "size", "lock_owner", "atime", "mtime", "ctime")
        times = ("atime_ns", "mtime_ns", "ctime_ns", "mode")
        body = struct.pack("<II", valid, 0)
        body += struct.pack("<6Q", *(values.get(name, 0) for name in order))
        body += struct.pack("<4I", *(values.get(name, 0) for name in times))
        body += struct.pack("<4I", 0, values.get("uid", 0), values.get("gid", 0), 0)
        return parse_attr(self.ask(Opcode.SETATTR, node, body)[16:])

    def open(self, node: int, flags: int = os.O_RDONLY, opcode: int = Opcode.OPEN) -> int:
        return int(
            struct.unpack_from("<Q", self.ask(opcode, node, struct.pack("<II", flags, 0)))[0]
        )

    def create(
        self, name: bytes, parent: int = ROOT, *, flags: int = os.O_RDWR, mode: int = 0o644
    ) -> tuple[Entry, int]:
        body = struct.pack("<IIII", flags | os.O_CREAT, mode, 0, 0) + name + b"\0"
        answer = self.ask(Opcode.CREATE, parent, body)
        return parse_entry(answer), struct.unpack_from("<Q", answer, 128)[0]

    def tmpfile(
        self, parent: int = ROOT, *, flags: int = os.O_RDWR, mode: int = 0o600
    ) -> tuple[Entry, int]:
        body = struct.pack("<IIII", flags | os.O_TMPFILE, mode, 0, 0) + b"#1\0"
        answer = self.ask(Opcode.TMPFILE, parent, body)
        return parse_entry(answer), struct.unpack_from("<Q", answer, 128)[0]

    def read(self, fh: int, size: int = 4096, offset: int = 0) -> bytes:
        return self.ask(Opcode.READ, ROOT, struct.pack("<QQIIQII", fh, offset, size, 0, 0, 0, 0))

    def write(self, fh: int, data: bytes, offset: int = 0) -> int:
        body = struct.pack("<QQIIQII", fh, offset, len(data), 0, 0, 0, 0) + data
        return int(struct.unpack_from("<I", self.ask(Opcode.WRITE, ROOT, body))[0])

    def content(self, node: int) -> bytes:
        fh = self.open(node)
        data = self.read(fh, 1 << 20)
        self.release(fh)
        return data

    def release(self, fh: int, opcode: int = Opcode.RELEASE) -> None:
        self.ask(opcode, ROOT, struct.pack("<QIIQ", fh, 0, 0, 0))

    def names(self, node: int = ROOT, *, plus: bool = False, room: int = 4096) -> dict[bytes, int]:
        """List a directory, as many requests as it takes."""
        fh = self.open(node, opcode=Opcode.OPENDIR)
        opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
        found: dict[bytes, int] = {}
        position = 0
        while True:
            body = struct.pack("<QQIIQII", fh, position, room, 0, 0, 0, 0)
            data = self.ask(opcode, node, body)
            if not data:
                break
            names, position = parse_listing(data, plus=plus)
            found |= names
        self.release(fh, Opcode.RELEASEDIR)
        return found

    def mkdir(self, name: bytes, parent: int = ROOT, mode: int = 0o755) -> Entry:
        body = struct.pack("<II", mode, 0) + name + b"\0"
        return parse_entry(self.ask(Opcode.MKDIR, parent, body))

    def mknod(self, name: bytes, mode: int = stat.S_IFREG | 0o644, parent: int = ROOT) -> Entry:
        body = struct.pack("<IIII", mode, 0, 0, 0) + name + b"\0"
        return parse_entry(self.ask(Opcode.MKNOD, parent, body))

    def symlink(self, name: bytes, target: bytes, parent: int = ROOT) -> Entry:
        return parse_entry(self.ask(Opcode.SYMLINK, parent, name + b"\0" + target + b"\0"))

    def link(self, node: int, name: bytes, parent: int = ROOT) -> Entry:
        body = struct.pack("<Q", node) + name + b"\0"
        return parse_entry(self.ask(Opcode.LINK, parent, body))

    def unlink(self, name: bytes, parent: int = ROOT) -> None:
        self.ask(Opcode.UNLINK, parent, name + b"\0")

    def rmdir(self, name: bytes, parent: int = ROOT) -> None:
        self.ask(Opcode.RMDIR, parent, name + b"\0")

    def rename(
        self,
        old: bytes,
        new: bytes,
        *,
        parent: int = ROOT,
        to: int = ROOT,
        flags: int | None = None,
    ) -> None:
        names = old + b"\0" + new + b"\0"
        if flags is None:
            self.ask(Opcode.RENAME, parent, struct.pack("<Q", to) + names)
        else:
            self.ask(Opcode.RENAME2, parent, struct.pack("<QII", to, flags, 0) + names)

    def forget(self, node: int, lookups: int = 1) -> None:
        self.tell(Opcode.FORGET, node, struct.pack("<Q", lookups))


@contextmanager
def serving(
    folder: Path,
    *,
    read_only: bool = False,
    hides_secrets: bool = True,
    most: int = 1000,
    most_open: int = 16,
    handles: int = 32,
    owner: int | None = None,
    pace: Pace | None = None,
) -> Iterator[FuseClient]:
    """Serve a directory in this process, without a boundary around it."""
    owners = wire.Owners(uid=os.geteuid() if owner is None else owner, gids=(os.getegid(),))
    nodes = NodeTable(os.open(folder, os.O_PATH | os.O_NOFOLLOW), most=most, most_open=most_open)
    served = Served(
        nodes=nodes,
        handles=Handles(handles),
        owners=owners,
        descriptors=os.open("/proc/self/fd", os.O_PATH),
        read_only=read_only,
        hides_secrets=hides_secrets,
        pace=pace or Pace(),
    )
    before = os.umask(0)
    try:
        session = Session(served)

        def exchange(data: bytes) -> bytes | None:
            answer = session.answer(wire.parse_request(memoryview(data)))
            return None if answer is None else b"".join(answer)

        client = FuseClient(exchange, session)
        client.init()
        yield client
    finally:
        os.umask(before)
        served.handles.close()
        nodes.close()
        os.close(served.descriptors)


SILENT = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT)


def over(connection: socket.socket) -> FuseClient:
    """Ask a file server at the other end of a connection."""

    def receive(size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = connection.recv(size - len(data))
            if not piece:
                raise ConnectionResetError("the file server hung up")
            data += piece
        return data

    def exchange(data: bytes) -> bytes | None:
        connection.sendall(data)
        if int.from_bytes(data[4:8], "little") in SILENT:
            return None
        header = receive(16)
        return header + receive(int.from_bytes(header[:4], "little") - 16)

    return FuseClient(exchange)
