"""`python -m services.resolver [--config FILE]`."""

import sys

from services.chassis.main import run
from services.resolver.bootstrap import SOCKET, open_services
from services.resolver.settings import ResolverProcess

if __name__ == "__main__":
    sys.exit(run(ResolverProcess, open_services, socket=SOCKET))
