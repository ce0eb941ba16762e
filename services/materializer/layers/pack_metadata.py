"""The inodes and directories of an object pack: laid out behind the contents, and written."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from services.materializer.composefs import erofs
from services.materializer.composefs.erofs import BLOCK_BYTES, SLOT_BYTES

TAIL_MAX = BLOCK_BYTES - erofs.EXTENDED.size
"""Bytes of the longest tail that fits into a block beside its inode."""

_FILE_MODE = stat.S_IFREG | 0o444
_DIRECTORY_MODE = stat.S_IFDIR | 0o555
_U32_MAX = 0xFFFFFFFF
_PREFIX_DIGITS = 2


def object_path(digest: bytes) -> bytes:
    """The path of an object below the root of its pack."""
    name = digest.hex()
    return f"{name[:_PREFIX_DIGITS]}/{name[_PREFIX_DIGITS:]}".encode()


class PackEnd(NamedTuple):
    """What can be said of a pack that is written.

    Attributes:
        size: bytes of the pack; 0 for a layer without one.
        metadata_at: where the contents end and the metadata begins.
        metadata_digest: SHA-256 of the superblock and of everything from there on, hexadecimal.
    """

    size: int
    metadata_at: int
    metadata_digest: str


NO_PACK = PackEnd(0, 0, "-")
"""The end of a layer without objects."""


class StoredObject(NamedTuple):
    """Where a content lies in the files of a writer."""

    size: int
    block: int
    tail_at: int
    tail_bytes: int


class _Node:
    """An inode of the pack: a file or a directory."""

    __slots__ = ("block", "data", "kind", "links", "nid", "size", "tail_at", "tail_bytes")

    def __init__(self, kind: int, size: int, block: int, tail_bytes: int, tail_at: int = 0) -> None:
        self.kind = kind
        self.size = size
        self.block = block
        self.tail_bytes = tail_bytes
        self.tail_at = tail_at
        self.data = b""
        self.links = 1
        self.nid = 0

    @property
    def head(self) -> int:
        return erofs.EXTENDED.size if self.size > _U32_MAX else erofs.COMPACT.size


class PackMetadata:
    """Inodes and directories of a pack, laid out and written."""

    def __init__(self, objects: Mapping[bytes, StoredObject], first_block: int) -> None:
        self._first_block = first_block
        self._files: dict[str, dict[bytes, _Node]] = {}
        for digest in sorted(objects):
            stored = objects[digest]
            name = digest.hex()
            node = _Node(stat.S_IFREG, stored.size, stored.block, stored.tail_bytes, stored.tail_at)
            directory = self._files.setdefault(name[:_PREFIX_DIGITS], {})
            directory[name[_PREFIX_DIGITS:].encode()] = node
        self._root = self._directory([name.encode() for name in self._files])
        self._root.links = 2 + len(self._files)
        self._directories = {name: self._directory(files) for name, files in self._files.items()}

    def write(self, file: BinaryIO, tails: BinaryIO) -> PackEnd:
        """Writes everything behind the contents, and the superblock."""
        nodes = [self._root, *self._directories.values()]
        block = self._first_block
        for node in nodes:
            node.block = block
            block += (node.size - node.tail_bytes) // BLOCK_BYTES
        directories = tuple(nodes)
        nodes += [node for files in self._files.values() for node in files.values()]
        placed = _pack_into_blocks(nodes)
        self._fill_directories()
        end = (block + len(placed)) * BLOCK_BYTES
        superblock = erofs.SUPERBLOCK.pack(
            erofs.MAGIC,
            0,
            0,
            erofs.BLOCK_BITS,
            0,
            self._root.nid,
            len(nodes),
            0,
            0,
            end // BLOCK_BYTES,
            block,
            0,
        )
        file.seek(erofs.SUPERBLOCK_AT)
        file.write(superblock)
        digest = hashlib.sha256(superblock)
        file.seek(self._first_block * BLOCK_BYTES)
        for data in _iter_blocks(directories, tails, placed):
            file.write(data)
            digest.update(data)
        file.truncate(end)
        return PackEnd(end, self._first_block * BLOCK_BYTES, digest.hexdigest())

    def _directory(self, names: Iterable[bytes]) -> _Node:
        """A directory with these names, of the right size; it is filled when all have numbers."""
        entries = sorted([*names, b".", b".."])
        size, tail = _directory_size(entries)
        node = _Node(stat.S_IFDIR, size, 0, tail)
        node.links = 2
        return node

    def _fill_directories(self) -> None:
        root = [(name.encode(), node) for name, node in self._directories.items()]
        _fill(self._root, self._root, root)
        for name, directory in self._directories.items():
            _fill(directory, self._root, list(self._files[name].items()))


def _directory_size(names: list[bytes]) -> tuple[int, int]:
    """Bytes of a directory with these names, and how many of them are its tail."""
    blocks, last = erofs.directory_extent(names)
    whole = blocks * BLOCK_BYTES
    return (whole + last, last) if last <= TAIL_MAX else (whole + BLOCK_BYTES, 0)


def _fill(directory: _Node, parent: _Node, children: list[tuple[bytes, _Node]]) -> None:
    entries = [(name, node.nid, node.kind) for name, node in children]
    entries += [(b".", directory.nid, stat.S_IFDIR), (b"..", parent.nid, stat.S_IFDIR)]
    names, nids, kinds = zip(*sorted(entries), strict=True)
    blocks = erofs.directory_blocks(names, nids, kinds)
    padded = [block.ljust(BLOCK_BYTES, b"\0") for block in blocks[:-1]]
    directory.data = (b"".join(padded) + blocks[-1]).ljust(directory.size, b"\0")


def _pack_into_blocks(nodes: list[_Node]) -> list[list[_Node]]:
    """Gives every inode a place with its tail inside one block; the first stays first.

    Large ones are placed first and the rest of their block filled with small ones.
    """
    first, rest = nodes[0], sorted(nodes[1:], key=_footprint, reverse=True)
    blocks: list[list[_Node]] = []
    low, high = 0, len(rest)
    pending: _Node | None = first
    while pending is not None or low < high:
        if pending is None:
            pending = rest[low]
            low += 1
        block = [pending]
        used = _place(pending, len(blocks), 0)
        while low < high and used + _footprint(rest[high - 1]) <= BLOCK_BYTES:
            high -= 1
            block.append(rest[high])
            used = _place(rest[high], len(blocks), used)
        blocks.append(block)
        pending = None
    return blocks


def _footprint(node: _Node) -> int:
    return erofs.round_up(node.head + node.tail_bytes, SLOT_BYTES)


def _place(node: _Node, block: int, used: int) -> int:
    node.nid = (block * BLOCK_BYTES + used) // SLOT_BYTES
    return used + _footprint(node)


def _iter_blocks(
    directories: Iterable[_Node], tails: BinaryIO, blocks: Iterable[list[_Node]]
) -> Iterator[bytes]:
    """What lies behind the contents: whole blocks of directories, then blocks of inodes."""
    for node in directories:
        yield node.data[: node.size - node.tail_bytes]
    tails.flush()
    number = 0
    for nodes in blocks:
        image = bytearray()
        for node in nodes:
            image += _inode(node, number)
            if node.kind == stat.S_IFDIR:
                image += node.data[node.size - node.tail_bytes :]
            elif node.tail_bytes:
                image += os.pread(tails.fileno(), node.tail_bytes, node.tail_at)
            image += bytes(-len(image) % SLOT_BYTES)
            number += 1
        yield bytes(image.ljust(BLOCK_BYTES, b"\0"))


def _inode(node: _Node, number: int) -> bytes:
    layout = erofs.INLINE_LAYOUT if node.tail_bytes else erofs.PLAIN_LAYOUT
    mode = _FILE_MODE if node.kind == stat.S_IFREG else _DIRECTORY_MODE
    block = node.block if node.size > node.tail_bytes else 0
    if node.size <= _U32_MAX:
        return erofs.COMPACT.pack(
            layout << 1, 0, mode, node.links, node.size, 0, block, number, 0, 0, 0
        )
    return erofs.EXTENDED.pack(
        layout << 1 | 1, 0, mode, 0, node.size, block, number, 0, 0, 0, 0, node.links
    )
