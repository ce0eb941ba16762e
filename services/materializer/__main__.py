"""`python -m services.materializer [--config FILE]`."""

import os
import sys

from services.chassis.grpc_lines import hide_grpc_lines


def main() -> int:
    """Serves materializer until it is asked to end; returns the exit code."""
    hide_grpc_lines(os.environ)
    from services.chassis.main import run  # noqa: PLC0415 - imports gRPC
    from services.materializer.bootstrap import SOCKET, open_services  # noqa: PLC0415 - the same
    from services.materializer.settings import MaterializerProcess  # noqa: PLC0415 - the same

    return run(MaterializerProcess, open_services, socket=SOCKET)


if __name__ == "__main__":
    sys.exit(main())
