"""podman with a store of its own, set up for machines such as containers and CI that limit it."""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.harness import Sample
from tests.benchmarks.measure import run_command
from tests.benchmarks.workspace import new_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Podman:
    """podman on an overlay store below `folder`, on the same disk as that of lns.

    It runs containers with runc, which comes with Docker: crun refuses hybrid control groups.
    """

    folder: Path

    def run(self, *arguments: str | Path) -> Sample:
        """Runs one podman command."""
        return run_command([*self._command, *arguments])

    def pull(self, reference: str) -> Sample:
        """Pulls from a plain HTTP registry."""
        return self.run("pull", "--quiet", "--tls-verify=false", reference)

    def run_container(self, reference: str, *command: str) -> Sample:
        """Runs a command in a container without a network, and removes the container."""
        limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]  # its own may be refused
        return self.run("run", "--rm", "--network=none", *limits, reference, *command)

    @property
    def store(self) -> Path:
        """Where images are kept."""
        return self.folder / "root"

    @property
    def _command(self) -> Sequence[str | Path]:
        return (
            "podman",
            f"--root={self.store}",
            f"--runroot={self.folder}/run",
            f"--tmpdir={self.folder}/tmp",
            "--runtime=runc",
            "--storage-driver=overlay",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
        )


@contextlib.contextmanager
def open_podman() -> Iterator[Podman]:
    """podman with nothing in its store, which is removed at the end."""
    with new_folder() as folder:
        try:
            yield Podman(folder=folder)
        finally:
            for line in Path("/proc/self/mounts").read_text().splitlines()[::-1]:
                place = line.split()[1]
                if Path(place).is_relative_to(folder):
                    subprocess.run(["umount", place], check=True)
