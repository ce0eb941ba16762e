"""Exclusive ownership of a part of the state directory by one process."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from services.core import errors


@contextlib.contextmanager
def owner_lock(path: Path, *, what: str) -> Iterator[None]:
    """Holds the lock file `path` until the block ends or the process does, however it dies.

    The file holds the owner's process id, to be read by users, and stays: removing it would let two
    processes lock two files of the same name.

    Args:
        path: the lock file; it is made, mode 0600, where its directory exists.
        what: what the lock protects, for the error (`the blob store at …`).

    Raises:
        InUse: another process holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise errors.InUse(
                f"{what} belongs to another process ({owner or 'unknown'})",
                hint="stop that process, or use another state directory (`LNS_HOME`)",
                metadata={"lock": str(path), "pid": owner},
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)
