"""Tries harmful changes on a copy of the checkout, never on the checkout itself."""

import enum
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.mutants.records import ROOT, Mutant

SECONDS: Final = 180
"""The most that the tests of one change may take; what hangs has been noticed."""
_BUILT: Final = ("services/vm_runner/guest/build", "services/vm_runner/confine/build")


class Verdict(enum.Enum):
    """What the tests made of a change."""

    NOTICED = "noticed"
    UNNOTICED = "UNNOTICED"
    HUNG = "noticed, by hanging"
    BROKEN = "BROKEN: pytest did not run the tests"


class Copy:
    """A copy of what git knows of the checkout, with changes that are not committed yet."""

    def __init__(self, place: Path) -> None:
        self._place = place
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=60,
        )
        for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place / name)
        for name in _BUILT:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place / name)

    def attempt(self, mutant: Mutant) -> Verdict:
        """Returns what its tests say of the copy with the change; the copy is as before then."""
        path = self._place / mutant.file
        before = path.read_text()
        path.write_text(mutant.changed(before))
        try:
            return _VERDICTS.get(self.run_tests(mutant.tests), Verdict.BROKEN)
        finally:
            path.write_text(before)

    def run_tests(self, tests: Iterable[str], *, seconds: float = SECONDS) -> int | None:
        """Returns pytest's exit code, or None when it took too long."""
        environment = {
            **os.environ,
            # Before the checkout, which the environment's own path file names.
            "PYTHONPATH": f"{self._place}:{self._place}/protos/gen",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
            cwd=self._place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=(self._place / "last-run.txt").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def last_output(self) -> str:
        """Returns what the last run of pytest said."""
        return (self._place / "last-run.txt").read_text(errors="replace")


_VERDICTS: Final = {0: Verdict.UNNOTICED, 1: Verdict.NOTICED, None: Verdict.HUNG}
