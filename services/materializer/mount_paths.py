"""Where mounts end up in a tree whose directories may be symbolic links.

A mount at `/lib/data` on an image where `/lib` leads to `usr/lib` belongs to `/usr/lib/data`: that
is where a process of the guest would look. Links are followed inside the tree only, and never the
last name: what an image has there gives way to the mount.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from services.materializer.composefs.tree import Inode
from services.materializer.layers.entries import Entry, Link, Put
from services.materializer.layers.limits import unsafe
from services.materializer.layers.names import Hide, Opaque
from services.materializer.tree_paths import follow


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
        followed = follow(root, parent)
        if followed is None:
            raise unsafe(path[1:], "the image has no directory there, so nothing can be mounted")
        resolved[path] = followed + b"/" + name
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
