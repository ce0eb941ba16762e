"""A command as a launcher describes it, and a fork of the desk that becomes it."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import MutableMapping
from dataclasses import dataclass

from cli.desk.launcher import MESSAGE_MOST

SECONDS = 5.0
_DESCRIPTORS = 4
_SIZE_BYTES = 4
_FIXED = 4
_BROKEN_PIPE = 141


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOrder:
    """A command to run.

    Attributes:
        surroundings: of the launcher.
        umask: of its process.
        ignored: signals that it ignores.
        arguments: of the command.
        environment: of its process.
        descriptors: standard input, output, error, and the working directory.
    """

    surroundings: str
    umask: int
    ignored: tuple[int, ...]
    arguments: tuple[str, ...]
    environment: dict[str, str]
    descriptors: tuple[int, ...]


def receive(connection: socket.socket) -> CommandOrder | None:
    """Returns what a launcher asks for; None where it is not whole or cannot be read."""
    data, descriptors, _, _ = socket.recv_fds(
        connection, 65536, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    if len(descriptors) != _DESCRIPTORS or len(data) < _SIZE_BYTES:
        return None
    size = int.from_bytes(data[:_SIZE_BYTES], "little")
    pieces, held = [data[_SIZE_BYTES:]], len(data) - _SIZE_BYTES
    while held < size <= MESSAGE_MOST and (piece := connection.recv(min(size - held, 1 << 20))):
        pieces.append(piece)
        held += len(piece)
    message = b"".join(pieces)
    return parse(message, tuple(descriptors)) if len(message) == size else None


def parse(message: bytes, descriptors: tuple[int, ...]) -> CommandOrder | None:
    """Returns the command that a message describes; None if it describes none."""
    texts = [os.fsdecode(text) for text in message.split(b"\0")]
    try:
        surroundings, umask, ignored, count = texts[:_FIXED]
        rest = texts[_FIXED:]
        arguments, variables = rest[: int(count)], rest[int(count) :]
        if int(count) < 0 or len(arguments) != int(count):
            return None
        return CommandOrder(
            surroundings=surroundings,
            umask=int(umask) & 0o777,
            ignored=tuple(int(number) for number in ignored.split(",") if number),
            arguments=tuple(arguments),
            environment=dict(variable.split("=", 1) for variable in variables if "=" in variable),
            descriptors=descriptors,
        )
    except ValueError:
        return None


def take_over(order: CommandOrder, environment: MutableMapping[str, str]) -> None:
    """Makes this process one that could have been started as the launcher was.

    Args:
        order: what the launcher asks for.
        environment: of this process.

    Raises:
        OSError: the working directory cannot be entered.
    """
    os.fchdir(order.descriptors[-1])
    os.umask(order.umask)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in order.ignored:
        signal.signal(number, signal.SIG_IGN)
    for target, descriptor in enumerate(order.descriptors[:-1]):
        os.dup2(descriptor, target)
    for descriptor in order.descriptors:
        os.close(descriptor)
    environment.clear()
    environment.update(order.environment)
    sys.argv = ["lns", *order.arguments]
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    sys.stdin = open(0, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115 - for good
    sys.stdout = open(  # noqa: SIM115 - for good
        1, "w", encoding=encoding, errors=errors, closefd=False, buffering=1 if os.isatty(1) else -1
    )
    sys.stderr = open(  # noqa: SIM115 - for good
        2, "w", encoding=encoding, errors="backslashreplace", closefd=False, buffering=1
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]  # they are a new process's


def end_with(connection: socket.socket) -> None:
    """Ends this process when the launcher does, as the end of its terminal would."""
    connection.settimeout(None)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while connection.recv(1):
                pass
        # The desk says how this process ended; so only a launcher that is gone comes here.
        os.kill(os.getpid(), signal.SIGCONT)
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=watch, daemon=True, name="launcher").start()


def flush(code: int) -> int:
    """Writes out what is buffered; returns the exit code, another one if nobody reads any more."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        return _BROKEN_PIPE
    return code
