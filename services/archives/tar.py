"""Reads a tar archive as a stream: V7, ustar, GNU and PAX, sparse files of every form.

Unlike archivers for interactive use, this reader never guesses: what is malformed, contradictory or
larger than the limits refuses the whole archive, by the name of the entry.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from services.archives.limits import TarLimits, unsafe
from services.archives.pax import (
    Records,
    parse_decimal,
    parse_records,
    parse_time,
    parse_xattrs,
)
from services.archives.sparse import Sparse, pax_map, read_gnu_map
from services.archives.stream import ByteStream
from services.archives.tar_header import BLOCK_BYTES, Header, parse_header

NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})
"""What an entry without extended attributes has; shared, so that the common case costs nothing."""

_U32_MAX = 0xFFFFFFFF
_MTIME_MAX = 1 << 62
_PERMISSIONS = 0o7777


class Kind(enum.Enum):
    """What an entry makes."""

    FILE = "file"
    HARD_LINK = "hard link"
    SYMLINK = "symbolic link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}

_EXTENSIONS = frozenset((b"L", b"K", b"x", b"X", b"g"))


class Hole(NamedTuple):
    """A run of zeros that is not in the archive."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of an archive, with the names as they stand there.

    Attributes:
        name: the path, not yet checked.
        mode: permission bits.
        mtime: seconds since 1970, signed; `mtime_nsec` nanoseconds beside them.
        size: bytes of a regular file, holes included; 0 for others.
        is_sparse: whether the archive gives the file as a map of its data.
        link_name: target of a symbolic or hard link.
    """

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    mtime_nsec: int
    size: int
    link_name: bytes
    major: int
    minor: int
    xattrs: Mapping[bytes, bytes]
    is_sparse: bool = False


class TarReader:
    """Iterates over the members of an archive; the content of each is read before the next.

    Every method raises ArchiveUnsafe where the archive is malformed or beyond the limits.
    """

    def __init__(
        self,
        stream: ByteStream,
        limits: TarLimits,
        *,
        types: frozenset[bytes] | None = None,
        end_is_proved: bool = False,
    ) -> None:
        """Reads nothing yet.

        Args:
            stream: the archive, not compressed.
            limits: the most that one entry may bring.
            types: the type flags that headers may have, those of extended headers among them; None
                accepts every known one.
            end_is_proved: whether a digest shows that nothing is missing. Then the end-of-archive
                mark and the padding of the last file, which not every builder writes, may be left
                out; else an archive without them counts as cut off.
        """
        self._stream = stream
        self._limits = limits
        self._types = types
        self._header_bytes = 0
        self._end_is_proved = end_is_proved
        self._member = b""
        self._stored = 0
        self._padding = 0
        self._sparse: Sparse | None = None

    def __iter__(self) -> Iterator[Member]:
        """The members in their order, up to the end-of-archive mark."""
        first = True
        while True:
            self._finish_member()
            header, long_name, long_link, records = self._read_headers(first=first)
            first = False
            if header is None:
                return
            yield self._member_of(header, long_name, long_link, records)

    def content(self) -> Iterator[memoryview | Hole]:
        """What the current member contains; a memoryview is valid until the next step."""
        sparse = self._sparse
        if sparse is None:
            stored, self._stored = self._stored, 0
            yield from self._stream.pieces(stored, within=self._member)
            return
        end = 0
        for offset, length in sparse.segments:
            if offset > end:
                yield Hole(offset - end)
            for piece in self._stream.pieces(length, within=self._member):
                self._stored -= len(piece)
                yield piece
            end = offset + length
        if sparse.real_size > end:
            yield Hole(sparse.real_size - end)

    def _finish_member(self) -> None:
        """Passes over what was not read of the current member, and its padding."""
        self._stream.skip(self._stored, within=self._member)
        if self._end_is_proved:
            self._stream.read_rest(self._padding)
        else:
            self._stream.skip(self._padding, within=self._member)
        self._stored = self._padding = 0
        self._sparse = None

    def _read_headers(self, *, first: bool) -> tuple[Header | None, bytes, bytes, Records]:
        """The next member's header with the extended headers before it; None at the end."""
        long_name = long_link = b""
        records: Records = []
        seen: set[bytes] = set()
        while True:
            block = self._stream.read_rest(BLOCK_BYTES)
            if not block.strip(b"\0"):
                self._check_end(block, first=first, pending=bool(seen - {b"g"}))
                return None, b"", b"", []
            if len(block) < BLOCK_BYTES:
                raise unsafe(b"", "the archive ends in the middle of a header (truncated)")
            header = parse_header(block)
            first = False
            if self._types is not None and header.kind not in self._types:
                raise unsafe(header.name, f"entries of type {header.kind!r} are not expected")
            if header.kind not in _EXTENSIONS:
                return header, long_name, long_link, records
            if header.kind in seen and header.kind != b"g":
                raise unsafe(header.name, "two extended headers of one kind precede one entry")
            seen.add(header.kind)
            data = self._read_extension(header)
            if header.kind == b"L":
                long_name = _c_string(data, header.name)
            elif header.kind == b"K":
                long_link = _c_string(data, header.name)
            elif header.kind == b"g":
                parse_records(data, header.name)  # must be sound, and means nothing here
            else:
                records += parse_records(data, header.name)

    def _check_end(self, block: bytes, *, first: bool, pending: bool) -> None:
        if pending:
            raise unsafe(b"", "an extended header is followed by no entry")
        if not block and not first and not self._end_is_proved:
            raise unsafe(b"", "the end-of-archive mark is missing (truncated)")
        if self._stream.read_rest(BLOCK_BYTES).strip(b"\0"):
            raise unsafe(b"", "one block of zeros is followed by more entries")

    def _read_extension(self, header: Header) -> bytes:
        size = header.size
        if size > self._limits.header_bytes:
            raise unsafe(
                header.name,
                f"an extended header of {size} bytes is more than {self._limits.header_bytes}",
            )
        self._header_bytes += size
        if self._header_bytes > self._limits.all_header_bytes:
            raise unsafe(
                header.name,
                f"extended headers of more than {self._limits.all_header_bytes} bytes precede it",
            )
        data = self._stream.read(size, within=header.name)
        self._stream.skip(-size % BLOCK_BYTES, within=header.name)
        return data

    def _member_of(
        self, header: Header, long_name: bytes, long_link: bytes, records: Records
    ) -> Member:
        fields = {key: value for key, value in records if value}
        name = fields.get(b"GNU.sparse.name") or fields.get(b"path") or long_name or header.name
        self._member = name
        kind = _KINDS.get(header.kind)
        if kind is None:
            raise unsafe(name, f"entries of type {header.kind!r} are not supported")
        if header.kind == b"\0" and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # how V7 tar wrote them
        size = self._place_content(header, kind, records, fields, name)
        mtime, mtime_nsec = header.mtime, 0
        if b"mtime" in fields:
            mtime, mtime_nsec = parse_time(fields[b"mtime"], name)
        member = Member(
            name=name,
            kind=kind,
            mode=header.mode & _PERMISSIONS,
            uid=_number(fields, b"uid", header.uid, name),
            gid=_number(fields, b"gid", header.gid, name),
            mtime=mtime,
            mtime_nsec=mtime_nsec,
            size=size,
            link_name=fields.get(b"linkpath") or long_link or header.link_name,
            major=header.major,
            minor=header.minor,
            xattrs=parse_xattrs(records, name) if records else NO_XATTRS,
            is_sparse=self._sparse is not None,
        )
        if member.uid > _U32_MAX or member.gid > _U32_MAX or not -_MTIME_MAX < mtime < _MTIME_MAX:
            raise unsafe(name, "its owner or time is out of range")
        return member

    def _place_content(
        self,
        header: Header,
        kind: Kind,
        records: Records,
        fields: Mapping[bytes, bytes],
        name: bytes,
    ) -> int:
        """Notes where the member's data is; returns its size with holes."""
        if kind is not Kind.FILE:
            return 0  # whatever the header says: only files have data
        size = _number(fields, b"size", header.size, name)
        stored = size
        sparse = None
        if header.kind == b"S":
            sparse = read_gnu_map(header, self._stream, self._limits)
        elif records:
            sparse = pax_map(records, self._stream, stored, name, self._limits)
        if sparse is not None:
            stored -= sparse.map_bytes
            sparse.check(stored, name)
            size = sparse.real_size
        if size > self._limits.file_bytes:
            raise unsafe(name, f"a file of {size} bytes is more than {self._limits.file_bytes}")
        self._sparse = sparse
        self._stored = stored
        self._padding = -stored % BLOCK_BYTES
        return size


def _number(fields: Mapping[bytes, bytes], key: bytes, default: int, name: bytes) -> int:
    value = fields.get(key)
    return default if value is None else parse_decimal(value, name, key.decode())


def _c_string(data: bytes, name: bytes) -> bytes:
    """GNU's long names: text that ends with a NUL."""
    text = data.rstrip(b"\0")
    if b"\0" in text:
        raise unsafe(name, "a long name holds a NUL")
    return text
