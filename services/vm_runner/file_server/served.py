"""What is served: one directory of the host, its nodes, what of it the guest may see and change."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.vm_runner.file_server import answers, wire
from services.vm_runner.file_server.handles import Handles
from services.vm_runner.file_server.nodes import Node, NodeTable, identity_of
from services.vm_runner.file_server.pace import Pace
from services.vm_runner.storage import secret_names


def refused(number: int) -> OSError:
    """Returns the error of that errno."""
    return OSError(number, os.strerror(number))


@dataclass(slots=True, kw_only=True)
class Served:
    """One bound directory.

    Attributes:
        nodes: what the guest knows.
        handles: what it has open.
        owners: the user whose rights apply to the host's files, and how that is shown.
        descriptors: of `/proc/self/fd`, by which a node that is only named is opened.
        read_only: nothing is changed.
        hides_secrets: files at the top that look like secrets are not there for the guest.
        pace: of the bytes that are read and written.
    """

    nodes: NodeTable
    handles: Handles
    owners: wire.Owners
    descriptors: int
    read_only: bool
    hides_secrets: bool
    pace: Pace = field(default_factory=Pace)

    def is_hidden(self, parent: Node, name: bytes) -> bool:
        """Returns whether an entry is not there for the guest."""
        if parent is self.nodes.root and secret_names.is_policy(name):
            return True  # what says what the guest may reach is not the guest's to change
        if not self.hides_secrets:
            return False
        if parent is self.nodes.root:
            return secret_names.is_secret(name)
        return parent.parent is self.nodes.root and secret_names.is_secret_inside(parent.name, name)

    def find(self, parent: Node, name: bytes) -> os.stat_result:
        """Returns the attributes of an entry that the guest may see.

        Raises:
            OSError: it does not exist.
        """
        if self.is_hidden(parent, name):
            raise refused(errno.ENOENT)
        directory = self.nodes.descriptor(parent)
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def entry(self, parent: Node, name: bytes, status: os.stat_result) -> bytes:
        """Tells the guest of an entry; returns the answer."""
        node = self.nodes.tell(parent, name, identity_of(status))
        return answers.format_entry(node.node_id, status, self.owners)

    def check_writable(self) -> None:
        """Raises OSError if nothing may be changed."""
        if self.read_only:
            raise refused(errno.EROFS)

    def check_new_name(self, parent: Node, name: bytes) -> None:
        """Raises OSError if the guest may not give anything that name: a secret may have it."""
        self.check_writable()
        if self.is_hidden(parent, name):
            raise refused(errno.EACCES)

    def pins(self, parent: Node, name: bytes) -> bool:
        """Returns whether an entry stays where it is: elsewhere its secrets would be seen."""
        is_top = self.hides_secrets and parent is self.nodes.root
        return is_top and secret_names.holds_secrets(name)

    @contextlib.contextmanager
    def directory(self, node: Node) -> Iterator[int]:
        """Yields a descriptor of a directory that stays open whatever else is opened."""
        descriptor = os.dup(self.nodes.descriptor(node))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def link_to(self, node: Node) -> bytes:
        """Returns the name in `descriptors` that leads to a node itself, whatever its name is."""
        return b"%d" % self.nodes.descriptor(node)

    def open(self, node: Node, flags: int) -> int:
        """Opens a file or directory.

        Raises:
            OSError: it is neither, or may not be opened so; nothing else is ever opened, since
                that alone can block, or do something.
        """
        status = self.nodes.status(node)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise refused(errno.ENXIO)
        return os.open(self.link_to(node), flags | os.O_CLOEXEC, dir_fd=self.descriptors)
