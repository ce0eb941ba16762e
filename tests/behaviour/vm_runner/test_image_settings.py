"""What an image's configuration says of a run beyond its command: stop signal, health check."""

from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import RequestInvalid
from tests.support.vm_service import VmClient, VmWorld

pb = vm_service_pb2
Run = run_pb2.Run
Health = run_pb2.Health
QUICK = Duration(nanos=10_000_000)


def checked(script: str, *, retries: int = 2, timeout: Duration = QUICK) -> run_plan_pb2.RunPlan:
    return run_plan_pb2.RunPlan(
        healthcheck=run_plan_pb2.Healthcheck(
            argv=["sh", "-c", script],
            interval=QUICK,
            timeout=timeout,
            start_interval=QUICK,
            retries=retries,
        )
    )


async def until(vm: VmClient, run: str, wanted: Callable[[Health], bool]) -> Health:
    async for event in vm.watch(run):
        if event.state_changed.HasField("health") and wanted(event.state_changed.health):
            return event.state_changed.health
    raise AssertionError("the run was removed")


STOPS = "trap 'exit 3' TERM; trap 'exit 5' QUIT; echo up; while :; do sleep 0.01; done"


@pytest.mark.parametrize(
    ("of_image", "of_user", "code"), [("", "", 3), ("QUIT", "", 5), ("QUIT", "TERM", 3)]
)
async def test_a_run_is_stopped_by_the_signal_of_its_user_or_its_image(
    vm: VmClient, of_image: str, of_user: str, code: int
) -> None:
    run = await vm.create(
        "sh",
        "-c",
        STOPS,
        options=run_pb2.RunOptions(stop_signal=of_user),
        more=run_plan_pb2.RunPlan(stop_signal=of_image),
    )
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.until(b"up")
        stopped = await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))

    assert stopped.run.exit.code == code


async def test_a_signal_that_linux_does_not_have_is_refused(vm: VmClient) -> None:
    with pytest.raises(RequestInvalid):
        await vm.create("true", more=run_plan_pb2.RunPlan(stop_signal="FOO"))


async def test_real_time_signals_reach_the_workload(vm: VmClient) -> None:
    script = "trap 'exit 7' RTMIN+3; echo up; while :; do sleep 0.01; done"
    run = await vm.create("bash", "-c", script)
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.until(b"up")
        await vm.stub.KillRun(pb.KillRunRequest(run=run.run_id, signal="SIGRTMIN+3"))
        _, _, status = await terminal.rest()

    assert status.code == 7


async def test_a_workload_becomes_healthy_and_unhealthy_as_its_checks_say(
    vm: VmClient, world: VmWorld
) -> None:
    well = world.home / "well"
    script = f"[ -e {well} ] || {{ echo missing; exit 4; }}"
    run = await vm.create("sleep", "60", more=checked(script, timeout=Duration(seconds=30)))

    first = await until(vm, run.run_id, lambda health: True)
    assert first.status == Health.STATUS_STARTING
    sick = await until(vm, run.run_id, lambda h: h.status == Health.STATUS_UNHEALTHY)
    assert (sick.failing_streak, sick.exit_code, sick.output) == (2, 4, "missing")
    well.touch()
    cured = await until(vm, run.run_id, lambda h: h.status == Health.STATUS_HEALTHY)
    assert cured.failing_streak == 0
    assert (await vm.get(run.run_id)).health.status == Health.STATUS_HEALTHY


async def test_a_check_that_takes_too_long_has_failed(vm: VmClient) -> None:
    run = await vm.create("sleep", "60", more=checked("sleep 60", retries=1))

    sick = await until(vm, run.run_id, lambda h: h.status == Health.STATUS_UNHEALTHY)
    assert sick.exit_code == -1
    assert "took longer" in sick.output


async def test_a_process_is_not_started_in_a_directory_that_is_missing(
    vm: VmClient, world: VmWorld
) -> None:
    run = await vm.shell("sleep 60")
    await vm.until(run.run_id, Run.STATE_RUNNING)
    missing = world.home / "missing"
    spec = pb.ExecSpec(argv=["true"], workdir=str(missing))
    async with vm.attach(pb.AttachStart(run=run.run_id, exec=spec)) as terminal:
        _, err, status = await terminal.rest()

    assert status.code == 126
    assert err == b"lns: true: its working directory: No such file or directory\n"
    assert not missing.exists()
