"""Answers to FUSE requests, as bytes; `wire` says where the format is from. Pure."""

import os
import stat
import struct
from collections.abc import Iterator

from services.vm_runner.file_server.wire import (
    MAJOR,
    MAX_WRITE,
    MINOR,
    NAME_MAX,
    NOBODY,
    PAGE,
    VALID_SECONDS,
    Owners,
)

_OUT_HEADER = struct.Struct("<IiQ")
_ATTR = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<4QII")
_ATTR_VALID = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_STATFS_OUT = struct.Struct("<5Q4I24x")
_DIRENT = struct.Struct("<QQII")
_QUAD = struct.Struct("<Q")
_TWO = struct.Struct("<II")
_ALIGNMENT = 8
_OPEN_KEEP_CACHE = 1 << 1
_OPEN_NO_FLUSH = 1 << 5


def reply_header(unique: int, size: int, error: int = 0) -> bytes:
    """Returns what stands before `size` bytes of an answer; `error` is an errno."""
    return _OUT_HEADER.pack(_OUT_HEADER.size + size, -error, unique)


def format_init(flags: int, max_readahead: int) -> bytes:
    """Returns the answer to INIT."""
    return _INIT_OUT.pack(
        MAJOR, MINOR, max_readahead, flags, 32, 24, MAX_WRITE, 1, MAX_WRITE // PAGE, 0, 0
    )  # fmt: skip


def format_attr(status: os.stat_result, owners: Owners) -> bytes:
    """Returns attributes as the guest sees them, with owners translated.

    Set-id bits are left out, but for that of a directory's group, which runs nothing.
    """
    hidden = stat.S_ISUID if stat.S_ISDIR(status.st_mode) else stat.S_ISUID | stat.S_ISGID
    return _ATTR.pack(
        status.st_ino,
        status.st_size,
        status.st_blocks,
        *_seconds(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns),
        status.st_mode & ~hidden,
        status.st_nlink,
        owners.shown_uid if status.st_uid == owners.uid else NOBODY,
        owners.shown_gid if status.st_gid in owners.gids else NOBODY,
        0,
        min(status.st_blksize, MAX_WRITE),
        0,
    )


def _seconds(*times: int) -> Iterator[int]:
    for time in times:
        yield (time // 10**9) & 0xFFFF_FFFF_FFFF_FFFF
    for time in times:
        yield time % 10**9


def format_attr_out(status: os.stat_result, owners: Owners) -> bytes:
    """Returns the answer to GETATTR and SETATTR."""
    return _ATTR_VALID.pack(VALID_SECONDS, 0, 0) + format_attr(status, owners)


def format_entry(node_id: int, status: os.stat_result, owners: Owners) -> bytes:
    """Returns the answer to what finds or makes an entry."""
    return _ENTRY.pack(node_id, 0, VALID_SECONDS, VALID_SECONDS, 0, 0) + format_attr(status, owners)


NO_ENTRY = _ENTRY.pack(0, 0, VALID_SECONDS, 0, 0, 0) + bytes(_ATTR.size)
"""The answer that an entry does not exist, which the guest may remember for as long as one."""

_UNREMEMBERED = bytes(_ENTRY.size + _ATTR.size)


def format_open(fh: int, *, keep_cache: bool = False) -> bytes:
    """Returns the answer to OPEN and OPENDIR, and the end of that to CREATE.

    Args:
        fh: the handle.
        keep_cache: what the guest has in its memory of the content holds.
    """
    return _OPEN_OUT.pack(fh, _OPEN_NO_FLUSH | (_OPEN_KEEP_CACHE if keep_cache else 0), 0)


def format_write(size: int) -> bytes:
    """Returns the answer to WRITE and COPY_FILE_RANGE."""
    return _TWO.pack(size, 0)


def format_lseek(offset: int) -> bytes:
    """Returns the answer to LSEEK."""
    return _QUAD.pack(offset)


def format_statfs(status: os.statvfs_result) -> bytes:
    """Returns the answer to STATFS."""
    return _STATFS_OUT.pack(
        status.f_blocks, status.f_bfree, status.f_bavail, status.f_files, status.f_ffree,
        status.f_bsize, NAME_MAX, status.f_frsize, 0,
    )  # fmt: skip


def dirent_size(name: bytes, *, plus: bool) -> int:
    """Returns the bytes that an entry of a directory takes in an answer."""
    size = (_ENTRY.size + _ATTR.size if plus else 0) + _DIRENT.size + len(name)
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def format_dirent(name: bytes, ino: int, kind: int, offset: int, entry: bytes | None) -> bytes:
    """Returns an entry of a directory.

    Args:
        name: of the entry.
        ino: its inode number.
        kind: its type, as in `d_type`; 0 if that is not known.
        offset: where reading goes on behind it.
        entry: of READDIRPLUS: what a lookup would give; empty for an entry that is only listed.
    """
    data = _DIRENT.pack(ino, offset, len(name), kind) + name
    if entry is not None:
        data = (entry or _UNREMEMBERED) + data
    return data + bytes(-len(data) % _ALIGNMENT)
