"""A run's life in real microVMs: what is kept, what is recovered, what ends alone."""

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2

from tests.support.eventually import eventually
from tests.support.materializer import served
from tests.support.microvm import busybox_image, microvms, require_microvms, served_runner
from tests.support.runner_process import runner_process

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
pb = vm_service_pb2
Run = run_pb2.Run
Mount = run_plan_pb2.VolumeMount
Options = run_pb2.RunOptions
Restart = run_pb2.RestartPolicy


def attach(run: Run, *, stdin: bool = False) -> pb.AttachStart:
    return pb.AttachStart(run=run.run_id, replay=True, stdin=stdin)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie, which nobody may reap here, does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_the_writable_layer_is_kept_from_a_stop_to_the_next_start(
    short_directory: Path,
) -> None:
    require_microvms()
    script = "cat /kept 2>/dev/null; date +%N > /kept; cat /kept; rm -f /opt/plain; ls /opt"
    async with microvms(short_directory) as (vm, images):
        image = (await busybox_image(images)).composefs_digest
        run = await vm.create("sh", "-c", script, digest=image)
        first, _, _ = await vm.output(run.run_id)
        await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
        second, _, status = await vm.output(run.run_id)
        third = await vm.create("sh", "-c", "cat /kept; ls /opt/plain", digest=image)
        fresh, err, _ = await vm.output(third.run_id)
        times = (await vm.get(third.run_id)).boot_times

    assert status.code == 0
    inside = times.kernel.ToTimedelta() + times.devices.ToTimedelta()
    assert timedelta() < inside < times.boot.ToTimedelta()
    written = first.splitlines()[0]
    assert second.splitlines()[0] == written
    assert b"plain" not in second
    assert (fresh, b"No such file" in err) == (b"/opt/plain\n", True)


async def test_a_volume_is_seeded_from_the_image_and_kept_across_runs(
    short_directory: Path,
) -> None:
    """One writer at a time; what a run wrote is found by the next, and by readers."""
    require_microvms()

    def mounted(script: str, *, read_only: bool = False) -> dict[str, Any]:
        return {
            "argv": ("sh", "-c", script),
            "volumes": [
                Mount(
                    kind=Mount.KIND_NAMED,
                    source="kept",
                    target="/opt",
                    read_only=read_only,
                )
            ],
        }

    async def output(**run: Any) -> bytes:
        made = await vm.create(*run["argv"], volumes=run["volumes"], digest=image)
        out, err, _ = await vm.output(made.run_id)
        await vm.stub.RemoveRun(pb.RemoveRunRequest(run=made.run_id))
        return out + err

    async with microvms(short_directory) as (vm, images):
        image = (await busybox_image(images)).composefs_digest
        first = await output(**mounted("ls /opt; stat -c %u:%a /opt/joes; echo new > /opt/new"))
        second = await output(**mounted("rm /opt/plain; cat /opt/new; ls /opt"))
        third = await output(**mounted("ls /opt; echo x > /opt/x", read_only=True))

    assert first == b"big\njoes\nplain\n1000:600\n"
    assert second == b"new\nbig\njoes\nnew\n"
    assert third.startswith(b"big\njoes\nnew\n")
    assert b"Read-only file system" in third


async def test_a_workload_that_takes_too_much_memory_says_so(short_directory: Path) -> None:
    require_microvms()
    async with microvms(short_directory) as (vm, images):
        image = (await busybox_image(images)).composefs_digest
        run = await vm.create("tail", "/dev/zero", digest=image)
        _, _, status = await vm.output(run.run_id)
        ended = await vm.ended(run.run_id)

    assert (status.code, status.signal, status.oom_killed) == (137, "KILL", True)
    assert (ended.state, ended.oom_kills) == (Run.STATE_EXITED, 1)


async def test_a_fork_bomb_is_stopped_and_other_runs_are_fine(short_directory: Path) -> None:
    require_microvms()
    bomb = "echo up; bomb() { bomb | bomb & }; bomb; exec tail -f /dev/null"
    async with microvms(short_directory) as (vm, images):
        image = (await busybox_image(images)).composefs_digest
        other = await vm.create("tail", "-f", "/dev/null", digest=image)
        run = await vm.create("sh", "-c", bomb, digest=image)
        async with vm.attach(attach(run)) as terminal:
            await terminal.until(b"up")
        await vm.until(other.run_id, Run.STATE_RUNNING)
        out, err, fine = await vm.execute(other.run_id, "sh", "-c", "echo fine")
        request = pb.StopRunRequest(run=run.run_id)
        request.timeout.FromSeconds(5)
        stopped = (await vm.stub.StopRun(request)).run
        await vm.stub.RemoveRun(pb.RemoveRunRequest(run=other.run_id, force=True))

    assert (out, err, fine.code) == (b"fine\n", b"", 0)
    assert stopped.state == Run.STATE_EXITED


async def test_a_vmm_that_dies_fails_the_run_and_its_policy_starts_it_again(
    short_directory: Path,
) -> None:
    require_microvms()
    async with microvms(short_directory) as (vm, images):
        image = (await busybox_image(images)).composefs_digest
        policy = Restart(mode=Restart.MODE_ON_FAILURE, max_restarts=1)
        run = await vm.create(
            *("tail", "-f", "/dev/null"), digest=image, options=Options(restart=policy)
        )
        async for response in vm.stub.WatchRun(
            pb.WatchRunRequest(run=run.run_id, until_ended=True)
        ):
            changed = response.event.state_changed
            if changed.state == Run.STATE_RUNNING:
                assert changed.vmm_pid > 1
                os.kill(changed.vmm_pid, signal.SIGKILL)
        ended = await vm.get(run.run_id)

    assert (ended.state, ended.restart_count) == (Run.STATE_FAILED, 1)
    assert "QEMU was killed by SIGKILL" in ended.error.message


async def test_a_service_that_is_killed_finds_its_runs_again(short_directory: Path) -> None:
    """Nothing that a workload writes is lost or doubled, and its terminal goes on."""
    require_microvms()
    home = short_directory
    script = (
        "n=0; while [ $n -lt 400 ]; do n=$((n + 1)); echo line $n; done; "
        "read word; echo got $word; exit 9"
    )
    async with served(home) as images:
        image = (await busybox_image(images)).composefs_digest
        async with runner_process(home) as (service, vm):
            await vm.stub.GetHost(pb.GetHostRequest(), wait_for_ready=True)
            run = await vm.create("sh", "-c", script, digest=image, options=Options(stdin=True))
            async with vm.attach(attach(run)) as terminal:
                await terminal.until(b"line 7\n")
                service.kill()
            pid = int((home / "runs" / run.run_id / "qemu.pid").read_text())
        assert is_alive(pid)
        async with served_runner(home) as vm:
            adopted = await vm.get(run.run_id)
            assert (adopted.state, adopted.vmm_pid) == (Run.STATE_RUNNING, pid)
            async with vm.attach(attach(run, stdin=True)) as terminal:
                await terminal.until(b"line 400\n")
                await terminal.send(stdin=b"word\n")
                _, _, status = await terminal.rest()
            assert status.code == 9
            expected = b"".join(b"line %d\n" % n for n in range(1, 401)) + b"got word\n"
            assert await vm.logs(run.run_id) == expected
            await eventually(lambda: not is_alive(pid), within=60)
            await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id))

    assert {path.name for path in (home / "runs").iterdir()} == {".lock", ".reserve"}
