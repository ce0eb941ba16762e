"""The suite's second process: reads bytes of registries and archives, and owns no VM.

    python -m services.suite.content PARENT REPORT VERSION [--config FILE]

PARENT is the process that starts it, with which it ends. To the descriptor REPORT it writes one
line of JSON: `{}` when it serves, or the error for which it does not. It serves for VERSION alone:
the files of lns may have been replaced since the first process was started.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from services.chassis.lineage import end_with_parent
from services.chassis.main import run
from services.chassis.sockets import CONTENT_SOCKET
from services.core.errors import LnsError
from services.core.version import VERSION
from services.suite.bootstrap import open_content
from services.suite.content_process import OTHER_VERSION
from services.suite.settings import ContentProcess, of_content


def main(arguments: Sequence[str]) -> int:
    """Serves until it is asked to end; returns the exit code."""
    parent, report, version = int(arguments[0]), int(arguments[1]), arguments[2]
    if not end_with_parent(parent):
        return 0
    if version != VERSION:
        return OTHER_VERSION

    def say(what: dict[str, Any]) -> None:
        os.write(report, json.dumps(what).encode() + b"\n")
        os.close(report)

    def failed(error: LnsError) -> None:
        say(
            {
                "reason": error.reason,
                "message": error.message,
                "hint": error.hint,
                "metadata": dict(error.metadata),
            }
        )

    return run(
        ContentProcess,
        open_content,
        socket=CONTENT_SOCKET,
        arguments=arguments[3:],
        adapted=of_content,
        ready=lambda _: say({}),
        failed=failed,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
