"""Reads object packs back, to check them: every number in a damaged pack may be wrong."""

import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from services.materializer.composefs import erofs
from services.materializer.composefs.erofs import BLOCK_BYTES, SLOT_BYTES

_FORMAT = struct.Struct("<H")
_SUPERBLOCK_MIN = erofs.SUPERBLOCK_AT + erofs.SUPERBLOCK.size
_DIRECTORY_MAX = 64 << 20


class PackDamaged(ValueError):
    """A pack does not have the structure that it was written with."""


class _Node(NamedTuple):
    kind: int
    size: int
    block: int
    tail_at: int
    tail_bytes: int


class PackReader:
    """Finds and reads the objects of a pack that lies in memory (or is mapped there)."""

    def __init__(self, data: memoryview) -> None:
        """Reads the superblock; raises PackDamaged."""
        self._data = data
        if len(data) < _SUPERBLOCK_MIN:
            raise PackDamaged("it is cut off")
        fields = erofs.SUPERBLOCK.unpack_from(data, erofs.SUPERBLOCK_AT)
        magic, root_nid, blocks, first_inode_block = fields[0], fields[5], fields[9], fields[10]
        if magic != erofs.MAGIC:
            raise PackDamaged("it has no superblock")
        if blocks * BLOCK_BYTES != len(data):
            raise PackDamaged("its size is not what its superblock says")
        self._inodes_at = first_inode_block * BLOCK_BYTES
        self._directories = self._directory(root_nid)
        self._files: dict[str, dict[bytes, int]] = {}

    def content(self, digest: str) -> Iterator[memoryview]:
        """The pieces of the object with that digest; raises PackDamaged."""
        prefix = digest[:2]
        if prefix not in self._files:
            self._files[prefix] = self._directory(self._entry(self._directories, prefix))
        nid = self._files[prefix].get(digest[2:].encode())
        if nid is None:
            raise PackDamaged("it has lost the object")
        node = self._node(nid)
        if node.kind != stat.S_IFREG:
            raise PackDamaged("the object is not a file")
        yield from self._pieces(node)

    def _entry(self, directory: dict[bytes, int], name: str) -> int:
        nid = directory.get(name.encode())
        if nid is None:
            raise PackDamaged(f"it has lost the directory {name}")
        return nid

    def _directory(self, nid: int) -> dict[bytes, int]:
        node = self._node(nid)
        if node.kind != stat.S_IFDIR or node.size > _DIRECTORY_MAX:
            raise PackDamaged("an inode is not the directory that it should be")
        names: dict[bytes, int] = {}
        data = b"".join(self._pieces(node))
        for start in range(0, len(data), BLOCK_BYTES):
            names |= _directory_block(data[start : start + BLOCK_BYTES])
        return names

    def _node(self, nid: int) -> _Node:
        at = self._inodes_at + nid * SLOT_BYTES
        if at + erofs.COMPACT.size > len(self._data):
            raise PackDamaged("an inode lies outside")
        (form,) = _FORMAT.unpack_from(self._data, at)
        if form & 1 and at + erofs.EXTENDED.size <= len(self._data):
            fields = erofs.EXTENDED.unpack_from(self._data, at)
            mode, size, block, head = fields[2], fields[4], fields[5], erofs.EXTENDED.size
        else:
            fields = erofs.COMPACT.unpack_from(self._data, at)
            mode, size, block, head = fields[2], fields[4], fields[6], erofs.COMPACT.size
        tail = size % BLOCK_BYTES if form >> 1 == erofs.INLINE_LAYOUT else 0
        return _Node(mode & 0o170000, size, block, at + head, tail)

    def _pieces(self, node: _Node) -> Iterator[memoryview]:
        start, whole = node.block * BLOCK_BYTES, node.size - node.tail_bytes
        if start + whole > len(self._data) or node.tail_at + node.tail_bytes > len(self._data):
            raise PackDamaged("content lies outside")
        if whole:
            yield self._data[start : start + whole]
        if node.tail_bytes:
            yield self._data[node.tail_at : node.tail_at + node.tail_bytes]


def _directory_block(block: bytes) -> dict[bytes, int]:
    if len(block) < erofs.DIRENT.size:
        raise PackDamaged("a directory is cut off")
    first = erofs.DIRENT.unpack_from(block)[1]
    count = first // erofs.DIRENT.size
    if not 0 < first <= len(block) or first % erofs.DIRENT.size:
        raise PackDamaged("a directory is malformed")
    entries = [erofs.DIRENT.unpack_from(block, i * erofs.DIRENT.size) for i in range(count)]
    ends = [entry[1] for entry in entries[1:]] + [len(block)]
    return {
        block[entry[1] : end].rstrip(b"\0"): entry[0]
        for entry, end in zip(entries, ends, strict=True)
    }
