"""Extended attributes as EROFS stores them: name prefixes, the name filter, entries, sharing.

An attribute that several inodes have alike is stored once, in the shared area, and the inodes refer
to it. What is written here is the layout of the kernel's `fs/erofs/erofs_fs.h`.
"""

import struct
from collections.abc import Sequence

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


class Area:
    """The attributes of one inode in the image, before the place of the shared area is known.

    Attributes:
        size: bytes that the area takes.
        shared: offsets of the shared entries from the start of the shared area.
    """

    __slots__ = ("_filter", "_inline", "shared", "size")

    def __init__(self, name_filter: int, shared: Sequence[int], inline: bytes) -> None:
        self._filter = name_filter
        self._inline = inline
        self.shared = shared
        self.size = HEADER_BYTES + 4 * len(shared) + len(inline)

    @property
    def icount(self) -> int:
        """The size as an inode states it."""
        return (self.size - HEADER_BYTES) // 4 + 1

    def encode(self, shared_base: int) -> bytes:
        """The bytes of the area, where the shared area starts at `shared_base` of its block."""
        header = _HEADER.pack(self._filter, len(self.shared))
        if not self.shared:
            return header + self._inline
        ids = [(shared_base + offset) // 4 for offset in self.shared]
        return header + struct.pack(f"<{len(ids)}I", *ids) + self._inline


class XattrTable:
    """The attributes of all inodes of an image, with those that are shared.

    Attributes:
        shared_area: the bytes of the shared area.
    """

    def __init__(self, of_inodes: Sequence[Sequence[Pair]]) -> None:
        """Counts and places the attributes of inodes, each given sorted by name."""
        self._names = _Names()
        uses: dict[Pair, int] = {}
        for pairs in of_inodes:
            for pair in pairs:
                uses[pair] = uses.get(pair, 0) + 1
        shared = [pair for pair, count in uses.items() if count > 1]
        shared.sort(key=lambda pair: (pair[0], len(pair[1]), pair[1]), reverse=True)
        self._offsets: dict[Pair, int] = {}
        area = bytearray()
        for pair in shared:
            self._offsets[pair] = len(area)
            area += self._entry(*pair)
        self.shared_area = bytes(area)

    def area(self, pairs: Sequence[Pair]) -> Area:
        """The area of an inode with these attributes, of which there is at least one."""
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
        return Area(_FILTER_DEFAULT & ~bits, shared, b"".join(inline))

    def _entry(self, key: bytes, value: bytes) -> bytes:
        name = self._names[key]
        padding = _PADDING[(name.size + len(value)) & 3]
        return b"".join((name.head, _VALUE_SIZE.pack(len(value)), name.suffix, value, padding))
