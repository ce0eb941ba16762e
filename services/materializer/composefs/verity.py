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


def leaf_hashes(data: bytes | bytearray | memoryview) -> bytes:
    """The hashes of the blocks of `data`, one behind the other; the last is padded with zeros."""
    view = memoryview(data)
    whole = len(view) - len(view) % BLOCK_BYTES
    leaves = [
        sha256(view[start : start + BLOCK_BYTES]).digest() for start in range(0, whole, BLOCK_BYTES)
    ]
    if whole < len(view):
        leaves.append(sha256(bytes(view[whole:]).ljust(BLOCK_BYTES, b"\0")).digest())
    return b"".join(leaves)


def digest_of_leaves(leaves: bytes | bytearray, size: int) -> bytes:
    """The digest of a file of `size` bytes whose blocks have these hashes."""
    level = bytes(leaves)
    while len(level) > DIGEST_BYTES:
        level = leaf_hashes(level)
    descriptor = _DESCRIPTOR.pack(
        _VERSION, _SHA256, _BLOCK_BITS, 0, 0, size, level or bytes(DIGEST_BYTES), b""
    )
    return sha256(descriptor).digest()


def verity_digest(data: bytes | bytearray | memoryview) -> bytes:
    """The fs-verity digest of a file with that content, 32 bytes."""
    return digest_of_leaves(leaf_hashes(data), len(data))
