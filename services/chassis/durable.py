"""Files that are whole or absent, also after a power failure.

A write goes to a temporary name in the same directory, is synced, renamed, and the directory is
synced. Temporary names begin with `.tmp-`, so that an owner can sweep what a crash left behind.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY_PREFIX = ".tmp-"


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644, sync_name: bool = True) -> None:
    """Makes `path` a file with exactly `data`, replacing an earlier file.

    Args:
        path: the name that the file gets; its directory must exist.
        data: what it holds then.
        mode: permission bits, independent of the umask.
        sync_name: without it a power failure may bring back the earlier file, whole.

    Raises:
        OSError: as the operating system gave it; then `path` is as it was.
    """
    with replace_file(path, mode=mode, sync_name=sync_name) as file:
        file.write(data)


@contextlib.contextmanager
def replace_file(path: Path, *, mode: int = 0o644, sync_name: bool = True) -> Iterator[BinaryIO]:
    """Yields a file to write, which takes the place of `path` when the block ends without error.

    Args:
        path: the name that the file gets; its directory must exist.
        mode: permission bits, independent of the umask. The file is private until it is whole.
        sync_name: without it a power failure may bring back the earlier file, whole.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
    except OSError as error:
        error.filename = str(path)  # the name that users know
        raise
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync_name:
        sync_directory(path.parent)


def rename(source: Path, target: Path) -> None:
    """Renames within one file system and syncs both directories; `target` is replaced.

    The content of `source` is the caller's to sync before.
    """
    source.rename(target)
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def sync_file(path: Path) -> None:
    """Makes the content of the file `path`, written by whomever, survive a power failure."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Makes the names in the directory `path` survive a power failure."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
