"""What the commands do when they are given the name of a group."""

import json
import os
import subprocess
import sys
import threading

import pytest
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from services.core.errors import RunStateConflict, RunUnknown
from tests.behaviour.cli.conftest import Client
from tests.support.lns_command import ROOT
from tests.support.scripted_services import ScriptedServices

State = run_pb2.Run.State


def member(name: str) -> run_pb2.Run:
    run = run_pb2.Run(run_id=name * 4, name=f"team-{name}", state=State.STATE_RUNNING)
    run.group.CopyFrom(run_pb2.RunGroup(id="a" * 32, name="team", members=["web", "worker"]))
    run.plan.member = name
    return run


@pytest.fixture(autouse=True)
def team(services: ScriptedServices) -> None:
    """A group of two, and no other run."""
    runs = {run.name: run for run in (member("worker"), member("web"))}

    def list_runs(request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        assert request.include_ended
        return pb.ListRunsResponse(runs=runs.values() if request.group in ("", "team") else ())

    def get(request: pb.GetRunRequest) -> object:
        run = runs.get(request.run)
        return pb.GetRunResponse(run=run) if run else RunUnknown(f"there is no {request.run}")

    services["ListRuns"] = list_runs
    services["GetRun"] = get


def of_single_runs(response: object) -> object:
    """An answer for the runs of the group, which are the only ones there are."""
    return lambda request: (
        response if request.run.startswith(("team-", "web", "worker")) else RunUnknown("none")
    )


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (("stop", "-t", "3", "team"), "StopRun"),
        (("kill", "-s", "USR1", "team"), "KillRun"),
        (("start", "team"), "StartRun"),
        (("pause", "team"), "PauseRun"),
        (("resume", "team"), "ResumeRun"),
        (("rm", "-f", "team"), "RemoveRun"),
    ],
)
def test_a_group_stands_for_its_runs_in_their_order(
    services: ScriptedServices, lns: Client, arguments: tuple[str, ...], method: str
) -> None:
    services[method] = of_single_runs(getattr(pb, f"{method}Response")())

    result = lns(*arguments)

    assert (result.code, result.out) == (0, "team-web\nteam-worker\n")
    asked = [request.run for request in services.asked(method) if request.run != "team"]
    assert len(asked) == 2


def test_one_run_that_fails_keeps_no_other_of_its_group_from_being_done(
    services: ScriptedServices, lns: Client
) -> None:
    answers = {
        "team-web": RunStateConflict("team-web is running"),
        "team-worker": pb.RemoveRunResponse(),
    }
    services["RemoveRun"] = lambda request: answers.get(request.run, RunUnknown("none"))

    result = lns("rm", "team")

    assert (result.code, result.out) == (1, "team-worker\n")
    assert "cannot remove team-web" in result.err


def test_what_is_neither_a_run_nor_a_group_is_reported_once(
    services: ScriptedServices, lns: Client
) -> None:
    services["RemoveRun"] = RunUnknown("there is no run 'nothing'")

    result = lns("rm", "nothing")

    assert result.code == 1
    assert result.err.count("nothing'") == 1


def test_logs_of_a_group_stand_behind_the_names_of_its_agents(
    services: ScriptedServices, lns: Client
) -> None:
    def read(request: pb.ReadLogsRequest) -> object:
        if request.run == "team":
            return RunUnknown("team is a group of runs")
        return [
            pb.ReadLogsResponse(
                stream=pb.ReadLogsResponse.STREAM_STDOUT, data=f"{request.run} says\nre".encode()
            ),
            pb.ReadLogsResponse(stream=pb.ReadLogsResponse.STREAM_STDOUT, data=b"st"),
            pb.ReadLogsResponse(stream=pb.ReadLogsResponse.STREAM_STDERR, data=b"oops\n"),
        ]

    services["ReadLogs"] = read

    result = lns("logs", "--tail", "9", "team")

    assert result.out.splitlines() == [
        "web    | webwebwebweb says",
        "web    | rest",
        "worker | workerworkerworkerworker says",
        "worker | rest",
    ]
    assert result.err.splitlines() == ["web    | oops", "worker | oops"]
    assert [request.tail_lines for request in services.asked("ReadLogs")] == [9, 9, 9]


def test_ps_shows_groups_and_can_be_asked_for_one(services: ScriptedServices, lns: Client) -> None:
    table = lns("ps", "-a")
    assert "team-web" in table.out
    assert "GROUP" in table.out.splitlines()[0]
    assert lns("ps", "-a", "--format", "{{.Group}}/{{.Name}}").out == (
        "team/team-web\nteam/team-worker\n"
    )

    assert lns("ps", "-aq", "--filter", "group=other").out == ""
    assert services.asked("ListRuns")[-1].group == "other"
    assert lns("ps", "-a", "--filter", "group=a", "--filter", "group=b").code == 1
    assert lns("ps", "-a", "--filter", "team").code == 1


def test_a_group_is_described_with_its_runs(lns: Client) -> None:
    document = json.loads(lns("inspect", "team").out)

    assert document["group"]["members"] == ["web", "worker"]
    assert [run["name"] for run in document["runs"]] == ["team-web", "team-worker"]


def test_a_client_that_is_terminated_as_it_begins_a_group_takes_it_back(
    services: ScriptedServices,
) -> None:
    arrived, answered = threading.Event(), threading.Event()

    def create(request: pb.CreateRunRequest) -> pb.CreateRunResponse:
        if request.plan.member == "worker":
            arrived.set()
            assert answered.wait(20)
        return pb.CreateRunResponse(run=member(request.plan.member))

    services["ListRuns"] = pb.ListRunsResponse()
    services["Resolve"] = resolver_pb.ResolveResponse(
        plans=[run_plan_pb2.RunPlan(group="team", member=name) for name in ("web", "worker")]
    )
    services["CreateRun"] = create
    services["RemoveRun"] = pb.RemoveRunResponse()
    client = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; main()", "run", "r/bundles/team:1"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen",
            **services.environment,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert arrived.wait(20)
        client.terminate()
        answered.set()
        _, said = client.communicate(timeout=20)
    finally:
        client.kill()

    assert client.returncode == 143, said
    assert "Traceback" not in said
    removed = [request.run for request in services.asked("RemoveRun")]
    assert sorted(removed) == sorted(["web" * 4, "worker" * 4])
    assert services.asked("StartRun") == []


@pytest.mark.parametrize("name", ["team", "team-web"])
def test_stats_of_a_group_are_those_of_its_runs(
    services: ScriptedServices, lns: Client, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("cli.commands.stats._INTERVAL_SECONDS", 0)
    services["GetStats"] = lambda request: pb.GetStatsResponse(
        stats=[run_pb2.RunStats(run_id=run, name=run) for run in request.runs]
    )

    result = lns("stats", "--no-stream", "--format", "{{.Name}}", name)

    whole = ["webwebwebweb", "workerworkerworkerworker"]
    assert result.out.split() == (whole if name == "team" else ["team-web"])


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (("stop", "-t", "3", "team-web"), "StopRun"),
        (("rm", "team-web"), "RemoveRun"),
        (("port", "team-web"), "GetRun"),
    ],
)
def test_a_member_of_a_group_is_a_run_by_its_own_name(
    services: ScriptedServices, lns: Client, arguments: tuple[str, ...], method: str
) -> None:
    services[method] = services.answers.get(method, getattr(pb, f"{method}Response")())

    assert lns(*arguments).code == 0
    assert {request.run for request in services.asked(method)} <= {"team-web", "webwebwebweb"}
    assert services.asked(method)
