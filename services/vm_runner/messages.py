"""Runs ↔ messages of `lns.vm.v1`."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2 as pb
from lns.vm.v1 import vm_service_pb2

from services.chassis import messages, run_plan_messages
from services.chassis.status import from_status, to_status
from services.core.errors import RequestInvalid
from services.vm_runner.host import HostCheck, Verdict
from services.vm_runner.records.groups import Group
from services.vm_runner.records.runs import (
    BootTimes,
    ExitStatus,
    Failure,
    Health,
    HealthStatus,
    RestartMode,
    RestartPolicy,
    Run,
    RunEvent,
    RunOptions,
    RunState,
    TerminalSize,
    Volume,
)

_STATES: Mapping[RunState, pb.Run.State.ValueType] = {
    RunState.CREATED: pb.Run.STATE_CREATED,
    RunState.STARTING: pb.Run.STATE_STARTING,
    RunState.RUNNING: pb.Run.STATE_RUNNING,
    RunState.PAUSED: pb.Run.STATE_PAUSED,
    RunState.SUSPENDED: pb.Run.STATE_SUSPENDED,
    RunState.STOPPING: pb.Run.STATE_STOPPING,
    RunState.EXITED: pb.Run.STATE_EXITED,
    RunState.FAILED: pb.Run.STATE_FAILED,
    RunState.LOST: pb.Run.STATE_LOST,
    RunState.UNKNOWN: pb.Run.STATE_UNKNOWN,
}
_STATE_NAMES = {number: state for state, number in _STATES.items()}
_MODES: Mapping[RestartMode, pb.RestartPolicy.Mode.ValueType] = {
    RestartMode.NO: pb.RestartPolicy.MODE_NO,
    RestartMode.ON_FAILURE: pb.RestartPolicy.MODE_ON_FAILURE,
    RestartMode.ALWAYS: pb.RestartPolicy.MODE_ALWAYS,
    RestartMode.UNLESS_STOPPED: pb.RestartPolicy.MODE_UNLESS_STOPPED,
}
_MODE_NAMES = {number: mode for mode, number in _MODES.items()} | {
    pb.RestartPolicy.MODE_UNSPECIFIED: RestartMode.NO
}
_HEALTH: Mapping[HealthStatus, pb.Health.Status.ValueType] = {
    HealthStatus.STARTING: pb.Health.STATUS_STARTING,
    HealthStatus.HEALTHY: pb.Health.STATUS_HEALTHY,
    HealthStatus.UNHEALTHY: pb.Health.STATUS_UNHEALTHY,
}
_HEALTH_NAMES = {number: status for status, number in _HEALTH.items()}
_TERMINAL_MAX = 10_000
_STOP_TIMEOUT = 10.0


def format_run(run: Run) -> pb.Run:
    """Returns the message of a run."""
    message = pb.Run(
        run_id=run.run_id,
        name=run.name,
        plan=run_plan_messages.format_run_plan(run.plan),
        image_digest=run.image_digest,
        options=format_options(run.options),
        state=_STATES[run.state],
        create_time=format_time(run.create_time),
        start_time=format_time(run.start_time),
        end_time=format_time(run.end_time),
        exit=None if run.exit is None else format_exit(run.exit),
        error=None if run.failure is None else to_status(run.failure.error()),
        restart_count=run.restart_count,
        ports=[messages.format_port(port) for port in run.ports],
        vmm_pid=run.vmm_pid,
        accelerator=run.accelerator,
        oom_kills=run.oom_kills,
        group=None if run.group is None else _format_group(run.group),
        notices=run.notices,
        health=None if run.health is None else _format_health(run.health),
        from_snapshot=run.from_snapshot,
    )
    if run.boot_times != BootTimes():
        message.boot_times.CopyFrom(_format_boot_times(run.boot_times))
    return message


def parse_run(message: pb.Run) -> Run:
    """Returns the run of a message that this service wrote itself.

    Raises:
        RequestInvalid: it is not one.
    """
    if message.state not in _STATE_NAMES:
        raise RequestInvalid(f"run {message.run_id} has an unknown state")
    return Run(
        run_id=message.run_id,
        name=message.name,
        plan=run_plan_messages.parse_run_plan(message.plan),
        image_digest=message.image_digest,
        options=parse_options(message.options),
        state=_STATE_NAMES[message.state],
        create_time=_parse_time(message.create_time),
        start_time=parse_optional_time(message, "start_time"),
        end_time=parse_optional_time(message, "end_time"),
        exit=_parse_exit(message.exit) if message.HasField("exit") else None,
        failure=(Failure.of(from_status(message.error)) if message.HasField("error") else None),
        restart_count=message.restart_count,
        ports=tuple(
            messages.parse_port(port, f"ports[{i}]") for i, port in enumerate(message.ports)
        ),
        vmm_pid=message.vmm_pid,
        accelerator=message.accelerator,
        boot_times=_parse_boot_times(message.boot_times),
        oom_kills=message.oom_kills,
        group=parse_group(message.group) if message.HasField("group") else None,
        notices=tuple(message.notices),
        health=_parse_health(message.health) if message.HasField("health") else None,
        from_snapshot=message.from_snapshot,
    )


def _format_health(health: Health) -> pb.Health:
    return pb.Health(
        status=_HEALTH[health.status],
        failing_streak=health.failing_streak,
        exit_code=health.exit_code,
        output=health.output,
    )


def _parse_health(message: pb.Health) -> Health:
    return Health(
        status=_HEALTH_NAMES.get(message.status, HealthStatus.STARTING),
        failing_streak=message.failing_streak,
        exit_code=message.exit_code,
        output=message.output,
    )


def _format_group(group: Group) -> pb.RunGroup:
    return pb.RunGroup(id=group.group_id, name=group.name, members=group.members)


def parse_group(message: pb.RunGroup) -> Group:
    """Returns the group of a message, which `groups.check` has still to judge."""
    return Group(group_id=message.id, name=message.name, members=tuple(message.members))


def format_options(options: RunOptions) -> pb.RunOptions:
    """Returns the message of a run's options."""
    return pb.RunOptions(
        name=options.name,
        tty=options.tty,
        stdin=options.stdin,
        remove=options.remove,
        restart=pb.RestartPolicy(
            mode=_MODES[options.restart.mode], max_restarts=options.restart.max_restarts
        ),
        terminal=None if options.terminal is None else format_terminal(options.terminal),
        stop_timeout=format_span(timedelta(seconds=options.stop_timeout)),
        stop_signal=options.stop_signal,
        cold=options.cold,
        pids_limit=options.pids_limit,
        log_limit_bytes=options.log_limit_bytes,
        disk_rate_bytes=options.disk_rate_bytes,
        policy_file=options.policy_file,
        approve_timeout=(
            format_span(timedelta(seconds=options.approve_timeout))
            if options.approve_timeout
            else None
        ),
        budgets=[messages.format_budget(limit) for limit in options.budgets],
    )


def parse_options(message: pb.RunOptions) -> RunOptions:
    """Returns the options of a message.

    Raises:
        RequestInvalid: a value is outside its range.
    """
    if message.restart.mode not in _MODE_NAMES:
        raise messages.invalid("options.restart.mode", "is unknown")
    for name in ("pids_limit", "log_limit_bytes", "disk_rate_bytes"):
        if getattr(message, name) < 0:
            raise messages.invalid(f"options.{name}", "must not be negative")
    if message.restart.max_restarts < 0:
        raise messages.invalid("options.restart.max_restarts", "must not be negative")
    terminal = message.terminal if message.HasField("terminal") else None
    return RunOptions(
        name=message.name,
        tty=message.tty,
        stdin=message.stdin,
        remove=message.remove,
        restart=RestartPolicy(
            mode=_MODE_NAMES[message.restart.mode], max_restarts=message.restart.max_restarts
        ),
        terminal=None if terminal is None else parse_terminal(terminal, "options.terminal"),
        stop_timeout=(
            parse_span(message.stop_timeout, "options.stop_timeout")
            if message.HasField("stop_timeout")
            else _STOP_TIMEOUT
        ),
        stop_signal=message.stop_signal,
        cold=message.cold,
        pids_limit=message.pids_limit,
        log_limit_bytes=message.log_limit_bytes,
        disk_rate_bytes=message.disk_rate_bytes,
        policy_file=parse_policy_file(message.policy_file),
        approve_timeout=(
            parse_span(message.approve_timeout, "options.approve_timeout")
            if message.HasField("approve_timeout")
            else 0.0
        ),
        budgets=messages.parse_budgets(message.budgets),
    )


def parse_policy_file(text: str) -> str:
    """Returns the path of a policy file.

    Raises:
        RequestInvalid: it is not absolute.
    """
    if text and (not text.startswith("/") or "\0" in text):
        raise messages.invalid("options.policy_file", "must be an absolute path")
    return text


def format_terminal(size: TerminalSize) -> pb.TerminalSize:
    """Returns the message of a terminal's size."""
    return pb.TerminalSize(rows=size.rows, columns=size.columns)


def parse_terminal(message: pb.TerminalSize, field: str) -> TerminalSize:
    """Returns the terminal's size of a message.

    Raises:
        RequestInvalid: it is no size.
    """
    if not (0 <= message.rows <= _TERMINAL_MAX and 0 <= message.columns <= _TERMINAL_MAX):
        raise messages.invalid(field, f"must be between 0 and {_TERMINAL_MAX} rows and columns")
    return TerminalSize(rows=message.rows, columns=message.columns)


def format_exit(status: ExitStatus) -> pb.ExitStatus:
    """Returns the message of an exit status."""
    return pb.ExitStatus(code=status.code, signal=status.signal, oom_killed=status.oom_killed)


def _parse_exit(message: pb.ExitStatus) -> ExitStatus:
    return ExitStatus(code=message.code, signal=message.signal, oom_killed=message.oom_killed)


def format_event(event: RunEvent) -> pb.RunEvent:
    """Returns the message of an event."""
    message = pb.RunEvent(sequence=event.sequence, event_time=format_time(event.event_time))
    if event.run is not None:
        message.state_changed.CopyFrom(format_run(event.run))
    elif event.removed:
        message.removed.SetInParent()
    else:
        message.notice = event.notice
    return message


_VERDICTS: Mapping[Verdict, vm_service_pb2.HostCheck.Verdict.ValueType] = {
    Verdict.OK: vm_service_pb2.HostCheck.VERDICT_OK,
    Verdict.WARNING: vm_service_pb2.HostCheck.VERDICT_WARNING,
    Verdict.FAILED: vm_service_pb2.HostCheck.VERDICT_FAILED,
}


def format_check(check: HostCheck) -> vm_service_pb2.HostCheck:
    """Returns the message of a thing that a host has or lacks."""
    return vm_service_pb2.HostCheck(
        name=check.name,
        verdict=_VERDICTS[check.verdict],
        detail=check.detail,
        remedy=check.remedy,
    )


def format_volume(volume: Volume) -> pb.Volume:
    """Returns the message of a volume."""
    return pb.Volume(
        name=volume.name,
        limit_bytes=volume.limit_bytes,
        used_bytes=volume.used_bytes,
        create_time=format_time(volume.create_time),
        run_ids=volume.run_ids,
        labels=volume.labels,
        problem=volume.problem,
    )


def parse_env(entries: Iterable[run_plan_pb2.EnvVar], field: str) -> dict[str, str]:
    """Returns environment variables by name.

    Raises:
        RequestInvalid: a name or a value cannot be in an environment.
    """
    return dict(messages.parse_env(entries, field))


def format_time(moment: datetime | None) -> Timestamp | None:
    """Returns the message of a moment."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _parse_time(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)


def parse_optional_time(message: pb.Run, field: str) -> datetime | None:
    """Returns the moment in a field that may be unset."""
    return _parse_time(getattr(message, field)) if message.HasField(field) else None  # type: ignore[arg-type]  # the names are checked by the tests


def format_span(span: timedelta) -> Duration:
    """Returns the message of a span of time."""
    message = Duration()
    message.FromTimedelta(span)
    return message


def parse_span(message: Duration, field: str) -> float:
    """Returns the seconds of a span of time.

    Raises:
        RequestInvalid: it is negative, or longer than a day.
    """
    seconds = message.ToTimedelta().total_seconds()
    if not 0 <= seconds <= timedelta(days=1).total_seconds():
        raise messages.invalid(field, "must be between 0 and a day")
    return seconds


def _format_boot_times(times: BootTimes) -> pb.BootTimes:
    return pb.BootTimes(
        prepare=format_span(times.prepare),
        boot=format_span(times.boot),
        kernel=format_span(times.kernel),
        devices=format_span(times.devices),
        mount=format_span(times.mount),
        exec=format_span(times.exec),
        way=times.way,
    )


def _parse_boot_times(message: pb.BootTimes) -> BootTimes:
    return BootTimes(
        prepare=message.prepare.ToTimedelta(),
        boot=message.boot.ToTimedelta(),
        kernel=message.kernel.ToTimedelta(),
        devices=message.devices.ToTimedelta(),
        mount=message.mount.ToTimedelta(),
        exec=message.exec.ToTimedelta(),
        way=message.way,
    )
