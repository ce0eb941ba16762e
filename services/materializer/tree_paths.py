"""Paths in a tree: found as they stand there, or with the symbolic links on their way followed."""

import stat

from services.materializer.composefs.tree import NAME_MAX, Inode

_LINKS_MAX = 40  # as in Linux
_STEPS_MAX = 512


def find_inode(root: Inode, path: bytes) -> Inode | None:
    """The inode at a canonical path of a tree, or None; symbolic links are not followed."""
    inode: Inode | None = root
    for name in path.split(b"/")[1:]:
        if inode is None or inode.children is None:
            return None
        inode = inode.children.get(name)
    return inode


def find_through_links(root: Inode, path: bytes) -> Inode | None:
    """The inode at a path, or None; links are followed among its parents, not in the last name."""
    parent, _, name = path.rpartition(b"/")
    followed = follow(root, parent)
    return None if followed is None else find_inode(root, followed + b"/" + name)


def follow(root: Inode, path: bytes) -> bytes | None:
    """Where the directory `path` is; names that the tree does not have stay as they are.

    Links are followed inside the tree only, `..` never leaves it. None where something on the way
    is neither directory nor link, or the way is longer than Linux would go.
    """
    pending = path.split(b"/")[:0:-1]
    followed = steps = 0
    trail: list[tuple[bytes, Inode | None]] = [(b"", root)]
    while pending:
        name = pending.pop()
        steps += 1
        if steps > _STEPS_MAX or len(name) > NAME_MAX:
            return None
        if name in (b"", b"."):
            continue
        if name == b"..":
            trail = trail[:-1] or trail
            continue
        directory = trail[-1][1]
        children = directory.children if directory is not None else None
        inode = (children or {}).get(name)
        if inode is None or inode.children is not None:
            trail.append((name, inode))
            continue
        followed += 1
        if not stat.S_ISLNK(inode.mode) or followed > _LINKS_MAX:
            return None
        target = inode.payload or b""
        if target.startswith(b"/"):
            trail = trail[:1]
        pending += target.split(b"/")[::-1]
    return b"".join(b"/" + one for one, _ in trail[1:])
