"""The entry list of a layer: what its tar archive says, checked, without the contents.

A text file, versioned and closed by its own digest:

    lns-entries 1
    hide /etc/motd                      a whiteout
    opaque /var/cache                   an opaque directory
    /usr 0 40755 1 0 0 0 0.0 - - -      anything else, as a line of a composefs dump
    end 3 4096 2048 … sha256:…          number of lines between; of the object pack the size,
                                        where its metadata begins, and that metadata's SHA-256
                                        (`0 0 -` for no pack); digest of everything before it

Hard links stand as the dump has them, with the target's path as payload; link counts mean nothing
here. Paths are canonical; the root itself is `/`.
"""

import hashlib
import re
import stat
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from services.core.errors import ContentCorrupt
from services.materializer.composefs.dump_lines import LineInvalid, LineReader, unescape
from services.materializer.composefs.dump_text import escape, format_inode, format_link
from services.materializer.composefs.tree import Inode
from services.materializer.layers.names import Hide, Opaque
from services.materializer.layers.pack_metadata import PackEnd

_MAGIC = b"lns-entries 1\n"
_HIDE = b"hide "
_OPAQUE = b"opaque "
_END = re.compile(rb"end ([0-9]+) ([0-9]+) ([0-9]+) (-|[0-9a-f]{64}) sha256:([0-9a-f]{64})\n")
_LINK_STUB = Inode(stat.S_IFREG)


class Put(NamedTuple):
    """A path gets an inode."""

    path: bytes
    inode: Inode


class Link(NamedTuple):
    """A path becomes one more name of the inode at `target`."""

    path: bytes
    target: bytes


Entry = Put | Link | Hide | Opaque


class EntryWriter:
    """Writes an entry list; it is whole after `finish`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.count = 0
        self.size = 0
        self._write(_MAGIC)

    def add(self, entry: Entry) -> None:
        """Appends one entry."""
        if isinstance(entry, Put):
            line = format_inode(entry.path or b"/", entry.inode)
        elif isinstance(entry, Link):
            line = format_link(entry.path, _LINK_STUB, entry.target)
        elif isinstance(entry, Hide):
            line = _HIDE + escape(entry.path)
        else:
            line = _OPAQUE + escape(entry.path or b"/")
        self._write(line + b"\n")
        self.count += 1

    def finish(self, pack: PackEnd) -> None:
        """Writes the closing line, with what is to be said of the object pack."""
        self._write(
            b"end %d %d %d %b "
            % (self.count, pack.size, pack.metadata_at, pack.metadata_digest.encode())
        )
        self._write(b"sha256:%b\n" % self._digest.hexdigest().encode())

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._digest.update(line)
        self.size += len(line)


class EntryListEnd(NamedTuple):
    """What the closing line of a list says."""

    entry_count: int
    pack: PackEnd


END_BYTES_MAX = 256
"""The closing line is among so many last bytes of a list."""


def parse_end(tail: bytes) -> EntryListEnd | None:
    """What the closing line of a list says, from its last bytes; None if there is none."""
    closing = _END.fullmatch(tail, tail.rfind(b"\n", 0, -1) + 1)
    if closing is None:
        return None
    pack = PackEnd(int(closing[2]), int(closing[3]), closing[4].decode())
    return EntryListEnd(int(closing[1]), pack)


def parse_entries(data: bytes) -> Iterator[Entry]:
    """The entries of a list, in their order.

    Raises:
        ContentCorrupt: the list is damaged, cut off, or of another version.
    """
    end = data.rfind(b"\n", 0, -1) + 1
    closing = _END.fullmatch(data, end)
    if not data.startswith(_MAGIC) or closing is None:
        raise ContentCorrupt("the entry list of a layer is cut off or of an unknown version")
    hashed = memoryview(data)[: closing.start(5) - len(b"sha256:")]
    if hashlib.sha256(hashed).hexdigest().encode() != closing[5]:
        raise ContentCorrupt("the entry list of a layer does not match its digest")
    lines = data[len(_MAGIC) : end].split(b"\n")[:-1]
    if len(lines) != int(closing[1]):
        raise ContentCorrupt("the entry list of a layer has lost lines")
    reader = LineReader()
    try:
        for line in lines:
            yield _entry(line, reader)
    except LineInvalid as problem:
        raise ContentCorrupt(f"the entry list of a layer is malformed: {problem}") from problem


def _entry(line: bytes, reader: LineReader) -> Entry:
    if line.startswith(b"/"):
        path, described = reader.read(line)
        if isinstance(described, Inode):
            return Put(b"" if path == b"/" else path, described)
        return Link(path, described)
    mark, _, text = line.partition(b" ")
    path = unescape(text)
    if mark == b"hide":
        return Hide(path)
    if mark == b"opaque":
        return Opaque(b"" if path == b"/" else path)
    raise LineInvalid("an unknown mark")
