"""Runs one command and writes what it cost: `launch.py REPORT COMMAND…`.

A process of its own and a small one, because a new process counts the memory of the one that made
it as its own peak (Linux carries `ru_maxrss` over `exec`).
"""

import json
import os
import sys
import time


def main() -> int:
    """Returns the command's exit code, 128 and the number more for a signal."""
    report, *command = sys.argv[1:]
    begin = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begin
    code = os.waitstatus_to_exitcode(status)
    with open(report, "w") as file:  # noqa: PTH123 - pathlib would take longer than the rest
        json.dump([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024], file)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
