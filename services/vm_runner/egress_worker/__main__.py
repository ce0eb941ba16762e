"""Carries what a run's programs exchange with the world, until the run's VMM ends.

It says `ready`, or what is wrong, on its standard output. Its pid file is locked while it lives, so
that a second one for the same run ends at once.
"""

import argparse
import os
import sys
from pathlib import Path

from services.vm_runner.egress_worker.life import Given, run
from services.vm_runner.egress_worker.tls import UpstreamContexts
from services.vm_runner.egress_worker.warmth import warm_up
from services.vm_runner.helper_process.entry import Entry, describe, take_pid_file


def main() -> int:
    """Works; returns the exit status."""
    arguments = parse_arguments(sys.argv[1:])
    entry = Entry(kept=(arguments.port_descriptor, arguments.control_descriptor))
    os.chdir(arguments.directory)
    try:
        entry.join(arguments.cgroup)
        if not take_pid_file(arguments.pid_file):
            entry.report()
            return 0
        given = Given(
            port=arguments.port_descriptor,
            control=arguments.control_descriptor,
            uid=os.geteuid() if arguments.uid is None else arguments.uid,
            gids=tuple(arguments.gid) or (os.getegid(),),
            view_required=arguments.view_required,
        )
        upstream_contexts = UpstreamContexts()
        warm_up(upstream_contexts)
        return run(given, upstream_contexts, entry.report)
    except OSError as error:
        entry.report(describe(error))
        return 1


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="lns-egress-worker", description=__doc__)
    parser.add_argument("--name", required=True, help="of the run, by which it is found")
    parser.add_argument("--directory", required=True, help="of the pid file")
    parser.add_argument("--pid-file", required=True)
    parser.add_argument(
        "--port-descriptor", required=True, type=int, help="connected to the guest's port"
    )
    parser.add_argument(
        "--control-descriptor", required=True, type=int, help="listens for runners (SEQPACKET)"
    )
    parser.add_argument("--cgroup", action="append", default=[], type=Path, help="to join")
    parser.add_argument("--uid", type=int, help="to become, where it is root")
    parser.add_argument("--gid", action="append", default=[], type=int)
    parser.add_argument("--view-required", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
