"""Messages of FUSE as bytes and values. Pure.

Format: the kernel's `include/uapi/linux/fuse.h`, version 7.31 and later. A message begins with its
length, so messages follow each other on a stream without a frame around them. Numbers are little
endian, as on every machine that lns runs on.

Every request comes from a hostile guest: what is too short, too long or no name is `Malformed`.
`requests` reads them, `answers` writes the replies.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

MAJOR = 7
MINOR = 31
MINOR_LEAST = 31
MAX_WRITE = 256 * 1024
MAX_REQUEST = MAX_WRITE + 4096
PAGE = 4096
NAME_MAX = 255
LINK_MAX = 4095
ROOT_ID = 1
VALID_SECONDS = 1

_IN_HEADER = struct.Struct("<IIQQIIIHH")

HEADER_BYTES = _IN_HEADER.size


class Malformed(Exception):
    """A request that is not one."""


class Opcode(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    TMPFILE = 51


class InitFlag(IntFlag):
    """What both ends can do."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22


class AttrField(IntFlag):
    """Which attributes a SETATTR changes."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8


GETATTR_FH = 1 << 0
FSYNC_DATA_ONLY = 1 << 0
RENAME_NOREPLACE = 1 << 0
RENAME_EXCHANGE = 1 << 1


@dataclass(slots=True)
class Request:
    """One request; `body` is what follows its header, valid until the next one is read."""

    opcode: int
    unique: int
    node_id: int
    uid: int
    gid: int
    body: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Owners:
    """Who owns files, on the host and as the guest sees it.

    Attributes:
        uid: as which the host's files are used.
        gids: the groups that come with it; new files get the first.
        shown_uid: what the guest sees in the place of `uid`.
        shown_gid: what it sees in the place of `gids`.
    """

    uid: int
    gids: tuple[int, ...]
    shown_uid: int = 0
    shown_gid: int = 0


NOBODY = 65534
"""As which the guest sees every other owner."""


def message_size(data: bytes | bytearray | memoryview) -> int:
    """Returns the length of the message that begins with these bytes; 0 if too few have arrived.

    Raises:
        Malformed: no request has that length, so where the next one begins is unknown.
    """
    if len(data) < HEADER_BYTES:
        return 0
    size = int.from_bytes(data[:4], "little")
    if not HEADER_BYTES <= size <= MAX_REQUEST:
        raise Malformed(f"a request of {size} bytes")
    return size


def parse_request(data: memoryview) -> Request:
    """Reads a whole message; the length was checked by `message_size`."""
    _, opcode, unique, node_id, uid, gid, _, _, _ = _IN_HEADER.unpack_from(data)
    return Request(opcode, unique, node_id, uid, gid, data[HEADER_BYTES:])
