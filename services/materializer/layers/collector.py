"""Turns the members of a layer's archive into entries, and refuses those that could do harm."""

import stat
from collections.abc import Iterable, Iterator

from services.archives.tar import Hole, Kind, Member, TarReader
from services.materializer.composefs.tree import (
    INLINE_MAX,
    SYMLINK_MAX,
    XATTR_NAME_MAX,
    XATTR_TOTAL_MAX,
    XATTR_VALUE_MAX,
    Inode,
    xattr_weight,
)
from services.materializer.layers.entries import Entry, Link, Put
from services.materializer.layers.limits import LayerLimits, unsafe
from services.materializer.layers.names import (
    Opaque,
    Place,
    check_path,
    is_aufs_record,
    whiteout,
)
from services.materializer.layers.pack import PackWriter
from services.materializer.layers.pack_metadata import object_path

_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FIFO: stat.S_IFIFO,
}
_LINKABLE = frozenset((Kind.FILE, Kind.SYMLINK))
_DEVICES = frozenset((Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE))
_MAJOR_MAX = 0xFFF
_MINOR_MAX = 0xFFFFF


class Collector:
    """Walks one archive: contents go to the pack, everything else becomes entries.

    What a layer may not hold is decided here as far as the layer itself shows it; what depends on
    the layers below is decided when they are merged. Of two entries for one path the later counts,
    as where an archive is unpacked; devices are refused there.
    """

    def __init__(
        self,
        pack: PackWriter,
        limits: LayerLimits,
        *,
        prefix: bytes = b"",
        has_whiteouts: bool = True,
    ) -> None:
        """Makes a collector for one archive.

        Args:
            pack: where contents go.
            limits: the most that the archive may bring.
            prefix: canonical path that its root becomes in the tree; empty is the tree's root.
            has_whiteouts: whether names such as `.wh.x` hide lower layers, or are names like any.
        """
        self._pack = pack
        self._limits = limits
        self._prefix = prefix
        self._has_whiteouts = has_whiteouts
        self._seen: dict[bytes, Kind] = {b"": Kind.DIRECTORY}
        self._parents: set[bytes] = set()
        self._aufs: dict[bytes, Inode | bytes] = {}
        self._aufs_bytes = 0
        self._file_bytes = 0

    def entries(self, reader: TarReader) -> Iterator[Entry]:
        """The entries of the layer in their order.

        Raises:
            LayerUnsafe: the archive is malformed, hostile or beyond the limits.
        """
        for count, member in enumerate(reader, 1):
            if count > self._limits.entries:
                raise unsafe(member.name, f"it is one entry more than {self._limits.entries}")
            place = check_path(member.name, self._limits)
            if self._has_whiteouts and is_aufs_record(place):
                self._record_aufs(place, member, reader)
                continue
            self._enter(place.parent, member.name)
            mark = whiteout(place, member.name) if self._has_whiteouts else None
            if mark is not None:
                if isinstance(mark, Opaque):
                    self._enter(mark.path, member.name)
                yield mark
                continue
            self._claim(place, member)
            yield self._entry(place, member, reader)

    def _record_aufs(self, place: Place, member: Member, reader: TarReader) -> None:
        """Keeps a file of AUFS's bookkeeping for the hard links that lead to it."""
        if member.kind is Kind.FILE:
            inode = _inode_of(member)
            self._store(inode, member, reader)
            self._aufs[place.path] = inode
            self._aufs_bytes += len(place.path) + sum(map(len, inode.xattrs.values()))
            if self._aufs_bytes > self._limits.list_bytes:
                raise unsafe(member.name, "AUFS's records take more memory than an entry list may")
        elif member.kind is Kind.HARD_LINK:
            target = self._checked_target(member)
            self._aufs[place.path] = self._aufs.get(target, target)

    def _enter(self, directory: bytes, entry: bytes) -> None:
        """Makes sure that `directory` is one, as far as this layer says."""
        path = directory
        while path not in self._seen:
            self._seen[path] = Kind.DIRECTORY
            path = path.rpartition(b"/")[0]
            self._parents.add(path)
        self._parents.add(directory)
        kind = self._seen[path]
        if kind is not Kind.DIRECTORY:
            raise unsafe(entry, f"it lies below a {kind.value}")

    def _claim(self, place: Place, member: Member) -> None:
        """Notes that the layer has this path."""
        path, kind = place.path, member.kind
        if not path and kind is not Kind.DIRECTORY:
            raise unsafe(member.name, "the root must be a directory")
        before = self._seen.get(path)
        if before is not None and (before in _DEVICES or kind in _DEVICES):
            raise unsafe(member.name, "the layer has this path twice, and one is a device")
        if before is Kind.DIRECTORY is not kind and path in self._parents:
            raise unsafe(member.name, "it replaces a directory that the layer has put entries into")
        self._seen[path] = kind

    def _entry(self, place: Place, member: Member, reader: TarReader) -> Entry:
        if member.kind is Kind.HARD_LINK:
            return self._link(place, member)
        inode = _inode_of(member)
        if member.kind is Kind.FILE:
            self._store(inode, member, reader)
        elif member.kind is Kind.SYMLINK:
            inode.payload = _symlink_target(member)
            inode.size = len(inode.payload)
        elif member.kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
            inode.rdev = _device_number(member)
        return Put(self._prefix + place.path, inode)

    def _link(self, place: Place, member: Member) -> Entry:
        target = self._checked_target(member)
        if target in self._aufs:
            source = self._aufs[target]
            if isinstance(source, Inode):
                # The first name in the tree takes the file over; those that follow link to it.
                self._aufs[target] = place.path
                return Put(self._prefix + place.path, source)
            target = source
        self._check_linkable(target, place, member)
        return Link(self._prefix + place.path, self._prefix + target)

    def _checked_target(self, member: Member) -> bytes:
        if not member.link_name:
            raise unsafe(member.name, "its hard link target is empty")
        return check_path(
            member.link_name, self._limits, entry=member.name, what="hard link target"
        ).path

    def _check_linkable(self, target: bytes, place: Place, member: Member) -> None:
        kind = self._seen.get(target)
        if target == place.path or not target:
            raise unsafe(member.name, "it is a hard link to itself or the root")
        if kind is Kind.HARD_LINK:
            kind = Kind.FILE  # was checked when it came
        if kind is not None and kind not in _LINKABLE:
            raise unsafe(member.name, f"it is a hard link to a {kind.value}")
        if kind is None:
            parent = target.rpartition(b"/")[0]
            while parent not in self._seen:
                parent = parent.rpartition(b"/")[0]
            if self._seen[parent] is not Kind.DIRECTORY:
                raise unsafe(member.name, f"its target lies below a {self._seen[parent].value}")

    def _store(self, inode: Inode, member: Member, reader: TarReader) -> None:
        """Puts a file's content where it belongs: small ones stay with the entry."""
        inode.size = member.size
        self._file_bytes += member.size
        if self._file_bytes > self._limits.total_file_bytes:
            raise unsafe(
                member.name, f"files have more than {self._limits.total_file_bytes} bytes together"
            )
        if member.size <= INLINE_MAX:
            inode.content = _whole(reader.content()) or None
            return
        inode.digest = self._pack.add(reader.content())
        inode.payload = object_path(inode.digest)


def _inode_of(member: Member) -> Inode:
    if member.xattrs:
        _check_xattrs(member)
    return Inode(
        _TYPES[member.kind] | member.mode,
        member.uid,
        member.gid,
        member.mtime,
        member.mtime_nsec,
        xattrs=member.xattrs,
    )


def _whole(pieces: Iterable[memoryview | Hole]) -> bytes:
    return b"".join(bytes(piece.size) if isinstance(piece, Hole) else piece for piece in pieces)


def _check_xattrs(member: Member) -> None:
    """Refuses extended attributes that an image cannot hold."""
    for key, value in member.xattrs.items():
        if not 1 <= len(key) <= XATTR_NAME_MAX or b"\0" in key or len(value) > XATTR_VALUE_MAX:
            raise unsafe(
                member.name, "the name or value of an extended attribute is empty or too long"
            )
    if xattr_weight(member.xattrs) > XATTR_TOTAL_MAX:
        raise unsafe(member.name, f"its extended attributes take more than {XATTR_TOTAL_MAX} bytes")


def _symlink_target(member: Member) -> bytes:
    target = member.link_name
    if not target or len(target) > SYMLINK_MAX or b"\0" in target:
        raise unsafe(
            member.name, f"a symbolic link's target must have 1 to {SYMLINK_MAX} bytes and no NUL"
        )
    return target


def _device_number(member: Member) -> int:
    """The device number as Linux's `st_rdev` has it."""
    major, minor = member.major, member.minor
    if not (0 <= major <= _MAJOR_MAX and 0 <= minor <= _MINOR_MAX):
        raise unsafe(member.name, f"the device number {major}:{minor} is out of range")
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
