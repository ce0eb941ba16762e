"""Commands whose users expect what Docker's do, at the words and exit codes that they get."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from tests.behaviour.cli.conftest import Client
from tests.support.lns_command import ROOT
from tests.support.scripted_services import ScriptedServices

State = run_pb2.Run.State
Status = run_pb2.Health.Status
ID = "0123456789abcdef" * 2


def a_run(**fields: object) -> run_pb2.Run:
    fields = {
        "run_id": ID,
        "name": "web",
        "state": State.STATE_RUNNING,
        "start_time": Timestamp(seconds=1),
        "plan": run_plan_pb2.RunPlan(argv=["serve"]),
        **fields,
    }
    return run_pb2.Run(**fields)  # type: ignore[arg-type]  # the fields of the message


def event(run: run_pb2.Run) -> pb.WatchRunResponse:
    return pb.WatchRunResponse(event=run_pb2.RunEvent(sequence=1, state_changed=run))


def watched_until(
    over: threading.Event, run: run_pb2.Run
) -> Callable[[pb.WatchRunRequest], Iterator[pb.WatchRunResponse]]:
    """Answers with one event, and keeps the stream of a live run until `over`."""

    def watched(_: pb.WatchRunRequest) -> Iterator[pb.WatchRunResponse]:
        yield event(run)
        if run.state == State.STATE_RUNNING:
            over.wait(30)

    return watched


def broken_pipe(services: ScriptedServices, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command whose standard output has no reader."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as broken:
        return subprocess.run(
            [sys.executable, "-c", "from cli.main import main; main()", *arguments],
            env={**services.environment, "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen"},
            stdout=broken,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.mark.parametrize(
    ("flags", "state", "stops", "said"),
    [
        (["-q"], State.STATE_RUNNING, 0, "web continues to run without a reader"),
        (["-q", "--rm"], State.STATE_RUNNING, 1, ""),
        (["-q"], State.STATE_EXITED, 0, ""),
        (["-q", "--rm"], State.STATE_EXITED, 0, ""),
    ],
    ids=["kept", "to be removed", "kept and ended", "to be removed and ended"],
)
def test_a_foreground_run_without_a_reader_is_stopped_or_said_to_continue(
    services: ScriptedServices, flags: list[str], state: State.ValueType, stops: int, said: str
) -> None:
    over = threading.Event()
    created = a_run(state=State.STATE_STARTING)
    created.options.remove = "--rm" in flags

    now = run_pb2.Run.FromString(created.SerializeToString())
    now.state = state
    services["Resolve"] = resolver_pb.ResolveResponse(plans=[run_plan_pb2.RunPlan(name="web")])
    services["CreateRun"] = pb.CreateRunResponse(run=created)
    services["WatchRun"] = watched_until(over, now)
    services["StopRun"] = pb.StopRunResponse()
    services["Attach"] = [
        pb.AttachResponse(started=pb.Attached(run_id=ID)),
        pb.AttachResponse(stdout=b"y\n" * 100),
    ]

    ended = broken_pipe(services, "run", *flags, "--", "yes")
    over.set()

    assert ended.returncode == 141
    assert [request.run for request in services.asked("StopRun")] == [ID] * stops
    assert said in ended.stderr
    assert bool(said) == bool(ended.stderr), ended.stderr


def test_exec_in_the_background_leaves_the_command_and_prints_nothing(
    services: ScriptedServices, lns: Client
) -> None:
    services["Attach"] = [
        pb.AttachResponse(started=pb.Attached(run_id=ID, exec_id="1")),
        pb.AttachResponse(detached=pb.Detach()),
    ]

    result = lns("exec", "-d", "web", "sleep", "9")

    assert (result.code, result.out, result.err) == (0, "", "")
    start = services.asked("Attach")[0].start
    assert start.leave
    assert not start.stdin


def test_exec_in_the_background_has_no_standard_input(
    services: ScriptedServices, lns: Client
) -> None:
    result = lns("exec", "-d", "-i", "web", "cat")

    assert result.code == 125
    assert "leave -i out" in result.err
    assert services.asked("Attach") == []


def test_who_leaves_a_run_reads_how_to_return(services: ScriptedServices, lns: Client) -> None:
    services["GetRun"] = pb.GetRunResponse(run=a_run())
    over = threading.Event()
    services["WatchRun"] = watched_until(over, a_run())
    services["Attach"] = [
        pb.AttachResponse(started=pb.Attached(run_id=ID)),
        pb.AttachResponse(detached=pb.Detach()),
    ]

    result = lns("attach", "web")
    over.set()

    assert result.code == 0
    assert result.err == "lns: detached from web; `lns attach web` goes on\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.State}}", "running"),
        ("{{.Health.Status}}", "healthy"),
        ("{{.Options.Restart.Mode}}", "unless-stopped"),
    ],
)
def test_inspect_prints_the_words_of_ps(
    services: ScriptedServices, lns: Client, template: str, expected: str
) -> None:
    run = a_run(health=run_pb2.Health(status=Status.STATUS_HEALTHY))
    run.options.restart.mode = run_pb2.RestartPolicy.MODE_UNLESS_STOPPED
    services["GetRun"] = pb.GetRunResponse(run=run)

    assert lns("inspect", "--format", template, "web").out == f"{expected}\n"


def test_a_run_restarts_unless_it_is_stopped(services: ScriptedServices, lns: Client) -> None:
    services["Resolve"] = resolver_pb.ResolveResponse(plans=[run_plan_pb2.RunPlan(name="web")])
    services["CreateRun"] = pb.CreateRunResponse(run=a_run(state=State.STATE_CREATED))

    assert lns("create", "--restart", "unless-stopped", "--", "serve").code == 0
    (request,) = services.asked("CreateRun")
    assert request.options.restart.mode == run_pb2.RestartPolicy.MODE_UNLESS_STOPPED


def test_ps_shows_ports_only_of_what_listens(services: ScriptedServices, lns: Client) -> None:
    port = run_plan_pb2.PortMapping(host_port=8080, container_port=80, protocol="tcp")
    services["ListRuns"] = pb.ListRunsResponse(
        runs=[
            a_run(ports=[port]),
            a_run(run_id="f" * 32, name="old", state=State.STATE_EXITED, ports=[port]),
        ]
    )

    rows = lns("ps", "-a", "--format", "{{.Name}} {{json .Ports}}").out.splitlines()
    ports = {name: json.loads(shown) for name, _, shown in (row.partition(" ") for row in rows)}

    assert ports == {"web": ["127.0.0.1:8080->80/tcp"], "old": []}


def a_checked_run(status: Status.ValueType, **fields: object) -> run_pb2.Run:
    run = a_run(health=run_pb2.Health(status=status, failing_streak=3, output="no\n"), **fields)
    run.plan.healthcheck.SetInParent()
    return run


def test_wait_for_health_ends_when_the_check_succeeds(
    services: ScriptedServices, lns: Client
) -> None:
    services["GetRun"] = pb.GetRunResponse(run=a_checked_run(Status.STATUS_STARTING))
    services["WatchRun"] = [event(a_checked_run(Status.STATUS_HEALTHY))]

    result = lns("wait", "--healthy", "web")

    assert (result.code, result.out) == (0, "web\n")


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (a_run(), "has no health check"),
        (
            a_checked_run(Status.STATUS_UNHEALTHY),
            "is unhealthy: 3 checks failed in a row, the last with: no",
        ),
        (
            a_checked_run(Status.STATUS_STARTING, state=State.STATE_EXITED),
            "ended before it was healthy",
        ),
    ],
    ids=["no check", "unhealthy", "ended"],
)
def test_wait_for_health_fails_when_it_cannot_come(
    services: ScriptedServices, lns: Client, run: run_pb2.Run, why: str
) -> None:
    services["GetRun"] = pb.GetRunResponse(run=run)

    result = lns("wait", "--healthy", "web")

    assert (result.code, result.out) == (1, "")
    assert why in result.err


def test_an_interrupted_background_run_prints_the_id_that_continues(
    services: ScriptedServices,
) -> None:
    watched, over = threading.Event(), threading.Event()

    def watch(_: pb.WatchRunRequest) -> list[pb.WatchRunResponse]:
        watched.set()
        assert over.wait(30)
        return []

    services["Resolve"] = resolver_pb.ResolveResponse(plans=[a_run().plan])
    services["CreateRun"] = pb.CreateRunResponse(run=a_run(state=State.STATE_STARTING))
    services["WatchRun"] = watch
    client = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; main()", "run", "-d", "--", "serve"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen",
            **services.environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watched.wait(30)
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=30)
    finally:
        over.set()
        client.kill()

    assert (client.returncode, out) == (130, f"{ID}\n")
    assert "web continues to start; `lns rm -f web` stops and removes it" in err
    assert services.asked("RemoveRun") == []
