"""The entry point of `lns`.

Nothing but what a command needs is imported, and importing this module changes nothing.
"""

import _signal  # type: ignore[import-not-found]  # of C; `signal` wraps it in enumerations
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from cli.desk.launcher import hide_grpc_lines, start_behind, through_desk
from services.core.version import VERSION

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main() -> NoReturn:
    """Runs the command of this process's arguments, at the desk if it can be, and ends like it.

    The process is ended without tearing the interpreter down, which takes longer than a whole `lns
    ps`: by now every file and channel has been closed by the block that opened it.
    """
    try:
        _prepare()
        arguments, environment = sys.argv[1:], dict(os.environ)
        hide_grpc_lines(os.environ)
        code = through_desk(arguments, environment)
        if code is None:
            code = run(arguments, environment)
            start_behind(arguments, environment)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:  # at once where Python holds no output back, else below
        code = _BROKEN_PIPE
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = _BROKEN_PIPE
    except KeyboardInterrupt:
        code = _INTERRUPTED
    os._exit(code)


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs one command and returns its exit code."""
    if list(arguments) in (["version"], ["--version"]):
        print(f"lns {VERSION}")
        return 0
    # Importing makes objects that live on: collecting among them is a tenth of a short command.
    gc.set_threshold(50_000)
    from cli.app import dispatch  # noqa: PLC0415 - click takes longer than `lns version` may

    return dispatch(arguments, environment)


def _prepare() -> None:
    """Has this process end at once where it is interrupted before its command has begun.

    Python would print where it was. The command itself is interrupted in Python's way, so that it
    cleans up: `cli.context` sees to that.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    # Objects that are thrown away late, and threads, would print their failures by themselves.
    sys.unraisablehook = lambda _: None
