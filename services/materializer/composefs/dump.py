r"""The composefs dump, a text form of a tree: one line per name.

    PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST [KEY=VALUE…]

Fields are separated by one space; `\\`, `\n`, `\r`, `\t` and `\xHH` escape bytes; `-` means "unset"
for PAYLOAD, CONTENT and DIGEST; `@` before MODE marks a hard link whose target is PAYLOAD. The
format is that of `composefs-dump(5)`.
"""

import stat

from services.core.errors import RequestInvalid
from services.materializer.composefs.dump_lines import LineInvalid, LineReader, show
from services.materializer.composefs.tree import NAME_MAX, Inode


class DumpInvalid(RequestInvalid):
    """A dump is malformed, or describes a tree that an image cannot hold."""


def parse_dump(data: bytes) -> Inode:
    """The root of the tree that a dump describes.

    Raises:
        DumpInvalid: the dump breaks the format; the message names the line and the reason.
    """
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise DumpInvalid("the dump is empty: its first line must describe the root directory /")
    parser = _Parser()
    for number, line in enumerate(lines, 1):
        try:
            parser.add_line(line)
        except LineInvalid as problem:
            raise DumpInvalid(f"line {number}: {problem}") from None
    parser.resolve_links()
    if parser.root is None:
        raise AssertionError("a dump whose first line was accepted has a root")
    return parser.root


class _Parser:
    """A tree that grows line by line."""

    def __init__(self) -> None:
        self.root: Inode | None = None
        self._directories: dict[bytes, Inode] = {}
        self._links: list[tuple[bytes, bytes, Inode, bytes]] = []
        self._lines = LineReader()

    def add_line(self, line: bytes) -> None:
        """Adds the name that a line describes; raises `LineInvalid`."""
        path, described = self._lines.read(line)
        if isinstance(described, Inode):
            self._add_inode(path, described)
        else:
            self._add_link(path, described)

    def _add_inode(self, path: bytes, inode: Inode) -> None:
        if path == b"/":
            self._add_root(inode)
            return
        directory, name = self._place(path)
        children = directory.children
        if children is None or name in children or (directory.links and name in directory.links):
            raise LineInvalid(f"{show(path)} already exists")
        children[name] = inode
        if inode.children is not None:
            self._directories[_canonical(path)] = inode

    def _add_root(self, inode: Inode) -> None:
        if inode.children is None:
            raise LineInvalid("the root must be a directory")
        if self.root is not None:
            raise LineInvalid("the root / is described twice")
        self.root = inode
        self._directories[b""] = inode

    def _add_link(self, path: bytes, target: bytes) -> None:
        if path == b"/":
            raise LineInvalid("the root must be a directory")
        directory, name = self._place(path)
        if directory.links is None:
            directory.links = {}
        if name in directory.links or (directory.children and name in directory.children):
            raise LineInvalid(f"{show(path)} already exists")
        directory.links[name] = _UNRESOLVED
        self._links.append((_canonical(path), _canonical(target), directory, name))

    def _place(self, path: bytes) -> tuple[Inode, bytes]:
        """The directory that `path` lies in, and its name there."""
        if self.root is None:
            raise LineInvalid("the first line must describe the root directory /")
        parent, slash, name = path.rpartition(b"/")
        directory = self._directories.get(parent)
        if directory is None:
            if not path.startswith(b"/"):
                raise LineInvalid(f"{show(path)} is not an absolute path")
            directory = self._directories.get(_canonical(parent))
            if directory is None:
                raise LineInvalid(f"{show(path)} has no parent directory before it")
        if not slash:
            raise LineInvalid(f"{show(path)} is not an absolute path")
        if name in (b"", b".", b".."):
            raise LineInvalid(f"{show(path)} ends in an empty name, . or ..")
        if len(name) > NAME_MAX:
            raise LineInvalid(f"a name of {len(name)} bytes is longer than {NAME_MAX}")
        return directory, name

    def resolve_links(self) -> None:
        """Lets every hard link name its inode; raises `DumpInvalid`."""
        targets = {path: target for path, target, _, _ in self._links}
        for path, target, directory, name in self._links:
            inode = self._follow(path, target, targets)
            if inode.children is not None:
                raise DumpInvalid(f"{show(path)}: {show(target)} is a directory, not linkable")
            if directory.links is not None:
                directory.links[name] = inode

    def _follow(self, path: bytes, target: bytes, targets: dict[bytes, bytes]) -> Inode:
        seen = {path}
        while target not in seen:
            if target not in targets:
                return self._find(path, target)
            seen.add(target)
            target = targets[target]
        raise DumpInvalid(f"{show(path)} is a hard link to itself")

    def _find(self, path: bytes, target: bytes) -> Inode:
        directory = self._directories.get(target)
        if directory is not None:
            return directory
        parent, _, name = target.rpartition(b"/")
        holder = self._directories.get(parent)
        inode = holder.children.get(name) if holder and holder.children else None
        if inode is None:
            raise DumpInvalid(f"{show(path)}: its hard link target {show(target)} does not exist")
        return inode


_UNRESOLVED = Inode(stat.S_IFREG)


def _canonical(path: bytes) -> bytes:
    """A path with one slash before each name and none at its end; the root is empty."""
    if b"//" in path or path[:1] != b"/" or path[-1:] == b"/":
        return b"".join(b"/" + name for name in path.split(b"/") if name)
    return path
