"""What images and object packs share of EROFS: records, blocks and directories.

The layout is that of the kernel's `fs/erofs/erofs_fs.h`; numbers are little endian.
"""

import stat
import struct
from collections.abc import Iterable

BLOCK_BITS = 12
BLOCK_BYTES = 1 << BLOCK_BITS

SLOT_BYTES = 32
"""Inodes lie at multiples of it; an inode's number on disk (nid) counts in it."""

SUPERBLOCK = struct.Struct("<IIIBBHQQIIII80x")
"""magic, checksum, feature_compat, block bits, slots, root nid, inodes, build time, nanoseconds,
blocks, first block of the inodes, first block of shared attributes."""

SUPERBLOCK_AT = 1024
MAGIC = 0xE0F5E1E2

COMPACT = struct.Struct("<HHHHIIIIHHI")
"""format, xattr count, mode, links, size, -, block or device, inode number, uid, gid, -."""

EXTENDED = struct.Struct("<HHHHQIIIIQII16x")
"""format, xattr count, mode, -, size, block or device, number, uid, gid, mtime, ns, links."""

PLAIN_LAYOUT = 0
INLINE_LAYOUT = 2
CHUNK_LAYOUT = 4

DIRENT = struct.Struct("<QHBB")
"""nid, offset of the name, type, -."""

_FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}


def round_up(number: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `number`."""
    return -(-number // unit) * unit


def directory_blocks(entries: Iterable[tuple[bytes, int, int]]) -> list[bytes]:
    """The blocks of a directory, each with as many entries as fit, none padded.

    Args:
        entries: name, nid and type bits of `st_mode`, sorted by name, with `.` and `..`.
    """
    blocks = []
    block: list[tuple[bytes, int, int]] = []
    used = 0
    for entry in entries:
        cost = DIRENT.size + len(entry[0])
        used += cost
        if used > BLOCK_BYTES:
            blocks.append(_directory_block(block))
            block = []
            used = cost
        block.append(entry)
    blocks.append(_directory_block(block))
    return blocks


def _directory_block(entries: list[tuple[bytes, int, int]]) -> bytes:
    name_at = DIRENT.size * len(entries)
    parts = []
    for name, nid, kind in entries:
        parts.append(DIRENT.pack(nid, name_at, _FILE_TYPES[kind], 0))
        name_at += len(name)
    parts += [name for name, _, _ in entries]
    return b"".join(parts)
