import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from services.vm_runner.adapters.confinement.switches import Listen, Read, Write
from services.vm_runner.adapters.qemu.board import Accelerator
from services.vm_runner.adapters.qemu.command_line import (
    MAX_DISKS,
    command_line,
    descriptors,
    state_descriptor,
)
from services.vm_runner.architectures import Architecture
from services.vm_runner.machines import Disk, HostPort, MachineSpec, SavedMachine

DISKS = (
    Disk(serial="meta", path=Path("/s/images/a.cfs"), read_only=True),
    Disk(serial="writable", path=Path("/s/runs/r/writable.img"), read_only=False),
)


def spec_of(*disks: Disk) -> MachineSpec:
    return MachineSpec(
        run_id="abc", directory=Path("/s/runs/r"), vcpus=3, memory_mib=768, disks=disks
    )


def line(
    *,
    disks: tuple[Disk, ...] = DISKS,
    accelerator: Accelerator = Accelerator.TCG,
    architecture: Architecture = Architecture.X86_64,
) -> tuple[str, ...]:
    return command_line(
        "/usr/bin/qemu",
        spec_of(*disks),
        vmlinux=Path("/g/vmlinux"),
        initramfs=Path("/g/initramfs"),
        accelerator=accelerator,
        architecture=architecture,
    )


def values(command: tuple[str, ...], switch: str) -> list[str]:
    return [value for name, value in itertools.pairwise(command) if name == switch]


def test_a_machine_has_what_was_asked_for() -> None:
    command = line()

    assert command[0] == "/usr/bin/qemu"
    assert values(command, "-smp") == ["3"]
    assert values(command, "-m") == ["768M"]
    assert values(command, "-kernel") == ["/g/vmlinux"]
    assert values(command, "-name") == ["guest=lns-abc"]


def test_a_machine_has_no_network_card_and_no_device_that_was_not_asked_for() -> None:
    command = line()
    devices = [value.split(",")[0] for value in values(command, "-device")]

    assert "-nodefaults" in command
    assert "-no-user-config" in command
    assert set(devices) == {"virtio-serial-pci", "virtserialport", "virtio-blk-pci", "vmgenid"}
    assert not {"-net", "-nic", "-netdev"} & set(command)


def test_images_are_read_only_and_the_writable_layer_is_not() -> None:
    image, writable = values(line(), "-blockdev")

    assert "read-only=on" in image.split(",")
    assert "read-only=on" not in writable.split(",")


def test_all_disks_share_one_rate_where_there_is_one() -> None:
    spec = dataclasses.replace(spec_of(*DISKS), disk_rate=5_000_000)
    command = command_line(
        "/usr/bin/qemu",
        spec,
        vmlinux=Path("/g/vmlinux"),
        initramfs=Path("/g/initramfs"),
        accelerator=Accelerator.TCG,
        architecture=Architecture.X86_64,
    )
    (group,) = (json.loads(one) for one in values(command, "-object") if "throttle" in one)
    limited = [value for value in values(command, "-blockdev") if value.startswith("driver=thr")]
    shown = [value for value in values(command, "-device") if value.startswith("virtio-blk")]

    assert group["limits"] == {"bps-total": 5_000_000}
    assert len(limited) == len(shown) == len(DISKS)
    assert all(f"throttle-group={group['id']}," in value for value in limited)
    assert [value.split(",")[1] for value in shown] == [
        f"drive=disk{number}-limited" for number in range(len(DISKS))
    ]
    assert not any("throttle" in argument for argument in line())


def test_disks_are_found_by_their_serials() -> None:
    serials = [
        part.removeprefix("serial=")
        for device in values(line(), "-device")
        for part in device.split(",")
        if part.startswith("serial=")
    ]

    assert serials == ["meta", "writable"]


def test_qemu_opens_neither_disks_nor_sockets_but_is_given_them_in_order() -> None:
    disk = Disk(serial="x", path=Path("/a,b,read-only=off"), read_only=True)
    command = line(disks=(disk, *DISKS))

    assert not any("/a,b" in argument or "/s/" in argument for argument in command)
    assert descriptors(spec_of(disk, *DISKS)) == (
        Listen(Path("qmp.sock")),
        Listen(Path("channel.sock")),
        Read(disk.path),
        Read(DISKS[0].path),
        Write(DISKS[1].path),
    )
    assert "socket,id=qmp,fd=3,server=on,wait=off" in values(command, "-chardev")
    assert "socket,id=channel,fd=4,server=on,wait=off" in values(command, "-chardev")
    assert values(command, "-add-fd") == ["fd=5,set=0", "fd=6,set=1", "fd=7,set=2"]
    assert [value.split(",")[2] for value in values(command, "-blockdev")] == [
        f"filename=/dev/fdset/{number}" for number in range(3)
    ]


def test_system_calls_are_filtered_with_everything_denied_that_qemu_knows() -> None:
    (sandbox,) = values(line(), "-sandbox")

    assert set(sandbox.split(",")) == {
        "on",
        "obsolete=deny",
        "elevateprivileges=deny",
        "spawn=deny",
        "resourcecontrol=deny",
    }


def test_an_image_of_many_layers_fits_and_each_disk_has_its_place() -> None:
    disks = tuple(
        Disk(serial=f"pack{n}", path=Path(f"/p{n}"), read_only=True) for n in range(MAX_DISKS)
    )
    places = [
        part
        for device in values(line(disks=disks), "-device")
        for part in device.split(",")
        if part.startswith("addr=")
    ]

    assert len(set(places)) == MAX_DISKS
    assert max(int(place[5:].split(".")[0], 16) for place in places) < 0x1F


def test_more_disks_than_fit_are_refused() -> None:
    disks = DISKS * MAX_DISKS
    with pytest.raises(ValueError, match="at most"):
        line(disks=disks)


@pytest.mark.parametrize(
    ("accelerator", "accel", "cpu"),
    [(Accelerator.KVM, "kvm", "host"), (Accelerator.TCG, "tcg", "max")],
)
def test_the_accelerator_decides_the_cpu(accelerator: Accelerator, accel: str, cpu: str) -> None:
    command = line(accelerator=accelerator)

    assert [value.split(",")[0] for value in values(command, "-accel")] == [accel]
    assert values(command, "-cpu") == [cpu]


@pytest.mark.parametrize(
    ("architecture", "machine", "console", "cpu", "generation_id"),
    [
        (Architecture.X86_64, "q35", "ttyS0", "max", True),
        (Architecture.AARCH64, "virt", "ttyAMA0", "max,pauth-impdef=on", False),
    ],
)
def test_each_architecture_has_a_board_with_its_console(
    architecture: Architecture, machine: str, console: str, cpu: str, generation_id: bool
) -> None:
    command = line(architecture=architecture)

    assert values(command, "-machine")[0].split(",")[0] == machine
    assert values(command, "-append")[0].split()[0] == f"console={console}"
    assert values(command, "-cpu") == [cpu]
    assert ("vmgenid,guid=auto" in command) == generation_id


def test_all_but_the_board_is_the_same_for_all_architectures() -> None:
    """Disks stand at the same slots of the same bus, and ports are of the same device."""
    many = tuple(Disk(serial=f"d{n}", path=Path("/x"), read_only=True) for n in range(9))
    amd, arm = (
        values(line(disks=many, architecture=architecture), "-device")
        for architecture in Architecture
    )

    assert [one for one in amd if not one.startswith("vmgenid")] == arm
    assert "addr=0x3.0,multifunction=on" in arm[2]
    assert "addr=0x4.0,multifunction=on" in arm[-1]


def test_sockets_are_named_within_the_run_s_directory() -> None:
    """A unix socket's path has at most 107 bytes; a state directory may be longer."""
    sockets = [given for given in descriptors(spec_of()) if isinstance(given, Listen)]

    assert sockets
    assert all(not socket.path.is_absolute() for socket in sockets)


def test_nothing_of_a_run_is_on_the_kernel_s_command_line() -> None:
    """A template must serve every run."""
    assert "abc" not in values(line(), "-append")[0]


@pytest.mark.parametrize(
    ("memory_file", "is_resumed", "share"),
    [(Path("/s/memory"), False, "on"), (None, True, "off")],
    ids=["saved", "resumed"],
)
def test_memory_in_a_file_is_shared_with_it_only_where_it_is_to_be_saved(
    memory_file: Path | None, is_resumed: bool, share: str
) -> None:
    command = command_line(
        "/usr/bin/qemu",
        dataclasses.replace(spec_of(*DISKS), memory_file=memory_file),
        vmlinux=Path("/g/vmlinux"),
        initramfs=Path("/g/initramfs"),
        accelerator=Accelerator.TCG,
        architecture=Architecture.X86_64,
        is_resumed=is_resumed,
    )

    [memory] = values(command, "-object")
    assert memory.startswith("memory-backend-file,id=ram,size=768M,")
    assert memory.endswith(f",share={share}")
    assert "memory-backend=ram" in values(command, "-machine")
    assert ("-incoming" in command) == is_resumed
    assert "/s/memory" not in memory, "the launcher hands it over"


@pytest.mark.parametrize("is_resumed", [False, True])
def test_memory_without_a_file_has_the_name_by_which_it_is_saved(is_resumed: bool) -> None:
    command = command_line(
        "/usr/bin/qemu",
        spec_of(*DISKS),
        vmlinux=Path("/g/vmlinux"),
        initramfs=Path("/g/initramfs"),
        accelerator=Accelerator.TCG,
        architecture=Architecture.X86_64,
        is_resumed=is_resumed,
        has_memory_file=False,
    )

    assert values(command, "-object") == ["memory-backend-ram,id=ram,size=768M"]
    assert "memory-backend=ram" in values(command, "-machine")


def test_the_state_of_a_resumed_machine_is_the_last_descriptor() -> None:
    spec = dataclasses.replace(
        spec_of(*DISKS), ports=(HostPort(name="lns.bind0", socket="bind0.sock"),)
    )
    saved = SavedMachine(memory=Path("/s/memory"), state=Path("/s/state"))

    given = descriptors(spec, saved)
    assert given[-1] == Read(Path("/s/state"))
    assert state_descriptor(spec) == 3 + len(given) - 1
