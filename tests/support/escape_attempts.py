"""What code that runs in a confined process of ours tries: upwards from every descriptor, and out.

It is imported before the process is confined, and called afterwards.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

_DESCRIPTORS = 256
_UPS = 9
_PATHS = (
    "etc/passwd",
    "home",
    "{outside}/environ",
    "{outside}/root/etc/passwd",
    "sys/kernel/hostname",
    "2/status",
    "1/root/etc/passwd",
    "self/root/../etc",
)


def attempts(outside: int) -> list[str]:
    """Returns what it reached and should not have; empty behind a wall that holds.

    Args:
        outside: a process of the host that has the same user.
    """
    found: list[str] = []

    def tries(what: str, act: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):
            found.append(f"{what}: {act()!r}")

    for number in range(_DESCRIPTORS):
        try:
            kind = os.fstat(number).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(kind) or number in (0, 1, 2):
            _upwards(number, outside, tries, found)
    for pid in (outside, 2, 3):
        tries(f"signal {pid}", lambda pid=pid: os.kill(pid, 0))  # type: ignore[misc]  # bound now
    tries("unix socket", lambda: socket.socket(socket.AF_UNIX))
    tries("network", lambda: socket.socket(socket.AF_INET))
    tries("vsock", lambda: socket.socket(socket.AF_VSOCK))
    tries("fork", os.fork)
    tries("program", lambda: os.execv("/bin/true", ["true"]))  # noqa: S606 - it has to fail
    tries("host's processes", lambda: list(Path("/proc").iterdir()))
    tries("host's users", lambda: Path("/etc/passwd").stat())
    if os.getuid():
        tries("root again", lambda: os.setuid(0))
    return found


def _upwards(
    number: int, outside: int, tries: Callable[[str, Callable[[], object]], None], found: list[str]
) -> None:
    """Opens the host's files and processes by `..` from a descriptor."""
    for ups in range(1, _UPS):
        up = "/".join([".."] * ups)
        for path in _PATHS:
            way = f"{up}/{path.format(outside=outside)}"
            tries(f"{number}/{way}", lambda way=way: os.open(way, os.O_RDONLY, dir_fd=number))  # type: ignore[misc]  # bound now
        try:
            names = os.listdir(os.open(up, os.O_RDONLY, dir_fd=number))  # noqa: PTH208 - by descriptor
        except OSError:
            continue
        others = any(name.isdigit() and name != "1" for name in names)
        if others and "self" in names and "task" not in names:
            found.append(f"{number}/{up}: other processes {names}")
