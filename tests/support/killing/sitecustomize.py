"""Kills the materializer at a point that a test names; Python imports this at its start.

A point is an event of the interpreter (PEP 578: `open`, `os.rename` …), a pattern that its path
matches (of a rename the new one), and how many such events of a process come before it. The kill
comes right before what the event announces happens, however busy the machine is.

The event `grown` is one of ours: a file that is opened for writing has more than 1 MiB.
"""

import fnmatch
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
    os.kill(os.getppid() if IS_WORKER else os.getpid(), signal.SIGKILL)
    while True:
        signal.pause()


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
    return str(arguments[1 if event == "os.rename" else 0]) if arguments else ""


sys.addaudithook(Watch())
