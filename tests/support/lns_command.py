"""The `lns` command as a user has it: a process of its own, with a state directory of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lns.client.connection.suite_process import SuiteFiles, find_suite, stop_suite

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = ("-c", "from cli.main import main; main()")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lns:
    """One user of lns.

    Attributes:
        home: the state directory.
        user: the user's home directory, empty at first.
        variables: further variables of the environment.
    """

    home: Path
    user: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> SuiteFiles:
        """Where the suite is."""
        return SuiteFiles(home=self.home)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.user),
            "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen",
            "LNS_HOME": str(self.home),
            "LNS_DESK": "off",  # tests of the desk turn it on
            # Guest kernels are large and shared by every user of a machine's tests.
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            **self.variables,
        }

    def start(self, *arguments: str, **options: object) -> "subprocess.Popen[str]":
        """Starts a command and returns its process, pipes and all."""
        return subprocess.Popen(
            [sys.executable, *_PROGRAM, *arguments],
            env=self.environment,
            **{  # type: ignore[call-overload]  # what a test gives on top
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "cwd": self.user,
                "text": True,
                **options,
            },
        )

    def run(
        self, *arguments: str, stdin: str | None = None, within: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end."""
        return subprocess.run(
            [sys.executable, *_PROGRAM, *arguments],
            env=self.environment,
            text=True,
            input=stdin if stdin is not None else "",
            capture_output=True,
            cwd=self.user,
            timeout=within,
            check=False,
        )

    def ok(self, *arguments: str, stdin: str | None = None, within: float = 120) -> str:
        """Runs a command that must succeed; returns its standard output without the end."""
        result = self.run(*arguments, stdin=stdin, within=within)
        assert result.returncode == 0, f"lns {' '.join(arguments)}\n{result.stdout}{result.stderr}"
        return result.stdout.rstrip("\n")

    def kill_suite(self) -> None:
        """Kills the suite as a crash would, if it lives."""
        suite = find_suite(self.files)
        if suite is not None:
            assert stop_suite(suite, timeout=10, force=True)


@contextlib.contextmanager
def lns_user(directory: Path, variables: Mapping[str, str] | None = None) -> Iterator[Lns]:
    """Yields a user with everything below `directory`; ends the runs and the suite afterwards."""
    user = directory / "user"
    user.mkdir()
    lns = Lns(home=directory / "state", user=user, variables=variables or {})
    try:
        yield lns
    finally:
        lns.kill_suite()
        _kill_machines(lns.home)


def _kill_machines(home: Path) -> None:
    """Kills the VMMs of a state directory: of runs, that wait for one, or become a snapshot."""
    records = [
        record
        for place in ("runs/*", "snapshots/ahead/*", "snapshots/.tmp-*")
        for record in home.glob(f"{place}/qemu.pid")
    ]
    for record in records:
        with contextlib.suppress(OSError, ValueError):
            pid = int(record.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(argument.startswith(b"guest=lns-") for argument in command):
                os.kill(pid, signal.SIGKILL)
