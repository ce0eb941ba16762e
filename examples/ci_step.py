"""A step of a pipeline: a command in a microVM, with a folder of the host, and its exit code.

    python examples/ci_step.py localhost:5000/images/python:1 . python3 -m unittest

The folder is mounted read-only; what the step writes elsewhere is gone with the microVM.
"""

import sys
from pathlib import Path

from lns.client import SyncClient
from lns.client.errors import LnsError


def main(image: str, folder: str, *command: str) -> int:
    """Returns the exit code of the command; 125 where lns failed."""
    try:
        with SyncClient() as lns:
            volumes = [f"{Path(folder).resolve()}:/work:ro"]
            with lns.run(image, *command, volumes=volumes, workdir="/work", memory=256) as run:
                for piece in run.logs(follow=True):
                    stream = sys.stderr if piece.is_error else sys.stdout
                    stream.buffer.write(piece.data)
                    stream.flush()
                return run.wait().code
    except LnsError as error:
        print(f"{error.message}\n{error.hint or ''}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
