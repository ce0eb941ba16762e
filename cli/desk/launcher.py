"""What a command does before it imports anything: it asks the front desk to run it.

Only modules that the interpreter has loaded anyway, or that are written in C, are imported here:
each other one takes longer than all that is done.
"""

import _signal  # type: ignore[import-not-found]  # of C; `signal` wraps it in enumerations
import _socket
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence

from services.core.version import VERSION

BEGUN, REFUSED, ENDED = b"B", b"R", b"E"
"""What the desk says: a command begins; it is to be run in place; how it ended (a wait status)."""

MESSAGE_MOST = 4 << 20
_INT = 4
_SECONDS = 5.0
_FORWARDED = tuple(
    getattr(_signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")
)
_INTERACTIVE = frozenset({"attach", "--interactive", "--tty"})
_OWN_PROCESS = frozenset({"service", "completion", "setup"})


def through_desk(arguments: Sequence[str], environment: Mapping[str, str]) -> int | None:
    """Has the desk run a command; returns its exit code, or None if it is to be run here.

    A command that has begun is never run a second time.
    """
    if not is_for_desk(arguments, environment):
        return None
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_SECONDS)
        connection.connect(desk_socket(state_directory(environment)))
        if not _is_own(connection):
            return None
        _send(connection, encode(arguments, environment))
        begun = connection.recv(1 + _INT)
    except OSError:
        return None
    if begun[:1] != BEGUN or len(begun) != 1 + _INT:
        return None
    connection.settimeout(None)
    return _shadow(connection, int.from_bytes(begun[1:], "little"))


def is_for_desk(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Says whether the desk can run a command as if it were run here.

    Not what works on the suite itself, not what names a descriptor of this process, and not what
    talks to a terminal through its standard input: only a process of the terminal's own session is
    stopped when it reads in the background.
    """
    command = _command(arguments)
    if environment.get("LNS_DESK") == "off" or not command or command in _OWN_PROCESS:
        return False
    if any("/dev/fd/" in one or "/proc/self/" in one or "/dev/std" in one for one in arguments):
        return False
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    wants_terminal = any(
        one in _INTERACTIVE or (one[:1] == "-" != one[1:2] and ("i" in one or "t" in one))
        for one in own
    )
    return not (wants_terminal and _is_terminal(0)) and not _is_in_background()


def _command(arguments: Sequence[str]) -> str:
    """Returns the command behind the options of `lns` itself; empty if it is missing."""
    is_value = False
    for one in arguments:
        if is_value or one[:1] == "-":
            is_value = one == "--context"
            continue
        return one
    return ""


def state_directory(environment: Mapping[str, str]) -> str:
    """Returns what `services.chassis.settings.state_directory` returns; a test compares them."""
    home = environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - pathlib takes 5 ms
    if own := environment.get("LNS_HOME"):
        path = os.path.expanduser(own)  # noqa: PTH111 - the same
        return path if path[:1] == "/" else f"{os.getcwd()}/{path}"  # noqa: PTH109 - the same
    state = environment.get("XDG_STATE_HOME", "")
    return f"{state}/lns" if state[:1] == "/" else f"{home}/.local/state/lns"


def desk_socket(home: str) -> str:
    """Returns where the desk of a state directory listens."""
    return f"{home}/run/desk.sock"


def surroundings(environment: Mapping[str, str]) -> str:
    """Returns what a desk must have in common with a command.

    The interpreter, lns itself, groups, the view of the file system, and the variables that are
    read when programs start: of the interpreter, its libraries, the loader and the locale.
    """
    early = sorted(
        f"{name}={value}"
        for name, value in environment.items()
        if name.startswith(("PYTHON", "GRPC_", "LD_", "LC_")) or name in ("LANG", "TZ")
    )
    parts = (
        VERSION,
        sys.executable,
        os.path.dirname(__file__),  # noqa: PTH120 - pathlib takes 5 ms
        str(sorted(os.getgroups())),
        str((os.getuid(), os.geteuid(), os.getgid(), os.getegid())),
        os.readlink("/proc/self/ns/mnt"),  # noqa: PTH115 - the same
        str(os.stat("/")[1:3]),  # noqa: PTH116 - the same
        *early,
    )
    return "\n".join(parts)


def hide_grpc_lines(environment: MutableMapping[str, str]) -> None:
    """Keeps gRPC's own log lines off the terminal, unless the user has chosen their verbosity.

    They repeat, without context, what the errors of lns say. gRPC reads the variable when it is
    imported. It is set for this process alone: what the user's environment has is compared with
    the desk's (`surroundings`), and passed on to the services.

    Args:
        environment: of this process, `os.environ`.
    """
    environment.setdefault("GRPC_VERBOSITY", "NONE")


def encode(arguments: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """Returns the message that describes a command: texts with a NUL between, behind their length.

    `surroundings`, umask, ignored signals, number of arguments, arguments, environment.
    """
    umask = os.umask(0)
    os.umask(umask)
    ignored = [n for n in _FORWARDED if _signal.getsignal(n) == _signal.SIG_IGN]
    texts = [
        surroundings(environment),
        str(umask),
        ",".join(str(int(number)) for number in ignored),
        str(len(arguments)),
        *arguments,
        *(f"{name}={value}" for name, value in environment.items()),
    ]
    data = b"\0".join(os.fsencode(text) for text in texts)
    return len(data).to_bytes(_INT, "little") + data


def _send(connection: _socket.socket, message: bytes) -> None:
    """Sends a message with the standard streams and the working directory as descriptors."""
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptors = b"".join(fd.to_bytes(_INT, sys.byteorder) for fd in (0, 1, 2, directory))
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)]
        sent = connection.sendmsg([message], rights)
        connection.sendall(message[sent:])
    finally:
        os.close(directory)


def _is_own(connection: _socket.socket) -> bool:
    """Whether the other end is a process of this user that this process can signal."""
    peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 3 * _INT)
    pid, uid = (int.from_bytes(peer[at : at + _INT], sys.byteorder) for at in (0, _INT))
    return pid > 0 and uid == os.geteuid()


def _is_terminal(descriptor: int) -> bool:
    return os.isatty(descriptor)


def _is_in_background() -> bool:
    """Whether a shell has this process in the background of its terminal."""
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:
        return False


def _shadow(connection: _socket.socket, group: int) -> int:
    """Stands for the command in the user's session until it ends; returns its exit code."""

    def forward(number: int, _: object) -> None:
        _kill(group, number)

    def stop(number: int, _: object) -> None:
        _kill(group, _signal.SIGSTOP)  # its group is an orphan: SIGTSTP would be ignored
        os.kill(os.getpid(), _signal.SIGSTOP)
        _kill(group, _signal.SIGCONT)

    for number in _FORWARDED:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, forward)
    if _signal.getsignal(_signal.SIGTSTP) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGTSTP, stop)
    said = b""
    try:
        while len(said) < 1 + _INT and (more := connection.recv(1 + _INT - len(said))):
            said += more
    except OSError:
        pass
    if said[:1] != ENDED or len(said) != 1 + _INT:
        from cli.render.writer import write_line  # noqa: PLC0415 - it imports much

        write_line("lns: the front desk ended, and its command with it", error=True)
        return 1
    return _end_like(int.from_bytes(said[1:], "little"))


def _end_like(status: int) -> int:
    """Returns the exit code of a wait status; ends as the command did where a signal ended it."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        _signal.signal(number, _signal.SIG_DFL) if number != _signal.SIGKILL else None
        os.kill(os.getpid(), number)
        return 128 + number
    return os.WEXITSTATUS(status)


def _kill(group: int, number: int) -> None:
    try:  # noqa: SIM105 - contextlib is an import
        os.killpg(group, number)
    except OSError:
        pass


def start_behind(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Starts a desk for the commands to come, if this one was run in place for want of one."""
    if is_for_desk(arguments, environment):
        from cli.desk.start import start  # noqa: PLC0415 - it imports much

        start(state_directory(environment), environment)
