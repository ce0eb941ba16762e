"""Flags of the command line as requests to the services."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import duration_pb2
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import descriptor_pb2, run_plan_pb2
from lns.vm.v1 import run_pb2

from lns.client.content.local_files import is_local, refuse_file
from lns.client.running.environment import parse_environment
from lns.client.running.labels import parse_labels
from services.core.budgets.limits import parse_budget, smallest
from services.core.errors import RequestInvalid
from services.core.quantity import parse_mebibytes

PULL_MODES: Mapping[str, registry_pb.PullMode.ValueType] = {
    "always": registry_pb.PULL_MODE_ALWAYS,
    "missing": registry_pb.PULL_MODE_MISSING,
    "never": registry_pb.PULL_MODE_NEVER,
}

_RESTART = re.compile(r"(no|on-failure|always|unless-stopped)(?::(\d{1,6}))?")
_RESTART_MODES: Mapping[str, run_pb2.RestartPolicy.Mode.ValueType] = {
    "no": run_pb2.RestartPolicy.MODE_NO,
    "on-failure": run_pb2.RestartPolicy.MODE_ON_FAILURE,
    "always": run_pb2.RestartPolicy.MODE_ALWAYS,
    "unless-stopped": run_pb2.RestartPolicy.MODE_UNLESS_STOPPED,
}
_MIN_PLATFORM_PARTS, _MAX_PLATFORM_PARTS = 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFlags:
    """Flags that the resolver judges, as they were given; empty or None means not given."""

    cpus: str | None = None
    memory: str | None = None
    disk: str | None = None
    name: str | None = None
    policy: Path | None = None
    mount: Sequence[str] = ()
    volume: Sequence[str] = ()
    publish: Sequence[str] = ()
    env: Sequence[str] = ()
    env_file: Sequence[Path] = ()
    workdir: str | None = None
    user: str | None = None
    platform: str | None = None
    label: Sequence[str] = ()
    entrypoint: str | None = None
    locked: Path | None = None


def resolve_request(
    flags: PlanFlags,
    *,
    reference: str | None,
    argv: Sequence[str],
    environment: Mapping[str, str],
    config: Mapping[str, str],
) -> resolver_pb.ResolveRequest:
    """Returns what the resolver is asked.

    Raises:
        RequestInvalid: neither reference nor command, or a flag that cannot be read.
        OSError: a file that a flag names cannot be read.
    """
    request = resolver_pb.ResolveRequest(
        overrides=_overrides(flags, argv, environment),
        defaults=resolver_pb.Defaults(
            cpus=config.get("cpus"), memory=config.get("memory"), disk=config.get("disk")
        ),
        platform=parse_platform(flags.platform or config.get("platform")),
        emulate_foreign=flags.platform is None and config.get("foreign") == "emulate",
    )
    if flags.locked is not None:
        if reference is not None:
            raise RequestInvalid(
                f"both REF and --locked say what to run; {flags.locked} names its reference itself",
                hint=f"`lns run --locked {flags.locked}`",
            )
        request.lock = flags.locked.read_bytes()
    elif reference is not None:
        if not is_local(reference):
            refuse_file(reference)
        request.reference = reference
    elif argv:
        request.imageless.SetInParent()
    else:
        raise RequestInvalid(
            "neither a reference nor a command was given",
            hint="`lns run REF`, or `lns run -- COMMAND` for a machine without an image",
        )
    return request


def run_options(
    *,
    name: str | None,
    tty: bool,
    stdin: bool,
    remove: bool,
    cold: bool,
    restart: str,
    terminal: run_pb2.TerminalSize | None,
    stop_signal: str | None,
    stop_timeout: float | None,
    pids_limit: int | None,
    disk_rate: str | None = None,
    approve_timeout: float | None = None,
    budget: Sequence[str] = (),
) -> run_pb2.RunOptions:
    """Returns how the run is run.

    Raises:
        RequestInvalid: a flag that cannot be read, or two that contradict each other.
    """
    policy = parse_restart(restart)
    if remove and policy.mode != run_pb2.RestartPolicy.MODE_NO:
        raise RequestInvalid(
            "--rm removes what --restart would start again", hint="give one of the two"
        )
    options = run_pb2.RunOptions(
        name=name or "",
        tty=tty,
        stdin=stdin,
        remove=remove,
        cold=cold,
        restart=policy,
        terminal=terminal,
        stop_signal=(stop_signal or "").upper().removeprefix("SIG"),
        pids_limit=pids_limit or 0,
        disk_rate_bytes=_disk_rate(disk_rate),
        budgets=_budgets(budget),
    )
    if approve_timeout is not None:
        options.approve_timeout.CopyFrom(to_duration(approve_timeout))
    if stop_timeout is not None:
        options.stop_timeout.CopyFrom(to_duration(stop_timeout))
    return options


def _disk_rate(text: str | None) -> int:
    return parse_mebibytes(text, what="rate of a disk") << 20 if text else 0


def _budgets(texts: Sequence[str]) -> list[run_plan_pb2.BudgetLimit]:
    limits = smallest(limit for text in texts for limit in parse_budget(text, origin="--budget"))
    return [
        run_plan_pb2.BudgetLimit(integration=one.integration, limit=one.text, origin=one.origin)
        for one in limits
    ]


def parse_restart(text: str) -> run_pb2.RestartPolicy:
    """Returns the policy `no`, `on-failure[:n]`, `always` or `unless-stopped`.

    Raises:
        RequestInvalid: it has none of these forms.
    """
    match = _RESTART.fullmatch(text)
    if match is None or (match[2] and match[1] != "on-failure"):
        raise RequestInvalid(
            f"{text!r} is not a restart policy",
            hint="write no, on-failure, on-failure:5, always or unless-stopped",
        )
    return run_pb2.RestartPolicy(mode=_RESTART_MODES[match[1]], max_restarts=int(match[2] or 0))


def parse_platform(text: str | None) -> descriptor_pb2.Platform | None:
    """Returns the platform `os/architecture[/variant]`, None where none is given.

    Raises:
        RequestInvalid: it is not one.
    """
    if not text:
        return None
    parts = text.split("/")
    if not _MIN_PLATFORM_PARTS <= len(parts) <= _MAX_PLATFORM_PARTS or not all(parts):
        raise RequestInvalid(f"{text!r} is not a platform", hint="write for example linux/arm64")
    return descriptor_pb2.Platform(
        os=parts[0],
        architecture=parts[1],
        variant=parts[2] if len(parts) > 2 else "",  # noqa: PLR2004  # the third part
    )


def to_duration(seconds: float) -> duration_pb2.Duration:
    """Returns seconds as protobuf has them."""
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _overrides(
    flags: PlanFlags, argv: Sequence[str], environment: Mapping[str, str]
) -> resolver_pb.Overrides:
    overrides = resolver_pb.Overrides(
        argv=argv,
        env=parse_environment(flags.env, flags.env_file, environment),
        user=flags.user,
        workdir=flags.workdir,
        cpus=flags.cpus,
        memory=flags.memory,
        disk=flags.disk,
        ports=flags.publish,
        volumes=[_absolute_volume(volume) for volume in flags.volume],
        mounts=flags.mount,
        name=flags.name,
        labels=parse_labels(flags.label),
        entrypoint=flags.entrypoint,
    )
    if flags.policy is not None:
        overrides.policy.name = str(flags.policy)
        overrides.policy.text = flags.policy.read_bytes()
    return overrides


def _absolute_volume(volume: str) -> str:
    """Makes a host path relative to the current directory absolute: the services have another."""
    source, colon, rest = volume.partition(":")
    if colon and (source in (".", "..") or source.startswith(("./", "../"))):
        return f"{Path(source).resolve()}:{rest}"
    return volume
