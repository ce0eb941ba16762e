"""The life of a run, from its request to its removal."""

import asyncio
from pathlib import Path

import prometheus_client
import pytest
from lns.vm.v1 import run_pb2, vm_service_pb2
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis import tracing
from services.core.errors import (
    CapacityExhausted,
    GuestUnreachable,
    HostUnready,
    ImageUnknown,
    NameTaken,
    RequestInvalid,
    RunStateConflict,
    RunUnknown,
    ServiceUnavailable,
    VmFailed,
)
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
Options = run_pb2.RunOptions
Restart = run_pb2.RestartPolicy
FOREVER = "trap 'exit 5' TERM; while :; do sleep 0.01; done"


async def test_a_run_s_output_and_exit_code_come_back(vm: VmClient) -> None:
    run = await vm.shell("echo out; echo err >&2; exit 3")
    out, err, status = await vm.output(run.run_id)

    assert (out, err, status.code) == (b"out\n", b"err\n", 3)
    ended = await vm.ended(run.run_id)
    assert (ended.state, ended.exit.code) == (Run.STATE_EXITED, 3)
    assert ended.accelerator == "tcg"
    assert ended.vmm_pid == 0
    assert ended.boot_times.boot.ToTimedelta().total_seconds() > 0


async def test_whoever_watches_the_node_learns_of_every_run(vm: VmClient) -> None:
    stream = vm.stub.WatchEvents(pb.WatchEventsRequest())
    first = await stream.read()
    run = await vm.shell("exit 3")
    await vm.ended(run.run_id)
    await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id))
    seen = []
    async for told in stream:
        seen.append(told)
        if told.run.HasField("removed"):
            break

    states = [told.run.state_changed.state for told in seen if told.run.HasField("state_changed")]
    assert not first.run_id
    assert {(told.run_id, told.run_name) for told in seen} == {(run.run_id, run.name)}
    assert list(dict.fromkeys(states))[-2:] == [Run.STATE_RUNNING, Run.STATE_EXITED]


async def test_metrics_count_starts_by_phase_and_ends_by_outcome(vm: VmClient) -> None:
    def value(name: str, **labels: str) -> float:
        return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0

    phases = "lns_vm_runner_boot_seconds_count"
    started = value(phases, way="cold", phase="whole")
    ended = value("lns_vm_runner_ended_runs_total", outcome="exited")

    run = await vm.shell("exit 3")
    await vm.ended(run.run_id)

    assert value(phases, way="cold", phase="whole") == started + 1
    assert value("lns_vm_runner_ended_runs_total", outcome="exited") == ended + 1


async def test_the_states_of_a_run_are_reported_in_order(vm: VmClient) -> None:
    run = await vm.shell("true")
    events = await vm.events(run.run_id)
    states = [event.state_changed.state for event in events if event.HasField("state_changed")]

    assert list(dict.fromkeys(states)) == [
        Run.STATE_CREATED, Run.STATE_STARTING, Run.STATE_RUNNING, Run.STATE_EXITED,
    ]  # fmt: skip
    assert [event.sequence for event in events] == sorted({event.sequence for event in events})


async def test_a_broken_watch_is_taken_up_where_it_ended(vm: VmClient) -> None:
    run = await vm.shell("true")
    events = await vm.events(run.run_id)

    assert await vm.events(run.run_id, after=events[1].sequence) == events[2:]


async def test_a_run_that_is_only_created_is_started_later(vm: VmClient) -> None:
    run = await vm.create("true", start=False)
    assert run.state == Run.STATE_CREATED

    await vm.stub.StartRun(pb.StartRunRequest(run=run.name))
    assert (await vm.ended(run.run_id)).exit.code == 0


async def test_the_same_request_is_the_same_run(vm: VmClient) -> None:
    first = await vm.create("true", request_id="r1")
    second = await vm.create("true", request_id="r1")

    assert second.run_id == first.run_id
    assert len((await vm.stub.ListRuns(pb.ListRunsRequest(include_ended=True))).runs) == 1


async def test_a_run_is_found_by_name_id_and_prefix(vm: VmClient) -> None:
    run = await vm.create("true", start=False)

    for text in (run.name, run.run_id, run.run_id[:8]):
        assert (await vm.get(text)).run_id == run.run_id


@pytest.mark.parametrize("text", ["", "nobody", "0" * 32, "../../etc"])
async def test_what_is_no_run_is_not_found(vm: VmClient, text: str) -> None:
    await vm.create("true", start=False)
    with pytest.raises(RunUnknown):
        await vm.get(text)


async def test_names_are_unique_and_chosen_where_none_is_given(vm: VmClient) -> None:
    first = await vm.create("true", start=False)
    second = await vm.create("true", start=False)
    assert (first.name, second.name) == ("surveyor", "surveyor-2")

    with pytest.raises(NameTaken):
        await vm.create("true", start=False, options=Options(name="surveyor"))
    with pytest.raises(NameTaken):
        await vm.stub.RenameRun(pb.RenameRunRequest(run=first.run_id, name="surveyor-2"))
    with pytest.raises(RequestInvalid):
        await vm.stub.RenameRun(pb.RenameRunRequest(run=first.run_id, name="no name"))
    await vm.stub.RenameRun(pb.RenameRunRequest(run=first.run_id, name="walker"))
    assert (await vm.get("walker")).run_id == first.run_id


async def test_a_live_run_cannot_be_started_or_removed(vm: VmClient) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)

    with pytest.raises(RunStateConflict):
        await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
    with pytest.raises(RunStateConflict):
        await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id))


async def test_stop_asks_the_workload_to_end(vm: VmClient) -> None:
    run = await vm.shell(f"echo up; {FOREVER}")
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.until(b"up")
        stopped = (await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))).run

    assert (stopped.state, stopped.exit.code) == (Run.STATE_EXITED, 5)


async def test_stop_ends_a_workload_that_does_not_listen(vm: VmClient) -> None:
    run = await vm.shell("trap '' TERM; echo up; while :; do sleep 0.01; done")
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.until(b"up")
        request = pb.StopRunRequest(run=run.run_id)
        request.timeout.FromMilliseconds(100)
        stopped = (await vm.stub.StopRun(request)).run

    assert (stopped.exit.code, stopped.exit.signal) == (137, "KILL")


async def test_stop_sends_the_signal_that_the_run_names(vm: VmClient) -> None:
    script = "trap 'exit 9' USR1; echo up; while :; do sleep 0.01; done"
    run = await vm.shell(script, options=Options(stop_signal="USR1"))
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.until(b"up")
        stopped = (await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))).run

    assert stopped.exit.code == 9


async def test_a_run_that_still_boots_can_be_stopped(vm: VmClient, world: VmWorld) -> None:
    run = await vm.shell(FOREVER)
    stopped = (await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))).run

    assert stopped.state == Run.STATE_EXITED
    await eventually(lambda: not world.host.machines)


async def test_stop_of_an_ended_run_changes_nothing(vm: VmClient) -> None:
    run = await vm.shell("exit 4")
    await vm.ended(run.run_id)

    stopped = (await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))).run
    assert (stopped.state, stopped.exit.code) == (Run.STATE_EXITED, 4)


async def test_kill_sends_a_signal(vm: VmClient) -> None:
    run = await vm.shell("trap 'echo hup' HUP; echo up; while :; do sleep 0.01; done")
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.until(b"up")
        await vm.stub.KillRun(pb.KillRunRequest(run=run.run_id, signal="HUP"))
        await terminal.until(b"hup")
        await vm.stub.KillRun(pb.KillRunRequest(run=run.run_id))

    assert (await vm.ended(run.run_id)).exit.signal == "KILL"


async def test_kill_refuses_unknown_signals_and_ended_runs(vm: VmClient) -> None:
    run = await vm.shell("true")
    with pytest.raises(RequestInvalid):
        await vm.stub.KillRun(pb.KillRunRequest(run=run.run_id, signal="NOSUCH"))
    await vm.ended(run.run_id)
    with pytest.raises(RunStateConflict):
        await vm.stub.KillRun(pb.KillRunRequest(run=run.run_id))


async def test_a_paused_run_stands_still_until_it_is_resumed(vm: VmClient, tmp_path: Path) -> None:
    counter = tmp_path / "count"
    run = await vm.shell(f"while :; do echo x >> {counter}; sleep 0.005; done")
    await eventually(counter.exists)
    await vm.until(run.run_id, Run.STATE_RUNNING)
    paused = (await vm.stub.PauseRun(pb.PauseRunRequest(run=run.run_id))).run
    assert paused.state == Run.STATE_PAUSED
    size = counter.stat().st_size
    await asyncio.sleep(0.05)
    assert counter.stat().st_size == size
    again = (await vm.stub.PauseRun(pb.PauseRunRequest(run=run.run_id))).run
    assert again.state == Run.STATE_PAUSED
    with pytest.raises(RunStateConflict, match="paused"):
        await vm.execute(run.run_id, "true")

    resumed = (await vm.stub.ResumeRun(pb.ResumeRunRequest(run=run.run_id))).run
    assert resumed.state == Run.STATE_RUNNING
    await eventually(lambda: counter.stat().st_size > size)


async def test_a_paused_run_can_be_stopped(vm: VmClient) -> None:
    run = await vm.shell(f"echo up; {FOREVER}")
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.until(b"up")
    await vm.stub.PauseRun(pb.PauseRunRequest(run=run.run_id))

    stopped = (await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))).run
    assert stopped.exit.code == 5


async def test_a_failing_run_is_started_again_as_often_as_it_may(vm: VmClient) -> None:
    policy = Restart(mode=Restart.MODE_ON_FAILURE, max_restarts=2)
    run = await vm.shell("echo try; exit 1", options=Options(restart=policy))
    out, _, status = await vm.output(run.run_id)
    ended = await vm.ended(run.run_id)

    assert (out, status.code) == (b"try\n" * 3, 1)
    assert ended.restart_count == 2


async def test_a_run_that_always_restarts_ends_when_it_is_stopped(vm: VmClient) -> None:
    run = await vm.shell("exit 0", options=Options(restart=Restart(mode=Restart.MODE_ALWAYS)))
    request = pb.WatchRunRequest(run=run.run_id)
    async for response in vm.stub.WatchRun(request):
        if response.event.state_changed.restart_count == 2:
            break
    await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))

    assert (await vm.ended(run.run_id)).state == Run.STATE_EXITED


async def test_a_start_after_the_end_keeps_the_log_and_counts_anew(vm: VmClient) -> None:
    run = await vm.shell("echo again")
    await vm.ended(run.run_id)
    await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
    out, _, _ = await vm.output(run.run_id)

    assert out == b"again\n"
    assert await vm.logs(run.run_id) == b"again\nagain\n"


async def test_a_run_that_is_removed_leaves_nothing(vm: VmClient, world: VmWorld) -> None:
    run = await vm.shell("true")
    await vm.ended(run.run_id)
    watched = vm.watch(run.run_id)
    await anext(watched)
    await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id))

    assert [event async for event in watched][-1].HasField("removed")
    assert not list((world.home / "runs").iterdir())
    assert world.images.leased == {}
    with pytest.raises(RunUnknown):
        await vm.get(run.run_id)


async def test_force_removes_a_live_run(vm: VmClient, world: VmWorld) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)
    await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, force=True))

    assert world.host.machines == {}
    assert not list((world.home / "runs").iterdir())


async def test_a_run_that_is_to_be_removed_goes_when_it_ends(vm: VmClient, world: VmWorld) -> None:
    run = await vm.shell("exit 6", options=Options(remove=True))
    _, _, status = await vm.output(run.run_id)

    assert status.code == 6
    await eventually(lambda: not list((world.home / "runs").iterdir()))


async def test_a_lease_that_cannot_be_released_does_not_keep_a_run(
    vm: VmClient, world: VmWorld
) -> None:
    world.images.fail_release = ServiceUnavailable("the materializer is down")
    run = await vm.create("true", start=False)
    await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id))

    with pytest.raises(RunUnknown):
        await vm.get(run.run_id)


async def test_prune_removes_what_has_ended_or_never_began(vm: VmClient) -> None:
    ended = await vm.shell("true")
    await vm.ended(ended.run_id)
    created = await vm.create("true", start=False)
    alive = await vm.shell(FOREVER)

    dry = await vm.stub.PruneRuns(pb.PruneRunsRequest(dry_run=True))
    assert list(dry.run_ids) == sorted([ended.run_id, created.run_id])
    assert await vm.get(ended.run_id)
    pruned = await vm.stub.PruneRuns(pb.PruneRunsRequest())
    assert list(pruned.run_ids) == sorted([ended.run_id, created.run_id])
    left = (await vm.stub.ListRuns(pb.ListRunsRequest(include_ended=True))).runs
    assert {run.run_id for run in left} == {alive.run_id}


async def test_runs_are_listed_newest_first_by_pages_and_labels(vm: VmClient) -> None:
    names = []
    for number in range(5):
        labels = {"parity": "odd" if number % 2 else "even"}
        names.append((await vm.create("true", start=False, labels=labels)).name)

    everything = pb.ListRunsRequest(include_ended=True, page_size=2)
    found = []
    while True:
        response = await vm.stub.ListRuns(everything)
        found += [run.name for run in response.runs]
        if not response.next_page_token:
            break
        everything.page_token = response.next_page_token
    assert found == names[::-1]
    odd = await vm.stub.ListRuns(pb.ListRunsRequest(include_ended=True, labels={"parity": "odd"}))
    assert [run.name for run in odd.runs] == [names[3], names[1]]
    assert not (await vm.stub.ListRuns(pb.ListRunsRequest())).runs


async def test_an_unknown_image_is_refused_before_anything_is_recorded(
    vm: VmClient, world: VmWorld
) -> None:
    with pytest.raises(ImageUnknown):
        await vm.create("true", digest="sha256:" + "b" * 64)

    assert not list((world.home / "runs").iterdir())


async def test_a_program_that_does_not_exist_is_exit_code_127(vm: VmClient) -> None:
    run = await vm.create("no-such-program")
    _, err, status = await vm.output(run.run_id)

    assert status.code == 127
    assert err == b"lns: no-such-program: No such file or directory\n"
    ended = await vm.ended(run.run_id)
    assert not ended.HasField("start_time"), "it never ran"


async def test_a_machine_that_does_not_start_fails_the_run_with_the_reason(
    vm: VmClient, world: VmWorld
) -> None:
    world.hypervisor.fail_next = VmFailed("QEMU does not like it", hint="ask nicely")
    run = await vm.shell("true")
    failed = await vm.ended(run.run_id)

    assert failed.state == Run.STATE_FAILED
    assert failed.error.message == "QEMU does not like it"
    with pytest.raises(VmFailed, match="QEMU"):
        await vm.output(run.run_id)


async def test_a_full_disk_fails_the_run_and_a_later_start_succeeds(
    vm: VmClient, world: VmWorld
) -> None:
    world.disks.full = True
    run = await vm.shell("true")
    failed = await vm.ended(run.run_id)
    assert (failed.state, failed.error.message) == (Run.STATE_FAILED, "no room for a disk")

    world.disks.full = False
    await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
    await vm.output(run.run_id)
    assert (await vm.get(run.run_id)).state == Run.STATE_EXITED


async def test_a_machine_that_dies_fails_its_run_and_no_other(vm: VmClient, world: VmWorld) -> None:
    victim = await vm.shell(FOREVER)
    other = await vm.shell(f"echo up; {FOREVER}")
    await vm.until(victim.run_id, Run.STATE_RUNNING)
    await vm.until(other.run_id, Run.STATE_RUNNING)
    await world.host.machines[victim.run_id].kill()

    failed = await vm.ended(victim.run_id)
    assert failed.state == Run.STATE_FAILED
    assert "microVM" in failed.error.message
    assert (await vm.get(other.run_id)).state == Run.STATE_RUNNING


async def test_a_machine_that_dies_ends_what_is_attached_with_the_reason(
    vm: VmClient, world: VmWorld
) -> None:
    run = await vm.shell(f"echo up; {FOREVER}")
    await vm.until(run.run_id, Run.STATE_RUNNING)
    spec = pb.ExecSpec(argv=["sh", "-c", f"echo up; {FOREVER}"])
    async with (
        vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as workload,
        vm.attach(pb.AttachStart(run=run.run_id, exec=spec)) as process,
    ):
        await workload.until(b"up")
        await process.until(b"up")
        await world.host.machines[run.run_id].kill()
        with pytest.raises(GuestUnreachable):
            await process.rest()
        with pytest.raises(VmFailed, match="killed"):
            await workload.rest()


async def test_a_host_that_lacks_something_says_so_before_anything_is_recorded(
    world: VmWorld,
) -> None:
    world.missing = HostUnready("qemu is not installed", hint="apt-get install qemu")
    async with vm_service(world) as vm:
        with pytest.raises(HostUnready) as caught:
            await vm.shell("true")
        report = await vm.stub.GetHost(pb.GetHostRequest())

    assert caught.value.hint == "apt-get install qemu"
    assert not list((world.home / "runs").iterdir())
    remedies = {check.name: check.remedy for check in report.checks}
    assert remedies["qemu"] == "apt-get install qemu"
    assert "confinement" in remedies
    assert report.accelerator == ""


async def test_the_host_says_what_it_can_do(vm: VmClient) -> None:
    report = await vm.stub.GetHost(pb.GetHostRequest(probe=True))

    assert report.accelerator == "tcg"
    assert [check.name for check in report.checks] == [
        "kvm",
        "qemu",
        "platforms",
        "confinement",
        "snapshots",
        "disk",
    ]


async def test_stats_say_what_live_runs_use(vm: VmClient) -> None:
    run = await vm.shell(f"echo up; {FOREVER}")
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.until(b"up")
    ended = await vm.shell("true")
    await vm.ended(ended.run_id)

    (stats,) = (await vm.stub.GetStats(pb.GetStatsRequest())).stats
    assert stats.run_id == run.run_id
    assert stats.channel_in_bytes > 0
    assert stats.memory_limit_bytes == 256 << 20
    both = (await vm.stub.GetStats(pb.GetStatsRequest(runs=[ended.run_id, run.name]))).stats
    assert len(both) == 2


@pytest.mark.parametrize(
    "options",
    [
        Options(stop_signal="NOSUCH"),
        Options(name="-x"),
        Options(pids_limit=-1),
        Options(terminal=run_pb2.TerminalSize(rows=-1, columns=1)),
        Options(restart=Restart(max_restarts=-1)),
    ],
)
async def test_options_out_of_range_are_refused(vm: VmClient, options: Options) -> None:
    with pytest.raises(RequestInvalid):
        await vm.create("true", options=options)


async def test_a_disk_that_fills_while_a_run_is_recorded_is_reported(
    vm: VmClient, world: VmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(run: object) -> None:
        raise CapacityExhausted("no room to record")

    monkeypatch.setattr(world.runner._around.store, "save", full)
    with pytest.raises(CapacityExhausted):
        await vm.shell("true")
    assert world.images.leased == {}


async def test_a_trace_leads_to_the_guest_s_exec(vm: VmClient) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    with tracing.made_by(provider), tracing.span("lns run") as command:
        trace = command.traceparent
        run = await vm.shell("exit 3")
        await vm.ended(run.run_id)

    spans = exporter.get_finished_spans()
    of_command = [one for one in spans if one.context and f"{one.context.trace_id:032x}" in trace]
    assert {"vm.boot", "guest.mount", "guest.exec"} <= {one.name for one in of_command}
