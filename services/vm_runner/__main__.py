"""`python -m services.vm_runner [--config FILE]`."""

import os
import sys

from services.chassis.grpc_lines import hide_grpc_lines


def main() -> int:
    """Serves vm_runner until it is asked to end; returns the exit code."""
    hide_grpc_lines(os.environ)
    from services.chassis.main import run  # noqa: PLC0415 - imports gRPC
    from services.vm_runner.bootstrap import open_services  # noqa: PLC0415 - the same
    from services.vm_runner.settings import VmProcess  # noqa: PLC0415 - the same

    return run(VmProcess, open_services, socket="vm_runner.sock")


if __name__ == "__main__":
    sys.exit(main())
