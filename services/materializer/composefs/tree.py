"""The file tree that an image is made of: inodes, and directories that give them names.

Trees of tens of thousands of inodes are built and walked for every image, so an inode is a
`msgspec.Struct`: quicker to make than any other mutable object, and read from a layer's entry list
without a line of Python. Nothing here checks limits: the dump parser
and the layer merger do, each with errors in its own words.
"""

import stat
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import msgspec

NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})
"""What an inode without extended attributes has; shared, so that the common case costs nothing."""

NAME_MAX = 255
"""Bytes of the longest name of a directory entry."""

SYMLINK_MAX = 4095
"""Bytes of the longest target of a symbolic link."""

XATTR_NAME_MAX = 255
"""Bytes of the longest full name of an extended attribute."""

XATTR_VALUE_MAX = 65535
"""Bytes of the longest value of an extended attribute."""

XATTR_TOTAL_MAX = 32767
"""The most that `xattr_weight` may say of one inode."""

FILE_SIZE_MAX = 1 << 53
"""Bytes of the largest external file: 1,024 chunks of 8 TiB."""

INLINE_MAX = 64
"""Regular files of at most so many bytes are kept in the image; changing it changes digests."""


class Inode(msgspec.Struct, eq=False, array_like=True):
    """One inode of a tree.

    Attributes:
        mode: type and permission bits as in `st_mode`.
        size: bytes of a regular file or symbolic link; ignored for directories.
        nlink: the link count of a non-directory; a directory's is computed when it is written.
        uid: owner.
        gid: group.
        rdev: device number of a device in the layout of Linux's `st_rdev`, 32 bits.
        mtime: seconds since 1970, signed.
        mtime_nsec: nanoseconds beside `mtime`.
        payload: target of a symbolic link, or path of a regular file's object below the object
            store without leading slash; None for a file without an object.
        content: content of a regular file that is kept in the image itself, never empty.
        digest: fs-verity digest of an external regular file's content.
        xattrs: extended attributes by full name.
        children: in a directory, the inodes that have their first name here; None elsewhere.
        links: in a directory, further names (hard links) of inodes that have their first name
            somewhere else in the tree, or None. A name is in one of the two maps only.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    mtime_nsec: int = 0
    size: int = 0
    nlink: int = 1
    rdev: int = 0
    payload: bytes | None = None
    content: bytes | None = None
    digest: bytes | None = None
    xattrs: Mapping[bytes, bytes] = NO_XATTRS
    children: "dict[bytes, Inode] | None" = None
    links: "dict[bytes, Inode] | None" = None

    def __post_init__(self) -> None:
        """Gives a directory room for names."""
        if self.mode & 0o170000 == stat.S_IFDIR:
            self.children = {}

    @property
    def is_external(self) -> bool:
        """Whether this is a regular file whose content lies in the object store."""
        return self.size > 0 and self.content is None and stat.S_IFMT(self.mode) == stat.S_IFREG

    @property
    def is_whiteout(self) -> bool:
        """Whether this is a character device 0:0, the mark of a deleted name in an overlay."""
        return self.rdev == 0 and stat.S_IFMT(self.mode) == stat.S_IFCHR

    def entries(self) -> list[tuple[bytes, "Inode", bool]]:
        """The names of a directory by byte order, each with its inode and whether it is a link."""
        children = self.children or {}
        found = [(name, inode, False) for name, inode in children.items()]
        found += [(name, inode, True) for name, inode in (self.links or {}).items()]
        found.sort(key=lambda entry: entry[0])
        return found


def xattr_weight(xattrs: Mapping[bytes, bytes]) -> int:
    """What the attributes of one inode count against `XATTR_TOTAL_MAX`."""
    if not xattrs:
        return 0
    return 12 + sum(7 + len(key) + len(value) for key, value in xattrs.items())


def iter_tree(root: Inode) -> Iterator[tuple[bytes, Inode, bool]]:
    """Every name of a tree with its inode, depth first, names by byte order.

    The root's path is `/`. The third value says that the name is a hard link to an inode with a
    first name elsewhere.
    """
    yield b"/", root, False
    stack = [(b"/", root.entries()[::-1])]
    while stack:
        prefix, pending = stack[-1]
        if not pending:
            stack.pop()
            continue
        name, inode, is_link = pending.pop()
        path = prefix + name
        yield path, inode, is_link
        if inode.children is not None and not is_link:
            stack.append((path + b"/", inode.entries()[::-1]))
