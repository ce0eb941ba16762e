"""Room on disks: looked for before much is written, and a reserve for the records of a service.

Whoever writes much (layers, spools, disk images, files of a guest) asks `require` first, which
leaves `KEPT_BYTES` of the disk alone. That is not enough where others write too: a microVM fills
its sparse disk whenever it likes. A `Reserve` is a file of allocated blocks that gives way to the
records of its owner when the disk is full, and is filled again when there is room.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from services.core.errors import CapacityExhausted

KEPT_BYTES = 32 << 20
"""What those who write much leave free of a disk; on a small one, a sixteenth of it."""

_SMALL = 16
_KIB = 1024
_STEP = 256 << 10
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

P = ParamSpec("P")
T = TypeVar("T")


def is_full(error: OSError) -> bool:
    """Returns whether an error of the operating system says that a disk or a quota is full."""
    return error.errno in _FULL


def free_bytes(directory: Path) -> int:
    """Returns what this user may still write on the disk of a directory.

    Raises:
        OSError: the directory does not exist.
    """
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def room(directory: Path, *, kept: int | None = None) -> int:
    """Returns the bytes that can be written so that some stay free; may be negative.

    Args:
        directory: on whose disk.
        kept: bytes that stay free; by default `KEPT_BYTES`, on a small disk a sixteenth of it.

    Raises:
        OSError: the directory does not exist.
    """
    disk = os.statvfs(directory)
    if kept is None:
        kept = min(KEPT_BYTES, disk.f_blocks * disk.f_frsize // _SMALL)
    return disk.f_bavail * disk.f_frsize - kept


def require(directory: Path, needed: int, *, what: str, kept: int | None = None) -> None:
    """Checks that `needed` bytes can be written and some stay free.

    Args:
        directory: on whose disk.
        needed: bytes.
        what: that is to be written, as the error names it: `a layer of 20 MB`.
        kept: bytes that stay free; by default as `room` says.

    Raises:
        CapacityExhausted: there is too little room.
        OSError: the directory does not exist.
    """
    if needed > room(directory, kept=kept):
        raise exhausted(directory, what=what, needed=needed)


def exhausted(directory: Path, *, what: str, needed: int = 0) -> CapacityExhausted:
    """Returns the error of a full disk: what was to be written, where, how much, how much is free.

    Args:
        directory: on whose disk; it may be gone.
        what: that could not be written, as the error names it.
        needed: bytes; 0 where that is not known.
    """
    metadata = {"directory": str(directory)}
    free = ""
    with contextlib.suppress(OSError):
        metadata["free_bytes"] = str(free_bytes(directory))
        free = f", {_size(int(metadata['free_bytes']))} are free"
    if needed:
        metadata["needed_bytes"] = str(needed)
    wanted = f": {_size(needed)} are needed{free}" if needed else free
    return CapacityExhausted(
        f"the disk of {directory} has no room for {what}{wanted}",
        hint="free some space there, or `lns prune`; `lns doctor` shows how much is free",
        metadata=metadata,
    )


@contextlib.contextmanager
def full_disk_is_typed(directory: Path, *, what: str, needed: int = 0) -> Iterator[None]:
    """Turns the operating system's errors of a full disk within the block into ours.

    Raises:
        CapacityExhausted: the disk became full; see `exhausted` for the arguments.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise exhausted(directory, what=what, needed=needed) from error


class Reserve:
    """Allocated room of a disk that gives way to the records of one owner.

    Its methods block; they may be called from several threads.

    Args:
        path: of the file with the room, made by `fill`; its directory must exist.
        size_bytes: of it; a hundredth of the disk where that is less.
    """

    def __init__(self, path: Path, *, size_bytes: int = 8 << 20) -> None:
        self._path = path
        self._size = size_bytes
        self._lock = threading.Lock()
        self._is_whole = False

    def fill(self) -> bool:
        """Takes as much room as is wanted, if the disk has it; returns whether it is whole.

        Raises:
            OSError: the file cannot be made, for another reason than a full disk.
        """
        with self._lock:
            return self._fill()

    def write(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns `function(*args, **kwargs)`; where its disk is full, the reserve gives way first.

        The function must be safe to call again after an `OSError`: it writes a file whole or not.

        Raises:
            OSError: what it raises; the disk is full although the reserve is used up.
        """
        while True:
            try:
                result = function(*args, **kwargs)
            except OSError as error:
                if not is_full(error) or not self._give_way():
                    raise
            else:
                self._refill()
                return result

    def _refill(self) -> None:
        if self._is_whole:
            return
        # It takes nothing that would at once be missed again.
        with self._lock, contextlib.suppress(OSError):
            if free_bytes(self._path.parent) > 2 * self._wanted():
                self._fill()

    def _wanted(self) -> int:
        disk = os.statvfs(self._path.parent)
        return min(self._size, disk.f_blocks * disk.f_frsize // 100)

    def _fill(self) -> bool:
        wanted = self._wanted()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            if wanted:
                os.posix_fallocate(descriptor, 0, wanted)
            self._is_whole = True
        except OSError as error:
            if not is_full(error):
                raise
            self._is_whole = False
        finally:
            os.close(descriptor)
        return self._is_whole

    def _give_way(self) -> bool:
        """Gives a step of the room back; returns whether there was some."""
        with self._lock:
            self._is_whole = False
            try:
                size = self._path.stat().st_size
                if size:
                    os.truncate(self._path, max(0, size - _STEP))
            except OSError:
                return False
            return size > 0


def _size(count: int) -> str:
    """Returns a number of bytes in words, in steps of 1024."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}"
        size /= _KIB
    return f"{size:.1f} GiB"
