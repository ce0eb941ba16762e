"""The machine that is set up: its programs, and whether they may change it."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

_OUTPUT_MOST = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """This machine, as the steps see it.

    Attributes:
        environment: of the command, and of the programs that it starts.
        is_root: whether the command may install packages.
        architecture: as the kernel names it: `x86_64`, `aarch64`.
        system_paths: folders with programs that a user's PATH often lacks.
    """

    environment: Mapping[str, str]
    is_root: bool
    architecture: str
    system_paths: str = "/usr/local/sbin:/usr/sbin:/sbin"

    def find(self, program: str) -> str | None:
        """Returns the path of a program, or None."""
        path = self.environment.get("PATH", "")
        return shutil.which(program, path=path) or shutil.which(program, path=self.system_paths)

    def call(self, *arguments: str, seconds: float) -> tuple[int, str]:
        """Runs a program and returns its exit code and the end of what it said.

        Raises:
            OSError: it cannot be started.
            subprocess.TimeoutExpired: it took longer than `seconds`, and was ended.
        """
        ended = subprocess.run(
            arguments,
            env={**self.environment, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
        return ended.returncode, ended.stdout[-_OUTPUT_MOST:].decode("utf-8", "replace").strip()
