"""What a client is asked for, and what it answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict


class RunOptions(TypedDict, total=False):
    """How a run is run; each means what the flag of that name of `lns run` means.

    Attributes:
        name: name of the run.
        env: variables of the workload.
        cpus: CPUs: 2, "1.5", "1500m".
        memory: memory: "512Mi", "2g"; a number is MiB.
        disk: size of the writable layer: "10g".
        mounts: artifacts: "REF[:PATH]".
        volumes: named volumes and host paths: "SOURCE:PATH[:ro]".
        ports: ports on the host: "[IP:]HOST:GUEST".
        workdir: working directory.
        user: user, by name or number.
        entrypoint: program instead of the image's entry point.
        platform: platform of the image: "linux/amd64".
        labels: labels of the run.
        policy: policy file instead of the bundle's; without one, what the run reaches is asked for.
        pull: when to download.
        restart: "no", "on-failure[:N]", "always" or "unless-stopped".
        approve_timeout: seconds that connections wait for an answer.
        stop_timeout: seconds between the stop signal and KILL.
        pids_limit: most processes in the guest.
        budgets: what it may use of services: "anthropic=5USD|200k-tokens".
        disk_rate: most bytes a second of its disks together: "50Mi".
        stdin: whether the workload's standard input can be written to.
        tty: whether the workload has a terminal.
        cold: whether a kernel is booted even if a snapshot could be resumed.
    """

    name: str
    env: Mapping[str, str]
    cpus: float | str
    memory: int | str
    disk: int | str
    mounts: Sequence[str]
    volumes: Sequence[str]
    ports: Sequence[str]
    workdir: str
    user: str
    entrypoint: str
    platform: str
    labels: Mapping[str, str]
    policy: Path | str
    pull: Literal["always", "missing", "never"]
    restart: str
    approve_timeout: float
    stop_timeout: float
    pids_limit: int
    budgets: Sequence[str]
    disk_rate: str
    stdin: bool
    tty: bool
    cold: bool


class ForkOptions(TypedDict, total=False):
    """How a run is run that goes on from a snapshot; each means what it means in `RunOptions`.

    Attributes:
        name: name of the run.
        ports: ports on the host: "[IP:]HOST:GUEST".
        labels: labels of the run.
        policy: policy file; without one, what the run reaches is asked for.
        keep_policy: whether it has the policy and credentials of the snapshot's run instead.
        restart: what follows its end; it begins anew then, with what it wrote.
        approve_timeout: seconds that connections wait for an answer.
        stop_timeout: seconds between the stop signal and KILL.
        pids_limit: most processes in the guest; without it as many as the snapshot's run.
        budgets: what it may use of services.
        disk_rate: most bytes a second of its disks together.
    """

    name: str
    ports: Sequence[str]
    labels: Mapping[str, str]
    policy: Path | str
    keep_policy: bool
    restart: str
    approve_timeout: float
    stop_timeout: float
    pids_limit: int
    budgets: Sequence[str]
    disk_rate: str


class ExecOptions(TypedDict, total=False):
    """How a command is run to its end.

    Attributes:
        given: its standard input.
        env: variables on top of the run's.
        user: user, by name or number; without it the run's.
        workdir: working directory; without it the run's.
        within: seconds after which it gets KILL.
        max_output: bytes that are kept of what it writes; 16 MiB without it.
    """

    given: bytes
    env: Mapping[str, str]
    user: str
    workdir: str
    within: float | None
    max_output: int


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what a process wrote.

    Attributes:
        data: the bytes, at most 1 MiB.
        is_error: whether it is of standard error.
        time: when it came; None where that is not known.
    """

    data: bytes
    is_error: bool = False
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a process ended.

    Attributes:
        code: its exit code; 126 not executable, 127 not found, 128 + n where signal n ended it.
        signal: name of the signal that ended it, without `SIG`; else empty.
        oom_killed: whether the guest's memory limit ended it.
        stdout: what it wrote to its standard output, or to its terminal.
        stderr: what it wrote to its standard error.
    """

    code: int
    signal: str = ""
    oom_killed: bool = False
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether its exit code is 0."""
        return self.code == 0

    @property
    def text(self) -> str:
        """Its standard output as text; what is not UTF-8 is replaced."""
        return self.stdout.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push left in a registry.

    Attributes:
        reference: where.
        digest: of its manifest.
        family: the artifact's; empty for an image.
        warnings: what is odd about it.
    """

    reference: str
    digest: str
    family: str = ""
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull brought into the store.

    Attributes:
        reference: from where, with the digest.
        digest: of its manifest or index.
        family: the artifact's; empty for an image.
        content: the artifact's document as JSON; empty for an image.
    """

    reference: str
    digest: str
    family: str = ""
    content: bytes = b""

    @property
    def document(self) -> dict[str, Any]:
        """The artifact's document; empty for an image."""
        document: dict[str, Any] = json.loads(self.content or b"{}")
        return document
