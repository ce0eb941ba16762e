"""`python -m services.vm_runner [--config FILE]`."""

import sys

from services.chassis.main import run
from services.vm_runner.bootstrap import open_services
from services.vm_runner.settings import VmProcess


def main() -> int:
    """Serves vm_runner until it is asked to end; returns the exit code."""
    return run(VmProcess, open_services, socket="vm_runner.sock")


if __name__ == "__main__":
    sys.exit(main())
