"""What FUSE requests say, read from their bytes; `wire` says where the format is from. Pure."""

import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from services.vm_runner.file_server.wire import (
    FSYNC_DATA_ONLY,
    GETATTR_FH,
    LINK_MAX,
    NAME_MAX,
    Malformed,
)

_INIT_IN = struct.Struct("<IIII")
_FORGET = struct.Struct("<QQ")
_QUAD = struct.Struct("<Q")
_TWO = struct.Struct("<II")
_FOUR = struct.Struct("<IIII")
_SETATTR = struct.Struct("<II6Q4I4x2I4x")
_READ = struct.Struct("<QQII8xI4x")
_HANDLE = struct.Struct("<Q16x")
_FSYNC = struct.Struct("<QI4x")
_RENAME2 = struct.Struct("<QI4x")
_FALLOCATE = struct.Struct("<QQQI4x")
_LSEEK = struct.Struct("<QQI4x")
_COPY = struct.Struct("<7Q")


class InitIn(NamedTuple):
    """Of INIT."""

    major: int
    minor: int
    max_readahead: int
    flags: int


class SetattrIn(NamedTuple):
    """Of SETATTR; times in seconds and nanoseconds."""

    valid: int
    padding: int
    fh: int
    size: int
    lock_owner: int
    atime: int
    mtime: int
    ctime: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int


class ReadIn(NamedTuple):
    """Of READ, READDIR, READDIRPLUS and WRITE."""

    fh: int
    offset: int
    size: int
    read_flags: int
    flags: int


class FallocateIn(NamedTuple):
    """Of FALLOCATE."""

    fh: int
    offset: int
    length: int
    mode: int


class LseekIn(NamedTuple):
    """Of LSEEK."""

    fh: int
    offset: int
    whence: int


class CopyIn(NamedTuple):
    """Of COPY_FILE_RANGE."""

    fh_in: int
    offset_in: int
    node_id_out: int
    fh_out: int
    offset_out: int
    length: int
    flags: int


def _fields(layout: struct.Struct, body: memoryview) -> tuple[int, ...]:
    try:
        return layout.unpack_from(body)
    except struct.error:
        raise Malformed("a request that is too short") from None


def _signed(offset: int) -> int:
    if offset >= 1 << 63:
        raise Malformed("a negative offset")
    return offset


def _texts(body: memoryview, count: int) -> list[bytes]:
    parts = bytes(body).split(b"\0", count)
    if len(parts) <= count:
        raise Malformed("a text without an end")
    return parts[:count]


def check_name(name: bytes) -> bytes:
    """Returns a name of an entry of a directory.

    Raises:
        Malformed: it cannot be one.
        OSError: it is too long.
    """
    if len(name) > NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if name in (b"", b".", b"..") or b"/" in name:
        raise Malformed("a name that leads elsewhere")
    return name


def parse_name(body: memoryview, *, skip: int = 0) -> bytes:
    """Reads the name that stands behind `skip` bytes."""
    return check_name(_texts(body[skip:], 1)[0])


def parse_init(body: memoryview) -> InitIn:
    """Reads INIT."""
    return InitIn(*_fields(_INIT_IN, body))


def parse_forget(body: memoryview) -> int:
    """Reads FORGET: how many lookups are forgotten."""
    return _fields(_QUAD, body)[0]


def parse_batch_forget(body: memoryview) -> Iterator[tuple[int, int]]:
    """Reads BATCH_FORGET: nodes, and how many lookups of each are forgotten."""
    count, _ = _fields(_TWO, body)
    if len(body) < _TWO.size + count * _FORGET.size:
        raise Malformed("a request that is too short")
    for index in range(count):
        node_id, lookups = _FORGET.unpack_from(body, _TWO.size + index * _FORGET.size)
        yield node_id, lookups


def parse_getattr(body: memoryview) -> int | None:
    """Reads GETATTR: the handle it is about, if any."""
    flags, _ = _fields(_TWO, body)
    return _fields(_QUAD, body[_TWO.size :])[0] if flags & GETATTR_FH else None


def parse_setattr(body: memoryview) -> SetattrIn:
    """Reads SETATTR."""
    return SetattrIn(*_fields(_SETATTR, body))


def parse_symlink(body: memoryview) -> tuple[bytes, bytes]:
    """Reads SYMLINK: name and target."""
    name, target = _texts(body, 2)
    if not 0 < len(target) <= LINK_MAX:
        raise Malformed("a link that leads nowhere, or too far")
    return check_name(name), target


def parse_mknod(body: memoryview) -> tuple[bytes, int]:
    """Reads MKNOD: name and mode."""
    mode = _fields(_FOUR, body)[0]
    return parse_name(body, skip=_FOUR.size), mode


def parse_mkdir(body: memoryview) -> tuple[bytes, int]:
    """Reads MKDIR: name and mode."""
    mode, _ = _fields(_TWO, body)
    return parse_name(body, skip=_TWO.size), mode


def parse_create(body: memoryview) -> tuple[bytes, int, int]:
    """Reads CREATE: name, flags, mode."""
    flags, mode, _, _ = _fields(_FOUR, body)
    return parse_name(body, skip=_FOUR.size), flags, mode


def parse_tmpfile(body: memoryview) -> tuple[int, int]:
    """Reads TMPFILE: flags and mode; the name that the kernel sends along means nothing."""
    flags, mode, _, _ = _fields(_FOUR, body)
    return flags, mode


def parse_rename(body: memoryview, *, with_flags: bool) -> tuple[bytes, int, bytes, int]:
    """Reads RENAME or RENAME2: old name, new directory, new name, flags."""
    layout = _RENAME2 if with_flags else _QUAD
    new_parent, *flags = _fields(layout, body)
    old, new = _texts(body[layout.size :], 2)
    return check_name(old), new_parent, check_name(new), flags[0] if flags else 0


def parse_link(body: memoryview) -> tuple[int, bytes]:
    """Reads LINK: the node, and its further name."""
    return _fields(_QUAD, body)[0], parse_name(body, skip=_QUAD.size)


def parse_open(body: memoryview) -> int:
    """Reads OPEN and OPENDIR: flags."""
    return _fields(_TWO, body)[0]


def parse_read(body: memoryview) -> ReadIn:
    """Reads READ, READDIR and READDIRPLUS."""
    read = ReadIn(*_fields(_READ, body))
    _signed(read.offset)
    return read


def parse_write(body: memoryview) -> tuple[ReadIn, memoryview]:
    """Reads WRITE: where to, and the bytes."""
    write = parse_read(body)
    data = body[_READ.size :]
    if write.size > len(data):
        raise Malformed("fewer bytes than are announced")
    return write, data[: write.size]


def parse_handle(body: memoryview) -> int:
    """Reads RELEASE, RELEASEDIR and FLUSH: the handle."""
    return _fields(_HANDLE, body)[0]


def parse_fsync(body: memoryview) -> tuple[int, bool]:
    """Reads FSYNC and FSYNCDIR: the handle, and whether its data is enough."""
    fh, flags = _fields(_FSYNC, body)
    return fh, bool(flags & FSYNC_DATA_ONLY)


def parse_access(body: memoryview) -> int:
    """Reads ACCESS: the mask of access(2)."""
    return _fields(_TWO, body)[0]


def parse_fallocate(body: memoryview) -> FallocateIn:
    """Reads FALLOCATE."""
    found = FallocateIn(*_fields(_FALLOCATE, body))
    _signed(found.offset)
    _signed(found.length)
    return found


def parse_lseek(body: memoryview) -> LseekIn:
    """Reads LSEEK."""
    found = LseekIn(*_fields(_LSEEK, body))
    _signed(found.offset)
    return found


def parse_copy(body: memoryview) -> CopyIn:
    """Reads COPY_FILE_RANGE."""
    found = CopyIn(*_fields(_COPY, body))
    _signed(found.offset_in)
    _signed(found.offset_out)
    return found
