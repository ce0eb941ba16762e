"""Trees of this machine as tar archives, and archives from a guest back into trees.

What comes from a guest is hostile. So only what the guest agent itself writes is taken: one file,
link or directory under exactly the name that was asked for, plain entries, each below a directory
that came before it. It is unpacked into a fresh directory beside its target while it comes, and
only a whole archive takes its place.
"""

import errno
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cli.run.copy_forms import clash
from services.archives.limits import ArchiveUnsafe, TarLimits, show_name, unsafe
from services.archives.stream import ByteStream
from services.archives.tar import Kind, Member, TarReader
from services.chassis.reserve import full_disk_is_typed, require
from services.core.errors import LimitExceeded, RequestInvalid

_MODE_BITS = 0o777
_TYPES = frozenset((b"0", b"1", b"2", b"5", b"x"))
"""What the agent writes: files, links of both kinds, directories, POSIX's extended headers."""
_HEADER_BYTES = 16 << 10
"""Two paths of 4 KiB and three numbers are the most that the agent has to say of an entry."""
EMPTY_ARCHIVE_BYTES = 10_240
"""One record of zeros: an archive of nothing, and the most that may follow the end of another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLimits:
    """The most that one copy out of a run may bring.

    Attributes:
        archive_bytes: bytes of the whole archive.
        entries: files, links and directories together.
        depth: names in a path, the root's among them; the agent goes 256 directories deep.
        path_bytes: bytes of a path in the archive.
    """

    archive_bytes: int = 64 << 30
    entries: int = 1_000_000
    depth: int = 257
    path_bytes: int = 4096


def pack(source: Path, name: str, output: BinaryIO) -> None:
    """Writes a file or directory as an archive in which it is called `name`; links are kept.

    Raises:
        RequestInvalid: there is a device, socket or FIFO in it.
        OSError: it cannot be read.
    """

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        if not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
            raise RequestInvalid(
                f"{entry.name!r} is a device, socket or FIFO",
                hint="leave it out: copy the files around it one by one",
            )
        entry.uid = entry.gid = 0  # as docker does: a user of this machine is not one of the run
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, arcname=name, filter=plain)


def unpack(
    chunks: Iterable[bytes], target: Path, *, name: str, limits: CopyLimits | None = None
) -> int:
    """Unpacks what the guest agent sends of one path, as it comes, and puts it at its place.

    Args:
        chunks: the archive; it is asked for no more than what the limits allow.
        target: what the root of the archive becomes; a directory merges with one that exists.
        name: the name that the root must have: that of the path that was asked for.
        limits: the most that the archive may bring.

    Returns:
        The number of entries.

    Raises:
        RequestInvalid: the archive is empty, broken or none that the agent writes for this name;
            nothing is left of it then.
        LimitExceeded: it is larger than the limits; nothing is left of it.
        CapacityExhausted: the disk has no room for it; nothing is left of it.
        OSError: the target cannot be written.
    """
    parent = target if target.is_dir() else target.parent
    if not parent.is_dir():  # a temporary name below it would say nothing to anybody
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(parent))
    fresh = Path(tempfile.mkdtemp(prefix=".lns-cp-", dir=parent))
    try:
        limits = limits or CopyLimits()
        with full_disk_is_typed(parent, what="what the run sends"):
            count = _Copy(fresh, os.fsencode(name), limits).take(chunks)
        _put(fresh / name, target)
    except ArchiveUnsafe as error:
        raise _refused(error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return count


def _put(fresh: Path, place: Path) -> None:
    """Moves what was unpacked to its place; directories merge, files and links give way to such.

    Existing links are replaced, never followed: only the place itself was chosen by the user.

    Raises:
        RequestInvalid: a directory and something else want one place; the rest of it stays.
    """
    is_there = os.path.lexists(place)
    there_is_directory = place.is_dir() and not place.is_symlink()
    is_directory = fresh.is_dir() and not fresh.is_symlink()
    if is_there and there_is_directory is not is_directory:
        raise clash(str(place), is_directory=is_directory)
    if not there_is_directory:
        fresh.rename(place)
        return
    for child in sorted(fresh.iterdir()):
        _put(child, place / child.name)


class _Copy:
    """One archive on its way into an empty directory that nobody else writes to."""

    def __init__(self, fresh: Path, name: bytes, limits: CopyLimits) -> None:
        self._fresh = fresh
        self._name = name
        self._limits = limits
        self._kinds: dict[bytes, Kind] = {}

    def take(self, chunks: Iterable[bytes]) -> int:
        """Makes all that the archive holds; returns the number of entries."""
        stream = ByteStream(self._bounded(chunks))
        limits = TarLimits(
            file_bytes=self._limits.archive_bytes, header_bytes=_HEADER_BYTES, sparse_segments=0
        )
        reader = TarReader(stream, limits, types=_TYPES)
        for member in reader:
            name = member.name
            if member.kind is Kind.DIRECTORY:
                name = name.removesuffix(b"/")
            self._claim(name, member)
            self._make(self._fresh / os.fsdecode(name), member, reader)
        if not self._kinds:
            raise unsafe(b"", "it is empty")
        rest = stream.rest(EMPTY_ARCHIVE_BYTES + 1)
        if len(rest) > EMPTY_ARCHIVE_BYTES or any(rest):
            raise unsafe(b"", "something follows its end")
        return len(self._kinds)

    def _bounded(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        left = self._limits.archive_bytes
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                raise _too_much(f"{self._limits.archive_bytes} bytes")
            require(self._fresh.parent, len(chunk), what="what the run sends")
            yield chunk

    def _claim(self, name: bytes, member: Member) -> None:
        """Notes an entry; refuses one that the agent would not have written now."""
        if name != self._name and not name.startswith(self._name + b"/"):
            raise unsafe(name, f"it is not called {show_name(self._name)}, which was asked for")
        if len(self._kinds) >= self._limits.entries:
            raise _too_much(f"{self._limits.entries} entries")
        parts = name.split(b"/")
        if not {b"", b".", b".."}.isdisjoint(parts) or b"\0" in name:
            raise unsafe(name, "its name leads elsewhere")
        if len(parts) > self._limits.depth or len(name) > self._limits.path_bytes:
            raise unsafe(name, "its path is too long or too deep")
        parent = name.rpartition(b"/")[0]
        if name != self._name and self._kinds.get(parent) is not Kind.DIRECTORY:
            raise unsafe(name, "it stands below something that is no directory")
        if name in self._kinds:
            raise unsafe(name, "it comes twice")
        if member.is_sparse or member.xattrs:
            raise unsafe(name, "it has attributes that are not expected")
        self._kinds[name] = member.kind

    def _make(self, path: Path, member: Member, reader: TarReader) -> None:
        # Every part of the path before the last is a directory made here: see `_claim`.
        mode = member.mode & _MODE_BITS
        if member.kind is Kind.DIRECTORY:
            path.mkdir()
            path.chmod(mode | 0o700)
        elif member.kind is Kind.SYMLINK:
            path.symlink_to(os.fsdecode(_link_target(member)))
        elif member.kind is Kind.HARD_LINK:
            if self._kinds.get(member.link_name) is not Kind.FILE:
                raise unsafe(member.name, "it is a link to something that is no earlier file")
            path.hardlink_to(self._fresh / os.fsdecode(member.link_name))
        else:
            with path.open("xb") as file:  # exclusively: it follows no link
                for piece in reader.content():
                    if not isinstance(piece, memoryview):
                        raise unsafe(member.name, "it has holes")
                    file.write(piece)
                os.fchmod(file.fileno(), mode)


def _link_target(member: Member) -> bytes:
    target = member.link_name
    if not target or b"\0" in target or len(target) >= os.pathconf("/", "PC_PATH_MAX"):
        raise unsafe(member.name, "it is a link to no possible name")
    return target


def _refused(error: ArchiveUnsafe) -> RequestInvalid:
    if not error.entry:
        return RequestInvalid(
            f"the archive from the guest is broken: {error.reason}", hint="nothing was copied"
        )
    shown = show_name(error.entry)
    return RequestInvalid(
        f"the guest sent the entry {shown!r}, which is refused: {error.reason}",
        hint="nothing was copied; do not trust this guest",
        metadata={"entry": shown},
    )


def _too_much(bound: str) -> LimitExceeded:
    return LimitExceeded(
        f"the guest sends more than {bound}",
        hint="nothing was copied; copy parts of it, or lns cp RUN:/PATH - into a place of your own",
    )
