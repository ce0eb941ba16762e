"""What failed tests leave for those who must find out why: the logs of their services and runs."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

PATTERNS = ("logs/*.log*", "runs/*/*.log", "runs/*/run.json", "runs/*/logs/*")


def keep_logs(test: str, homes: Iterable[Path]) -> None:
    """Copies logs and records of state directories to a folder for the test.

    The folder is below `$LNS_TEST_ARTIFACTS`; without that variable nothing is kept.
    """
    artifacts = os.environ.get("LNS_TEST_ARTIFACTS")
    if not artifacts:
        return
    target = Path(artifacts, re.sub(r"[^\w.-]+", "_", test)[-150:])
    for number, home in enumerate(homes):
        for path in (path for pattern in PATTERNS for path in home.glob(pattern)):
            copy = target / str(number) / path.relative_to(home)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
