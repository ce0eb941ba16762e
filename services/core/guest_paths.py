"""Paths in a guest at which nothing of a user's may be mounted."""

import posixpath
from typing import Final

KERNELS: Final = ("/dev", "/proc", "/sys")
"""Directories that the guest's kernel fills."""


def mount_problem(path: str) -> str:
    """Says what is wrong with an absolute path as a place for a mount; empty if nothing is."""
    normal = "/" + posixpath.normpath(path).lstrip("/")
    if normal == "/":
        return "cannot be the root of the file system; name a directory below it"
    for kernels in KERNELS:
        if normal == kernels or normal.startswith(f"{kernels}/"):
            return f"cannot be {kernels} or below it, which the guest's kernel fills"
    return ""
