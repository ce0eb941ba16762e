"""Runs as rows of `lns ps`, and their states in words."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2

from cli.render.messages import age, iso_time
from cli.render.text import format_age, short_id, shorten
from lns.client.running.watching import ENDED

State = run_pb2.Run.State
_COMMAND_WIDTH = 24

STATES: Mapping[int, str] = {
    State.STATE_CREATED: "created",
    State.STATE_STARTING: "starting",
    State.STATE_RUNNING: "running",
    State.STATE_PAUSED: "paused",
    State.STATE_SUSPENDED: "suspended",
    State.STATE_STOPPING: "stopping",
    State.STATE_EXITED: "exited",
    State.STATE_FAILED: "failed",
    State.STATE_LOST: "lost",
    State.STATE_UNKNOWN: "unknown",
}


HEALTH: Mapping[int, str] = {
    run_pb2.Health.STATUS_STARTING: "starting",
    run_pb2.Health.STATUS_HEALTHY: "healthy",
    run_pb2.Health.STATUS_UNHEALTHY: "unhealthy",
}


def run_row(run: run_pb2.Run, *, now: float, whole: bool = False) -> dict[str, Any]:
    """Returns a run as a row; ids and commands are cut unless `whole`."""
    command = shlex.join(run.plan.argv)
    return {
        "id": run.run_id if whole else short_id(run.run_id),
        "name": run.name,
        "group": run.group.name,
        "source": run.plan.source.reference or "imageless",
        "image": run.plan.image.requested or run.plan.image.reference,
        "command": command if whole else shorten(command, _COMMAND_WIDTH),
        "created": age(run.create_time, now=now),
        "created_at": iso_time(run.create_time),
        "state": STATES.get(run.state, "unknown"),
        "status": status(run, now=now),
        "health": health(run),
        "exit_code": run.exit.code if run.HasField("exit") else None,
        "ports": [format_port(port) for port in run.ports] if run.state not in ENDED else [],
        "labels": dict(sorted(run.plan.labels.items())),
    }


def status(run: run_pb2.Run, *, now: float) -> str:
    """Returns a run's state with its time in Docker's words: `Up 3 minutes`, `Exited (0) …`."""
    state = STATES.get(run.state, "unknown").capitalize()
    if run.state in (State.STATE_RUNNING, State.STATE_PAUSED) and run.start_time.seconds:
        up = f"Up {format_age(now - run.start_time.seconds)}"
        if run.state == State.STATE_PAUSED:
            return f"{up} (Paused)"
        checked = health(run)
        return (
            f"{up} ({'health: starting' if checked == 'starting' else checked})" if checked else up
        )
    if run.state == State.STATE_EXITED:
        code = f"{run.exit.code}, out of memory" if run.exit.oom_killed else run.exit.code
        return f"Exited ({code}) {age(run.end_time, now=now)}".rstrip()
    if run.state in (State.STATE_FAILED, State.STATE_LOST):
        return f"{state} {age(run.end_time, now=now)}".rstrip()
    return state


def health(run: run_pb2.Run) -> str:
    """Returns what the health checks of a run say: `starting`, `healthy`, `unhealthy` or nothing.

    Of a workload that does not run it is nothing.
    """
    if run.state not in (State.STATE_RUNNING, State.STATE_PAUSED):
        return ""
    return HEALTH.get(run.health.status, "") if run.HasField("health") else ""


def format_port(port: run_plan_pb2.PortMapping) -> str:
    """Returns `127.0.0.1:8080->80/tcp`."""
    return f"{format_address(port)}->{port.container_port}/{port.protocol or 'tcp'}"


def format_address(port: run_plan_pb2.PortMapping) -> str:
    """Returns where a port is published, as `127.0.0.1:8080`."""
    host = port.host_ip or "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port.host_port}"


def newest_first(runs: Sequence[run_pb2.Run]) -> list[run_pb2.Run]:
    """Returns runs by the time of their creation, newest first, by id where times agree."""
    return sorted(
        runs, key=lambda run: (-run.create_time.seconds, -run.create_time.nanos, run.run_id)
    )
