"""Writes trees as composefs dumps, the text form that `services.materializer.composefs.dump` reads.

Every byte that is not a printable ASCII character is escaped, `=` in attributes too, and a value
that is `-` alone; digests are lower case.
"""

import re
import stat
from collections.abc import Iterator

from services.materializer.composefs.slots import breadth_first
from services.materializer.composefs.tree import Inode, iter_tree

_TO_ESCAPE = re.compile(rb"[^\x21-\x5b\x5d-\x7e]")
_TO_ESCAPE_IN_XATTRS = re.compile(rb"[^\x21-\x3c\x3e-\x5b\x5d-\x7e]")
_ESCAPES = {bytes([byte]): b"\\x%02x" % byte for byte in range(256)}
_ESCAPES |= {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t"}


def iter_dump(root: Inode) -> Iterator[bytes]:
    """The lines of a tree with their ends: depth first, names by byte order.

    Sizes and link counts of directories are those of its image, as `composefs-info dump` says them.
    """
    sizes = {
        id(slot.inode): (slot.size, slot.nlink)
        for slot in breadth_first(root).slots
        if slot.kind == stat.S_IFDIR
    }
    first_names = {id(inode): path for path, inode, is_link in iter_tree(root) if not is_link}
    for path, inode, is_link in iter_tree(root):
        if is_link:
            yield _format(path, inode, b"@", first_names[id(inode)]) + b"\n"
            continue
        size, nlink = sizes.get(id(inode), (inode.size, inode.nlink))
        yield _format(path, inode, b"", inode.payload, size=size, nlink=nlink) + b"\n"


def _escape(text: bytes) -> bytes:
    """A path or value as a field of a dump."""
    return _TO_ESCAPE.sub(_escape_match, text)


def _format(
    path: bytes,
    inode: Inode,
    mark: bytes,
    payload: bytes | None,
    *,
    size: int | None = None,
    nlink: int | None = None,
) -> bytes:
    digest = inode.digest.hex().encode() if inode.digest else b"-"
    line = b"%b %d %b%o %d %d %d %d %d.%d %b %b %b" % (
        _escape(path),
        inode.size if size is None else size,
        mark,
        inode.mode,
        inode.nlink if nlink is None else nlink,
        inode.uid,
        inode.gid,
        inode.rdev,
        inode.mtime,
        inode.mtime_nsec,
        _optional(payload),
        _optional(inode.content),
        digest,
    )
    if inode.xattrs:
        line += b"".join(
            b" %b=%b" % (_escape_xattr(key), _escape_xattr(inode.xattrs[key]))
            for key in sorted(inode.xattrs)
        )
    return line


def _optional(value: bytes | None) -> bytes:
    if value is None:
        return b"-"
    return b"\\x2d" if value == b"-" else _escape(value)


def _escape_xattr(text: bytes) -> bytes:
    return _TO_ESCAPE_IN_XATTRS.sub(_escape_match, text)


def _escape_match(match: re.Match[bytes]) -> bytes:
    return _ESCAPES[match[0]]
