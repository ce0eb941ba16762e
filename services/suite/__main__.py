"""The suite's first process: `python -m services.suite [--config FILE]`."""

import functools
import os
import sys

from services.chassis.grpc_lines import hide_grpc_lines


def main() -> int:
    """Serves the suite until it is asked to end; returns the exit code."""
    hide_grpc_lines(os.environ)
    from services.chassis.main import run  # noqa: PLC0415 - imports gRPC
    from services.chassis.sockets import SUITE_SOCKET  # noqa: PLC0415 - the same
    from services.suite.bootstrap import open_services  # noqa: PLC0415 - the same
    from services.suite.settings import SuiteProcess  # noqa: PLC0415 - the same

    opening = functools.partial(open_services, arguments=sys.argv[1:])
    return run(SuiteProcess, opening, socket=SUITE_SOCKET)


if __name__ == "__main__":
    sys.exit(main())
