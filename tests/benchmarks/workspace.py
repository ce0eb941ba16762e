"""Where benchmarks work: one folder for a run, removed at its end.

`LNS_BENCH_DIR` names another place than the system's for temporary files: it should be on the kind
of disk that a store would be on, not in memory.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_folder(prefix: str = "b") -> Iterator[Path]:
    """A new folder with a path short enough for unix sockets; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"lns{prefix}", dir=os.environ.get("LNS_BENCH_DIR")))
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Removes a folder and what is in it, whatever its modes."""

    def retry(function: object, path: str, _: object) -> None:
        Path(path).parent.chmod(0o700)
        if callable(function):
            function(path)

    if folder.exists():
        shutil.rmtree(folder, onerror=retry)
