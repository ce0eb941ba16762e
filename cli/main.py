"""The entry point of `lns`."""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from cli.desk.launcher import start_behind, through_desk
from services.core.version import VERSION

_BROKEN_PIPE = 141


def main() -> NoReturn:
    """Runs the command of this process's arguments, at the desk if it can be, and ends like it.

    The process is ended without tearing the interpreter down, which takes longer than a whole `lns
    ps`: by now every file and channel has been closed by the block that opened it.
    """
    arguments = sys.argv[1:]
    code = through_desk(arguments, os.environ)
    if code is None:
        code = run(arguments, os.environ)
        start_behind(arguments, os.environ)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = _BROKEN_PIPE
    os._exit(code)


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs one command and returns its exit code."""
    if list(arguments) in (["version"], ["--version"]):
        print(f"lns {VERSION}")
        return 0
    # Importing makes objects that live on: collecting among them is a tenth of a short command.
    gc.set_threshold(50_000)
    # Not at the top: click takes longer to import than `lns version` may take in all.
    from cli.app import dispatch  # noqa: PLC0415

    return dispatch(arguments, environment)
