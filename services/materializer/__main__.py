"""The process of the materializer: `python -m services.materializer [--config FILE]`."""

import sys

from services.chassis.main import run
from services.materializer.bootstrap import SOCKET, open_services
from services.materializer.settings import MaterializerProcess

if __name__ == "__main__":
    sys.exit(run(MaterializerProcess, open_services, socket=SOCKET))
