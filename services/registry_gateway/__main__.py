"""`python -m services.registry_gateway [--config FILE]`."""

import sys

from services.chassis.main import run
from services.registry_gateway.bootstrap import SOCKET, open_services
from services.registry_gateway.settings import GatewayProcess

if __name__ == "__main__":
    sys.exit(run(GatewayProcess, open_services, socket=SOCKET))
