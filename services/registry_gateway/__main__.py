"""`python -m services.registry_gateway [--config FILE]`."""

import os
import sys

from services.chassis.grpc_lines import hide_grpc_lines


def main() -> int:
    """Serves registry_gateway until it is asked to end; returns the exit code."""
    hide_grpc_lines(os.environ)
    from services.chassis.main import run  # noqa: PLC0415 - imports gRPC
    from services.registry_gateway.bootstrap import SOCKET, open_services  # noqa: PLC0415 - the same
    from services.registry_gateway.settings import GatewayProcess  # noqa: PLC0415 - the same

    return run(GatewayProcess, open_services, socket=SOCKET)


if __name__ == "__main__":
    sys.exit(main())
