"""What the host keeps free of its disk for itself, whatever a guest writes.

A guest stops at a full disk a little earlier than the host does, so that the host's own records can
still be written. What a file has already may be written again however full the disk is; whatever
takes a new block or a new inode is refused with ENOSPC: bytes in a hole or behind the end, copies,
new names.
"""

import errno
import fcntl
import os

_KEPT_BYTES = 32 << 20  # as `services.chassis.reserve`, which no helper process imports
_KEPT_INODES = 1024
_SMALL = 16
"""Of a small disk, a sixteenth is kept."""


def check_write(descriptor: int, offset: int, length: int) -> None:
    """Refuses bytes that take what the host keeps.

    Args:
        descriptor: of the file that is written.
        offset: where; a file that is open for appending is written at its end in any case.
        length: how many bytes.

    Raises:
        OSError: ENOSPC.
    """
    if length > _free_bytes(os.fstatvfs(descriptor)) and not _has(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_name(directory: int) -> None:
    """Refuses a new entry of a directory where nothing is left but what the host keeps.

    Raises:
        OSError: ENOSPC.
    """
    disk = os.fstatvfs(directory)
    # A file system without a number of inodes of its own says that it has none.
    inodes = disk.f_favail - min(_KEPT_INODES, disk.f_files // _SMALL) if disk.f_files else 1
    if _free_bytes(disk) <= 0 or inodes <= 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _free_bytes(disk: os.statvfs_result) -> int:
    kept = min(_KEPT_BYTES, disk.f_blocks * disk.f_frsize // _SMALL)
    return disk.f_bavail * disk.f_frsize - kept


def _has(descriptor: int, offset: int, length: int) -> bool:
    """Returns whether a file has data wherever it is to be written.

    Room that was taken and never written counts as a hole: file systems report it as one.
    """
    if length <= 0:
        return True
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
        return False
    try:
        return os.lseek(descriptor, offset, os.SEEK_HOLE) >= offset + length
    except OSError:  # behind the end
        return False
