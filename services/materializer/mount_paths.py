"""Where mounts end up in a tree whose directories may be symbolic links.

A mount at `/lib/data` on an image where `/lib` leads to `usr/lib` belongs to `/usr/lib/data`: that
is where a process of the guest would look. Links are followed inside the tree only, and never the
last name: what an image has there gives way to the mount.
"""

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence

from services.materializer.composefs.tree import Inode
from services.materializer.layers.entries import Entry, Link, Put
from services.materializer.layers.limits import unsafe
from services.materializer.layers.names import Hide, Opaque

_LINKS_MAX = 40  # as in Linux


def resolve_mounts(root: Inode, paths: Sequence[bytes]) -> dict[bytes, bytes]:
    """Where each canonical path leads in a tree; one mount inside another stays inside it.

    Raises:
        LayerUnsafe: a path leads through something that is neither directory nor link, or through
            too many links.
    """
    resolved: dict[bytes, bytes] = {}
    for path in sorted(paths):
        outer = _mount_of(path, resolved)
        if outer is not None:
            resolved[path] = resolved[outer] + path[len(outer) :]
            continue
        parent, _, name = path.rpartition(b"/")
        resolved[path] = _resolve(root, parent, path) + b"/" + name
    return resolved


def moved(entries: Iterable[Entry], targets: Mapping[bytes, bytes]) -> Iterator[Entry]:
    """The entries of a mounts' layer, with every mount where `targets` says."""
    if all(path == target for path, target in targets.items()):
        yield from entries
        return
    for entry in entries:
        path = _moved_path(entry.path, targets)
        if isinstance(entry, Put):
            yield Put(path, entry.inode)
        elif isinstance(entry, Link):
            yield Link(path, _moved_path(entry.target, targets))
        elif isinstance(entry, Opaque):
            yield Opaque(path)
        else:
            yield Hide(path)


def _moved_path(path: bytes, targets: Mapping[bytes, bytes]) -> bytes:
    mount = path if path in targets else _mount_of(path, targets)
    return path if mount is None else targets[mount] + path[len(mount) :]


def _mount_of(path: bytes, mounts: Mapping[bytes, bytes]) -> bytes | None:
    """The innermost of `mounts` that lies above a path, or None."""
    while path:
        path = path.rpartition(b"/")[0]
        if path in mounts:
            return path
    return None


def _resolve(root: Inode, path: bytes, entry: bytes) -> bytes:
    """Where the directory `path` is; names that the tree does not have stay as they are."""
    pending = path.split(b"/")[:0:-1]
    followed = 0
    trail = [(b"", root)]
    while pending:
        name = pending.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            trail = trail[:-1] or trail
            continue
        directory = trail[-1][1]
        inode = (directory.children or {}).get(name)
        if inode is None:
            rest = b"".join(b"/" + one for one in (name, *reversed(pending)))
            return b"".join(b"/" + one for one, _ in trail[1:]) + rest
        if inode.children is not None:
            trail.append((name, inode))
            continue
        followed += 1
        if not stat.S_ISLNK(inode.mode) or followed > _LINKS_MAX:
            raise unsafe(entry[1:], "the image has no directory there, so nothing can be mounted")
        target = inode.payload or b""
        if target.startswith(b"/"):
            trail = trail[:1]
        pending += target.split(b"/")[::-1]
    return b"".join(b"/" + one for one, _ in trail[1:])
