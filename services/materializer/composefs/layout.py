"""Where each inode of an image lies: attributes, positions, ends.

Inodes follow one another at multiples of 32 bytes, moved so that no tail crosses a block's end; the
shared attributes follow, then the data blocks.
"""

import stat
from collections import Counter
from collections.abc import Sequence

from services.materializer.composefs.erofs import (
    BLOCK_BYTES,
    COMPACT,
    EXTENDED,
    SLOT_BYTES,
    round_up,
)
from services.materializer.composefs.overlay import external_xattrs, lone_area, overlay_xattrs
from services.materializer.composefs.slots import Order, Slot, breadth_first
from services.materializer.composefs.tree import Inode
from services.materializer.composefs.xattrs import Pair, XattrTable

FIRST_INODE = 1152
"""Position of the root's inode when nothing moves it: behind header and superblock."""

_U16_MAX = 0xFFFF
_ACLS = frozenset((b"system.posix_acl_access", b"system.posix_acl_default"))


class Layout:
    """An image whose every part has its place.

    Attributes:
        slots: all inodes in their order; the index is the inode number.
        version: the version of the format that the image states.
        has_acl: whether an inode has a POSIX access control list.
        shared_area: bytes of the shared extended attributes.
        oldest: the smallest modification time, seconds and nanoseconds.
        inodes_end: where the inodes end and the shared attributes start.
        data_start: where the data blocks start.
        end: bytes of the image.
    """

    __slots__ = (
        "data_start",
        "end",
        "has_acl",
        "inodes_end",
        "oldest",
        "shared_area",
        "slots",
        "version",
    )

    def __init__(self, root: Inode, *, min_version: int, max_version: int) -> None:
        """Lays out the tree of `root`."""
        order = breadth_first(root)
        self.slots = order.slots
        self.version = min_version
        if order.holders and min_version < 1 <= max_version:
            self.version = 1
        self.oldest = _oldest(self.slots)
        self.shared_area, self.has_acl = self._attach_xattrs(order)
        self.inodes_end = self._place()
        self.data_start = round_up(self.inodes_end + len(self.shared_area), BLOCK_BYTES)
        self.end = self.data_start + BLOCK_BYTES * sum([slot.blocks for slot in self.slots])

    def _attach_xattrs(self, order: Order) -> tuple[bytes, bool]:
        """Gives inodes their attributes; returns the shared ones, and whether one is an ACL.

        Nearly every inode is an external file without attributes of its own whose object no other
        inode has: it has nothing to share, and takes a shorter way.
        """
        owners = [number for number, slot in enumerate(self.slots) if slot.inode.xattrs]
        given: list[tuple[Slot, Sequence[Pair]]] = [
            (self.slots[number], self._pairs(number, order))
            for number in {0, *order.holders, *order.escaped, *owners}
        ]
        externals = [slot for slot in self.slots if slot.chunk_bits]
        digests = _repeated([slot.inode.digest for slot in externals])
        payloads = _repeated([slot.inode.payload for slot in externals])
        for slot in externals:
            inode = slot.inode
            digest, payload = inode.digest, inode.payload
            if inode.xattrs:
                continue
            if digest and payload and digest not in digests and payload not in payloads:
                slot.area = lone_area(digest, payload)
            else:
                given.append((slot, external_xattrs(inode)))
        table = XattrTable(pairs for _, pairs in given)
        for slot, pairs in given:
            if pairs:
                slot.area = table.area(pairs)
        has_acl = any(not _ACLS.isdisjoint(self.slots[number].inode.xattrs) for number in owners)
        return table.shared_area, has_acl

    def _pairs(self, number: int, order: Order) -> Sequence[Pair]:
        return overlay_xattrs(
            self.slots[number].inode,
            version=self.version,
            is_root=number == 0,
            is_whiteout=number in order.escaped,
            holds_whiteouts=number in order.holders,
        )

    def _place(self) -> int:
        """Gives every inode its position; returns where the last one ends."""
        seconds, nanoseconds = self.oldest
        position = FIRST_INODE
        for slot in self.slots:
            inode = slot.inode
            if (
                inode.mtime != seconds
                or inode.mtime_nsec != nanoseconds
                or slot.extended
                or slot.nlink > _U16_MAX
                or inode.uid > _U16_MAX
                or inode.gid > _U16_MAX
            ):
                slot.extended = True
                head = EXTENDED.size
            else:
                head = COMPACT.size
            if slot.area is not None:
                head += slot.area.size
            position = (position + SLOT_BYTES - 1) & -SLOT_BYTES
            if (position & 0xFFF) + head + slot.tail >= BLOCK_BYTES:
                position = _avoid_block_end(slot, position, head)
            slot.position = position
            position += head + slot.tail
        return round_up(position, SLOT_BYTES)


def _oldest(slots: Sequence[Slot]) -> tuple[int, int]:
    """The smallest modification time, seconds and nanoseconds."""
    seconds = min([slot.inode.mtime for slot in slots])
    return seconds, min([one.inode.mtime_nsec for one in slots if one.inode.mtime == seconds])


def _repeated(values: list[bytes | None]) -> set[bytes | None]:
    return {value for value, count in Counter(values).items() if count > 1}


def _avoid_block_end(slot: Slot, position: int, head: int) -> int:
    """Moves an inode whose head and tail do not fit into what is left of a block.

    A symbolic link wants all of itself in one block; of others only the tail must not be split.
    """
    if slot.kind == stat.S_IFLNK:
        total = head + slot.tail
        crosses = position // BLOCK_BYTES != (position + total - 1) // BLOCK_BYTES
        if total >= BLOCK_BYTES:
            slot.blocks, slot.tail = 1, 0
        return round_up(position, BLOCK_BYTES) if crosses else position
    left = BLOCK_BYTES - (position + head) % BLOCK_BYTES
    if left >= slot.tail:
        return position
    moved = position + round_up(left, SLOT_BYTES)
    if slot.tail <= BLOCK_BYTES - (moved + head) % BLOCK_BYTES:
        return moved
    slot.blocks, slot.tail = slot.blocks + 1, 0
    return round_up(position, BLOCK_BYTES)
