"""Extended attributes as EROFS stores them: name prefixes, the name filter, entries, sharing.

An attribute that several inodes have alike is stored once, in the shared area, and the inodes refer
to it. What is written here is the layout of the kernel's `fs/erofs/erofs_fs.h`.
"""

import itertools
import struct
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import xxhash

Pair = tuple[bytes, bytes]
"""The full name and the value of an extended attribute."""

SHARED_MAX = 128
"""Shared attributes that one inode refers to at most; further ones are stored with the inode."""

HEADER_BYTES = 12
"""Bytes of the header of an inode's attributes."""

_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
_FILTER_SEED = 0x25BBE08F
_FILTER_DEFAULT = 0xFFFFFFFF
_VALUE_SIZE = struct.Struct("<H")
_HEADER = struct.Struct("<IB7x")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class _Name:
    """What the entries of one attribute name have in common."""

    __slots__ = ("bit", "head", "size", "suffix")

    def __init__(self, key: bytes) -> None:
        number, self.suffix = 0, key
        for prefix, index in _PREFIXES:
            if key.startswith(prefix):
                number, self.suffix = index, key[len(prefix) :]
                break
        self.size = len(self.suffix)
        self.head = bytes((self.size, number))
        hashed = xxhash.xxh32_intdigest(self.suffix, seed=_FILTER_SEED + number)
        self.bit = 1 << (hashed & 31)


class _Names(dict[bytes, _Name]):
    def __missing__(self, key: bytes) -> _Name:
        name = self[key] = _Name(key)
        return name


class Area(msgspec.Struct, eq=False):
    """The attributes of one inode in the image, before the place of the shared area is known.

    Attributes:
        size: bytes that the area takes.
        head: the bytes before the references to shared entries; all bytes if no entry is shared.
        shared: offsets of the shared entries from the start of the shared area.
        tail: the bytes behind the references.
    """

    size: int
    head: bytes
    shared: Sequence[int] = ()
    tail: bytes = b""

    def encode(self, shared_base: int) -> bytes:
        """The bytes of the area, where the shared area starts at `shared_base` of its block."""
        if not self.shared:
            return self.head
        ids = [(shared_base + offset) // 4 for offset in self.shared]
        return self.head + struct.pack(f"<{len(ids)}I", *ids) + self.tail


class Pattern:
    """The areas of inodes whose attributes differ in their values alone, and are not shared."""

    def __init__(self, sizes: Sequence[tuple[bytes, int]]) -> None:
        """Lays out attributes, given sorted by name with the sizes of their values."""
        bits = 0
        before = b""
        self._pieces: list[bytes] = []
        for key, size in sizes:
            name = _Name(key)
            bits |= name.bit
            self._pieces.append(before + name.head + _VALUE_SIZE.pack(size) + name.suffix)
            before = _PADDING[(name.size + size) & 3]
        self._pieces[0] = _HEADER.pack(_FILTER_DEFAULT & ~bits, 0) + self._pieces[0]
        self._pieces.append(before)
        self._size = sum(map(len, self._pieces)) + sum(size for _, size in sizes)

    def area(self, first: bytes, second: bytes) -> Area:
        """The area of an inode with these two values, which have the sizes laid out."""
        before, between, behind = self._pieces
        head = b"".join((before, first, between, second, behind))
        return Area(self._size, head)


class XattrTable:
    """The attributes of all inodes of an image, with those that are shared.

    Attributes:
        shared_area: the bytes of the shared area.
    """

    def __init__(self, of_inodes: Iterable[Sequence[Pair]]) -> None:
        """Counts and places the attributes of inodes."""
        self._names = _Names()
        uses = Counter(itertools.chain.from_iterable(of_inodes))
        shared = [pair for pair, count in uses.items() if count > 1]
        shared.sort(key=lambda pair: (pair[0], len(pair[1]), pair[1]), reverse=True)
        self._offsets: dict[Pair, int] = {}
        area = bytearray()
        for pair in shared:
            self._offsets[pair] = len(area)
            area += self._entry(*pair)
        self.shared_area = bytes(area)

    def area(self, pairs: Sequence[Pair]) -> Area:
        """The area of an inode with these attributes, sorted by name, of which there is one."""
        names, offsets = self._names, self._offsets
        bits = 0
        shared: list[int] = []
        inline: list[bytes] = []
        for pair in pairs:
            key, value = pair
            name = names[key]
            bits |= name.bit
            offset = offsets.get(pair)
            if offset is not None and len(shared) < SHARED_MAX:
                shared.append(offset)
            else:
                size = len(value)
                inline += (
                    name.head,
                    _VALUE_SIZE.pack(size),
                    name.suffix,
                    value,
                    _PADDING[(name.size + size) & 3],
                )
        head = _HEADER.pack(_FILTER_DEFAULT & ~bits, len(shared))
        tail = b"".join(inline)
        size = len(head) + 4 * len(shared) + len(tail)
        if not shared:
            return Area(size, head + tail)
        return Area(size, head, shared, tail)

    def _entry(self, key: bytes, value: bytes) -> bytes:
        name = self._names[key]
        padding = _PADDING[(name.size + len(value)) & 3]
        return b"".join((name.head, _VALUE_SIZE.pack(len(value)), name.suffix, value, padding))
