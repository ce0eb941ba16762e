"""What tells one version of a file from the next, without reading it."""

from pathlib import Path

FileVersion = tuple[int, int, int]


def file_version(path: Path) -> FileVersion | None:
    """Returns what changes when a file, or the link to it, is replaced; None without one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
