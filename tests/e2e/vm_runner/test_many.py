"""Many microVMs at once: started together, alive together, ended together."""

import asyncio
import os
from pathlib import Path

import pytest
import structlog
from lns.vm.v1 import run_pb2, vm_service_pb2

from tests.support.eventually import eventually
from tests.support.microvm import busybox_image, microvms, require_microvms
from tests.support.vm_service import VmClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
pb = vm_service_pb2
Run = run_pb2.Run
log = structlog.get_logger()

MACHINES = int(os.environ.get("LNS_TEST_MACHINES", "8"))


def share_mib(pid: int) -> int:
    """Returns a process's share of memory (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) >> 10


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def boot_all(vm: VmClient, image: str) -> int:
    """Starts every machine at once; returns how many booted at the same time at most."""
    await asyncio.gather(
        *(
            vm.create(
                *("sh", "-c", f"echo {number}; exec tail -f /dev/null"),
                digest=image,
                options=run_pb2.RunOptions(name=f"m{number}"),
            )
            for number in range(MACHINES)
        )
    )
    most = 0
    while True:
        runs = (await vm.stub.ListRuns(pb.ListRunsRequest())).runs
        assert len(runs) == MACHINES
        most = max(most, sum(run.state == Run.STATE_STARTING and run.vmm_pid > 0 for run in runs))
        if all(run.state == Run.STATE_RUNNING for run in runs):
            return most
        await asyncio.sleep(0.05)


async def test_many_machines_live_at_once(short_directory: Path) -> None:
    require_microvms()
    async with microvms(short_directory) as (vm, images):
        image = (await busybox_image(images)).composefs_digest
        loop = asyncio.get_running_loop()
        began = loop.time()
        most = await boot_all(vm, image)
        booted = loop.time()
        answers = await asyncio.gather(
            *(vm.execute(f"m{number}", "sh", "-c", "hostname") for number in range(MACHINES))
        )
        logs = [await vm.logs(f"m{number}") for number in range(MACHINES)]
        runs = (await vm.stub.ListRuns(pb.ListRunsRequest())).runs
        shares = sorted(share_mib(run.vmm_pid) for run in runs)
        stop = pb.StopRunRequest()
        stop.timeout.FromSeconds(60)
        stopping = loop.time()
        stops = [pb.StopRunRequest(run=run.run_id, timeout=stop.timeout) for run in runs]
        ended = await asyncio.gather(*(vm.stub.StopRun(request) for request in stops))
        await eventually(lambda: not [run for run in runs if is_there(run.vmm_pid)], within=60)
        log.info(
            "many_machines",
            machines=MACHINES,
            boot_seconds=round(booted - began, 1),
            exec_seconds=round(stopping - booted, 1),
            stop_seconds=round(loop.time() - stopping, 1),
            pss_mib=(shares[0], shares[len(shares) // 2], shares[-1]),
            pss_sum_mib=sum(shares),
        )

    assert [out.decode().strip() for out, _, _ in answers] == [f"m{n}" for n in range(MACHINES)]
    assert logs == [b"%d\n" % number for number in range(MACHINES)]
    assert most <= max(2, os.cpu_count() or 1)
    assert {response.run.state for response in ended} == {Run.STATE_EXITED}
