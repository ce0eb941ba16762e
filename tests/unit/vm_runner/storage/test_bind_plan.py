"""How binds get into a microVM: ports of the VMM, fields for the agent, their order."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.core.run_plan import VolumeKind, VolumeMount
from services.vm_runner.adapters.confinement.switches import Listen
from services.vm_runner.adapters.qemu.board import Accelerator
from services.vm_runner.adapters.qemu.command_line import (
    command_line,
    descriptors,
)
from services.vm_runner.architectures import Architecture
from services.vm_runner.channel.mounts import GuestBind, GuestVolume, mount_field
from services.vm_runner.channel.wire import Tag
from services.vm_runner.life.guest_plan import guest_config
from services.vm_runner.machines import Disk, HostPort, MachineSpec
from services.vm_runner.records.runs import Run, RunOptions
from services.vm_runner.storage.bind_host import BindSource
from services.vm_runner.storage.binds import Binds, bind_ports
from tests.fakes.egress import SETTINGS
from tests.fakes.vm_outside import FakeBindHost
from tests.support.runs import a_plan


def a_run(*mounts: VolumeMount) -> Run:
    return Run(
        run_id="a" * 32,
        name="r",
        plan=replace(a_plan("true"), volumes=mounts),
        create_time=datetime.now(UTC),
    )


def test_each_port_of_a_machine_has_a_socket_and_a_descriptor_of_its_own() -> None:
    spec = MachineSpec(
        run_id="abc",
        directory=Path("/s/runs/r"),
        vcpus=1,
        memory_mib=256,
        disks=(Disk(serial="writable", path=Path("/w"), read_only=False),),
        ports=(HostPort(name="p0", socket="p0.sock"), HostPort(name="p1", socket="p1.sock")),
    )
    command = command_line(
        "/qemu",
        spec,
        vmlinux=Path("/v"),
        initramfs=Path("/i"),
        accelerator=Accelerator.TCG,
        architecture=Architecture.X86_64,
    )
    given = dict(enumerate(descriptors(spec), start=3))

    devices = [value for name, value in itertools.pairwise(command) if name == "-device"]
    chardevs = [value for name, value in itertools.pairwise(command) if name == "-chardev"]
    assert "virtio-serial-pci,max_ports=4" in devices
    for number, port in enumerate(spec.ports):
        assert f"virtserialport,chardev=port{number},name={port.name}" in devices
        (chardev,) = (value for value in chardevs if f"id=port{number}," in value)
        descriptor = int(chardev.partition("fd=")[2].partition(",")[0])
        assert given[descriptor] == Listen(Path(port.socket))


def test_binds_are_numbered_among_themselves() -> None:
    run = a_run(
        VolumeMount(kind=VolumeKind.NAMED, source="data", target="/d"),
        VolumeMount(kind=VolumeKind.BIND, source="/a", target="/a"),
        VolumeMount(kind=VolumeKind.BIND, source="/b", target="/b"),
    )

    assert [(port.name, port.socket) for port in bind_ports(run)] == [
        ("lns.bind0", "bind0.sock"),
        ("lns.bind1", "bind1.sock"),
    ]


def test_what_lies_below_another_mount_is_mounted_after_it() -> None:
    run = a_run(VolumeMount(kind=VolumeKind.NAMED, source="modules", target="/work/node_modules"))
    binds = tuple(
        GuestBind(port="p", target=target, read_only=False, is_file=False)
        for target in ("/work/node_modules/x", "/work")
    )
    config = guest_config(run, None, binds=binds, pids_limit=1, boundary=SETTINGS)

    targets = [mount.target for mount in config.volumes]
    assert targets == ["/work", "/work/node_modules", "/work/node_modules/x"]


def test_the_agent_is_sent_what_to_mount() -> None:
    volume = GuestVolume(disk="vol0", target="/d", read_only=True)
    bind = GuestBind(port="lns.bind0", target="/ä", read_only=False, is_file=True, user="joe:wheel")

    assert mount_field(volume) == (Tag.VOLUME, b"ro\0vol0\0/d")
    assert mount_field(bind) == (Tag.BIND, "rw\0file\0lns.bind0\0/ä\0joe:wheel".encode())


@pytest.mark.parametrize(
    ("of_run", "by_default", "expected"), [(0, 0, 0), (0, 7, 7), (5, 7, 5), (5, 0, 5)]
)
async def test_each_bind_has_the_rate_of_its_run(
    tmp_path: Path, of_run: int, by_default: int, expected: int
) -> None:
    host = FakeBindHost(sources={one: BindSource(path=Path(one), is_file=False) for one in "ab"})
    mounts = [VolumeMount(kind=VolumeKind.BIND, source=one, target=f"/{one}") for one in "ab"]
    run = replace(a_run(*mounts), options=RunOptions(disk_rate_bytes=of_run))
    binds = Binds(host, default_rate=by_default)

    await binds.look(run)
    await binds.serve(run, tmp_path)

    assert [bind.rate for bind in host.serving.values()] == [expected, expected]
