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

from collections.abc import Iterable
from typing import BinaryIO

from services.archives.tar import Hole
from services.materializer.composefs.erofs import BLOCK_BYTES
from services.materializer.composefs.verity import digest_of_leaves, leaf_hashes
from services.materializer.layers.pack_metadata import (
    NO_PACK,
    TAIL_MAX,
    PackEnd,
    PackMetadata,
    StoredObject,
)

_ZEROS = bytes(BLOCK_BYTES)
_ZERO_LEAF = leaf_hashes(_ZEROS)


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

    def finish(self) -> PackEnd:
        """Writes inodes and directories; an empty pack is an empty file."""
        if not self._objects:
            self._file.truncate(0)
            return NO_PACK
        return PackMetadata(self._objects, self._next_block).write(self._file, self._tails)


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
        if len(tail) <= TAIL_MAX:
            return tail
        self._file.write(tail.ljust(BLOCK_BYTES, b"\0"))
        self.blocks += 1
        return b""

    def _put(self, blocks: memoryview) -> None:
        self._file.write(blocks)
        self.leaves += leaf_hashes(blocks)
        self.blocks += len(blocks) // BLOCK_BYTES
