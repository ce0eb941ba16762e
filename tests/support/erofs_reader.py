"""Reads uncompressed EROFS images, for tests: independent of the code that writes them.

Follows the kernel's description of the format (`Documentation/filesystems/erofs.rst` and
`fs/erofs/erofs_fs.h`) and checks everything that a reader can check.
"""

import stat
from dataclasses import dataclass, field

BLOCK = 4096
_TYPES = {1: stat.S_IFREG, 2: stat.S_IFDIR, 3: stat.S_IFCHR, 4: stat.S_IFBLK}
_TYPES |= {5: stat.S_IFIFO, 6: stat.S_IFSOCK, 7: stat.S_IFLNK}
_PREFIXES = {
    0: b"",
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}


@dataclass(slots=True)
class Node:
    """One inode: its fields, and content or children."""

    nid: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    mtime: tuple[int, int]
    rdev: int
    ino: int
    extended: bool
    data: bytes | None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[bytes, "Node"] = field(default_factory=dict)


class Reader:
    """A whole image in memory; `root` is its tree, a hard-linked inode one `Node`."""

    def __init__(self, image: bytes) -> None:
        assert len(image) % BLOCK == 0
        self._image = image
        assert self._u(1024, 4) == 0xE0F5E1E2
        assert self._u(1024 + 12, 1) == 12
        self.feature_compat = self._u(1024 + 8, 4)
        self.inodes = self._u(1024 + 16, 8)
        self._build_time = (self._s(1024 + 24, 8), self._u(1024 + 32, 4))
        assert self._u(1024 + 36, 4) * BLOCK == len(image)
        self._meta = self._u(1024 + 40, 4) * BLOCK
        self._shared = self._u(1024 + 44, 4) * BLOCK
        self._nodes: dict[int, Node] = {}
        self.root = self._node(self._u(1024 + 14, 2), None)
        self._check_numbers()

    def _u(self, at: int, size: int) -> int:
        return int.from_bytes(self._image[at : at + size], "little")

    def _s(self, at: int, size: int) -> int:
        return int.from_bytes(self._image[at : at + size], "little", signed=True)

    def _node(self, nid: int, parent: int | None) -> Node:
        if nid in self._nodes:
            return self._nodes[nid]
        at = self._meta + nid * 32
        form = self._u(at, 2)
        extended, layout = bool(form & 1), form >> 1
        if extended:
            fields = (
                self._u(at + 4, 2),
                self._u(at + 44, 4),
                self._u(at + 24, 4),
                self._u(at + 28, 4),
            )
            size, union, ino = self._u(at + 8, 8), self._u(at + 16, 4), self._u(at + 20, 4)
            mtime = (self._s(at + 32, 8), self._u(at + 40, 4))
        else:
            fields = (
                self._u(at + 4, 2),
                self._u(at + 6, 2),
                self._u(at + 24, 2),
                self._u(at + 26, 2),
            )
            size, union, ino = self._u(at + 8, 4), self._u(at + 16, 4), self._u(at + 20, 4)
            mtime = self._build_time
        mode, nlink, uid, gid = fields
        head = 64 if extended else 32
        icount = self._u(at + 2, 2)
        xattr_bytes = 12 + 4 * (icount - 1) if icount else 0
        is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
        node = Node(
            nid=nid,
            mode=mode,
            nlink=nlink,
            uid=uid,
            gid=gid,
            size=size,
            mtime=mtime,
            rdev=union if is_device else 0,
            ino=ino,
            extended=extended,
            data=self._content(at + head + xattr_bytes, layout, size, union, node_mode=mode),
            xattrs=self._xattrs(at + head, icount) if icount else {},
        )
        self._nodes[nid] = node
        if stat.S_ISDIR(mode):
            self._read_children(node, nid if parent is None else parent)
        return node

    def _content(
        self, tail_at: int, layout: int, size: int, union: int, *, node_mode: int
    ) -> bytes | None:
        """The content; None for chunks without data, which read as zeros."""
        if layout == 4:
            assert stat.S_ISREG(node_mode)
            bits = (union & 0x1F) + 12
            count = -(-size // (1 << bits))
            # A map that did not fit behind its inode is in a block that nothing points to.
            if 4 * count <= BLOCK - tail_at % BLOCK:
                assert self._image[tail_at : tail_at + 4 * count] == b"\xff" * 4 * count
            return None
        whole = size // BLOCK * BLOCK if layout == 2 else size
        tail = size - whole
        if tail:
            assert tail_at // BLOCK == (tail_at + tail - 1) // BLOCK, "a tail is split"
        data = self._image[union * BLOCK : union * BLOCK + whole] if whole else b""
        return data + self._image[tail_at : tail_at + tail]

    def _xattrs(self, at: int, icount: int) -> dict[bytes, bytes]:
        end = at + 12 + 4 * (icount - 1)
        shared = self._u(at + 4, 1)
        found = {}
        places = [self._shared + 4 * self._u(at + 12 + 4 * i, 4) for i in range(shared)]
        inline = at + 12 + 4 * shared
        while inline < end:
            places.append(inline)
            inline += -(-(4 + self._u(inline, 1) + self._u(inline + 2, 2)) // 4) * 4
        assert inline == end
        for place in places:
            name_bytes, prefix, value_bytes = (
                self._u(place, 1),
                self._u(place + 1, 1),
                self._u(place + 2, 2),
            )
            name = self._image[place + 4 : place + 4 + name_bytes]
            value = self._image[place + 4 + name_bytes :][:value_bytes]
            assert _PREFIXES[prefix] + name not in found
            found[_PREFIXES[prefix] + name] = value
        return found

    def _read_children(self, node: Node, parent: int) -> None:
        assert node.data is not None
        names: list[bytes] = []
        for start in range(0, len(node.data), BLOCK):
            block = node.data[start : start + BLOCK]
            count = int.from_bytes(block[8:10], "little") // 12
            offsets = [int.from_bytes(block[12 * i + 8 :][:2], "little") for i in range(count)]
            for i, begin in enumerate(offsets):
                end = offsets[i + 1] if i + 1 < count else len(block)
                name = block[begin:end].rstrip(b"\0")
                nid = int.from_bytes(block[12 * i :][:8], "little")
                names.append(name)
                if name == b".":
                    assert nid == node.nid
                elif name == b"..":
                    assert nid == parent
                else:
                    child = self._node(nid, node.nid)
                    assert _TYPES[block[12 * i + 10]] == stat.S_IFMT(child.mode)
                    node.children[name] = child
        assert names == sorted(set(names)), "names are not sorted or not unique"
        assert {b".", b".."} <= set(names)

    def _check_numbers(self) -> None:
        assert len(self._nodes) == self.inodes
        assert sorted(node.ino for node in self._nodes.values()) == list(range(self.inodes))
        for node in self._nodes.values():
            if stat.S_ISDIR(node.mode):
                subdirectories = sum(stat.S_ISDIR(one.mode) for one in node.children.values())
                assert node.nlink == 2 + subdirectories
