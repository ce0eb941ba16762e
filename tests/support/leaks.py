"""Where on this machine texts can be read: in files, and in what processes show of themselves."""

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path


def where_they_are(folder: Path, texts: Sequence[str]) -> dict[str, set[str]]:
    """Returns the files below a folder that hold each text: those of snapshots and disks, too."""
    wanted = [part for text in texts for part in ("-e", text)]
    search = ["grep", "--recursive", "--null-data", "--text", "--only-matching", "--no-messages"]
    done = subprocess.run(  # files of live services come and go
        [*search, "--with-filename", "--fixed-strings", *wanted, str(folder)],
        capture_output=True,
        check=False,
    )
    found: dict[str, set[str]] = {text: set() for text in texts}
    for hit in filter(None, done.stdout.decode().split("\0")):
        name, _, text = hit.rpartition(":")
        found[text].add(name)
    return found


def processes_that_show(texts: Sequence[str]) -> list[str]:
    """Returns the processes of this machine with a text in their arguments or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                data = (process / name).read_bytes()
                if any(text.encode() in data for text in texts):
                    found.append(f"{process}/{name}")
    return found
