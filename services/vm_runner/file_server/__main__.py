"""Serves a directory or file of the host to a guest until the guest's VMM ends.

It says `ready`, or what is wrong, on its standard output. Its pid file is locked while it lives, so
that a second one for the same port ends at once, having nothing to do.
"""

import argparse
import os
import socket
import sys
from pathlib import Path

from services.vm_runner.file_server.ground import FILES_MOST, Ground, confine
from services.vm_runner.file_server.handles import Handles
from services.vm_runner.file_server.nodes import NodeTable
from services.vm_runner.file_server.pace import Pace
from services.vm_runner.file_server.served import Served
from services.vm_runner.file_server.session import Session
from services.vm_runner.file_server.wire import Malformed
from services.vm_runner.helper_process.entry import Entry, describe, record_pid, take_pid_file

_OPEN_NODES = 1024


def main() -> int:
    """Serves; returns the exit status."""
    arguments = _parse(sys.argv[1:])
    entry = Entry()
    os.chdir(arguments.directory)  # the path of a socket is short
    try:
        entry.join(arguments.cgroup)
        if not take_pid_file(arguments.pid_file):
            entry.report()
            return 0
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(arguments.socket)
        ground = confine(
            arguments.source,
            read_only=arguments.read_only,
            view_required=arguments.view_required,
            record=lambda pid: record_pid(arguments.pid_file, pid),
        )
    except OSError as error:
        entry.report(describe(error))
        return 1
    if ground.obstacle:
        print(f"no view of its own: {ground.obstacle}", file=sys.stderr, flush=True)
    served = _served(ground, arguments)
    entry.report()
    try:
        Session(served).serve(connection)
    except (Malformed, ConnectionError) as error:
        print(f"ended: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lns-file-server", description=__doc__)
    parser.add_argument("--name", required=True, help="of the run, by which it is found")
    parser.add_argument("--directory", required=True, help="of pid file and socket")
    parser.add_argument("--pid-file", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--source", required=True, type=Path)
    parser.add_argument("--cgroup", action="append", default=[], type=Path, help="to join")
    parser.add_argument("--rate", type=int, default=0, help="bytes a second; 0: no limit")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--keep-secrets", action="store_true")
    parser.add_argument("--view-required", action="store_true")
    return parser.parse_args(arguments)


def _served(ground: Ground, arguments: argparse.Namespace) -> Served:
    open_nodes = min(_OPEN_NODES, ground.open_files // 4)
    return Served(
        nodes=NodeTable(ground.root, most_open=open_nodes),
        handles=Handles(min(FILES_MOST, ground.open_files - 2 * open_nodes)),
        owners=ground.owners,
        descriptors=ground.descriptors,
        read_only=arguments.read_only,
        hides_secrets=not arguments.keep_secrets,
        pace=Pace(arguments.rate),
    )


if __name__ == "__main__":
    sys.exit(main())
