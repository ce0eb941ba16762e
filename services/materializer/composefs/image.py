"""The composefs image: an EROFS file system that holds a tree's metadata and small files.

Bit for bit what the format prescribes, so that equal trees have equal digests everywhere. The
order in the file: composefs header, superblock, inodes with their attributes and tails, shared
attributes, data blocks. Numbers are little endian, a block has 4,096 bytes.
"""

import stat
import struct

from services.materializer.composefs import erofs
from services.materializer.composefs.erofs import BLOCK_BYTES
from services.materializer.composefs.layout import Layout
from services.materializer.composefs.slots import Slot
from services.materializer.composefs.tree import Inode
from services.materializer.composefs.xattrs import HEADER_BYTES

VERSION_MAX = 1
"""The newest version of the format: whiteouts of the tree are marked in a way Linux 6.8 knows."""

_HEADER = struct.Struct("<IIII16x")
_HEADER_MAGIC = 0xD078629A
_HEADER_VERSION = 1
_FLAG_HAS_ACL = 1

_FEATURES = 0x2 | 0x4  # modification times, extended attribute filters
_NO_CHUNK = b"\xff\xff\xff\xff"
_CHUNKS_PER_BLOCK = BLOCK_BYTES // len(_NO_CHUNK)


def write_image(root: Inode, *, min_version: int = 1, max_version: int = 1) -> bytearray:
    """The image of a tree.

    Args:
        root: the tree's root directory; it is not changed.
        min_version: the version of the format to write.
        max_version: the version to write where the tree has whiteouts, if it is the larger one.
    """
    layout = Layout(root, min_version=min_version, max_version=max_version)
    image = bytearray(layout.end)
    _write_heads(image, layout)
    _write_inodes(image, layout)
    image[layout.inodes_end : layout.inodes_end + len(layout.shared_area)] = layout.shared_area
    return image


def has_acl(image: bytes | bytearray) -> bool:
    """Whether an inode of an image has a POSIX access control list; else it is mounted `noacl`."""
    return bool(_HEADER.unpack_from(image)[2] & _FLAG_HAS_ACL)


def inode_count(image: bytes | bytearray) -> int:
    """Number of inodes of an image, the whiteouts in its root included."""
    count: int = erofs.SUPERBLOCK.unpack_from(image, erofs.SUPERBLOCK_AT)[6]
    return count


def _write_heads(image: bytearray, layout: Layout) -> None:
    flags = _FLAG_HAS_ACL if layout.has_acl else 0
    _HEADER.pack_into(image, 0, _HEADER_MAGIC, _HEADER_VERSION, flags, layout.version)
    seconds, nanoseconds = layout.oldest
    erofs.SUPERBLOCK.pack_into(
        image,
        erofs.SUPERBLOCK_AT,
        erofs.MAGIC,
        0,  # no checksum
        _FEATURES,
        erofs.BLOCK_BITS,
        0,
        layout.slots[0].position // erofs.SLOT_BYTES,
        len(layout.slots),
        seconds & 0xFFFFFFFFFFFFFFFF,
        nanoseconds,
        layout.end // BLOCK_BYTES,
        0,  # inodes are counted from the start of the image
        layout.inodes_end // BLOCK_BYTES,
    )


def _write_inodes(image: bytearray, layout: Layout) -> None:
    """Writes every inode with its attributes and tail, and its data blocks."""
    next_block = layout.data_start // BLOCK_BYTES
    shared_base = layout.inodes_end % BLOCK_BYTES
    for number, slot in enumerate(layout.slots):
        block = 0
        tail = b""
        if slot.blocks:
            block = next_block
            next_block += slot.blocks
            tail = _write_data(image, slot, block * BLOCK_BYTES)
        elif slot.tail:
            tail = _NO_CHUNK * (slot.tail // len(_NO_CHUNK)) if slot.chunk_bits else _data(slot)[-1]
        xattrs = b"" if slot.area is None else slot.area.encode(shared_base)
        record = _inode(slot, number, block) + xattrs + tail
        image[slot.position : slot.position + len(record)] = record


def _inode(slot: Slot, number: int, block: int) -> bytes:
    """The inode itself."""
    inode = slot.inode
    icount = 0 if slot.area is None else (slot.area.size - HEADER_BYTES) // 4 + 1
    if slot.chunk_bits:
        layout = erofs.CHUNK_LAYOUT
        block = block & 0xFFFF0000 | (slot.chunk_bits - erofs.BLOCK_BITS)
    else:
        layout = erofs.INLINE_LAYOUT if slot.tail else erofs.PLAIN_LAYOUT
        if slot.kind in (stat.S_IFCHR, stat.S_IFBLK):
            block = inode.rdev
    if not slot.extended:
        return erofs.COMPACT.pack(
            layout << 1,
            icount,
            slot.mode & 0xFFFF,
            slot.nlink,
            slot.size,
            0,
            block,
            number,
            inode.uid,
            inode.gid,
            0,
        )
    return erofs.EXTENDED.pack(
        layout << 1 | 1,
        icount,
        slot.mode & 0xFFFF,
        0,
        slot.size,
        block,
        number,
        inode.uid,
        inode.gid,
        inode.mtime & 0xFFFFFFFFFFFFFFFF,
        inode.mtime_nsec,
        slot.nlink,
    )


def _write_data(image: bytearray, slot: Slot, position: int) -> bytes:
    """Writes the blocks of an inode's data; returns its tail."""
    pieces = _data(slot)
    for piece in pieces[: slot.blocks]:
        image[position : position + len(piece)] = piece
        position += BLOCK_BYTES
    return pieces[-1] if slot.tail else b""


def _data(slot: Slot) -> list[bytes]:
    """An inode's data, in pieces of at most a block."""
    if slot.kind == stat.S_IFDIR:
        nids = [target.position // erofs.SLOT_BYTES for target in slot.targets]
        kinds = [target.kind for target in slot.targets]
        return erofs.directory_blocks(slot.names, nids, kinds)
    if slot.chunk_bits:
        data = _NO_CHUNK * _CHUNKS_PER_BLOCK
    elif slot.kind == stat.S_IFLNK:
        data = slot.inode.payload or b""
    else:
        data = slot.inode.content or b""
    return [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]
