"""VMM processes: what their end leaves, how they are found again, what a failed start says."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.core.errors import VmFailed
from services.vm_runner.adapters.qemu.accelerator import AcceleratorChoice
from services.vm_runner.adapters.qemu.board import Accelerator
from services.vm_runner.adapters.qemu.hypervisor import QemuHypervisor
from services.vm_runner.machines import Disk, Machine, MachineSpec
from services.vm_runner.vmm_options import AcceleratorMode
from tests.support import fake_qemu
from tests.support.eventually import eventually
from tests.support.fake_qemu import FakeQemu

STARTS = 20


class Host:
    """A hypervisor with a QEMU that does what a test scripts."""

    def __init__(self, folder: Path) -> None:
        self.qemu = FakeQemu(folder)
        self.run = folder / "run"
        self.run.mkdir()
        self.hypervisor = self.service()

    def service(self) -> QemuHypervisor:
        choice = AcceleratorChoice(
            mode=AcceleratorMode.TCG, directory=self.run.parent, probe_seconds=1
        )
        return self.qemu.hypervisor(choice)

    async def start(self, *disks: Disk) -> Machine:
        spec = MachineSpec(run_id="r", directory=self.run, vcpus=1, memory_mib=64, disks=disks)
        return await self.hypervisor.start_with(spec, Accelerator.TCG)

    def files(self) -> set[str]:
        return {path.name for path in self.run.iterdir()}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    yield host
    machine = await host.hypervisor.adopt("r", host.run)
    if machine is not None:
        await machine.kill()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[int]:
    """Returns the processes of this one, dead ones that nobody waited for included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


async def test_starts_and_ends_leave_no_process_no_descriptor_and_no_file(host: Host) -> None:
    await (await host.start()).kill()
    before = descriptors(), children(), host.files()

    for _ in range(STARTS):
        await (await host.start()).kill()

    assert (descriptors(), children(), host.files()) == before
    assert host.files() == set()


async def test_a_vmm_that_ends_by_itself_is_noticed_and_waited_for(host: Host) -> None:
    host.qemu.does(fake_qemu.CRASHES)
    machine = await host.start()

    await machine.wait()

    assert machine.pid not in children()
    found = await machine.diagnose()
    assert found.end == "QEMU ended with status 1"
    assert "Assertion failed" in found.messages
    assert host.files() == {"qemu.log"}


async def test_a_later_service_finds_the_vmm_with_its_messages(host: Host) -> None:
    host.qemu.does('print("said before", file=sys.stderr, flush=True)\n' + fake_qemu.HANGS)
    first = await host.start()
    found = await host.service().adopt("r", host.run)

    assert found is not None
    assert found.pid == first.pid
    assert found.accelerator == "tcg"
    await found.kill()
    await first.wait()
    assert await host.service().adopt("r", host.run) is None


async def test_a_later_service_takes_no_other_process_for_the_vmm(host: Host) -> None:
    (host.run / "qemu.pid").write_text(f"{os.getpid()}\n")
    assert await host.service().adopt("r", host.run) is None

    (host.run / "qemu.pid").write_text("")
    assert await host.service().adopt("r", host.run) is None


async def test_a_disk_that_is_gone_fails_the_start_by_name(host: Host) -> None:
    before = descriptors(), children()
    gone = Disk(serial="x", path=host.run / "gone.img", read_only=False)

    with pytest.raises(VmFailed, match=r"gone\.img: No such file"):
        await host.start(gone)

    assert (descriptors(), children()) == before
    assert host.files() == {"qemu.log"}


async def test_sockets_of_an_earlier_boot_are_not_in_the_way(host: Host) -> None:
    for name in ("qmp.sock", "channel.sock", "qemu.pid", "qemu.messages"):
        (host.run / name).write_text("stale")

    machine = await host.start()

    await eventually(lambda: "qemu" in " ".join(arguments(machine.pid)))
    connection = await machine.connect()
    await connection.close()
    await machine.kill()


def arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
