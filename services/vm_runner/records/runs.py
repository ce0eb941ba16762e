"""Runs as values: what was asked for, how it stands, how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from services.core.budgets.limits import BudgetLimit
from services.core.budgets.spending import Spending
from services.core.errors import LEAVES, Internal, LnsError
from services.core.run_plan import PortMapping, RunPlan
from services.vm_runner.records.groups import Group


class RunState(StrEnum):
    """State of a run's life; `lifecycle` has the transitions."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    EXITED = "exited"
    FAILED = "failed"
    LOST = "lost"
    UNKNOWN = "unknown"


class RestartMode(StrEnum):
    """When a run is started again."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """What happens when a workload ends by itself; `max_restarts` 0 is without limit."""

    mode: RestartMode = RestartMode.NO
    max_restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    """Size of a terminal in characters."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run is run; nothing in it comes from an artifact."""

    name: str = ""
    tty: bool = False
    stdin: bool = False
    remove: bool = False
    restart: RestartPolicy = RestartPolicy()
    terminal: TerminalSize | None = None
    stop_timeout: float = 10.0
    stop_signal: str = ""
    cold: bool = False
    pids_limit: int = 0
    log_limit_bytes: int = 0
    disk_rate_bytes: int = 0
    policy_file: str = ""
    approve_timeout: float = 0.0
    budgets: tuple[BudgetLimit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How a process ended: exit code (128 + n for signal n), the signal's name, out of memory."""

    code: int
    signal: str = ""
    oom_killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run failed, as an `LnsError` that can be stored."""

    reason: str
    message: str
    hint: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, error: LnsError) -> "Failure":
        """Returns what is to be kept of an error."""
        return cls(
            reason=error.reason,
            message=error.message,
            hint=error.hint,
            metadata=tuple(sorted(error.metadata.items())),
        )

    def error(self) -> LnsError:
        """Returns the error again."""
        leaf = LEAVES.get(self.reason, Internal)
        return leaf(self.message, hint=self.hint, metadata=dict(self.metadata))


@dataclass(frozen=True, slots=True, kw_only=True)
class BootTimes:
    """Times of the phases of a start.

    Attributes:
        prepare: until the VMM's process.
        boot: from there to the agent's greeting.
        kernel: of `boot`, as the guest tells it: its kernel, until pid 1.
        devices: of `boot`, as the guest tells it: modules and devices, until the channel was open.
        mount: from the greeting to the mounted root.
        exec: from there to the running workload.
        way: how the machine was had: `cold`, `snapshot`, `ahead` or `fork`; empty for one that was
            adopted.
    """

    prepare: timedelta = timedelta()
    boot: timedelta = timedelta()
    kernel: timedelta = timedelta()
    devices: timedelta = timedelta()
    mount: timedelta = timedelta()
    exec: timedelta = timedelta()
    way: str = ""


class HealthStatus(StrEnum):
    """What the health checks of a workload say."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the health checks of a workload say since its start.

    Attributes:
        failing_streak: failures in a row.
        exit_code: of the last check that failed; 0 if none has.
        output: the beginning of what that one wrote.
    """

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    exit_code: int = 0
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run and everything that is recorded of it.

    Attributes:
        run_id: 32 hexadecimal digits.
        request_id: the client's id of the request that made it; may be empty.
        name: unique among the runs of the node.
        plan: what runs.
        image_digest: digest of its image; empty for an imageless run.
        options: how it runs.
        state: of its life.
        boot: number of its starts; streams of the guest count their positions from each.
        stop_requested: a user wants it ended, so that no restart policy applies.
        vmm_pid: process of the VMM; 0 where none runs.
        sequence: of the last event.
        start_request_id: the client's id of the request that started it last; may be empty.
        group: that it belongs to, by the name `plan.member`.
        notices: lines for users since a user last started it, the newest last.
        health: what its health checks say; None where it has none, or its workload does not run.
        from_snapshot: id of the snapshot of a run that its first start goes on from; may be empty.
    """

    run_id: str
    name: str
    plan: RunPlan
    create_time: datetime
    request_id: str = ""
    image_digest: str = ""
    options: RunOptions = RunOptions()
    state: RunState = RunState.CREATED
    start_time: datetime | None = None
    end_time: datetime | None = None
    exit: ExitStatus | None = None
    failure: Failure | None = None
    restart_count: int = 0
    ports: tuple[PortMapping, ...] = ()
    vmm_pid: int = 0
    accelerator: str = ""
    boot_times: BootTimes = BootTimes()
    oom_kills: int = 0
    boot: int = 0
    stop_requested: bool = False
    sequence: int = 0
    start_request_id: str = ""
    group: Group | None = None
    notices: tuple[str, ...] = ()
    health: Health | None = None
    from_snapshot: str = ""

    @property
    def stop_signal(self) -> str:
        """Name of the signal that asks its workload to end."""
        return self.options.stop_signal or self.plan.stop_signal or "TERM"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """Something that happened to a run; exactly one of the last three says what.

    Attributes:
        sequence: position in the run's history, from 1.
        event_time: when.
        run: the run as it is after its state changed.
        notice: a line for a person.
        removed: the run was removed; the last event.
    """

    sequence: int
    event_time: datetime
    run: Run | None = None
    notice: str = ""
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUsage:
    """What a run uses.

    Attributes:
        cpu_time: of the VMM since its start.
        memory_bytes: proportional memory of the VMM.
        disk_bytes: of the writable layer on the host's disk.
        channel_in_bytes: from the guest.
        channel_out_bytes: to the guest.
        pids: processes of the workload.
        services: what was used of services, and their limits, by the ids of integrations.
    """

    run: Run
    cpu_time: timedelta
    memory_bytes: int
    disk_bytes: int
    channel_in_bytes: int
    channel_out_bytes: int
    pids: int
    sample_time: datetime
    services: Mapping[str, tuple[Spending, tuple[BudgetLimit, ...]]] = field(
        default_factory=lambda: MappingProxyType({})
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A process to start beside the workload; empty values are the workload's own."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    user: str = ""
    workdir: str = ""
    tty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A named volume.

    Attributes:
        name: by which runs mount it.
        limit_bytes: size of its disk.
        create_time: when it was made.
        labels: for users and their filters.
        used_bytes: what it takes on the host's disk.
        run_ids: runs that hold it.
        request_id: the client's id of the request that made it; may be empty.
        problem: why its record cannot be read; then it can only be shown and removed.
    """

    name: str
    limit_bytes: int
    create_time: datetime
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    used_bytes: int = 0
    run_ids: tuple[str, ...] = ()
    request_id: str = ""
    problem: str = ""
