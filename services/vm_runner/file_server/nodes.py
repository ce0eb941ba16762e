"""What the guest knows of the host's files: nodes, and the few that are held open.

A node is a place, parent and name, with the identity of what was found there. It is opened when it
is used, name by name from the nearest directory that is open, without following links, and only if
the same inode is still there; else it is stale and the guest looks again. So nothing outside the
bind is ever reached, however the host renames meanwhile, and a guest that looks at a million files
holds no million descriptors.
"""

import errno
import os
import stat
from collections import OrderedDict

from services.vm_runner.file_server.wire import ROOT_ID

NODES_MAX = 1 << 19
"""Nodes of a guest. Each takes some 400 bytes."""

DEPTH_MAX = 2048
_PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

Identity = tuple[int, int, int]
"""Device, inode number and type of file; a number is given again when its file is gone."""


def stale() -> OSError:
    """Returns the error for a node that is not what it was: the guest looks it up again."""
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def identity_of(status: os.stat_result) -> Identity:
    """Returns by which an inode is known again."""
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


class Node:
    """An inode that the guest knows, or a directory above one.

    Attributes:
        node_id: the guest's number for it; never used again.
        parent: the directory in which it was seen last; None for the root.
        name: by which.
        identity: of the inode.
        lookups: how often the guest was given it and has not forgotten it.
        children: nodes that have this one as parent.
        settled: the change time of the content that the guest read last; 0 if it is too fresh to
            tell from the next change's.
    """

    __slots__ = ("children", "identity", "lookups", "name", "node_id", "parent", "settled")

    def __init__(
        self, node_id: int, parent: "Node | None", name: bytes, identity: Identity
    ) -> None:
        self.node_id = node_id
        self.parent = parent
        self.name = name
        self.identity = identity
        self.lookups = 0
        self.children = 0
        self.settled = 0


class NodeTable:
    """The nodes of one guest.

    Args:
        root: descriptor of the bound directory; closed by `close`.
        most: how many nodes there may be.
        most_open: how many of them are held open; as many again may be kept that were unlinked.
    """

    def __init__(self, root: int, *, most: int = NODES_MAX, most_open: int = 1024) -> None:
        self.root = Node(ROOT_ID, None, b"", identity_of(os.fstat(root)))
        self._root_descriptor = root
        self._most = most
        self._most_open = most_open
        self._nodes: dict[int, Node] = {ROOT_ID: self.root}
        self._by_identity: dict[Identity, Node] = {}
        self._open: OrderedDict[Node, int] = OrderedDict()
        self._kept: dict[Node, int] = {}
        self._last_id = ROOT_ID

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def held_open(self) -> int:
        """Number of descriptors beside the root's."""
        return len(self._open) + len(self._kept)

    def get(self, node_id: int) -> Node:
        """Returns a node.

        Raises:
            OSError: the guest was not given it, or has forgotten it.
        """
        node = self._nodes.get(node_id)
        if node is None:
            raise stale()
        return node

    def find(self, identity: Identity) -> Node | None:
        """Returns the node of an inode, if the guest knows it."""
        return self._by_identity.get(identity)

    def tell(self, parent: Node, name: bytes, identity: Identity) -> Node:
        """Returns the node of what was found at a place, which the guest is given once more.

        Raises:
            OSError: there are too many.
        """
        node = self._by_identity.get(identity)
        if node is None:
            if len(self._nodes) >= self._most:
                raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
            self._last_id += 1
            node = Node(self._last_id, parent, name, identity)
            parent.children += 1
            self._nodes[node.node_id] = node
            self._by_identity[identity] = node
        else:
            self.move(node, parent, name)
        node.lookups += 1
        return node

    def tell_nameless(self, parent: Node, identity: Identity, descriptor: int) -> Node:
        """Returns the node of a file that was made without a name; the guest is given it.

        Args:
            parent: the directory in whose file system it is.
            identity: of the file.
            descriptor: names it, as no path does; closed with the node, or at once on an error.

        Raises:
            OSError: there are too many nodes, or too many without a name.
        """
        if len(self._kept) >= self._most_open:
            os.close(descriptor)
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        try:
            node = self.tell(parent, b"", identity)
        except BaseException:
            os.close(descriptor)
            raise
        self._kept[node] = descriptor
        return node

    def move(self, node: Node, parent: Node, name: bytes) -> None:
        """Says where a node is now."""
        node.name = name
        if node.parent is not None and node.parent is not parent:
            left, node.parent = node.parent, parent
            parent.children += 1
            left.children -= 1
            self._drop_unused(left)
        if node in self._kept:  # it has a name again
            self._hold(node, self._kept.pop(node))

    def forget(self, node_id: int, lookups: int) -> None:
        """Takes back what the guest was given; more than that is no error, but the guest's loss."""
        node = self._nodes.get(node_id)
        if node is None or node is self.root:
            return
        node.lookups = max(0, node.lookups - lookups)
        self._drop_unused(node)

    def _drop_unused(self, node: Node) -> None:
        while node is not self.root and node.lookups == 0 and node.children == 0:
            del self._nodes[node.node_id]
            if self._by_identity.get(node.identity) is node:
                del self._by_identity[node.identity]
            for held in (self._open, self._kept):
                if node in held:
                    os.close(held.pop(node))
            parent = node.parent
            if parent is None:
                return
            parent.children -= 1
            node = parent

    # ---- descriptors ----

    def descriptor(self, node: Node) -> int:
        """Returns a descriptor of a node, which names it and gives no access (`O_PATH`).

        It is the table's, and good until the next call.

        Raises:
            OSError: it is not there any more, or may not be reached.
        """
        way: list[Node] = []
        at: Node | None = node
        while at is not None and self._held(at) is None:
            way.append(at)
            if len(way) > DEPTH_MAX:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            at = at.parent
        descriptor = -1 if at is None else self._held(at)
        assert descriptor is not None  # noqa: S101  # the loop ends at one that is held: the root is
        for step in reversed(way):
            descriptor = self._open_at(descriptor, step)
        return descriptor

    def _held(self, node: Node) -> int | None:
        if node is self.root:
            return self._root_descriptor
        if node in self._open:
            self._open.move_to_end(node)
            return self._open[node]
        return self._kept.get(node)

    def _open_at(self, parent: int, node: Node) -> int:
        descriptor = os.open(node.name, _PATH_ONLY, dir_fd=parent)
        if identity_of(os.fstat(descriptor)) != node.identity:
            os.close(descriptor)
            raise stale()
        self._hold(node, descriptor)
        return descriptor

    def _hold(self, node: Node, descriptor: int) -> None:
        self._open[node] = descriptor
        while len(self._open) > self._most_open:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)

    def status(self, node: Node) -> os.stat_result:
        """Returns the attributes of a node.

        Raises:
            OSError: it is not there any more, or may not be reached.
        """
        held = self._held(node)
        if held is not None or node.parent is None:
            return os.fstat(self._root_descriptor if held is None else held)
        status = os.stat(node.name, dir_fd=self.descriptor(node.parent), follow_symlinks=False)
        if identity_of(status) != node.identity:
            raise stale()
        return status

    def keep(self, node: Node) -> None:
        """Keeps a node that is about to lose its name, for those who have it open."""
        if len(self._kept) < self._most_open and node not in self._kept:
            self.descriptor(node)
            if node in self._open:
                self._kept[node] = self._open.pop(node)

    def close(self) -> None:
        """Closes every descriptor."""
        for held in (self._open, self._kept):
            for descriptor in held.values():
                os.close(descriptor)
            held.clear()
        os.close(self._root_descriptor)
