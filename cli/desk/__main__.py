"""The desk's process: `python -P -m cli.desk STATE_DIRECTORY`, started behind a command."""

import contextlib
import os
import sys
from pathlib import Path

from cli.desk.desk import Desk, own_lock, preload
from cli.desk.launcher import hide_grpc_lines, surroundings
from lns.client.connection.suite_process import SuiteFiles, find_suite
from services.core.errors import LnsError


def main(home: Path) -> None:
    """Serves the commands of a state directory, unless another desk does."""
    lock = own_lock(home)
    if lock is None:
        return
    with contextlib.suppress(LnsError, OSError):
        found = find_suite(SuiteFiles(home=home))
        if found is None:
            return
        suite = os.pidfd_open(found.pid)
        here = surroundings(os.environ)
        hide_grpc_lines(os.environ)
        preload()
        Desk(home, suite, lock, here=here, environment=os.environ).serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
