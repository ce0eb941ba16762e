"""Copies of sparse files: shared blocks where the file system can, else the data without the holes.

These functions block.
"""

import errno
import fcntl
import os
from pathlib import Path

_FICLONE = 0x40049409
_NO_CLONES = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
)
_STEP = 16 << 20


def copy_sparse(source: Path, target: Path) -> None:
    """Makes `target`, which does not exist, a copy of a file that nobody writes to meanwhile.

    Raises:
        OSError: it cannot be read or written; nothing is left then.
    """
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not _clone(read, write):
                _copy(read, write)
        except BaseException:
            target.unlink()
            raise
        finally:
            os.close(write)
    finally:
        os.close(read)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONES:
            raise
        return False
    return True


def _copy(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            begin = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            raise
        end = os.lseek(source, begin, os.SEEK_HOLE)
        while begin < end:
            count = _copy_some(source, target, begin, min(_STEP, end - begin))
            begin += count
        at = end


def _copy_some(source: int, target: int, at: int, most: int) -> int:
    try:
        count = os.copy_file_range(source, target, most, at, at)
    except OSError as error:
        if error.errno not in _NO_CLONES:
            raise
        count = os.pwrite(target, os.pread(source, most, at), at)
    if not count:
        raise OSError(errno.EIO, "the file became shorter while it was copied")
    return count
