"""Trees of this machine as tar archives, and archives from a guest back into trees.

What comes from a guest is hostile: names that lead out, entries below a link, links to elsewhere.
So an archive is unpacked into a fresh directory beside its target, no entry goes through anything
but directories of the archive, and only a whole archive takes its place.
"""

import errno
import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from services.core.errors import RequestInvalid

_MODE_BITS = 0o777


def pack(source: Path, name: str, output: BinaryIO) -> None:
    """Writes a file or directory as an archive in which it is called `name`; links are kept.

    Raises:
        RequestInvalid: there is a device, socket or FIFO in it.
        OSError: it cannot be read.
    """

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        if not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
            raise RequestInvalid(
                f"{entry.name!r} is a device, socket or FIFO", hint="copy what is beside it"
            )
        return entry

    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, arcname=name, filter=plain)


def unpack(archive: BinaryIO, target: Path) -> int:
    """Unpacks an archive with one root, which becomes `target`, or is put into that directory.

    Returns the number of entries.

    Raises:
        RequestInvalid: the archive is empty, broken, has several roots or a hostile entry; nothing
            is left of it then.
        OSError: the target cannot be written.
    """
    parent = target if target.is_dir() else target.parent
    if not parent.is_dir():  # a temporary name below it would say nothing to anybody
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(parent))
    fresh = Path(tempfile.mkdtemp(prefix=".lns-cp-", dir=parent))
    try:
        count, root = _unpack(archive, fresh)
        place = target / root if target.is_dir() else target
        if place.is_dir() and not place.is_symlink():
            raise RequestInvalid(f"{place} is a directory that is there already")
        (fresh / root).rename(place)
    except tarfile.TarError as error:
        raise RequestInvalid(f"the archive from the guest is broken: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return count


def _unpack(stream: BinaryIO, fresh: Path) -> tuple[int, str]:
    roots: set[str] = set()
    count = 0
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            path = _inside(fresh, entry.name)
            roots.add(path.relative_to(fresh).parts[0])
            _make(archive, entry, path, fresh)
            count += 1
    if len(roots) != 1:
        raise RequestInvalid(f"the archive from the guest has {len(roots)} roots instead of one")
    return count, roots.pop()


def _inside(fresh: Path, name: str) -> Path:
    """Returns where an entry goes, whose parents are real directories of this archive."""
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    if not parts or ".." in parts or name.startswith("/"):
        raise _hostile(name, "leads out of the archive")
    path = fresh
    for part in parts[:-1]:
        path /= part
        if path.is_symlink() or not path.is_dir():
            raise _hostile(name, "stands below something that is no directory")
    return path / parts[-1]


def _make(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: Path, fresh: Path) -> None:
    if os.path.lexists(path) and not (entry.isdir() and path.is_dir() and not path.is_symlink()):
        raise _hostile(entry.name, "comes twice")
    mode = entry.mode & _MODE_BITS
    if entry.isdir():
        path.mkdir(exist_ok=True)
        path.chmod(mode | 0o700)
    elif entry.isreg():
        content = archive.extractfile(entry)
        with path.open("xb") as file:
            if content is not None:
                shutil.copyfileobj(content, file)
        path.chmod(mode)
    elif entry.issym():
        path.symlink_to(entry.linkname)
    elif entry.islnk():
        earlier = _inside(fresh, entry.linkname)
        if earlier.is_symlink() or not earlier.is_file():
            raise _hostile(entry.name, "links to something that is no file of the archive")
        path.hardlink_to(earlier)
    else:
        raise _hostile(entry.name, "is a device or FIFO")


def _hostile(name: str, why: str) -> RequestInvalid:
    return RequestInvalid(
        f"the guest's entry {name!r} {why}",
        hint="nothing was copied; do not trust this guest",
        metadata={"entry": name},
    )
