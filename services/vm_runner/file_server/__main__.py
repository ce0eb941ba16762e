"""Serves a directory or file of the host to a guest until the guest's VMM ends.

It says `ready`, or what is wrong, on its standard output. Its pid file is locked while it lives, so
that a second one for the same port ends at once, having nothing to do.
"""

import argparse
import contextlib
import fcntl
import os
import socket
import sys
from pathlib import Path

from services.vm_runner.file_server.confinement import FILES_MOST, Ground, confine
from services.vm_runner.file_server.handles import Handles
from services.vm_runner.file_server.nodes import NodeTable
from services.vm_runner.file_server.served import Served
from services.vm_runner.file_server.session import Session
from services.vm_runner.file_server.wire import Malformed

READY = "ready"
_OPEN_NODES = 1024
_OOM_SCORE = "500"
_FIRST_INHERITED, _INHERITED_MOST = 3, 1 << 20


def main() -> int:
    """Serves; returns the exit status."""
    arguments = _parse(sys.argv[1:])
    os.closerange(_FIRST_INHERITED, _INHERITED_MOST)
    os.chdir(arguments.directory)  # the path of a socket is short
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)  # there is none later
    try:
        for directory in arguments.cgroup:
            (directory / "cgroup.procs").write_text("0")
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
        if not _take_pid_file(arguments.pid_file):
            return _report(READY, null)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(arguments.socket)
        ground = confine(
            arguments.source,
            read_only=arguments.read_only,
            view_required=arguments.view_required,
        )
    except OSError as error:
        _report(_describe(error), null)
        return 1
    if ground.obstacle:
        print(f"no view of its own: {ground.obstacle}", file=sys.stderr, flush=True)
    served = _served(ground, arguments)
    _report(READY, null)
    try:
        Session(served).serve(connection)
    except (Malformed, ConnectionError) as error:
        print(f"ended: {error}", file=sys.stderr)
        return 1
    return 0


def _describe(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{what}: {os.fsdecode(error.filename)}" if error.filename else what


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lns-file-server", description=__doc__)
    parser.add_argument("--name", required=True, help="of the run, by which it is found")
    parser.add_argument("--directory", required=True, help="of pid file and socket")
    parser.add_argument("--pid-file", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--source", required=True, type=Path)
    parser.add_argument("--cgroup", action="append", default=[], type=Path, help="to join")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--keep-secrets", action="store_true")
    parser.add_argument("--view-required", action="store_true")
    return parser.parse_args(arguments)


def _take_pid_file(path: str) -> bool:
    """Locks the pid file for as long as this process lives; returns whether it was free."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return True


def _served(ground: Ground, arguments: argparse.Namespace) -> Served:
    open_nodes = min(_OPEN_NODES, ground.open_files // 4)
    return Served(
        nodes=NodeTable(ground.root, most_open=open_nodes),
        handles=Handles(min(FILES_MOST, ground.open_files - 2 * open_nodes)),
        owners=ground.owners,
        descriptors=ground.descriptors,
        read_only=arguments.read_only,
        hides_secrets=not arguments.keep_secrets,
    )


def _report(text: str, null: int) -> int:
    """Says how it stands, and that nothing more follows."""
    with contextlib.suppress(BrokenPipeError):  # who asked died; the guest is served all the same
        os.write(sys.stdout.fileno(), text.encode(errors="replace"))
    os.dup2(null, sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
