"""Real machines that go on from a snapshot of a run: what they keep, and what is their own.

One service, one run and one snapshot serve all of it, because a boot takes seconds.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.chassis import run_plan_messages
from tests.support.microvm import busybox_image, microvms, require_microvms
from tests.support.runs import a_plan
from tests.support.vm_service import VmClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
pb = vm_service_pb2
Run = run_pb2.Run

PROGRAM = """
echo kept > /file; n=0
while read x; do
  n=$((n+1)); echo "$n $x $(head -c 16 /dev/urandom | sha256sum | cut -c -32) $(cat /file)"
done
"""
"""Counts what it is told, with random bytes of the moment."""

LOOK = "hostname; cat /etc/machine-id; cat /proc/sys/kernel/random/uuid; cat /file"


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    require_microvms()
    home = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


async def tell(vm: VmClient, run: Run, word: str) -> list[str]:
    """Sends the program a line; returns its answer's words."""
    async with vm.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        await terminal.send(stdin=f"{word}\n".encode())
        said = await terminal.until(b"kept\n")
        while word.encode() not in said:
            said = await terminal.until(b"kept\n")
    return next(line for line in said.decode().splitlines() if word in line).split()


async def look(vm: VmClient, run: Run) -> list[str]:
    out, _, _ = await vm.execute(run.run_id, "sh", "-c", LOOK)
    return out.decode().split()


async def fork(vm: VmClient, snapshot: str, name: str) -> Run:
    plan = run_plan_messages.format_run_plan(a_plan("true"))
    request = pb.CreateRunRequest(
        plan=plan, from_snapshot=snapshot, options=run_pb2.RunOptions(name=name)
    )
    run = (await vm.stub.CreateRun(request)).run
    return await vm.until(run.run_id, Run.STATE_RUNNING)


async def test_runs_go_on_from_a_snapshot_each_as_one_of_its_own(home: Path) -> None:
    async with microvms(home) as (vm, images):
        digest = (await busybox_image(images)).composefs_digest
        options = run_pb2.RunOptions(name="origin", stdin=True)
        origin = await vm.create("sh", "-c", PROGRAM, digest=digest, options=options)
        await vm.until(origin.run_id, Run.STATE_RUNNING)
        assert (await tell(vm, origin, "before"))[0] == "1"

        made = await vm.stub.SnapshotRun(
            pb.SnapshotRunRequest(run="origin", name="warm"), timeout=120
        )
        snapshot = made.snapshot
        assert snapshot.run.name == "warm"
        assert 0 < snapshot.size_bytes < snapshot.memory_bytes
        assert (await tell(vm, origin, "meanwhile"))[0] == "2", "it goes on"

        forks = await asyncio.gather(*(fork(vm, "warm", f"fork{n}") for n in range(2)))
        assert {run.boot_times.way for run in forks} == {"fork"}

        said = [await tell(vm, run, "after") for run in forks]
        assert [words[0] for words in said] == ["2", "2"], "both go on where it was"
        assert len({words[2] for words in said}) == len(forks), "with other random bytes"
        looks = [await look(vm, run) for run in (*forks, origin)]
        for different in zip(*(one[:3] for one in looks), strict=True):
            assert len(set(different)) == len(looks), different
        assert [one[:2] for one in looks[:2]] == [[run.name, run.run_id] for run in forks]
        assert b"before" not in await vm.logs("fork0"), "its log begins where it begins"

        await vm.execute("fork0", "sh", "-c", "echo changed > /file; sync")
        assert [(await look(vm, run))[3] for run in forks] == ["changed", "kept"]

        await vm.stub.RemoveSnapshot(pb.RemoveSnapshotRequest(snapshot="warm"))
        assert (await tell(vm, forks[1], "later"))[0] == "3", "it needs the snapshot no longer"
        assert [path.name for path in (home / "saved").iterdir()] == [".lock"]
