"""Options of a Python program as an order to run something."""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from lns.client.running.launch import Order
from lns.client.running.request import PULL_MODES, PlanFlags, resolve_request, run_options
from lns.client.values import RunOptions
from services.core.errors import RequestInvalid


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
    unknown = options.keys() - RunOptions.__annotations__.keys()
    if unknown:
        raise RequestInvalid(
            f"the option {min(unknown)!r} does not exist",
            hint=f"the options are {', '.join(RunOptions.__annotations__)}",
        )
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
        options=run_options(
            name=flags.name,
            tty=options.get("tty", False),
            stdin=options.get("stdin", False),
            remove=False,
            cold=options.get("cold", False),
            restart=options.get("restart", "no"),
            terminal=None,
            stop_signal=None,
            stop_timeout=options.get("stop_timeout"),
            pids_limit=options.get("pids_limit"),
            disk_rate=options.get("disk_rate"),
            approve_timeout=options.get("approve_timeout"),
            budget=options.get("budgets", ()),
        ),
        pull=PULL_MODES[pull],
        request_id=uuid.uuid4().hex,
        policy_file=flags.policy.absolute() if flags.policy else None,
        subject=reference or "a machine without an image",
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
