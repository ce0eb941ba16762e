"""What images and object packs share of EROFS: records, blocks and directories.

The layout is that of the kernel's `fs/erofs/erofs_fs.h`; numbers are little endian.
"""

import itertools
import stat
import struct
from collections.abc import Sequence

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


def directory_extent(names: Sequence[bytes]) -> tuple[int, int]:
    """How many blocks of a directory come before its last, and bytes of that; as below."""
    bounds = _block_bounds(names)
    last = names[bounds[-2] :]
    return len(bounds) - 2, DIRENT.size * len(last) + sum(map(len, last))


def directory_blocks(
    names: Sequence[bytes], nids: Sequence[int], kinds: Sequence[int]
) -> list[bytes]:
    """The blocks of a directory, each with as many entries as fit, none padded.

    Args:
        names: sorted, with `.` and `..`.
        nids: the number on disk of each name's inode.
        kinds: type bits of its `st_mode`.
    """
    return [
        _directory_block(names[begin:end], nids[begin:end], kinds[begin:end])
        for begin, end in itertools.pairwise(_block_bounds(names))
    ]


def _block_bounds(names: Sequence[bytes]) -> list[int]:
    """Where the blocks of a directory begin, as numbers of names, and where the last one ends."""
    if DIRENT.size * len(names) + sum(map(len, names)) <= BLOCK_BYTES:
        return [0, len(names)]
    bounds = [0]
    used = 0
    for number, name in enumerate(names):
        cost = DIRENT.size + len(name)
        used += cost
        if used > BLOCK_BYTES:
            bounds.append(number)
            used = cost
    return [*bounds, len(names)]


def _directory_block(names: Sequence[bytes], nids: Sequence[int], kinds: Sequence[int]) -> bytes:
    offsets = itertools.accumulate(map(len, names), initial=DIRENT.size * len(names))
    types = map(_FILE_TYPES.__getitem__, kinds)
    return b"".join((*map(DIRENT.pack, nids, offsets, types, itertools.repeat(0)), *names))
