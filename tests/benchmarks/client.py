"""The `lns` command under measurement, with a suite and a state directory of the benchmark's."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.harness import Sample
from tests.benchmarks.measure import iter_tree, run_command
from tests.benchmarks.workspace import new_folder

PROGRAM = Path(sys.executable).with_name("lns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """`lns` against the services below `home`."""

    home: Path

    def run(self, *arguments: str) -> Sample:
        """Runs one command; returns what the client's process cost, without the services."""
        return run_command([PROGRAM, *arguments], environment=self._environment)

    def ask(self, *arguments: str) -> str:
        """Runs one command and returns what it prints."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
        return done.stdout

    @property
    def accelerator(self) -> str:
        """`kvm` or `tcg`: how microVMs are executed here, once one was."""
        found = sorted(self.home.rglob("accelerator.json"))
        return str(json.loads(found[0].read_bytes())["accelerator"]) if found else "tcg"

    def vmm_processes(self) -> Sequence[int]:
        """Returns the ids of the VMMs of this state directory, oldest first."""
        return self._processes("runs/*")

    def other_vmm_processes(self) -> Sequence[int]:
        """Returns the ids of the VMMs that wait for a run, or become a snapshot."""
        return [*self._processes("snapshots/ahead/*"), *self._processes("snapshots/.tmp-*")]

    def _processes(self, place: str) -> Sequence[int]:
        found = []
        for record in self.home.glob(f"{place}/qemu.pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(record.read_text())
                if (Path("/proc") / str(pid) / "stat").exists():
                    found.append(pid)
        return sorted(found)

    @property
    def _environment(self) -> dict[str, str]:
        return {"LNS_HOME": str(self.home), "HOME": str(self.home), "NO_COLOR": "1"}


@contextlib.contextmanager
def run_suite() -> Iterator[Client]:
    """A client whose services run; they and all their microVMs end with the block."""
    with new_folder() as folder:
        # What the set-up fetched is found below the user's own home.
        cache = os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        assert Path(cache).is_absolute()
        client = Client(home=folder)
        try:
            client.run("service", "start")
            yield client
        finally:
            client.run("service", "stop")
            for pid in (*client.vmm_processes(), *client.other_vmm_processes()):
                for one in iter_tree(pid):
                    os.kill(one, 9)
