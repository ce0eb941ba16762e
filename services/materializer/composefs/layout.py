"""Where each inode of an image lies: order, sizes, positions.

Inodes are laid out breadth first, each at a multiple of 32 bytes; the data that follows an inode in
its own block is its *tail*, data that does not fit there goes into whole blocks behind all inodes.
"""

import stat
from collections.abc import Sequence

from services.materializer.composefs.erofs import (
    BLOCK_BITS,
    BLOCK_BYTES,
    COMPACT,
    DIRENT,
    EXTENDED,
    SLOT_BYTES,
    round_up,
)
from services.materializer.composefs.overlay import (
    external_xattrs,
    overlay_xattrs,
    whiteout_stubs,
)
from services.materializer.composefs.tree import Inode
from services.materializer.composefs.xattrs import Area, Pair, XattrTable

FIRST_INODE = 1152
"""Position of the root's inode when nothing moves it: behind header and superblock."""

_TAIL_MAX = BLOCK_BYTES // 2
_CHUNK_BITS_MAX = 43
_U16_MAX = 0xFFFF
_U32_MAX = 0xFFFFFFFF
_NO_PAIRS: Sequence[Pair] = ()


class Slot:
    """The place of one inode in an image.

    Attributes:
        inode: what is written here.
        mode: its type and permissions, a whiteout already turned into a regular file.
        kind: the type bits of `mode`.
        size: the size as the image states it.
        entries: a directory's names with the slots that they lead to, sorted, with `.` and `..`.
        area: its extended attributes, or None.
        extended: whether it needs the long form.
        chunk_bits: for an external file the logarithm of its chunks' size, else 0.
        position: byte offset in the image.
        blocks: whole blocks of data behind the inodes.
        tail: bytes of data behind the inode itself.
        nlink: the link count as the image states it.
    """

    __slots__ = (
        "area",
        "blocks",
        "chunk_bits",
        "entries",
        "extended",
        "inode",
        "kind",
        "mode",
        "nlink",
        "position",
        "size",
        "tail",
    )

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.mode = inode.mode
        self.kind = inode.mode & 0o170000
        self.nlink = inode.nlink
        self.size = 0
        self.area: Area | None = None
        self.extended = False
        self.chunk_bits = 0
        self.position = 0
        self.blocks = 0
        self.tail = 0
        self.entries: list[tuple[bytes, Slot]] | None = None


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
        self.slots, holders = _breadth_first(root)
        self.version = min_version
        if holders and min_version < 1 <= max_version:
            self.version = 1
        self.oldest = min((slot.inode.mtime, slot.inode.mtime_nsec) for slot in self.slots)
        pairs = self._pairs(holders)
        self.has_acl = any(
            key in (b"system.posix_acl_access", b"system.posix_acl_default")
            for slot in self.slots
            for key in slot.inode.xattrs
        )
        table = XattrTable(pairs)
        self.shared_area = table.shared_area
        for slot, of_slot in zip(self.slots, pairs, strict=True):
            if of_slot:
                slot.area = table.area(of_slot)
        self.inodes_end = self._place()
        self.data_start = round_up(self.inodes_end + len(self.shared_area), BLOCK_BYTES)
        self.end = self.data_start + BLOCK_BYTES * sum(slot.blocks for slot in self.slots)

    def _pairs(self, holders: set[int]) -> list[Sequence[Pair]]:
        """The attributes of each inode; whiteouts become regular files on the way."""
        version = self.version
        found: list[Sequence[Pair]] = []
        for number, slot in enumerate(self.slots):
            inode = slot.inode
            external = inode.is_external
            escaped = slot.kind != inode.mode & 0o170000
            if not (external or escaped or inode.xattrs or number == 0 or number in holders):
                found.append(_NO_PAIRS)
            elif external and not inode.xattrs:
                found.append(external_xattrs(inode))
            else:
                found.append(
                    overlay_xattrs(
                        inode,
                        version=version,
                        is_root=number == 0,
                        is_whiteout=escaped,
                        holds_whiteouts=number in holders,
                    )
                )
        return found

    def _place(self) -> int:
        """Gives every inode its position; returns where the last one ends."""
        oldest = self.oldest
        position = FIRST_INODE
        for slot in self.slots:
            inode = slot.inode
            size = _measure(slot)
            head = COMPACT.size
            if (
                (inode.mtime, inode.mtime_nsec) != oldest
                or slot.nlink > _U16_MAX
                or inode.uid > _U16_MAX
                or inode.gid > _U16_MAX
                or size > _U32_MAX
            ):
                slot.extended = True
                head = EXTENDED.size
            if slot.area is not None:
                head += slot.area.size
            position = (position + SLOT_BYTES - 1) & -SLOT_BYTES
            if (position & 0xFFF) + head + slot.tail >= BLOCK_BYTES:
                position = _avoid_block_end(slot, position, head)
            slot.position = position
            position += head + slot.tail
        return round_up(position, SLOT_BYTES)


def _breadth_first(root: Inode) -> tuple[list[Slot], set[int]]:
    """All inodes in their order, and the numbers of directories with whiteouts in them."""
    top = Slot(root)
    slots = [top]
    parents = [top]
    holders: set[int] = set()
    linked: list[tuple[list[tuple[bytes, Slot]], bytes, Inode]] = []
    directories: list[list[tuple[bytes, Slot]]] = []
    stubs = whiteout_stubs(root, [*(root.children or {}), *(root.links or {})])
    for number, slot in enumerate(slots):
        inode = slot.inode
        if inode.children is None:
            continue
        named = {**inode.children, **stubs} if number == 0 else inode.children
        entries = []
        for name in sorted(named):
            child = Slot(named[name])
            entries.append((name, child))
            slots.append(child)
            parents.append(slot)
            if child.kind == stat.S_IFCHR and name in inode.children and child.inode.rdev == 0:
                child.kind = stat.S_IFREG
                child.mode = stat.S_IFREG | stat.S_IMODE(child.mode)
                holders.add(number)
        slot.nlink = 2 + sum(child.kind == stat.S_IFDIR for _, child in entries)
        entries += [(b".", slot), (b"..", parents[number])]
        if inode.links:
            linked += [(entries, name, target) for name, target in inode.links.items()]
        slot.entries = entries
        directories.append(entries)
    if linked:
        wanted = {id(target) for _, _, target in linked}
        found = {id(slot.inode): slot for slot in slots if id(slot.inode) in wanted}
        for entries, name, target in linked:
            entries.append((name, found[id(target)]))
    for entries in directories:
        entries.sort(key=_by_name)
    return slots, holders


def _by_name(entry: tuple[bytes, Slot]) -> bytes:
    return entry[0]


def _measure(slot: Slot) -> int:
    """Decides on blocks and tail of an inode's data; returns the size that decides on its form."""
    inode = slot.inode
    kind = slot.kind
    if kind == stat.S_IFREG:
        if inode.mode & 0o170000 != stat.S_IFREG:  # was a whiteout
            return 0
        size = slot.size = inode.size
        if inode.content is not None:
            slot.blocks, slot.tail = divmod(size, BLOCK_BYTES)
            if slot.tail > _TAIL_MAX:
                slot.blocks, slot.tail = slot.blocks + 1, 0
        elif size > 0:
            slot.chunk_bits = min(max(BLOCK_BITS, (size - 1).bit_length()), _CHUNK_BITS_MAX)
            slot.tail = 4 * (((size - 1) >> slot.chunk_bits) + 1)
        return size
    if slot.entries is not None:
        slot.blocks, slot.tail = _measure_directory(slot.entries)
        slot.size = slot.blocks * BLOCK_BYTES + slot.tail
        return slot.size
    if kind == stat.S_IFLNK:
        slot.size = slot.tail = len(inode.payload or b"")
        return slot.size
    return inode.size


def _measure_directory(entries: list[tuple[bytes, Slot]]) -> tuple[int, int]:
    blocks = 0
    used = 0
    for name, _ in entries:
        cost = DIRENT.size + len(name)
        used += cost
        if used > BLOCK_BYTES:
            blocks += 1
            used = cost
    return (blocks + 1, 0) if used > _TAIL_MAX else (blocks, used)


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
