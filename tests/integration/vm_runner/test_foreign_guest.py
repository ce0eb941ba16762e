"""A guest of another architecture than the host's: emulated, and otherwise a guest like any."""

import os
import platform
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.chassis.guest_kernels import kernel_cache
from services.vm_runner import bootstrap
from services.vm_runner.adapters.qemu.accelerator import AcceleratorChoice
from services.vm_runner.architectures import Architecture
from services.vm_runner.channel.requests import GuestConfig
from services.vm_runner.channel.session import open_session
from services.vm_runner.machines import MachineSpec, SavedMachine
from services.vm_runner.settings import VmSettings
from services.vm_runner.vmm_options import AcceleratorMode
from tests.support.microvm import require_foreign

ANSWER_SECONDS = 240.0
(FOREIGN,) = Architecture(platform.machine()).others


@pytest.mark.e2e
@pytest.mark.timeout(600)
async def test_a_foreign_guest_boots_and_is_saved_and_resumed(short_directory: Path) -> None:
    """One boot serves for all: it costs ten seconds of a processor."""
    require_foreign()
    home = short_directory
    settings = VmSettings(
        kernels=kernel_cache(os.environ),
        credentials=home / "credentials.json",
        integrations=home / "integrations.yaml",
    )
    memory, state = home / "memory", home / "state"
    with memory.open("wb") as file:
        file.truncate(128 << 20)
    spec = MachineSpec(
        run_id=secrets.token_hex(16),
        directory=home / "machine",
        vcpus=1,
        memory_mib=128,
        disks=(),
        memory_file=memory,
        architecture=FOREIGN,
    )
    spec.directory.mkdir(mode=0o700)
    choice = AcceleratorChoice(mode=AcceleratorMode.KVM, directory=home, probe_seconds=1)
    confinement = bootstrap._confinement(settings, bootstrap._cgroups(settings))
    with Blocking(2) as blocking:
        hypervisor = bootstrap._hypervisors(home, settings, choice, confinement, blocking)
        machine = await hypervisor.start(spec)
        try:
            assert machine.accelerator == "tcg", "whatever the host's own guests are executed by"
            connection = await machine.connect()
            async with open_session(connection, answer_seconds=ANSWER_SECONDS) as session:
                assert (await session.configure(GuestConfig(hostname="rehearsal"))).errno == 0
                await session.clear()
            await machine.save(state)
        finally:
            await machine.kill()

        resumed = replace(spec, run_id=secrets.token_hex(16), memory_file=None)
        assert await hypervisor.fingerprint(resumed) == await hypervisor.fingerprint(spec)
        own = replace(resumed, architecture=None)
        assert await hypervisor.fingerprint(resumed) != await hypervisor.fingerprint(own)
        clone = await hypervisor.resume(resumed, SavedMachine(memory=memory, state=state))
        try:
            assert await hypervisor.adopt(resumed.run_id, spec.directory) is not None
            connection = await clone.connect()
            async with open_session(connection, answer_seconds=ANSWER_SECONDS) as session:
                assert (await session.configure(GuestConfig(hostname="clone"))).errno == 0
                await session.shut_down()
        finally:
            await clone.kill()
