"""Files that users and lns both edit: replaced as a whole, one edit at a time, by any process.

An edit holds the lock of the very file that it replaces. Whoever waited for that lock sees that the
name stands for another file now, and begins anew with what it says.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from services.chassis.durable import write_bytes
from services.core.errors import Conflict, LimitExceeded

MAX_BYTES = 1024 * 1024
"""Size of the largest such file that is read."""

_NEW_MODE = 0o644
_TRIES = 64


def read_edited_file(path: Path) -> bytes:
    """Returns the text of a file; empty if it does not exist.

    Raises:
        LimitExceeded: it is larger than 1 MiB.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _read(file.fileno(), path)
    except FileNotFoundError:
        return b""


def edit_file(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    """Replaces a file by what `change` makes of it, and returns that.

    The file is whole at every moment. A symbolic link stays; the file that it names is replaced. A
    change that returns what it was given writes nothing.

    Args:
        path: the file; it need not exist.
        change: gets the text, empty for a file that does not exist. It may be called again if
            another process was faster.

    Raises:
        Conflict: others edit the file without pause.
        LimitExceeded: the file is larger than 1 MiB.
        OSError: it cannot be read or written; it is as it was.
    """
    path = path.resolve()
    if not path.exists():
        change(b"")  # what fails leaves no empty file behind
    for _ in range(_TRIES):
        with _locked(path) as descriptor:
            if descriptor is None:
                continue
            text = _read(descriptor, path)
            edited = change(text)
            if edited != text:
                write_bytes(path, edited, mode=os.fstat(descriptor).st_mode & 0o777)
            return edited
    raise Conflict(f"{path} is being edited by others without pause")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """Yields a locked descriptor of the file that `path` names, made empty if it was missing.

    Yields None where it was replaced meanwhile.
    """
    flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, _NEW_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor if _is_current(descriptor, path) else None
    finally:
        os.close(descriptor)


def _is_current(descriptor: int, path: Path) -> bool:
    mine = os.fstat(descriptor)
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (now.st_dev, now.st_ino)


def _read(descriptor: int, path: Path) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise LimitExceeded(f"{path} is larger than 1 MiB, the most that lns reads of it")
    return text
