"""The suite as two processes: whether it lives, starting it in the background, ending it.

Whether it lives is asked of the kernel, not of a file: a connection to its socket succeeds, and the
socket knows the process behind it. So a pid file that a crash left behind misleads nobody. The
first process, which owns the runs, is the suite: it starts the second, which reads the bytes of
registries and archives, starts it again after a crash, and ends it.

    $LNS_HOME/run/lns.sock       the first process: runs
    $LNS_HOME/run/content.sock   the second: registries, plans, images

    $LNS_HOME/run/start.lock     held by the client that starts it; others wait and find it running
    $LNS_HOME/run/suite.version  process id and version, written by the suite when it serves
    $LNS_HOME/logs/suite.log     what it and its libraries say; rotated by the suite
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.chassis.sockets import (
    check_private_directory,
    content_socket,
    make_private_directory,
    suite_socket,
)
from services.core.errors import CallerDenied, ServiceUnavailable
from services.core.version import VERSION

START_SECONDS = 60.0
"""How long a client waits for a suite that another client starts; a slow disk takes its time."""

_POLL_SECONDS = 0.02
_CONTENT_SECONDS = 30.0
_PEER = struct.Struct("3i")
_LOG_LINES = 3
_WORDS_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A living suite.

    Attributes:
        pid: its process id.
        version: its version; empty while it has not written it.
        socket: where it listens for all that concerns runs.
        content_socket: where its second process listens.
        content_pid: that process; None while it is being started again.
    """

    pid: int
    version: str
    socket: Path
    content_socket: Path
    content_pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteFiles:
    """Where the suite of a state directory keeps what clients look at."""

    home: Path

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return suite_socket(self.home)

    @property
    def content_socket(self) -> Path:
        """Where its second process listens."""
        return content_socket(self.home)

    @property
    def run(self) -> Path:
        """The directory of locks and sockets."""
        return self.home / "run"

    @property
    def log(self) -> Path:
        """Its log."""
        return self.home / "logs" / "suite.log"


def find_suite(files: SuiteFiles) -> Suite | None:
    """Returns the suite that listens at its socket now, or None.

    Raises:
        CallerDenied: another user's process listens there.
        SettingsInvalid: the socket's directory is not the user's own.
    """
    pid = _listener(files, files.socket)
    if pid is None:
        return None
    return Suite(
        pid=pid,
        version=_version_of(files, pid),
        socket=files.socket,
        content_socket=files.content_socket,
        content_pid=_listener(files, files.content_socket),
    )


def wait_for_content(files: SuiteFiles) -> None:
    """Returns when the second process listens: after a crash it is started again within seconds.

    Raises:
        ServiceUnavailable: it does not come back.
    """
    deadline = time.monotonic() + _CONTENT_SECONDS
    while _listener(files, files.content_socket) is None:
        if time.monotonic() > deadline:
            raise ServiceUnavailable(
                "the process that talks to registries has ended and does not come back",
                hint="`lns service logs` shows what it said; then `lns service restart`",
            )
        time.sleep(_POLL_SECONDS)


def _listener(files: SuiteFiles, path: Path) -> int | None:
    """Returns the process that listens at a socket of the suite, or None."""
    if path.parent != files.run:
        with contextlib.suppress(FileNotFoundError):
            check_private_directory(path.parent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            error.filename = str(path)
            raise
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid, uid, _ = _PEER.unpack(peer)
    if uid not in (os.getuid(), 0):
        raise CallerDenied(
            f"the services at {path} belong to user {uid}",
            hint="set another state directory with LNS_HOME",
            metadata={"socket": str(path)},
        )
    return int(pid)


def ensure_suite(
    files: SuiteFiles,
    *,
    is_ready: Callable[[], bool],
    environment: Mapping[str, str],
    arguments: Sequence[str] = (),
) -> Suite:
    """Returns the living suite, starting it if none lives; safe against others doing the same.

    Args:
        files: where it is.
        is_ready: asks its health service.
        environment: the variables that a new suite gets.
        arguments: further arguments of a new suite.

    Raises:
        ServiceUnavailable: it ended while starting, or did not serve in time.
        SettingsInvalid: a directory is not the user's own.
    """
    suite = find_suite(files)
    if suite is not None:
        return suite
    with _starting(files):
        return find_suite(files) or _start(files, is_ready, environment, arguments)


def restart_suite(
    files: SuiteFiles,
    *,
    is_ready: Callable[[], bool],
    environment: Mapping[str, str],
    arguments: Sequence[str],
    timeout: float,
) -> Suite:
    """Stops the suite if it lives, and returns a new one; nobody else starts one meanwhile.

    Args:
        files: where it is.
        is_ready: asks its health service.
        environment: the variables that the new one gets.
        arguments: further arguments of the new one.
        timeout: seconds that the old one has to end.

    Raises:
        ServiceUnavailable: the old one did not end in time, or the new one did not serve in time.
        SettingsInvalid: a directory is not the user's own.
    """
    with _starting(files):
        suite = find_suite(files)
        if suite is not None and not stop_suite(suite, timeout=timeout):
            raise not_stopped(suite, timeout)
        return _start(files, is_ready, environment, arguments)


def not_stopped(suite: Suite, timeout: float) -> ServiceUnavailable:
    """Returns the error that a suite did not end in time."""
    return ServiceUnavailable(
        f"process {suite.pid} did not end within {timeout:.0f} s",
        hint="`lns service stop --force` kills it; runs go on",
    )


@contextlib.contextmanager
def _starting(files: SuiteFiles) -> Iterator[None]:
    """Makes the directories of a suite and keeps everybody else from starting it."""
    for directory in (files.home, files.run, files.log.parent):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if files.socket.parent != files.run:
        make_private_directory(files.socket.parent)
    with _locked(files.run / "start.lock"):
        yield


def _start(
    files: SuiteFiles,
    is_ready: Callable[[], bool],
    environment: Mapping[str, str],
    arguments: Sequence[str],
) -> Suite:
    said_before = files.log.stat().st_size if files.log.exists() else 0
    process = _spawn(files, environment, arguments)
    return _wait_until_ready(files, process, is_ready, said_before=said_before)


def stop_suite(suite: Suite, *, timeout: float, force: bool = False) -> bool:
    """Asks the suite to drain and waits for its end; returns whether it ended in time.

    Args:
        suite: the living suite.
        timeout: seconds to wait.
        force: whether it is killed instead of asked.
    """
    try:
        # The descriptor is the process itself: its id may belong to another one by the time it is
        # signalled, and a dead process that nobody reaps still has one.
        process = os.pidfd_open(suite.pid)
    except ProcessLookupError:
        return True
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL if force else signal.SIGTERM)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(process)


def is_other_version(suite: Suite) -> bool:
    """Says whether the suite is of another version than this client."""
    return bool(suite.version) and suite.version != VERSION


def tail(path: Path, lines: int, *, start: int = 0) -> list[str]:
    """Returns the last lines of a file, from byte `start` on; none if there is no file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start if start < end else 0, end - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:] if lines else []


def _version_of(files: SuiteFiles, pid: int) -> str:
    try:
        written, _, version = (
            (files.run / "suite.version").read_text(encoding="ascii").partition(" ")
        )
    except (OSError, UnicodeDecodeError):
        return ""
    return version.strip() if written == str(pid) else ""


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock file; waits for whoever holds it, who may take the whole time of a start."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise _not_started(
                        "another command has been starting them for too long"
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _spawn(
    files: SuiteFiles, environment: Mapping[str, str], arguments: Sequence[str]
) -> "subprocess.Popen[bytes]":
    log = os.open(files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            # -P: a `services` folder in the current directory is not ours.
            [sys.executable, "-P", "-m", "services.suite", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**environment, "LNS_HOME": str(files.home)},
            start_new_session=True,
        )
    finally:
        os.close(log)


def _wait_until_ready(
    files: SuiteFiles,
    process: "subprocess.Popen[bytes]",
    is_ready: Callable[[], bool],
    *,
    said_before: int,
) -> Suite:
    """Returns the suite of a process once it serves; its log had `said_before` bytes before it."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        suite = find_suite(files)
        if suite is not None and is_ready():
            return suite
        if process.poll() is not None and suite is None:
            said = _last_words(tail(files.log, _LOG_LINES, start=said_before))
            raise _not_started(f"their process ended with code {process.returncode}: {said}")
        time.sleep(_POLL_SECONDS)
    raise _not_started(f"they did not answer within {START_SECONDS:.0f} s")


def _last_words(lines: Sequence[str]) -> str:
    """Returns what a process said of its end, in one line: no stack trace reaches a user."""
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            # Before there is a log it lists what is wrong with its settings, a line each.
            said = [line] if any(one.startswith(" ") for one in lines) else lines
            return " / ".join(said)[:_WORDS_CHARACTERS]
        if isinstance(record, dict) and record.get("level") == "error":
            if "message" in record:
                return str(record["message"])[:_WORDS_CHARACTERS]
            exceptions = record.get("exception")
            kind = exceptions[0].get("exc_type") if exceptions else record.get("event")
            return f"a defect of lns ({kind})"
    return "it said nothing of why"


def _not_started(why: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"the services could not be started: {why}",
        hint="`lns service logs` shows what they say",
    )
