"""The suite's process: `python -m services.suite [--config FILE]`."""

import sys

from services.chassis.main import run
from services.chassis.sockets import SUITE_SOCKET
from services.suite.bootstrap import open_services
from services.suite.settings import SuiteProcess

if __name__ == "__main__":
    sys.exit(run(SuiteProcess, open_services, socket=SUITE_SOCKET))
