"""The entry list of a layer: what its tar archive says, checked, without the contents.

A binary file, versioned and closed by its own digest:

    lns-entries 2
    BATCHES                             each 4 bytes of length, little endian, and so many bytes of
                                        MessagePack: an `array 32` of entries
    end 2 3 4096 2048 … sha256:…        version; number of entries; of the object pack the size,
                                        where its metadata begins, and that metadata's SHA-256
                                        (`0 0 -` for no pack); digest of everything before it

An entry is an array: `["put", path, inode]`, `["link", path, target]`, `["hide", path]` (that is a
whiteout) or `["opaque", path]`; an inode is the array of its fields. Link counts mean nothing here.
Paths are canonical; the root itself is empty.
"""

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

import msgspec

from services.core.errors import ContentCorrupt
from services.materializer.composefs.tree import Inode
from services.materializer.layers.names import Hide, Opaque
from services.materializer.layers.pack_metadata import PackEnd

_MAGIC = b"lns-entries 2\n"
_LENGTH = struct.Struct("<I")
_BATCH_BYTES = 64 << 10
_ARRAY = struct.Struct(">BI")
_ARRAY_32 = 0xDD
_END = re.compile(rb"\nend 2 ([0-9]+) ([0-9]+) ([0-9]+) (-|[0-9a-f]{64}) sha256:([0-9a-f]{64})\n")


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """A path gets an inode."""

    path: bytes
    inode: Inode


class Link(msgspec.Struct, frozen=True, array_like=True, tag="link"):
    """A path becomes one more name of the inode at `target`."""

    path: bytes
    target: bytes


Entry = Put | Link | Hide | Opaque


def _as_dict(mapping: object) -> Mapping[bytes, bytes]:
    if isinstance(mapping, MappingProxyType):
        return dict(mapping)
    raise NotImplementedError


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_as_dict)
_DECODER = msgspec.msgpack.Decoder(list[Entry])


class EntryWriter:
    """Writes an entry list; it is whole after `finish`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._batch = bytearray()
        self._batch_count = 0
        self._written = 0
        self.count = 0
        self._write(_MAGIC)

    @property
    def size(self) -> int:
        """Bytes of the list so far."""
        return self._written + len(self._batch)

    def add(self, entry: Entry) -> None:
        """Appends one entry."""
        _ENCODER.encode_into(entry, self._batch, -1)
        self._batch_count += 1
        self.count += 1
        if len(self._batch) >= _BATCH_BYTES:
            self._end_batch()

    def finish(self, pack: PackEnd) -> None:
        """Writes the closing line, with what is to be said of the object pack."""
        self._end_batch()
        self._write(
            b"\nend 2 %d %d %d %b "
            % (self.count, pack.size, pack.metadata_at, pack.metadata_digest.encode())
        )
        self._write(b"sha256:%b\n" % self._digest.hexdigest().encode())

    def _end_batch(self) -> None:
        if self._batch_count:
            size = _ARRAY.size + len(self._batch)
            head = _LENGTH.pack(size) + _ARRAY.pack(_ARRAY_32, self._batch_count)
            batch, self._batch, self._batch_count = self._batch, bytearray(), 0
            self._write(head)
            self._write(batch)

    def _write(self, data: bytes | bytearray) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._written += len(data)


class EntryListEnd(NamedTuple):
    """What the closing line of a list says."""

    entry_count: int
    pack: PackEnd


END_BYTES_MAX = 256
"""The closing line is among so many last bytes of a list."""


def parse_end(tail: bytes) -> EntryListEnd | None:
    """What the closing line of a list says, from its last bytes; None if it has no such line."""
    closing = _closing_line(tail)
    if closing is None:
        return None
    pack = PackEnd(int(closing[2]), int(closing[3]), closing[4].decode())
    return EntryListEnd(int(closing[1]), pack)


def _closing_line(data: bytes) -> re.Match[bytes] | None:
    return _END.fullmatch(data, max(0, data.rfind(b"\nend ")))


def parse_entries(data: bytes) -> Iterator[Entry]:
    """The entries of a list, in their order.

    Raises:
        ContentCorrupt: the list is damaged, cut off, or of another version.
    """
    closing = _closing_line(data)
    if not data.startswith(_MAGIC) or closing is None:
        raise ContentCorrupt("the entry list of a layer is cut off or of an unknown version")
    view = memoryview(data)
    if (
        hashlib.sha256(view[: closing.start(5) - len(b"sha256:")]).hexdigest().encode()
        != closing[5]
    ):
        raise ContentCorrupt("the entry list of a layer does not match its digest")
    count = 0
    try:
        for batch in _batches(view[len(_MAGIC) : closing.start()]):
            count += len(batch)
            yield from batch
    except (struct.error, msgspec.MsgspecError) as problem:
        raise ContentCorrupt(f"the entry list of a layer is malformed: {problem}") from problem
    if count != int(closing[1]):
        raise ContentCorrupt("the entry list of a layer has lost entries")


def _batches(data: memoryview) -> Iterator[list[Entry]]:
    at = 0
    while at < len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        yield _DECODER.decode(data[at : at + size])
        at += size
