"""Options of a Python program as an order to run something."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lns.vm.v1 import run_pb2

from lns.client.running.forking import fork_request
from lns.client.running.launch import Order
from lns.client.running.request import PULL_MODES, PlanFlags, resolve_request, run_options
from lns.client.values import ForkOptions, RunOptions
from services.core.errors import RequestInvalid


def make_fork(
    snapshot: str,
    options: ForkOptions,
    *,
    environment: Mapping[str, str],
    config: Mapping[str, str],
) -> Order:
    """Returns what a program asks of a run that goes on from a snapshot.

    Raises:
        RequestInvalid: an option is unknown or cannot be read, or two contradict each other.
        OSError: a policy file cannot be read.
    """
    _check_known(options, ForkOptions.__annotations__)
    keep_policy = options.get("keep_policy", False)
    policy = options.get("policy")
    if keep_policy and policy is not None:
        raise RequestInvalid("policy and keep_policy name two policies", hint="give one of them")
    flags = PlanFlags(
        name=options.get("name"),
        policy=Path(policy) if policy is not None else None,
        publish=options.get("ports", ()),
        label=[f"{name}={value}" for name, value in options.get("labels", {}).items()],
    )
    return Order(
        resolve=fork_request(flags, environment=environment, config=config),
        options=_run_options(options, name=flags.name),
        pull=PULL_MODES["missing"],
        request_id=uuid.uuid4().hex,
        policy_file=flags.policy.absolute() if flags.policy else None,
        subject=snapshot,
        from_snapshot=snapshot,
        keep_policy=keep_policy,
    )


def make_order(
    reference: str | None,
    command: Sequence[str],
    options: RunOptions,
    *,
    environment: Mapping[str, str],
    config: Mapping[str, str],
) -> Order:
    """Returns what a program asks to be run.

    Raises:
        RequestInvalid: an option is unknown or cannot be read, or two contradict each other.
        OSError: a policy file cannot be read.
    """
    _check_known(options, RunOptions.__annotations__)
    pull = options.get("pull", "missing")
    if pull not in PULL_MODES:
        modes = ", ".join(PULL_MODES)
        raise RequestInvalid(f"{pull!r} is not a way to pull", hint=f"the ways are {modes}")
    flags = _flags(options)
    resolve = resolve_request(
        flags, reference=reference, argv=command, environment=environment, config=config
    )
    resolve.offline = pull == "never"
    return Order(
        resolve=resolve,
        options=_run_options(
            options,
            name=flags.name,
            tty=options.get("tty", False),
            stdin=options.get("stdin", False),
            cold=options.get("cold", False),
        ),
        pull=PULL_MODES[pull],
        request_id=uuid.uuid4().hex,
        policy_file=flags.policy.absolute() if flags.policy else None,
        subject=reference or "a machine without an image",
    )


def _run_options(
    options: RunOptions | ForkOptions,
    *,
    name: str | None,
    tty: bool = False,
    stdin: bool = False,
    cold: bool = False,
) -> run_pb2.RunOptions:
    return run_options(
        name=name,
        tty=tty,
        stdin=stdin,
        remove=False,
        cold=cold,
        restart=options.get("restart", "no"),
        terminal=None,
        stop_signal=None,
        stop_timeout=options.get("stop_timeout"),
        pids_limit=options.get("pids_limit"),
        disk_rate=options.get("disk_rate"),
        approve_timeout=options.get("approve_timeout"),
        budget=options.get("budgets", ()),
    )


def _check_known(options: RunOptions | ForkOptions, known: Iterable[str]) -> None:
    unknown = options.keys() - set(known)
    if unknown:
        raise RequestInvalid(
            f"the option {min(unknown)!r} does not exist",
            hint=f"the options are {', '.join(known)}",
        )


def _flags(options: RunOptions) -> PlanFlags:
    policy = options.get("policy")
    return PlanFlags(
        cpus=_text(options.get("cpus")),
        memory=_text(options.get("memory")),
        disk=_text(options.get("disk")),
        name=options.get("name"),
        policy=Path(policy) if policy is not None else None,
        mount=options.get("mounts", ()),
        volume=options.get("volumes", ()),
        publish=options.get("ports", ()),
        env=[f"{name}={value}" for name, value in options.get("env", {}).items()],
        workdir=options.get("workdir"),
        user=options.get("user"),
        platform=options.get("platform"),
        label=[f"{name}={value}" for name, value in options.get("labels", {}).items()],
        entrypoint=options.get("entrypoint"),
    )


def _text(value: float | str | None) -> str | None:
    return None if value is None else str(value)
