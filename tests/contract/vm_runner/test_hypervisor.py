"""What every hypervisor promises: QEMU, and the fake that the other tests stand on."""

import asyncio
import contextlib
import os
import platform
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.chassis.guest_kernels import kernel_cache
from services.core.errors import GuestUnreachable, VmFailed
from services.vm_runner import bootstrap
from services.vm_runner.adapters.boot_files.cache import GuestFileCache
from services.vm_runner.adapters.qemu.accelerator import AcceleratorChoice
from services.vm_runner.adapters.qemu.hypervisor import QemuHypervisor
from services.vm_runner.architectures import Architecture
from services.vm_runner.channel.requests import GuestConfig
from services.vm_runner.channel.session import open_session
from services.vm_runner.machines import Disk, HostPort, Hypervisor, MachineSpec, SavedMachine
from services.vm_runner.settings import VmSettings
from services.vm_runner.vmm_options import AcceleratorMode
from tests.fakes.hypervisor import FakeHost, FakeHypervisor
from tests.support.guest_agent import require_agent
from tests.support.microvm import require_microvms

ANSWER_SECONDS = 200.0
"""Under emulation, on a machine that is busy with other tests."""

Make = Callable[[], Hypervisor]
"""Returns a hypervisor, a new one at each call, of the same host."""


@contextlib.asynccontextmanager
async def fake(home: Path) -> AsyncIterator[Make]:
    host = FakeHost(require_agent())
    yield lambda: FakeHypervisor(host)
    await host.close()


@contextlib.asynccontextmanager
async def qemu(home: Path) -> AsyncIterator[Make]:
    require_microvms()
    settings = VmSettings(
        kernels=kernel_cache(os.environ),
        credentials=home / "credentials.json",
        integrations=home / "integrations.yaml",
    )
    with Blocking(2) as blocking:
        files = GuestFileCache(
            directory=home / "guest",
            architecture=Architecture(platform.machine()),
            kernels=settings.kernels,
            kernel=None,
            agent=require_agent(),
            blocking=blocking,
        )
        choice = AcceleratorChoice(
            mode=AcceleratorMode.TCG, directory=home / "guest", probe_seconds=5
        )
        yield lambda: QemuHypervisor(
            binary=f"qemu-system-{platform.machine()}",
            files=files,
            choice=choice,
            confinement=bootstrap._confinement(settings, bootstrap._cgroups(settings)),
            architecture=Architecture(platform.machine()),
        )


@pytest.fixture(
    params=[fake, pytest.param(qemu, marks=[pytest.mark.e2e, pytest.mark.timeout(300)])]
)
async def make(request: pytest.FixtureRequest, short_directory: Path) -> AsyncIterator[Make]:
    of_host: Callable[[Path], AbstractAsyncContextManager[Make]] = request.param
    async with of_host(short_directory) as make:
        yield make


def a_spec(home: Path) -> MachineSpec:
    directory = home / "machine"
    directory.mkdir(mode=0o700)
    return MachineSpec(
        run_id=secrets.token_hex(16), directory=directory, vcpus=1, memory_mib=128, disks=()
    )


async def test_a_machine_s_life(make: Make, short_directory: Path) -> None:
    """Start, hello, pause, a new host, adoption, the end: one boot serves for all."""
    spec = a_spec(short_directory)
    machine = await make().start(spec)
    try:
        assert machine.pid > 0
        assert machine.accelerator == "tcg"
        async with open_session(await machine.connect(), answer_seconds=ANSWER_SECONDS) as session:
            assert session.welcome is not None
            assert not session.is_configured
        async with open_session(await machine.connect(), answer_seconds=ANSWER_SECONDS):
            pass

        await machine.pause()
        assert await machine.is_paused()
        with pytest.raises(GuestUnreachable):
            async with open_session(await machine.connect(), answer_seconds=0.3):
                pass
        await machine.resume()
        assert not await machine.is_paused()

        adopted = await make().adopt(spec.run_id, spec.directory)
        assert adopted is not None
        assert (adopted.pid, adopted.accelerator) == (machine.pid, machine.accelerator)
        async with open_session(await adopted.connect(), answer_seconds=ANSWER_SECONDS) as session:
            await session.shut_down()
        async with asyncio.timeout(60):
            await adopted.wait()
            await machine.wait()
        assert await make().adopt(spec.run_id, spec.directory) is None
        assert (await machine.usage()).memory_bytes == 0
        with pytest.raises(GuestUnreachable):
            await machine.connect()
    finally:
        await machine.kill()


async def test_a_machine_that_is_killed_is_gone(make: Make, short_directory: Path) -> None:
    spec = a_spec(short_directory)
    machine = await make().start(spec)
    assert (await machine.usage()).memory_bytes > 0
    connection = await machine.connect()
    await machine.kill()
    await machine.kill()

    with contextlib.suppress(OSError):
        while await connection.read(4096):
            pass
    await connection.close()
    assert (await machine.diagnose()).end.endswith("was killed by SIGKILL")
    assert await make().adopt(spec.run_id, spec.directory) is None


async def test_a_stranger_is_not_adopted(make: Make, short_directory: Path) -> None:
    spec = a_spec(short_directory)
    machine = await make().start(spec)
    try:
        assert await make().adopt(secrets.token_hex(16), spec.directory) is None
        assert await make().adopt(secrets.token_hex(16), short_directory) is None
    finally:
        await machine.kill()


async def test_any_number_of_machines_are_resumed_where_one_was_saved(
    make: Make, short_directory: Path
) -> None:
    memory, state = short_directory / "memory", short_directory / "state"
    with memory.open("wb") as file:
        file.truncate(128 << 20)
    ports = tuple(HostPort(name=f"lns.{one}", socket=f"{one}.sock") for one in ("bind0", "egress"))
    spec = replace(a_spec(short_directory), memory_file=memory, ports=ports)
    machine = await make().start(spec)
    try:
        async with open_session(await machine.connect(), answer_seconds=ANSWER_SECONDS) as session:
            assert (await session.configure(GuestConfig(hostname="rehearsal"))).errno == 0
            await session.clear()
        await machine.save(state)
    finally:
        await machine.kill()
    before = (memory.stat().st_mtime_ns, state.read_bytes())

    saved = SavedMachine(memory=memory, state=state)
    clones = []
    try:
        for name in ("machine", "two"):  # the first where the saved one was
            (short_directory / name).mkdir(mode=0o700, exist_ok=True)
            clone = replace(
                spec,
                run_id=secrets.token_hex(16),
                directory=short_directory / name,
                memory_file=None,
            )
            assert await make().fingerprint(clone) == await make().fingerprint(spec)
            clones.append(await make().resume(clone, saved))
        for clone in clones:
            connection = await clone.connect()
            async with open_session(connection, answer_seconds=ANSWER_SECONDS) as session:
                assert not session.is_configured
                assert (await session.configure(GuestConfig(hostname="clone"))).errno == 0
                await session.shut_down()
        assert (memory.stat().st_mtime_ns, state.read_bytes()) == before, "nothing wrote to it"
    finally:
        for clone in clones:
            await clone.kill()


async def test_what_cannot_be_resumed_fails_at_once_and_leaves_nothing(
    make: Make, short_directory: Path
) -> None:
    memory, state = short_directory / "memory", short_directory / "state"
    with memory.open("wb") as file:
        file.truncate(128 << 20)
    state.write_bytes(b"no state of any machine" * 100)
    spec = a_spec(short_directory)

    with pytest.raises(VmFailed):
        await make().resume(spec, SavedMachine(memory=memory, state=state))
    assert await make().adopt(spec.run_id, spec.directory) is None


async def test_machines_that_differ_in_more_than_a_disk_s_content_have_other_fingerprints(
    make: Make, short_directory: Path
) -> None:
    spec = a_spec(short_directory)
    disk = Disk(serial="d", path=short_directory / "d", read_only=False, size_bytes=1 << 20)
    port = HostPort(name="lns.bind0", socket="bind0.sock")
    others = [
        spec,
        replace(spec, vcpus=2),
        replace(spec, memory_mib=256),
        replace(spec, ports=(port,)),
        replace(spec, disks=(disk,)),
        replace(spec, disks=(replace(disk, size_bytes=2 << 20),)),
        replace(spec, disks=(replace(disk, read_only=True),)),
        replace(spec, disks=(replace(disk, serial="e"),)),
    ]

    fingerprints = [await make().fingerprint(other) for other in others]
    assert len(set(fingerprints)) == len(others)
    again = replace(spec, run_id="other", directory=short_directory, cpu_millis=500)
    assert await make().fingerprint(again) == fingerprints[0]


async def test_a_machine_that_was_started_for_nobody_becomes_a_run_s(
    make: Make, short_directory: Path
) -> None:
    (short_directory / "run").mkdir(mode=0o700)
    port = HostPort(name="lns.bind0", socket="bind0.sock")
    waiting = replace(a_spec(short_directory), ports=(port,))
    run = replace(
        waiting, run_id=secrets.token_hex(16), directory=short_directory / "run", cpu_millis=500
    )
    machine = await make().start(waiting)
    try:
        await machine.hand_over(run)

        assert await make().adopt(waiting.run_id, waiting.directory) is None
        adopted = await make().adopt(run.run_id, run.directory)
        assert adopted is not None
        assert adopted.pid == machine.pid
        connection = await adopted.connect()
        async with open_session(connection, answer_seconds=ANSWER_SECONDS) as session:
            await session.shut_down()
        async with asyncio.timeout(60):
            await machine.wait()
        assert not list(run.directory.glob("*.sock")), "nothing of it is left"
        with pytest.raises(VmFailed):
            await machine.hand_over(waiting)
    finally:
        await machine.kill()
