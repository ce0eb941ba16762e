"""fs-verity digests: SHA-256 over a Merkle tree of 4 KiB blocks, without salt.

The format is that of Linux, `Documentation/filesystems/fsverity.rst`: the digest of a file is the
hash of a 256-byte descriptor that holds the file's size and the root of its tree.
"""

import struct
from hashlib import sha256

BLOCK_BYTES = 4096
DIGEST_BYTES = 32

_DESCRIPTOR = struct.Struct("<BBBBIQ64s32s144x")
_VERSION = 1
_SHA256 = 1
_BLOCK_BITS = 12


def leaf_hashes(data: bytes | bytearray | memoryview) -> list[bytes]:
    """The hashes of the blocks of `data`, which starts at a block boundary of its file."""
    view = memoryview(data)
    whole = len(view) - len(view) % BLOCK_BYTES
    leaves = [
        sha256(view[start : start + BLOCK_BYTES]).digest() for start in range(0, whole, BLOCK_BYTES)
    ]
    if whole < len(view):
        leaves.append(sha256(bytes(view[whole:]).ljust(BLOCK_BYTES, b"\0")).digest())
    return leaves


def digest_of_leaves(leaves: list[bytes], size: int) -> bytes:
    """The digest of a file of `size` bytes whose blocks hash to `leaves`."""
    level = leaves
    while len(level) > 1:
        level = leaf_hashes(b"".join(level))
    root = level[0] if level else bytes(DIGEST_BYTES)
    descriptor = _DESCRIPTOR.pack(_VERSION, _SHA256, _BLOCK_BITS, 0, 0, size, root, b"")
    return sha256(descriptor).digest()


def verity_digest(data: bytes | bytearray | memoryview) -> bytes:
    """The fs-verity digest of a file with that content, 32 bytes."""
    return digest_of_leaves(leaf_hashes(data), len(data))
