"""Real machines that were resumed: what is fresh in each, and that they are runs like others.

One service and one snapshot serve all of it, step by step, because a boot takes seconds.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.chassis import run_plan_messages
from services.core.errors import GuestUnreachable
from tests.support.microvm import busybox_image, microvms, require_microvms
from tests.support.runs import a_plan
from tests.support.vm_service import VmClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
pb = vm_service_pb2

COUNT = 'n=0; while read x; do n=$((n+1)); echo "line $n: $x"; done; exit 7'

LOOK = """
hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id
head -c 16 /dev/urandom | sha256sum; cat /proc/sys/kernel/random/uuid
grep -m1 stack /proc/self/maps
"""
"""What has to differ between any two runs, a line each."""


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    require_microvms()
    home = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


async def look(vm: VmClient, digest: str, name: str) -> tuple[str, list[str]]:
    """Runs the script; returns how the machine was had and what it said."""
    options = run_pb2.RunOptions(name=name)
    run = await vm.create("sh", "-c", LOOK, digest=digest, options=options)
    out, err, status = await vm.output(run.run_id)
    assert (err, status.code) == (b"", 0)
    return (await vm.ended(run.run_id)).boot_times.way, out.decode().splitlines()


async def machine_id(vm: VmClient, run_id: str) -> str:
    """Asks a run whose service has just taken it up."""
    while True:
        try:
            out, _, _ = await vm.execute(run_id, "cat", "/etc/machine-id")
            return out.decode().strip()
        except GuestUnreachable:
            await asyncio.sleep(0.05)


async def put_to_sleep(vm: VmClient, digest: str) -> str:
    """Suspends a run that counts lines, behind its first one."""
    options = run_pb2.RunOptions(stdin=True)
    run = await vm.create("sh", "-c", COUNT, digest=digest, options=options)
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.send(stdin=b"before\n")
        await terminal.until(b"line 1: before\n")
    pid = (await vm.get(run.run_id)).vmm_pid
    await vm.stub.SuspendRun(pb.SuspendRunRequest(run=run.run_id), timeout=120)
    with pytest.raises(ProcessLookupError):  # its memory is free
        os.kill(pid, 0)
    return run.run_id


async def wake_up(vm: VmClient, run_id: str) -> None:
    """Has that run go on, in another service, and count."""
    await vm.stub.ResumeRun(pb.ResumeRunRequest(run=run_id), timeout=120)
    async with vm.attach(pb.AttachStart(run=run_id, replay=True)) as terminal:
        await terminal.send(stdin=b"after\n")
        await terminal.until(b"line 2: after\n")
        out, _, _ = await vm.execute(run_id, "sh", "-c", "echo > /it; nslookup b.test")
        assert b"198.18." in out, "its disk and its egress process go on, too"
        await terminal.send(stdin_closed=pb.StdinClosed())
        _, _, status = await terminal.rest()
    assert status.code == 7


async def test_two_machines_of_one_snapshot_have_nothing_random_in_common(home: Path) -> None:
    async with microvms(home) as (vm, images):
        digest = (await busybox_image(images)).composefs_digest
        plan = run_plan_messages.format_run_plan(a_plan("true"))
        warmed = await vm.stub.MakeSnapshot(
            pb.MakeSnapshotRequest(plan=plan, image_digest=digest), timeout=240
        )
        assert warmed.snapshot.machines_ahead == 1

        looks = await asyncio.gather(*(look(vm, digest, f"run{n}") for n in range(3)))

        ways = sorted(way for way, _ in looks)
        assert ways == ["ahead", "snapshot", "snapshot"]
        for lines in zip(*(said for _, said in looks), strict=True):
            assert len(set(lines)) == len(looks), lines
        [mtime] = {path.stat().st_mtime_ns for path in (home / "snapshots").glob("*/memory")}
        assert mtime <= int(warmed.snapshot.create_time.ToNanoseconds()), "nobody wrote to it"

        asked = "cat /opt/joes; echo; nslookup api.test | grep 198.18; date +%s"
        run = await vm.create("sh", "-c", asked, digest=digest)
        out, _, _ = await vm.output(run.run_id)
        joes, *answer, clock = out.decode().split()
        assert answer[-1].startswith("198.18."), "its egress process is that of the snapshot"
        ended = await vm.ended(run.run_id)
        assert abs(int(clock) - ended.end_time.seconds) <= 2, "the guest's clock is the host's"
        assert joes == "mine"

        kept = await vm.create("sh", "-c", "cat /kept || echo it > /kept", digest=digest)
        await vm.ended(kept.run_id)
        await vm.stub.StartRun(pb.StartRunRequest(run=kept.run_id))
        again = await vm.ended(kept.run_id)
        assert again.boot_times.way == "snapshot", "with its own writable layer"
        assert (await vm.logs(kept.run_id)).endswith(b"it\n")

        live = await vm.create("tail", "-f", "/dev/null", digest=digest)
        await vm.until(live.run_id, run_pb2.Run.STATE_RUNNING)
        asleep = await put_to_sleep(vm, digest)
    assert not list((home / "snapshots" / "ahead").iterdir()), "no machine waits for nobody"

    async with microvms(home) as (vm, _):  # a service that starts anew adopts what was claimed
        assert (await vm.get(live.run_id)).state == run_pb2.Run.STATE_RUNNING
        assert await machine_id(vm, live.run_id) == live.run_id
        await wake_up(vm, asleep)
        os.kill((await vm.get(live.run_id)).vmm_pid, signal.SIGKILL)
        await vm.ended(live.run_id)
