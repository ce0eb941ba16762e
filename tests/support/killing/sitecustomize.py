"""Kills the materializer at a point that a test names; Python imports this at its start.

A point is an event of the interpreter (PEP 578: `open`, `os.rename` …), a pattern that its path
matches (of a rename the new one), and how many such events of a process come before it. The kill
comes right before what the event announces happens, however busy the machine is.

The event `grown` is one of ours: a file that is opened for writing has more than 1 MiB.

A worker is confined when it comes to such a point, and cannot signal its service. So it has a
process beside it from its start, which does that when a byte of memory that they share says so.
"""

import fnmatch
import mmap
import os
import signal
import sys
import threading
import time

EVENT, PATTERN, BEFORE = os.environ["LNS_TEST_KILL"].split()
GROWN = 1 << 20
IS_WORKER = any(argument.endswith(".worker") for argument in sys.orig_argv)


def kill() -> None:
    """Kills the service; a worker ends with it."""
    if IS_WORKER:
        ASKED[0] = 1
    else:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(60)


def kill_when_asked() -> None:
    """Kills the service of this worker on demand, by a process that ends with the worker."""
    service, worker = os.getppid(), os.getpid()
    if os.fork():
        return
    while os.getppid() == worker:
        if ASKED[0]:
            os.kill(service, signal.SIGKILL)
        time.sleep(0.001)
    os._exit(0)


def has_grown(path: str) -> bool:
    """Says whether a file exists and is large enough."""
    # Not by pathlib, which has events of its own.
    return os.access(path, os.F_OK) and os.stat(path).st_size > GROWN  # noqa: PTH116


def kill_when_grown(path: str) -> None:
    """Waits for a file to grow, beside whoever writes it."""
    while not has_grown(path):
        time.sleep(0)
    kill()


class Watch:
    """Looks at every event until the one that is wanted."""

    def __init__(self) -> None:
        self.left = int(BEFORE)
        self.growing: set[str] = set()

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if EVENT == "grown":
            self.see_growth(event, arguments)
        elif event == EVENT and fnmatch.fnmatch(_path(event, arguments), PATTERN):
            self.left -= 1
            if self.left < 0:
                kill()

    def see_growth(self, event: str, arguments: tuple[object, ...]) -> None:
        path = _path(event, arguments)
        if event != "open" or not fnmatch.fnmatch(path, PATTERN):
            return
        if path not in self.growing:
            self.growing.add(path)
            threading.Thread(target=kill_when_grown, args=(path,), daemon=True).start()
        elif has_grown(path):
            kill()  # it is whole already: no further


def _path(event: str, arguments: tuple[object, ...]) -> str:
    """Returns what an event is about; a directory that a worker only takes with it is not meant."""
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_PATH:
        return ""
    return str(arguments[1 if event == "os.rename" else 0]) if arguments else ""


if IS_WORKER:
    ASKED = mmap.mmap(-1, 1)
    kill_when_asked()
sys.addaudithook(Watch())
