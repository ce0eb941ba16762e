"""Hardware virtualization that works, is missing, forbidden, crashes or hangs; found out once."""

import json
import os
import time
from pathlib import Path

import pytest

from services.vm_runner import machines
from services.vm_runner.adapters.qemu.accelerator import AcceleratorChoice, Finding
from services.vm_runner.adapters.qemu.board import Accelerator
from services.vm_runner.machines import MachineSpec
from services.vm_runner.vmm_options import AcceleratorMode
from tests.support import fake_qemu
from tests.support.fake_qemu import FakeQemu

PROBE_SECONDS = 0.5


class Machine:
    """A host whose QEMU does what a test scripts, with a device that is a plain file."""

    def __init__(self, folder: Path) -> None:
        self.qemu = FakeQemu(folder)
        self.device = folder / "kvm"
        self.device.touch()
        self.directory = folder / "guest"
        self.directory.mkdir()
        self.starts: list[Accelerator] = []

    @property
    def memory(self) -> Path:
        """Where the finding is remembered."""
        return self.directory / "accelerator.json"

    def service(
        self, *, mode: AcceleratorMode = AcceleratorMode.AUTO, probe_seconds: float = PROBE_SECONDS
    ) -> AcceleratorChoice:
        return AcceleratorChoice(
            mode=mode,
            directory=self.directory,
            probe_seconds=probe_seconds,
            device=self.device,
        )

    async def find(
        self, choice: AcceleratorChoice | None = None, *, again: bool = False
    ) -> Finding:
        choice = choice or self.service()
        hypervisor = self.qemu.hypervisor(choice)

        async def start(spec: MachineSpec, accelerator: Accelerator) -> machines.Machine:
            self.starts.append(accelerator)
            return await hypervisor.start_with(spec, accelerator)

        return await choice.find(start, again=again)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    # The hypervisor gives the VMM the host's device where the settings ask for it.
    monkeypatch.setattr("services.vm_runner.adapters.qemu.hypervisor.KVM_DEVICE", tmp_path / "kvm")
    return Machine(tmp_path)


def nothing_is_left(machine: Machine) -> bool:
    return [path.name for path in machine.directory.iterdir()] == ["accelerator.json"]


async def test_kvm_that_runs_a_guest_is_used(machine: Machine) -> None:
    found = await machine.find(machine.service(probe_seconds=20))

    assert found.accelerator is Accelerator.KVM
    assert "a guest answered" in found.detail
    assert machine.starts == [Accelerator.KVM]
    assert nothing_is_left(machine)


BROKEN = {
    "crashes": (fake_qemu.CRASHES, "qemu: kvm: Assertion failed"),
    "may not be opened by the VMM": (fake_qemu.MAY_NOT, "initialize kvm: Permission denied"),
    "ends without a word": (fake_qemu.ENDS, "no guest runs with it: "),
    "hangs": (fake_qemu.HANGS, "no guest runs with it: "),
    "hangs after nonsense": (fake_qemu.HANGS_AFTER_A_GREETING, "no guest runs with it: "),
}


@pytest.mark.parametrize(("script", "said"), BROKEN.values(), ids=BROKEN.keys())
async def test_kvm_that_runs_no_guest_is_not_used(machine: Machine, script: str, said: str) -> None:
    machine.qemu.does(script)
    began = time.monotonic()

    found = await machine.find()

    assert found.accelerator is Accelerator.TCG
    assert found.detail.startswith("emulation: ")
    assert said in found.detail
    assert not found.detail.endswith(": ")
    assert time.monotonic() - began < PROBE_SECONDS + 8
    assert nothing_is_left(machine)


async def test_kvm_that_is_missing_is_not_tried(machine: Machine) -> None:
    machine.device.unlink()

    found = await machine.find()

    assert found.accelerator is Accelerator.TCG
    assert "does not exist" in found.detail
    assert machine.starts == []


async def test_kvm_that_is_forbidden_is_not_tried_and_what_would_permit_it_is_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.device.chmod(0o600)
    monkeypatch.setattr(os, "access", lambda *_: False)  # to root nothing is forbidden

    found = await machine.find()

    assert found.accelerator is Accelerator.TCG
    assert "may not be opened by this user" in found.detail
    assert found.remedy.startswith(f"sudo chgrp kvm {machine.device} && sudo chmod 660 ")
    assert machine.starts == []


@pytest.mark.parametrize("script", [fake_qemu.ANSWERS, fake_qemu.CRASHES])
async def test_the_finding_is_remembered_for_this_boot_of_the_host(
    machine: Machine, script: str
) -> None:
    machine.qemu.does(script)
    found = await machine.find(machine.service(probe_seconds=20))
    starts = len(machine.starts)
    machine.qemu.does(fake_qemu.HANGS)

    assert await machine.find() == found
    assert len(machine.starts) == starts == 1


async def test_after_a_boot_of_the_host_it_is_found_out_anew(machine: Machine) -> None:
    machine.qemu.does(fake_qemu.CRASHES)
    await machine.find()
    remembered = json.loads(machine.memory.read_bytes())
    machine.memory.write_text(json.dumps({**remembered, "boot_id": "another"}))
    machine.qemu.does(fake_qemu.ANSWERS)

    assert (await machine.find(machine.service(probe_seconds=20))).accelerator is Accelerator.KVM


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"boot_id": 1}', '"text"'])
async def test_a_memory_that_cannot_be_read_is_made_anew(machine: Machine, damaged: str) -> None:
    machine.memory.write_text(damaged)
    machine.qemu.does(fake_qemu.CRASHES)

    assert (await machine.find()).accelerator is Accelerator.TCG
    assert json.loads(machine.memory.read_bytes())["accelerator"] == "tcg"


async def test_who_asks_again_has_it_probed_again(machine: Machine) -> None:
    machine.qemu.does(fake_qemu.CRASHES)
    choice = machine.service(probe_seconds=20)
    await machine.find(choice)
    machine.qemu.does(fake_qemu.ANSWERS)

    assert (await machine.find(choice)).accelerator is Accelerator.TCG
    assert (await machine.find(choice, again=True)).accelerator is Accelerator.KVM
    assert (await machine.find(choice)).accelerator is Accelerator.KVM


@pytest.mark.parametrize(
    ("mode", "accelerator"),
    [(AcceleratorMode.KVM, Accelerator.KVM), (AcceleratorMode.TCG, Accelerator.TCG)],
)
async def test_who_insists_gets_no_probe(
    machine: Machine, mode: AcceleratorMode, accelerator: Accelerator
) -> None:
    found = await machine.find(machine.service(mode=mode))

    assert found.accelerator is accelerator
    assert "vm_runner.accelerator" in found.detail
    assert machine.starts == []
