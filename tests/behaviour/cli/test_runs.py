import io
import json
import tarfile
import time
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from services.chassis.status import to_status
from services.core.errors import (
    InUse,
    ManifestUnknown,
    RunStateConflict,
    RunUnknown,
    ServiceUnavailable,
    SnapshotUnknown,
    Unimplemented,
    VmFailed,
)
from tests.behaviour.cli.conftest import Client
from tests.support.scripted_services import ScriptedServices

State = run_pb2.Run.State
ID = "0123456789abcdef" * 2


def a_run(**fields: object) -> run_pb2.Run:
    fields = {
        "run_id": ID,
        "name": "web",
        "state": State.STATE_RUNNING,
        "create_time": Timestamp(seconds=int(time.time()) - 90),
        "start_time": Timestamp(seconds=int(time.time()) - 90),
        "plan": run_plan_pb2.RunPlan(
            argv=["serve"], source=run_plan_pb2.PlanSource(reference="r/images/web:1")
        ),
        **fields,
    }
    return run_pb2.Run(**fields)  # type: ignore[arg-type]  # the fields of the message


def test_ps_is_a_table_of_every_page(services: ScriptedServices, lns: Client) -> None:
    def page(request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        if request.page_token:
            older = Timestamp(seconds=1)
            return pb.ListRunsResponse(runs=[a_run(run_id="f" * 32, name="old", create_time=older)])
        return pb.ListRunsResponse(runs=[a_run()], next_page_token="2")

    services["ListRuns"] = page
    result = lns("ps")

    lines = [line.split("  ") for line in result.out.splitlines()]
    assert [line[0] for line in lines] == ["ID", "0123456789ab", "ffffffffffff"]
    assert "Up 1 minute" in result.out
    assert "r/images/web:1" in result.out
    assert [request.include_ended for request in services.asked("ListRuns")] == [False, False]


@pytest.mark.parametrize(
    ("flags", "out"),
    [
        (["-q"], "0123456789ab\n"),
        (["-q", "--no-trunc"], f"{ID}\n"),
        (["--format", "{{.Name}}/{{.State}}"], "web/running\n"),
    ],
)
def test_ps_is_what_scripts_ask_for(
    services: ScriptedServices, lns: Client, flags: list[str], out: str
) -> None:
    services["ListRuns"] = pb.ListRunsResponse(runs=[a_run()])

    assert lns("ps", *flags).out == out


def test_ps_as_json_has_whole_ids(services: ScriptedServices, lns: Client) -> None:
    services["ListRuns"] = pb.ListRunsResponse(runs=[a_run()])

    assert json.loads(lns("ps", "--format", "json").out)["id"] == ID


def test_ps_filters_by_label_and_number(services: ScriptedServices, lns: Client) -> None:
    services["ListRuns"] = pb.ListRunsResponse(runs=[a_run(), a_run(name="other")])

    assert lns("ps", "-n", "1", "-q", "--filter", "label=a=b").out == "0123456789ab\n"
    assert services.asked("ListRuns")[0].include_ended
    assert dict(services.asked("ListRuns")[0].labels) == {"a": "b"}
    assert lns("ps", "-q", "--filter", "name=other", "--filter", "status=running").out != ""
    assert lns("ps", "-q", "--filter", "name=nobody").out == ""
    assert lns("ps", "--filter", "colour=red").code == 1


def test_one_that_fails_keeps_no_other_from_being_done(
    services: ScriptedServices, lns: Client
) -> None:
    def remove(request: pb.RemoveRunRequest) -> object:
        if request.run == "gone":
            return RunUnknown("there is no run gone")
        return pb.RemoveRunResponse(run_id=ID)

    services["RemoveRun"] = remove
    result = lns("rm", "-f", "one", "gone", "two")

    assert result.code == 1
    assert result.out == "one\ntwo\n"
    assert "cannot remove gone" in result.err
    assert all(request.force for request in services.asked("RemoveRun"))


@pytest.mark.parametrize(
    ("arguments", "method", "request_"),
    [
        (["kill", "-s", "sigusr1", "web"], "KillRun", pb.KillRunRequest(run="web", signal="USR1")),
        (["kill", "web"], "KillRun", pb.KillRunRequest(run="web", signal="KILL")),
        (["pause", "web"], "PauseRun", pb.PauseRunRequest(run="web")),
        (["resume", "web"], "ResumeRun", pb.ResumeRunRequest(run="web")),
        (["rename", "web", "net"], "RenameRun", pb.RenameRunRequest(run="web", name="net")),
    ],
)
def test_a_command_is_one_call(
    services: ScriptedServices, lns: Client, arguments: list[str], method: str, request_: object
) -> None:
    response = getattr(pb, f"{method}Response")()
    services[method] = response

    assert lns(*arguments).code == 0
    assert services.asked(method) == [request_]


def changes(*runs: run_pb2.Run) -> list[pb.WatchRunResponse]:
    return [
        pb.WatchRunResponse(event=run_pb2.RunEvent(sequence=number, state_changed=run))
        for number, run in enumerate(runs, start=1)
    ]


@pytest.mark.parametrize("command", ["start", "restart"])
def test_start_and_restart_return_when_the_workload_runs(
    services: ScriptedServices, lns: Client, command: str
) -> None:
    ended = a_run(state=State.STATE_EXITED, start_time=Timestamp(seconds=1))
    starting = a_run(state=State.STATE_STARTING)
    starting.ClearField("start_time")
    running = a_run(state=State.STATE_RUNNING)
    found = iter([ended, running] if command == "restart" else [running])
    services["GetRun"] = lambda _: pb.GetRunResponse(run=next(found))
    services["StartRun"] = pb.StartRunResponse(run=starting)
    services["WatchRun"] = list(changes(ended, starting, running))

    assert lns(command, "web").out == "web\n"
    (request,) = services.asked("StartRun")
    assert (request.run, len(request.request_id)) == ("web", 32)
    assert len(services.asked("WatchRun")) == 1


def test_a_start_that_fails_before_its_workload_runs_says_why(
    services: ScriptedServices, lns: Client
) -> None:
    starting = a_run(state=State.STATE_STARTING)
    starting.ClearField("start_time")
    failed = a_run(state=State.STATE_FAILED)
    failed.ClearField("start_time")
    failed.end_time.GetCurrentTime()
    failed.error.CopyFrom(to_status(VmFailed("the microVM of run web failed: it burned")))
    services["GetRun"] = pb.GetRunResponse(run=failed)
    services["StartRun"] = pb.StartRunResponse(run=starting)
    services["WatchRun"] = list(changes(starting, failed))

    result = lns("start", "web")
    assert (result.code, result.out) == (1, "")
    assert "it burned" in result.err


def test_stop_waits_as_long_as_the_run_may_take(services: ScriptedServices, lns: Client) -> None:
    services["GetRun"] = pb.GetRunResponse(run=a_run())
    services["StopRun"] = pb.StopRunResponse(run=a_run(state=State.STATE_EXITED))

    assert lns("stop", "web").out == "web\n"
    assert not services.asked("StopRun")[0].HasField("timeout")
    assert lns("stop", "-t", "0.5", "web").out == "web\n"
    assert services.asked("StopRun")[1].timeout.ToMilliseconds() == 500


def test_restart_starts_what_has_ended_and_stops_what_runs(
    services: ScriptedServices, lns: Client
) -> None:
    services["StopRun"] = pb.StopRunResponse()
    services["StartRun"] = pb.StartRunResponse()
    services["GetRun"] = pb.GetRunResponse(run=a_run(state=State.STATE_EXITED))
    lns("restart", "web")
    assert services.asked("StopRun") == []

    services["GetRun"] = pb.GetRunResponse(run=a_run())
    lns("restart", "web")
    assert len(services.asked("StopRun")) == 1
    assert len(services.asked("StartRun")) == 2


def test_wait_prints_the_exit_code_or_why_it_is_unknown(
    services: ScriptedServices, lns: Client
) -> None:
    services["GetRun"] = pb.GetRunResponse(run=a_run())
    ended = a_run(state=State.STATE_EXITED, exit=run_pb2.ExitStatus(code=5))
    services["WatchRun"] = [
        pb.WatchRunResponse(event=run_pb2.RunEvent(sequence=1, state_changed=ended))
    ]
    assert lns("wait", "web").out == "5\n"

    failed = a_run(state=State.STATE_FAILED, error=to_status(VmFailed("QEMU ended")))
    services["GetRun"] = pb.GetRunResponse(run=failed)
    result = lns("wait", "web")
    assert (result.code, result.out) == (1, "")
    assert "QEMU ended" in result.err


def test_logs_go_where_they_belong(services: ScriptedServices, lns: Client) -> None:
    services["ReadLogs"] = [
        pb.ReadLogsResponse(stream=pb.ReadLogsResponse.STREAM_STDOUT, data=b"out\n"),
        pb.ReadLogsResponse(stream=pb.ReadLogsResponse.STREAM_STDERR, data=b"err\n"),
    ]
    result = lns("logs", "-f", "--tail", "5", "--since", "1h", "web")

    assert (result.out, result.err) == ("out\n", "err\n")
    request = services.asked("ReadLogs")[0]
    assert request.follow
    assert request.tail_lines == 5
    assert 3500 < time.time() - request.since_time.seconds < 3700
    assert not request.HasField("until_time")


def test_logs_without_tail_are_all_of_them(services: ScriptedServices, lns: Client) -> None:
    services["ReadLogs"] = []
    lns("logs", "web")

    assert not services.asked("ReadLogs")[0].HasField("tail_lines")


def test_timestamps_begin_lines_also_across_pieces(services: ScriptedServices, lns: Client) -> None:
    def piece(second: int, data: bytes) -> pb.ReadLogsResponse:
        return pb.ReadLogsResponse(
            stream=pb.ReadLogsResponse.STREAM_STDOUT, data=data, log_time=Timestamp(seconds=second)
        )

    services["ReadLogs"] = [piece(1, b"a\nb"), piece(2, b"c\n"), piece(3, b"d\n")]

    assert lns("logs", "-t", "web").out == (
        "1970-01-01T00:00:01Z a\n1970-01-01T00:00:01Z bc\n1970-01-01T00:00:03Z d\n"
    )


def test_stats_are_a_share_of_the_time_between_two_samples(
    services: ScriptedServices, lns: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.commands.stats._INTERVAL_SECONDS", 0)
    samples = iter([(0, 0), (10, 5)])

    def sample(_: object) -> pb.GetStatsResponse:
        wall, used = next(samples)
        stats = run_pb2.RunStats(run_id=ID, name="web", memory_bytes=10**6, pids=3)
        stats.sample_time.seconds = wall
        stats.cpu_time.seconds = used
        return pb.GetStatsResponse(stats=[stats])

    services["GetStats"] = sample

    assert lns("stats", "--no-stream", "--format", "{{.Cpu}} {{.Memory}}").out == "50.0% 1MB\n"


def test_ports_are_published_and_listed(services: ScriptedServices, lns: Client) -> None:
    services["PublishPort"] = pb.PublishPortResponse()
    services["UnpublishPort"] = pb.UnpublishPortResponse()
    port = run_plan_pb2.PortMapping(host_port=8080, container_port=80, protocol="tcp")
    services["GetRun"] = pb.GetRunResponse(run=a_run(ports=[port]))

    assert lns("port", "web", "-p", "8080:80", "--unpublish", "[::1]:9:9").out == (
        "127.0.0.1:8080->80/tcp\n"
    )
    assert services.asked("PublishPort")[0].port == port
    assert services.asked("UnpublishPort")[0].port.host_ip == "::1"
    assert lns("port", "web", "-p", "70000:80").code == 1


@pytest.mark.parametrize(
    ("asked", "code", "out", "said"),
    [
        ("80", 0, "127.0.0.1:8080\n[::1]:8081\n", ""),
        ("80/tcp", 0, "127.0.0.1:8080\n[::1]:8081\n", ""),
        ("81", 1, "", "port 81 of web is not published"),
        ("8080:80", 1, "", "is not a port of the run"),
        ("http", 1, "", "is not a port"),
    ],
)
def test_one_port_of_a_run_is_shown_by_its_addresses(
    services: ScriptedServices, lns: Client, asked: str, code: int, out: str, said: str
) -> None:
    ports = [
        run_plan_pb2.PortMapping(host_port=8080, container_port=80, protocol="tcp"),
        run_plan_pb2.PortMapping(host_ip="::1", host_port=8081, container_port=80, protocol="tcp"),
        run_plan_pb2.PortMapping(host_port=9, container_port=7, protocol="tcp"),
    ]
    services["GetRun"] = pb.GetRunResponse(run=a_run(ports=ports, name="web"))

    result = lns("port", "web", asked)

    assert (result.code, result.out) == (code, out)
    assert said in result.err


@pytest.mark.parametrize(
    ("target", "followed", "resolved", "directory", "name"),
    [
        ("web:/srv/renamed", pb.StatPathResponse.KIND_NONE, "/srv/renamed", "/srv", "renamed"),
        ("web:/tmp", pb.StatPathResponse.KIND_DIRECTORY, "/tmp", "/tmp", "file"),
        ("web:/link/", pb.StatPathResponse.KIND_DIRECTORY, "/srv/new", "/srv/new", "file"),
    ],
)
def test_files_are_copied_into_a_run_and_into_what_is_a_directory_there(
    services: ScriptedServices,
    lns: Client,
    tmp_path: Path,
    target: str,
    followed: pb.StatPathResponse.Kind.ValueType,
    resolved: str,
    directory: str,
    name: str,
) -> None:
    services["StatPath"] = pb.StatPathResponse(
        kind=followed, followed=followed, resolved_path=resolved
    )
    services["CopyIn"] = pb.CopyInResponse(entry_count=1)
    (tmp_path / "file").write_text("content")

    assert lns("cp", str(tmp_path / "file"), target).code == 0

    steps = [request.WhichOneof("step") for request in services.asked("CopyIn")[-3:]]
    header, chunk, _ = services.asked("CopyIn")[-3:]
    assert steps == ["header", "chunk", "commit"]
    assert header.header.path == directory
    with tarfile.open(fileobj=io.BytesIO(chunk.chunk)) as archive:
        assert archive.getnames() == [name]


def test_an_archive_is_written_to_standard_output(services: ScriptedServices, lns: Client) -> None:
    services["CopyOut"] = [pb.CopyOutResponse(data=b"tar "), pb.CopyOutResponse(data=b"archive")]

    assert lns("cp", "web:/etc", "-").out == "tar archive"


def test_an_archive_is_read_from_standard_input(
    services: ScriptedServices, lns: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    services["CopyIn"] = pb.CopyInResponse(entry_count=1)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"tar archive")))

    assert lns("cp", "-", "web:/srv").code == 0

    header, chunk, commit = services.asked("CopyIn")
    assert header.header.path == "/srv"
    assert chunk.chunk == b"tar archive"
    assert commit.HasField("commit")


def a_file_at(path: str) -> pb.StatPathResponse:
    kind = pb.StatPathResponse.KIND_FILE
    return pb.StatPathResponse(kind=kind, followed=kind, resolved_path=path)


def test_files_that_a_run_sends_broken_are_refused(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    services["StatPath"] = a_file_at("/etc/hostname")
    services["CopyOut"] = [pb.CopyOutResponse(data=b"no archive" * 60)]

    assert lns("cp", "web:/etc/hostname", str(tmp_path / "here")).code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_cannot_choose_what_its_files_are_called_here(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    (tmp_path / ".bashrc").write_text("mine")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(".bashrc"))
    services["StatPath"] = a_file_at("/out/report.txt")
    services["CopyOut"] = [pb.CopyOutResponse(data=archive.getvalue())]

    refused = lns("cp", "web:/out/report.txt", str(tmp_path))

    assert refused.code == 1
    assert "'.bashrc'" in refused.err
    assert "do not trust this guest" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == [".bashrc"]
    assert (tmp_path / ".bashrc").read_text() == "mine"


@pytest.mark.parametrize("places", [("a", "b"), ("r:/a", "r:/b"), ("r:relative", "b")])
def test_a_copy_is_between_a_run_and_this_machine(lns: Client, places: tuple[str, str]) -> None:
    assert lns("cp", *places).code == 1


def test_inspect_tries_a_run_first_and_takes_a_reference_for_one(
    services: ScriptedServices, lns: Client
) -> None:
    services["GetRun"] = pb.GetRunResponse(run=a_run())

    assert json.loads(lns("inspect", "web").out)["run_id"] == ID
    assert lns("inspect", "web", "--format", "{{.Plan.Source.Reference}}").out == "r/images/web:1\n"

    services["GetRun"] = RunUnknown("there is no run none")
    assert lns("inspect", "--type", "run", "none").code == 1
    assert "not scripted" in lns("inspect", "none").err


def test_volumes_are_made_listed_and_removed(services: ScriptedServices, lns: Client) -> None:
    volumes = [
        run_pb2.Volume(name="free", used_bytes=10**6),
        run_pb2.Volume(name="used", run_ids=[ID], limit_bytes=10**9),
        run_pb2.Volume(name="taken", used_bytes=10**6),
    ]
    services["CreateVolume"] = pb.CreateVolumeResponse(volume=volumes[0])
    services["ListVolumes"] = pb.ListVolumesResponse(volumes=volumes)
    services["RemoveVolume"] = lambda request: (
        InUse("a run took it") if request.name == "taken" else pb.RemoveVolumeResponse()
    )

    assert lns("volume", "create", "free", "--size", "1g").out == "free\n"
    assert services.asked("CreateVolume")[0].limit_bytes == 2**30
    assert lns("volume", "ls", "-q").out == "free\nused\ntaken\n"
    assert "1GB" in lns("volume", "ls").out
    result = lns("volume", "prune", "-f")
    assert (result.out, result.err) == ("free\n", "freed 1MB\n")


def test_snapshots_are_listed_and_removed(services: ScriptedServices, lns: Client) -> None:
    snapshots = [
        run_pb2.Snapshot(id="a" * 64, size_bytes=90 * 10**6, machines_ahead=1),
        run_pb2.Snapshot(id="b" * 64, size_bytes=10 * 10**6),
    ]
    services["ListSnapshots"] = pb.ListSnapshotsResponse(snapshots=snapshots)
    services["GetSnapshot"] = pb.GetSnapshotResponse(snapshot=snapshots[0])
    services["RemoveSnapshot"] = lambda request: (
        SnapshotUnknown("it went")
        if request.snapshot.startswith("b")
        else pb.RemoveSnapshotResponse(id="a" * 64)
    )

    assert lns("snapshot", "ls", "-q").out == f"{'a' * 12}\n{'b' * 12}\n"
    assert "90MB" in lns("snapshot", "ls").out
    assert lns("snapshot", "inspect", "aaa", "--format", "{{.MachinesAhead}}").out == "1\n"
    result = lns("snapshot", "prune", "-f")
    assert (result.out, result.err) == (f"{'a' * 12}\n", "freed 90MB\n")
    assert lns("snapshot", "rm", "bbb").code == 1


def test_a_live_run_is_saved_and_its_snapshot_not_pruned_by_the_way(
    services: ScriptedServices, lns: Client
) -> None:
    made = run_pb2.Snapshot(id="c" * 32, run=run_pb2.SavedRun(name="warm", run_name="web"))
    image = run_pb2.Snapshot(id="a" * 64)
    services["SnapshotRun"] = pb.SnapshotRunResponse(snapshot=made)
    services["ListSnapshots"] = pb.ListSnapshotsResponse(snapshots=[image, made])
    services["RemoveSnapshot"] = lambda request: pb.RemoveSnapshotResponse(id=request.snapshot)

    assert lns("snapshot", "web", "warm").out == "warm\n"
    (asked,) = services.asked("SnapshotRun")
    assert (asked.run, asked.name, len(asked.request_id)) == ("web", "warm", 32)
    shown = lns("snapshot", "ls").out.splitlines()
    assert shown[1].split()[:3] == ["c" * 12, "warm", "web"], "those of runs come first"
    assert lns("snapshot", "prune", "-f").out == f"{'a' * 12}\n"
    assert lns("snapshot", "prune", "-f", "--all").out == f"{'c' * 12}\n{'a' * 12}\n"


@pytest.mark.parametrize("keeps", [True, False])
def test_a_run_goes_on_from_a_snapshot_with_its_input_and_a_policy_of_its_own(
    services: ScriptedServices, lns: Client, *, keeps: bool
) -> None:
    options = run_pb2.RunOptions(stdin=True, name="another")
    saved = run_pb2.SavedRun(name="warm", options=options)
    services["GetSnapshot"] = pb.GetSnapshotResponse(snapshot=run_pb2.Snapshot(run=saved))
    services["Resolve"] = resolver_pb.ResolveResponse(plans=[run_plan_pb2.RunPlan(name="go-on")])
    services["CreateRun"] = pb.CreateRunResponse(run=a_run(state=State.STATE_RUNNING))
    services["WatchRun"] = [
        pb.WatchRunResponse(
            event=run_pb2.RunEvent(sequence=1, state_changed=a_run(state=State.STATE_RUNNING))
        )
    ]

    flags = ["--keep-policy"] if keeps else []
    result = lns("run", "-d", "--from", "warm", "--name", "try", *flags)

    assert (result.code, result.out) == (0, f"{ID}\n"), result.err
    (request,) = services.asked("CreateRun")
    assert (request.from_snapshot, request.keep_policy) == ("warm", keeps)
    assert (request.options.name, request.options.stdin) == ("try", True)
    assert request.options.policy_file.endswith("lns-policy.yaml") is not keeps
    assert services.asked("Resolve")[0].HasField("imageless")


def test_a_snapshot_of_an_image_is_nothing_to_go_on_from(
    services: ScriptedServices, lns: Client
) -> None:
    services["GetSnapshot"] = pb.GetSnapshotResponse(snapshot=run_pb2.Snapshot(id="a" * 64))

    result = lns("run", "--from", "aaa")

    assert result.code == 125
    assert "aaa is a snapshot of an image, not of a run" in result.err


def test_prune_says_what_went(services: ScriptedServices, lns: Client) -> None:
    services["PruneRuns"] = pb.PruneRunsResponse(run_ids=[ID], freed_bytes=5 * 10**6)

    result = lns("prune", "-f", "--volumes")

    assert result.out == f"{ID}\n"
    assert "freed 5MB" in result.err
    assert services.asked("PruneRuns")[0].include_volumes


def test_what_a_service_does_not_do_yet_is_reported(
    services: ScriptedServices, lns: Client
) -> None:
    services["PauseRun"] = Unimplemented("pausing is not implemented yet")

    result = lns("pause", "web")

    assert result.code == 1
    assert "pausing is not implemented yet" in result.err


def test_a_call_that_may_be_repeated_survives_a_service_that_comes_back(
    services: ScriptedServices, lns: Client
) -> None:
    answers = iter([ServiceUnavailable("restarting"), ServiceUnavailable("restarting")])
    services["ListRuns"] = lambda _: next(answers, pb.ListRunsResponse(runs=[a_run()]))

    assert lns("ps", "-q").out == "0123456789ab\n"


def test_an_exec_carries_its_settings_and_its_exit_code(
    services: ScriptedServices, lns: Client
) -> None:
    services["Attach"] = [
        pb.AttachResponse(started=pb.Attached(run_id=ID, exec_id="1")),
        pb.AttachResponse(stdout=b"out"),
        pb.AttachResponse(stderr=b"err"),
        pb.AttachResponse(exited=run_pb2.ExitStatus(code=9)),
    ]

    result = lns("exec", "-e", "A=1", "-u", "me", "-w", "/w", "web", "ls", "-l", "--debug")

    assert (result.code, result.out, result.err) == (9, "out", "err")
    start = services.asked("Attach")[0].start
    assert start.run == "web"
    assert list(start.exec.argv) == ["ls", "-l", "--debug"]
    assert (start.exec.user, start.exec.workdir) == ("me", "/w")
    assert [(one.name, one.value) for one in start.exec.env] == [("A", "1")]


def test_an_exec_that_is_refused_is_a_failure_of_lns(
    services: ScriptedServices, lns: Client
) -> None:
    services["Attach"] = lambda _: RunStateConflict("web does not run")

    result = lns("exec", "web", "true")

    assert result.code == 125
    assert "web does not run" in result.err


@pytest.mark.parametrize(
    ("given", "argv"),
    [
        (["--", "ls", "-l"], ["ls", "-l"]),
        (["--", "sh", "-c", "x", "--", "y"], ["sh", "-c", "x", "--", "y"]),
        (["--", "--"], ["--"]),
        (["ls", "--", "-l"], ["ls", "--", "-l"]),
    ],
)
def test_two_dashes_may_stand_before_the_command_of_an_exec(
    services: ScriptedServices, lns: Client, given: list[str], argv: list[str]
) -> None:
    services["Attach"] = [
        pb.AttachResponse(started=pb.Attached(run_id=ID, exec_id="1")),
        pb.AttachResponse(exited=run_pb2.ExitStatus(code=0)),
    ]

    assert lns("exec", "web", *given).code == 0
    assert list(services.asked("Attach")[0].start.exec.argv) == argv


def test_an_exec_without_a_command_behind_the_dashes_says_so(lns: Client) -> None:
    result = lns("exec", "web", "--")

    assert result.code == 125
    assert "no command follows --" in result.err


@pytest.mark.parametrize(
    ("code", "said"),
    [(127, "lns: serve does not exist; `lns logs web`"), (126, "lns: serve cannot be executed;")],
)
def test_a_background_run_of_what_cannot_be_executed_fails_and_says_why(
    services: ScriptedServices, lns: Client, code: int, said: str
) -> None:
    def event(sequence: int, **fields: object) -> pb.WatchRunResponse:
        run = a_run(**fields)
        run.ClearField("start_time")
        return pb.WatchRunResponse(event=run_pb2.RunEvent(sequence=sequence, state_changed=run))

    services["Resolve"] = resolver_pb.ResolveResponse(plans=[a_run().plan])
    services["CreateRun"] = pb.CreateRunResponse(run=a_run(state=State.STATE_CREATED))
    services["WatchRun"] = [
        event(1, state=State.STATE_STARTING),
        event(2, state=State.STATE_EXITED, exit=run_pb2.ExitStatus(code=code)),
    ]

    result = lns("run", "-d", "--", "serve")

    assert (result.code, result.out) == (code, f"{ID}\n")
    assert said in result.err


@pytest.mark.parametrize(("pull", "offline"), [("never", True), ("missing", False)])
def test_a_run_that_never_pulls_is_resolved_without_a_registry(
    services: ScriptedServices, lns: Client, pull: str, *, offline: bool
) -> None:
    services["Resolve"] = ManifestUnknown("the store has no r/x:1")

    assert lns("run", "--pull", pull, "r.example/x:1").code == 125
    assert services.asked("Resolve")[0].offline is offline


def test_attaching_to_what_has_ended_says_so_and_ends_with_its_code(
    services: ScriptedServices, lns: Client
) -> None:
    ended = a_run(state=State.STATE_EXITED, exit=run_pb2.ExitStatus(code=3))
    services["GetRun"] = pb.GetRunResponse(run=ended)
    services["WatchRun"] = [
        pb.WatchRunResponse(event=run_pb2.RunEvent(sequence=1, state_changed=ended))
    ]
    services["Attach"] = [
        pb.AttachResponse(started=pb.Attached(run_id=ID)),
        pb.AttachResponse(exited=run_pb2.ExitStatus(code=3)),
    ]

    result = lns("attach", "web")

    assert result.code == 3
    assert "web has ended; `lns logs web`" in result.err


def test_ports_that_are_invalid_change_nothing(services: ScriptedServices, lns: Client) -> None:
    result = lns("port", "web", "-p", "8080:80", "-p", "garbage")

    assert "cannot change the ports of web" in result.err
    assert services.requests == []


@pytest.mark.parametrize("command", [["sh", "-c", "exit 3"], ["ls", "-l"], ["ls"]])
def test_a_command_as_docker_takes_it_gets_a_hint_where_it_belongs(
    lns: Client, command: list[str]
) -> None:
    result = lns("run", "-it", "r/images/web:1", *command)

    assert result.code == 125
    assert "needs a -- before it" in result.err


def test_a_run_is_created_without_being_started(services: ScriptedServices, lns: Client) -> None:
    services["Resolve"] = resolver_pb.ResolveResponse(plans=[run_plan_pb2.RunPlan(name="web")])
    services["CreateRun"] = pb.CreateRunResponse(run=a_run(state=State.STATE_CREATED))

    result = lns("create", "--name", "web", "--restart", "always", "--", "serve")

    (request,) = services.asked("CreateRun")
    assert (result.code, result.out) == (0, f"{ID}\n")
    assert request.do_not_start
    assert request.options.restart.mode == run_pb2.RestartPolicy.MODE_ALWAYS
    assert not services.asked("WatchRun")


def test_a_group_is_created_without_being_started(services: ScriptedServices, lns: Client) -> None:
    plans = [run_plan_pb2.RunPlan(group="team", member=name) for name in ("web", "worker")]
    services["Resolve"] = resolver_pb.ResolveResponse(plans=plans)
    services["ListRuns"] = pb.ListRunsResponse()
    services["CreateRun"] = lambda request: pb.CreateRunResponse(
        run=a_run(run_id=request.plan.member)
    )

    assert lns("create", "r/bundles/team:1").out == "web\nworker\n"
    assert all(request.do_not_start for request in services.asked("CreateRun"))
    assert not services.asked("StartRun")


def test_a_flag_that_does_not_exist_is_no_command(lns: Client) -> None:
    result = lns("run", "--bogus", "r/images/web:1")

    assert result.code == 125
    assert "needs a --" not in result.err
