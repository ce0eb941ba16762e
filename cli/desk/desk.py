"""The desk: waits for launchers, and forks a process for each, in which the command runs.

It ends with the suite of its state directory, when lns itself is replaced, and when no command came
for a while. Commands that run at that moment are run to their end.
"""

import contextlib
import fcntl
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import NoReturn

from cli.app import dispatch
from cli.catalogue import ENTRIES
from cli.desk import order
from cli.desk.launcher import BEGUN, ENDED, REFUSED, desk_socket

_PEER = struct.Struct("3i")
_STATUS = struct.Struct("<cI")
_IDLE_SECONDS = 1800.0
_LOOK_SECONDS = 30.0
_BACKLOG = 64
_PRELOADED = (
    "lns.client.running.launch", "lns.client.connection.session", "grpc.aio", "rich.progress",
    "lns.registry.v1.registry_service_pb2_grpc", "lns.resolver.v1.resolver_service_pb2_grpc",
    "lns.materializer.v1.materializer_service_pb2_grpc", "lns.vm.v1.vm_service_pb2_grpc",
)  # fmt: skip


def preload() -> None:
    """Imports what commands need; nothing that gRPC makes exists afterwards."""
    for entry in ENTRIES.values():
        importlib.import_module(f"cli.commands.{entry.module}")
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is never collected is never written to, and stays shared


class Desk:
    """The desk of one state directory.

    Args:
        home: the state directory.
        suite: a descriptor of the suite's process (pidfd).
        lock: a descriptor that holds the desk's lock.
        here: `surroundings` of this process as it was started.
        environment: of this process; a fork makes it its command's.
    """

    def __init__(
        self,
        home: Path,
        suite: int,
        lock: int,
        *,
        here: str,
        environment: MutableMapping[str, str],
    ) -> None:
        self._path = Path(desk_socket(str(home)))
        self._suite = suite
        self._lock = lock
        self._replaced = False
        self._commands: dict[int, socket.socket] = {}
        self._environment = environment
        self._here = here
        self._sources = _source_times()
        self._last = time.monotonic()

    def serve(self) -> None:
        """Serves until the suite ends, lns is replaced, or no command came for a while.

        Raises:
            OSError: the socket cannot be made.
        """
        with self._listening() as listener, _woken_by_children() as wake:
            while self._is_of_use():
                self._wait(listener, wake)
        while self._commands:
            self._report(*os.waitpid(-1, 0))

    @contextlib.contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(new))
            new.chmod(0o600)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            new.rename(self._path)
            made = self._path.stat().st_ino
            try:
                yield listener
            finally:
                with contextlib.suppress(OSError):
                    if self._path.stat().st_ino == made:
                        self._path.unlink()

    def _is_of_use(self) -> bool:
        idle = time.monotonic() - self._last > _IDLE_SECONDS and not self._commands
        return not (idle or self._replaced or _is_readable(self._suite))

    def _wait(self, listener: socket.socket, wake: int) -> None:
        watched = [listener.fileno(), wake, self._suite]
        ready, _, _ = select.select(watched, [], [], _LOOK_SECONDS)
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            self._reap()
        if listener.fileno() in ready:
            self._take(listener)

    def _take(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            self._last = time.monotonic()
            connection.settimeout(order.SECONDS)
            self._replaced = _source_times() != self._sources
            if self._replaced or _uid_of(connection) != os.geteuid():
                connection.close()  # the command is run in place
                return
            pid = os.fork()
            if pid == 0:
                self._let_go(listener)
                _run(connection, self._here, self._environment)
            self._commands[pid] = connection

    def _let_go(self, listener: socket.socket) -> None:
        """Closes in a fork what is the desk's: its end must not wait for a command's."""
        listener.close()
        os.close(self._lock)
        os.close(self._suite)
        for connection in self._commands.values():
            connection.close()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self._report(*found)

    def _report(self, pid: int, status: int) -> None:
        connection = self._commands.pop(pid, None)
        if connection is not None:
            with contextlib.suppress(OSError), connection:
                connection.sendall(_STATUS.pack(ENDED, status))


def _run(connection: socket.socket, here: str, environment: MutableMapping[str, str]) -> NoReturn:
    """Runs the command of a connection in this process, a fork of the desk's, and ends it."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        wanted = order.receive(connection)
        if wanted is None or wanted.surroundings != here:
            connection.sendall(REFUSED)
            os._exit(0)
        order.take_over(wanted, environment)
        connection.sendall(_STATUS.pack(BEGUN, os.getpid()))
        order.end_with(connection)
        code = order.flush(dispatch(wanted.arguments, environment))
    finally:
        os._exit(code)


@contextlib.contextmanager
def _woken_by_children() -> Iterator[int]:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    yield reader


def _uid_of(connection: socket.socket) -> int:
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(peer)[1])


def _is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def _source_times() -> dict[str, int]:
    """Returns when the files of lns's own modules were last changed."""
    times = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("cli", "services", "lns"):
            path = getattr(module, "__file__", None)
            with contextlib.suppress(OSError):
                times[name] = os.stat(path).st_mtime_ns if path else 0  # noqa: PTH116 - often
    return times


def own_lock(home: Path) -> int | None:
    """Returns a descriptor that holds the desk's lock; None: another desk has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(home / "run" / "desk.lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
