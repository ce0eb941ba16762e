"""Merges the entries of layers into one tree, by the rules of the OCI image layer specification.

Whiteouts and opaque directories hide what lower layers have, never what their own layer brings,
wherever in the layer they stand. A directory over a directory keeps its children and takes the new
metadata; anything else replaces. A parent without an entry of its own is 0755, owned by root, of
time 0. Hard links share their target's inode, also across layers. Where a path leads through a
symbolic link of a lower layer, as `/lib/x` where `/lib` leads to `usr/lib`, it belongs where the
link leads inside the tree, as in other engines; below a link of its own layer it is refused.
"""

import stat
from collections.abc import Iterable
from operator import itemgetter

from services.materializer.composefs.tree import Inode
from services.materializer.layers.entries import Entry, Link, Put
from services.materializer.layers.limits import unsafe
from services.materializer.layers.names import Hide, Opaque
from services.materializer.tree_paths import find_inode, find_through_links, follow

_IMPLIED_DIRECTORY = stat.S_IFDIR | 0o755
_BROUGHT = (Put, Link)
_name = itemgetter(0)


class Merger:
    """A tree that grows layer by layer, lowest first.

    Attributes:
        root: the tree as far as it is; hard links are all among `children` until `finish`.
    """

    def __init__(self) -> None:
        self.root = Inode(_IMPLIED_DIRECTORY)
        self._linked: set[int] = set()

    def add_layer(self, entries: Iterable[Entry]) -> None:
        """Puts one layer on top; the tree takes the entries' inodes.

        Raises:
            LayerUnsafe: an entry lies below something that is no directory, or a hard link has no
                target that a link may have; the tree cannot be used any more then.
        """
        layer = _Layer(self.root, list(entries))
        layer.hide()
        layer.put()
        self._linked |= layer.linked

    def find(self, path: bytes) -> Inode | None:
        """The inode at a canonical path, or None; symbolic links are not followed."""
        return find_inode(self.root, path)

    def finish(self) -> Inode:
        """The merged tree, with link counts and first names of inodes in place."""
        if self._linked:
            _settle_links(self.root, self._linked)
        return self.root


class _Layer:
    """One layer on its way into the tree below it."""

    def __init__(self, root: Inode, entries: list[Entry]) -> None:
        self.linked: set[int] = set()
        self._root = root
        self._entries = entries
        self._directories: dict[bytes, dict[bytes, Inode]] = {b"": _children(root)}
        # A link may lead to what this very layer hides: targets are looked up before hiding.
        links = [entry for entry in entries if isinstance(entry, Link)]
        own = {entry.path for entry in entries if isinstance(entry, _BROUGHT)} if links else ()
        self._below = {
            link.target: self._find(link.target) for link in links if link.target not in own
        }

    def hide(self) -> None:
        """Applies whiteouts and opaque directories."""
        for entry in self._entries:
            if isinstance(entry, Opaque):
                directory = find_inode(self._root, entry.path)
                if directory is not None and directory.children is not None:
                    directory.children.clear()
                else:
                    self._remove(entry.path)
            elif isinstance(entry, Hide):
                self._remove(entry.path)

    def _remove(self, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        holder = find_inode(self._root, parent)
        if holder is None or holder.children is None:
            followed = follow(self._root, parent)
            holder = None if followed is None else find_inode(self._root, followed)
        if holder is not None and holder.children is not None:
            holder.children.pop(name, None)

    def _find(self, path: bytes) -> Inode | None:
        found = find_inode(self._root, path)
        return found if found is not None else find_through_links(self._root, path)

    def put(self) -> None:
        """Adds what the layer brings."""
        for entry in self._entries:
            if isinstance(entry, Put):
                self._put(entry.path, entry.inode)
            elif isinstance(entry, Link):
                target = self._target(entry)
                self.linked.add(id(target))
                self._put(entry.path, target)
            elif isinstance(entry, Opaque):
                self._directory(entry.path, entry.path)

    def _put(self, path: bytes, inode: Inode) -> None:
        if not path:
            _take_metadata(self._root, inode)
            return
        parent, _, name = path.rpartition(b"/")
        siblings = self._directories.get(parent)
        if siblings is None:
            siblings = self._directory(parent, path)
        before = siblings.get(name)
        if inode.children is not None and before is not None and before.children is not None:
            _take_metadata(before, inode)
            inode = before
        elif path in self._directories:  # what was known there, or beyond a link there, has gone
            self._directories = {b"": _children(self._root)}
        siblings[name] = inode
        if inode.children is not None:
            self._directories[path] = inode.children

    def _target(self, link: Link) -> Inode:
        below = self._below.get(link.target)
        target = below if below is not None else self._find(link.target)
        if target is None:
            raise unsafe(link.path[1:], "its hard link target does not exist")
        if stat.S_IFMT(target.mode) not in (stat.S_IFREG, stat.S_IFLNK):
            raise unsafe(link.path[1:], "it is a hard link to a directory or device")
        return target

    def _directory(self, path: bytes, entry: bytes) -> dict[bytes, Inode]:
        """The names in the directory at `path`, made with its parents where it is missing."""
        names = self._directories.get(path)
        if names is not None:
            return names
        parent, _, name = path.rpartition(b"/")
        siblings = self._directory(parent, entry)
        found = siblings.get(name)
        if found is None:
            found = siblings[name] = Inode(_IMPLIED_DIRECTORY)
        elif found.children is None:
            followed = follow(self._root, path) if stat.S_ISLNK(found.mode) else None
            if followed is None:
                what = "symbolic link to no directory" if stat.S_ISLNK(found.mode) else "file"
                raise unsafe(entry[1:], f"it lies below a {what} of a lower layer")
            names = self._directories[path] = self._directory(followed, entry)
            return names
        names = self._directories[path] = _children(found)
        return names


def _children(directory: Inode) -> dict[bytes, Inode]:
    if directory.children is None:
        raise AssertionError("not a directory")
    return directory.children


def _take_metadata(target: Inode, source: Inode) -> None:
    target.mode = source.mode
    target.uid = source.uid
    target.gid = source.gid
    target.mtime = source.mtime
    target.mtime_nsec = source.mtime_nsec
    target.xattrs = source.xattrs


def _settle_links(root: Inode, linked: set[int]) -> None:
    """Counts the names of inodes that may have several, and leaves the first in tree order.

    The others move from `children` to `links` of their directories.
    """
    seen: set[int] = set()
    stack = [(root, iter(sorted((root.children or {}).items(), key=_name)))]
    while stack:
        directory, rest = stack[-1]
        for name, inode in rest:
            if inode.children is not None:
                stack.append((inode, iter(sorted(inode.children.items(), key=_name))))
                break
            if id(inode) in seen:
                inode.nlink += 1
                _move_to_links(directory, name, inode)
            elif id(inode) in linked:
                seen.add(id(inode))
                inode.nlink = 1
        else:
            stack.pop()


def _move_to_links(directory: Inode, name: bytes, inode: Inode) -> None:
    if directory.children is not None:
        del directory.children[name]
    directory.links = {**(directory.links or {}), name: inode}
