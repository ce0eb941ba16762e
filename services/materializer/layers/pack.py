"""Object packs: the contents of a layer's files in one read-only EROFS file.

A file with the fs-verity digest `xxyyyy…` has the name `xx/yyyy…`. Contents are written one behind
the other as they come, each from a block boundary; what is left of a file behind its last whole
block is its *tail* and goes next to its inode, several to a block. Inodes and directories come
last:

    block 0       superblock
    blocks 1 …    whole blocks of contents, in the order of the layer
    then          whole blocks of directories, then inodes with their tails, the root's first

Equal layers give equal packs. A pack mounts on every Linux since 5.4: uncompressed, 4 KiB blocks.
"""

import os
import stat
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from services.materializer.composefs import erofs
from services.materializer.composefs.erofs import BLOCK_BYTES, SLOT_BYTES
from services.materializer.composefs.verity import digest_of_leaves, leaf_hashes
from services.materializer.layers.tar import Hole

_TAIL_MAX = BLOCK_BYTES - erofs.EXTENDED.size
_ZEROS = bytes(BLOCK_BYTES)
_ZERO_LEAF = leaf_hashes(_ZEROS)
_FILE_MODE = stat.S_IFREG | 0o444
_DIRECTORY_MODE = stat.S_IFDIR | 0o555
_U32_MAX = 0xFFFFFFFF
_PREFIX_DIGITS = 2


def object_path(digest: bytes) -> bytes:
    """The path of an object below the root of its pack."""
    name = digest.hex()
    return f"{name[:_PREFIX_DIGITS]}/{name[_PREFIX_DIGITS:]}".encode()


class StoredObject(NamedTuple):
    """Where a content lies in the files of a writer."""

    size: int
    block: int
    tail_at: int
    tail_bytes: int


class PackWriter:
    """Writes one pack.

    `file` must be empty, `tails` is scratch space; both are files of the operating system, whose
    errors pass through.
    """

    def __init__(self, file: BinaryIO, tails: BinaryIO) -> None:
        self._file = file
        self._tails = tails
        self._tails_end = 0
        self._next_block = 1
        self._objects: dict[bytes, StoredObject] = {}
        file.seek(BLOCK_BYTES)

    @property
    def object_count(self) -> int:
        """Different contents so far."""
        return len(self._objects)

    def add(self, pieces: Iterable[memoryview | Hole]) -> bytes:
        """Stores a content, once however often it comes; returns its fs-verity digest."""
        content = _Content(self._file)
        for piece in pieces:
            if isinstance(piece, Hole):
                content.skip(piece.size)
            else:
                content.write(piece)
        tail = content.finish()
        digest = digest_of_leaves(content.leaves, content.size)
        if digest in self._objects:
            self._file.seek(self._next_block * BLOCK_BYTES)
            self._file.truncate()  # a hole in what comes next must read as zeros
            return digest
        stored = StoredObject(content.size, self._next_block, self._tails_end, len(tail))
        self._objects[digest] = stored
        self._next_block += content.blocks
        self._tails.write(tail)
        self._tails_end += len(tail)
        return digest

    def finish(self) -> int:
        """Writes inodes and directories; returns the size of the pack, 0 if it holds nothing."""
        if not self._objects:
            self._file.truncate(0)
            return 0
        return _Metadata(self._objects, self._next_block).write(self._file, self._tails)


class _Content:
    """One content on its way into the file: blocks are hashed and written as they fill."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._partial = bytearray()
        self.leaves = bytearray()
        self.blocks = 0
        self.size = 0

    def write(self, piece: memoryview) -> None:
        self.size += len(piece)
        if self._partial:
            missing = BLOCK_BYTES - len(self._partial)
            self._partial += piece[:missing]
            piece = piece[missing:]
            if len(self._partial) < BLOCK_BYTES:
                return
            self._put(memoryview(bytes(self._partial)))
            self._partial.clear()
        whole = len(piece) - len(piece) % BLOCK_BYTES
        if whole:
            self._put(piece[:whole])
        self._partial += piece[whole:]

    def skip(self, size: int) -> None:
        """Adds zeros without writing more of them than fill a block that has begun."""
        if self._partial:
            first = min(size, BLOCK_BYTES - len(self._partial))
            self.write(memoryview(_ZEROS)[:first])
            size -= first
        blocks, rest = divmod(size, BLOCK_BYTES)
        if blocks:
            self._file.seek(blocks * BLOCK_BYTES, 1)
            self.leaves += _ZERO_LEAF * blocks
            self.blocks += blocks
            self.size += blocks * BLOCK_BYTES
        if rest:
            self.write(memoryview(_ZEROS)[:rest])

    def finish(self) -> bytes:
        """Hashes what is left; returns it, unless it was better written as a padded block."""
        tail = bytes(self._partial)
        if not tail:
            return b""
        self.leaves += leaf_hashes(tail)
        if len(tail) <= _TAIL_MAX:
            return tail
        self._file.write(tail.ljust(BLOCK_BYTES, b"\0"))
        self.blocks += 1
        return b""

    def _put(self, blocks: memoryview) -> None:
        self._file.write(blocks)
        self.leaves += leaf_hashes(blocks)
        self.blocks += len(blocks) // BLOCK_BYTES


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


class _Metadata:
    """Inodes and directories of a pack, laid out and written."""

    def __init__(self, objects: dict[bytes, StoredObject], first_block: int) -> None:
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

    def write(self, file: BinaryIO, tails: BinaryIO) -> int:
        """Writes everything behind the contents, and the superblock; returns the size of all."""
        nodes = [self._root, *self._directories.values()]
        block = self._first_block
        for node in nodes:
            node.block = block
            block += (node.size - node.tail_bytes) // BLOCK_BYTES
        inodes_block = block
        nodes += [node for files in self._files.values() for node in files.values()]
        placed, block_count = _pack_into_blocks(nodes)
        self._fill_directories()
        file.seek(self._first_block * BLOCK_BYTES)
        for node in nodes[: 1 + len(self._directories)]:
            file.write(node.data[: node.size - node.tail_bytes])
        _write_inodes(file, tails, placed)
        end = (inodes_block + block_count) * BLOCK_BYTES
        file.truncate(end)
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
            inodes_block,
            0,
        )
        file.seek(erofs.SUPERBLOCK_AT)
        file.write(superblock)
        return end

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
    blocks = erofs.directory_blocks((name, 0, stat.S_IFDIR) for name in names)
    tail = len(blocks[-1])
    whole = (len(blocks) - 1) * BLOCK_BYTES
    return (whole + tail, tail) if tail <= _TAIL_MAX else (whole + BLOCK_BYTES, 0)


def _fill(directory: _Node, parent: _Node, children: list[tuple[bytes, _Node]]) -> None:
    entries = [(name, node.nid, node.kind) for name, node in children]
    entries += [(b".", directory.nid, stat.S_IFDIR), (b"..", parent.nid, stat.S_IFDIR)]
    blocks = erofs.directory_blocks(sorted(entries))
    padded = [block.ljust(BLOCK_BYTES, b"\0") for block in blocks[:-1]]
    directory.data = (b"".join(padded) + blocks[-1]).ljust(directory.size, b"\0")


def _pack_into_blocks(nodes: list[_Node]) -> tuple[list[list[_Node]], int]:
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
    return blocks, len(blocks)


def _footprint(node: _Node) -> int:
    return erofs.round_up(node.head + node.tail_bytes, SLOT_BYTES)


def _place(node: _Node, block: int, used: int) -> int:
    node.nid = (block * BLOCK_BYTES + used) // SLOT_BYTES
    return used + _footprint(node)


def _write_inodes(file: BinaryIO, tails: BinaryIO, blocks: list[list[_Node]]) -> None:
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
        file.write(image.ljust(BLOCK_BYTES, b"\0"))


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
