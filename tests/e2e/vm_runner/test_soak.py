"""Many starts and ends of all kinds leave nothing behind."""

import asyncio
import itertools
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import structlog
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.vm_runner.adapters.confinement.cgroups import find_place
from tests.support.eventually import eventually
from tests.support.materializer import served
from tests.support.microvm import busybox_image, require_microvms
from tests.support.runner_process import runner_process
from tests.support.vm_service import VmClient

log = structlog.get_logger()
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
pb = vm_service_pb2
Run = run_pb2.Run

STARTS = int(os.environ.get("LNS_TEST_STARTS", "18"))  # each way twice
AT_ONCE = 2


class Starts:
    """Starts of a small image; each way of ending one is a method of its own."""

    def __init__(self, vm: VmClient, image: str, home: Path) -> None:
        self.vm = vm
        self.image = image
        self.home = home
        self.run_ids: list[str] = []

    async def start(self, *argv: str, **more: object) -> Run:
        run = await self.vm.create(*argv, digest=self.image, **more)  # type: ignore[arg-type]  # passed on
        self.run_ids.append(run.run_id)
        return run

    async def up(self, **more: object) -> Run:
        run = await self.start("tail", "-f", "/dev/null", **more)
        return await self.vm.until(run.run_id, Run.STATE_RUNNING)

    async def remove(self, run: Run, *, force: bool = False) -> None:
        await self.vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, force=force))

    async def ends_by_itself(self) -> None:
        run = await self.start("sh", "-c", "seq 1000; exit 3")
        out, _, status = await self.vm.output(run.run_id)
        assert (len(out.splitlines()), status.code) == (1000, 3)
        await self.remove(run)

    async def goes_when_it_ends(self) -> None:
        run = await self.start("true", options=run_pb2.RunOptions(remove=True))
        await self.vm.output(run.run_id)
        assert [event async for event in self.vm.watch(run.run_id)][-1].HasField("removed")

    async def is_stopped(self) -> None:
        run = await self.up()
        request = pb.StopRunRequest(run=run.run_id)
        request.timeout.FromSeconds(5)
        assert (await self.vm.stub.StopRun(request)).run.exit.code == 143
        await self.remove(run)

    async def is_killed(self) -> None:
        run = await self.up()
        await self.vm.stub.KillRun(pb.KillRunRequest(run=run.run_id))
        assert (await self.vm.ended(run.run_id)).exit.signal == "KILL"
        await self.remove(run)

    async def is_removed_as_it_boots(self) -> None:
        run = await self.start("true")
        record = self.home / "runs" / run.run_id / "qemu.pid"
        await eventually(record.exists, within=120)
        await self.remove(run, force=True)

    async def is_removed_at_once(self) -> None:
        await self.remove(await self.start("true"), force=True)

    async def has_an_exec_that_fails(self) -> None:
        run = await self.up()
        _, _, status = await self.vm.execute(run.run_id, "no-such-program")
        assert status.code == 127
        await self.remove(run, force=True)

    async def loses_its_clients(self) -> None:
        port = run_plan_pb2.PortMapping(host_port=0, container_port=9)
        run = await self.up(ports=[port], options=run_pb2.RunOptions(stdin=True))
        spec = pb.ExecSpec(argv=["cat"])
        with socket.create_connection(("127.0.0.1", run.ports[0].host_port)):
            async with (
                self.vm.attach(pb.AttachStart(run=run.run_id, stdin=True)),
                self.vm.attach(pb.AttachStart(run=run.run_id, exec=spec, stdin=True)) as terminal,
            ):
                await terminal.send(stdin=b"x" * 10_000)
        await self.remove(run, force=True)

    async def loses_its_vmm(self) -> None:
        run = await self.up()
        os.kill(run.vmm_pid, signal.SIGKILL)
        assert (await self.vm.ended(run.run_id)).state == Run.STATE_FAILED
        await self.remove(run)

    def ways(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        return (
            self.ends_by_itself,
            self.is_stopped,
            self.goes_when_it_ends,
            self.is_removed_as_it_boots,
            self.is_killed,
            self.has_an_exec_that_fails,
            self.is_removed_at_once,
            self.loses_its_clients,
            self.loses_its_vmm,
        )

    async def soak(self, number: int) -> None:
        """Starts that many, a few at once."""
        ways: Iterator[Callable[[], Awaitable[None]]] = itertools.islice(
            itertools.cycle(self.ways()), number
        )

        async def work() -> None:
            for way in ways:
                await way()

        async with asyncio.TaskGroup() as workers:
            for _ in range(AT_ONCE):
                workers.create_task(work())


def processes() -> Iterator[tuple[int, int, str, bytes]]:
    """Yields pid, parent, state and command line of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            yield int(folder.name), int(fields[1]), fields[0], (folder / "cmdline").read_bytes()
        except OSError:
            continue


def holdings(pid: int, home: Path) -> Mapping[str, object]:
    """What a service has of its host, in a form that is the same for the same."""
    proc = Path("/proc", str(pid))
    descriptors: Counter[str] = Counter()
    for entry in (proc / "fd").iterdir():
        try:
            descriptors[re.sub(r"\d+", "N", str(entry.readlink()))] += 1
        except OSError:
            continue
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    loops = (path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file"))
    return {
        "descriptors": descriptors,
        "children": [(state, line) for _, parent, state, line in processes() if parent == pid],
        "mounts in its view": len((proc / "mountinfo").read_text().splitlines()),
        "mounts of the host": [line for line in mounts if str(home) in line],
        "loop devices": [backing for backing in loops if str(home) in backing],
        "temporary files": sorted(path.name for path in (home / "tmp").iterdir()),
        "files": sorted(
            str(path.relative_to(home))
            for path in home.rglob("*")
            if not path.is_relative_to(home / "tmp")
        ),
    }


def threads(pid: int) -> int:
    return len(list(Path("/proc", str(pid), "task").iterdir()))


def resident_mib(pid: int) -> int:
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) >> 10


async def test_many_starts_and_ends_leave_nothing_behind(short_directory: Path) -> None:
    require_microvms()
    home = short_directory
    async with served(home) as images:
        image = (await busybox_image(images)).composefs_digest
        # Machines that wait come and go by themselves; test_starts counts what they hold.
        async with runner_process(home, snapshots=False) as (service, vm):
            await vm.stub.GetHost(pb.GetHostRequest(), wait_for_ready=True)
            starts = Starts(vm, image, home)
            await starts.soak(2 * len(starts.ways()))
            before, threads_before = holdings(service.pid, home), threads(service.pid)
            memory = resident_mib(service.pid)

            await starts.soak(STARTS)

            await eventually(lambda: holdings(service.pid, home) == before, within=30)
            # Pools of threads grow to their bound as they are used.
            assert threads(service.pid) <= threads_before + 16
            log.info("soaked", resident_mib=(memory, resident_mib(service.pid)))
            assert resident_mib(service.pid) < memory + 40
    place = find_place(is_root=os.geteuid() == 0)
    left = {
        run_id
        for run_id in starts.run_ids
        for _, _, _, line in processes()
        if run_id.encode() in line
    }
    groups = [
        folder / f"lns-{run_id}"
        for folder in (place.folders.values() if place else ())
        for run_id in starts.run_ids
    ]
    assert not left
    assert not [group for group in groups if group.exists()]
