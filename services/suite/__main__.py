"""The suite's first process: `python -m services.suite [--config FILE]`."""

import functools
import sys

from services.chassis.main import run
from services.chassis.sockets import SUITE_SOCKET
from services.suite.bootstrap import open_services
from services.suite.settings import SuiteProcess

if __name__ == "__main__":
    opening = functools.partial(open_services, arguments=sys.argv[1:])
    sys.exit(run(SuiteProcess, opening, socket=SUITE_SOCKET))
