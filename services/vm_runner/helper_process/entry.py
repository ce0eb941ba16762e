"""How a helper process begins: what it inherited goes, its pid file is locked, it says how it is.

It says `ready`, or what is wrong, on its standard output, and closes that. Its pid file stays
locked while it lives, so that a second process for the same place ends at once.
"""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

READY = "ready"
_OOM_SCORE = "500"
_FIRST_INHERITED, _INHERITED_MOST = 3, 1 << 20


class Entry:
    """The beginning of a process, until it has said how it is."""

    def __init__(self, *, kept: Sequence[int] = ()) -> None:
        """Closes what was inherited but standard streams and `kept`."""
        at = _FIRST_INHERITED
        for descriptor in sorted(kept):
            os.closerange(at, descriptor)
            at = descriptor + 1
        os.closerange(at, _INHERITED_MOST)
        # Opened now: it may be out of reach later.
        self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def join(self, cgroups: Iterable[Path]) -> None:
        """Enters control groups, and offers itself before others when memory runs out.

        Raises:
            OSError: one of them cannot be entered.
        """
        for directory in cgroups:
            (directory / "cgroup.procs").write_text("0")
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)

    def report(self, text: str = READY) -> None:
        """Says how it stands, and that nothing more follows."""
        with contextlib.suppress(
            BrokenPipeError
        ):  # who asked died; the guest is served all the same
            os.write(sys.stdout.fileno(), text.encode(errors="replace"))
        os.dup2(self._null, sys.stdout.fileno())


def take_pid_file(path: str) -> bool:
    """Locks the pid file for as long as this process lives; returns whether it was free.

    Raises:
        OSError: it cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _write_pid(descriptor, os.getpid())
    return True


def record_pid(path: str, pid: int) -> None:
    """Writes another process's pid into a pid file that this one has locked.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _write_pid(descriptor, pid)
    finally:
        os.close(descriptor)


def _write_pid(descriptor: int, pid: int) -> None:
    text = b"%d\n" % pid
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))


def describe(error: OSError) -> str:
    """Returns what failed, for users."""
    what = error.strerror or str(error)
    return f"{what}: {os.fsdecode(error.filename)}" if error.filename else what
