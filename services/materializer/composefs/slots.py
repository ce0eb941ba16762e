"""The inodes of an image in their order, each with the data that must lie beside or behind it.

Inodes are numbered breadth first. Data of an inode is written right behind it as its *tail*, or in
whole blocks behind all inodes.
"""

import bisect
import stat
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from services.materializer.composefs.erofs import BLOCK_BITS, BLOCK_BYTES, directory_extent
from services.materializer.composefs.overlay import whiteout_stubs
from services.materializer.composefs.tree import Inode
from services.materializer.composefs.xattrs import Area

_TYPE_MASK = 0o170000

_TAIL_MAX = BLOCK_BYTES // 2
_CHUNK_BITS_MAX = 43
_CHUNK_BYTES = 4  # of the entry in an inode's tail
_U32_MAX = 0xFFFFFFFF


class Slot(msgspec.Struct, eq=False):
    """The place of one inode in an image.

    Attributes:
        inode: what is written here.
        mode: its type and permissions, a whiteout already turned into a regular file.
        kind: the type bits of `mode`.
        nlink: the link count as the image states it.
        size: the size as the image states it.
        blocks: whole blocks of data behind the inodes.
        tail: bytes of data behind the inode itself.
        chunk_bits: for an external file the logarithm of its chunks' size, else 0.
        extended: whether it needs the long form.
        position: byte offset in the image.
        area: its extended attributes, or None.
        names: the names in a directory, sorted, with `.` and `..`.
        targets: the slots that they lead to.
    """

    inode: Inode
    mode: int
    kind: int
    nlink: int
    size: int = 0
    blocks: int = 0
    tail: int = 0
    chunk_bits: int = 0
    extended: bool = False
    position: int = 0
    area: Area | None = None
    names: Sequence[bytes] = ()
    targets: "Sequence[Slot]" = ()


class Order(NamedTuple):
    """All inodes of an image.

    Attributes:
        slots: in their order; the index is the inode number.
        holders: numbers of the directories with whiteouts in them.
        escaped: numbers of the whiteouts, which are written as regular files.
    """

    slots: list[Slot]
    holders: set[int]
    escaped: set[int]


def breadth_first(root: Inode) -> Order:
    """The inodes of a tree, measured; what is not known yet is where they lie."""
    top = _slot(root)
    order = Order([top], set(), set())
    directories = [(0, top, top)]
    stubs = whiteout_stubs(root, [*(root.children or {}), *(root.links or {})])
    stub = next(iter(stubs.values()), None)
    for number, slot, parent in directories:
        own = slot.inode.children or {}
        named: Mapping[bytes, Inode] = {**own, **stubs} if slot is top else own
        names = sorted(named)
        targets = [_slot(named[name]) for name in names]
        slot.nlink = 2
        for child_number, child in enumerate(targets, len(order.slots)):
            kind = child.kind
            if kind == stat.S_IFDIR:
                slot.nlink += 1
                directories.append((child_number, child, slot))
            elif kind == stat.S_IFCHR and child.inode.is_whiteout and child.inode is not stub:
                _escape(child)
                order.escaped.add(child_number)
                order.holders.add(number)
        order.slots.extend(targets)
        _insert(names, targets, b".", slot)
        _insert(names, targets, b"..", parent)
        slot.names, slot.targets = names, targets
    _add_links(order.slots, [slot for _, slot, _ in directories if slot.inode.links])
    for _, slot, _ in directories:
        _measure_directory(slot)
    return order


def _slot(inode: Inode) -> Slot:
    """A slot with room for the data of its inode; a directory's is measured when it is full."""
    mode = inode.mode
    kind = mode & _TYPE_MASK
    size = inode.size
    if kind == stat.S_IFREG:
        if size <= 0:
            return Slot(inode, mode, kind, inode.nlink)
        if inode.content is None:
            bits = min(max(BLOCK_BITS, (size - 1).bit_length()), _CHUNK_BITS_MAX)
            tail = _CHUNK_BYTES * (((size - 1) >> bits) + 1)
            return Slot(inode, mode, kind, inode.nlink, size, 0, tail, bits, size > _U32_MAX)
        blocks, tail = divmod(size, BLOCK_BYTES)
        if tail > _TAIL_MAX:
            blocks, tail = blocks + 1, 0
        return Slot(inode, mode, kind, inode.nlink, size, blocks, tail, 0, size > _U32_MAX)
    if kind == stat.S_IFLNK:
        length = len(inode.payload or b"")
        return Slot(inode, mode, kind, inode.nlink, length, 0, length)
    # Other kinds have no data, but the size that they were given decides on their form.
    is_long = size > _U32_MAX and kind != stat.S_IFDIR
    return Slot(inode, mode, kind, inode.nlink, extended=is_long)


def _escape(slot: Slot) -> None:
    slot.kind = stat.S_IFREG
    slot.mode = stat.S_IFREG | stat.S_IMODE(slot.mode)
    slot.extended = False


def _insert(names: list[bytes], targets: list[Slot], name: bytes, target: Slot) -> None:
    at = bisect.bisect_left(names, name)
    names.insert(at, name)
    targets.insert(at, target)


def _add_links(slots: list[Slot], directories: list[Slot]) -> None:
    """Adds the names that lead to inodes with a first name elsewhere."""
    wanted = {id(inode) for slot in directories for inode in (slot.inode.links or {}).values()}
    found = {id(slot.inode): slot for slot in slots if id(slot.inode) in wanted} if wanted else {}
    for slot in directories:
        names, targets = [*slot.names], [*slot.targets]
        for name, inode in (slot.inode.links or {}).items():
            _insert(names, targets, name, found[id(inode)])
        slot.names, slot.targets = names, targets


def _measure_directory(slot: Slot) -> None:
    slot.blocks, last = directory_extent(slot.names)
    if last > _TAIL_MAX:
        slot.blocks += 1
    else:
        slot.tail = last
    slot.size = slot.blocks * BLOCK_BYTES + slot.tail
    slot.extended = slot.size > _U32_MAX
