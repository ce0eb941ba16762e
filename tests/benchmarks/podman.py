"""podman with a store of its own, set up for machines such as containers and CI that limit it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.harness import Sample
from tests.benchmarks.measure import run_command


@dataclass(frozen=True, slots=True, kw_only=True)
class Podman:
    """podman on an overlay store below `folder`.

    The store is on the same disk as that of lns. Without control groups, which podman cannot use on
    every machine, a container costs it a little less.
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
        limits = ["--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
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
            "--storage-driver=overlay",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
        )
