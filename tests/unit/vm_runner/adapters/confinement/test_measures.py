"""The measures that confine a VMM, as switches of the launcher."""

import dataclasses
from pathlib import Path
from typing import TypeVar

import pytest

from services.vm_runner.adapters.confinement.measures import (
    Footing,
    Isolation,
    ProgramFiles,
    VmmNeeds,
    boot_paths,
    measures,
)
from services.vm_runner.adapters.confinement.switches import (
    Cgroup,
    Code,
    Data,
    Device,
    Group,
    Isolate,
    Limit,
    Listen,
    OomScore,
    PidFile,
    Read,
    Switch,
    User,
    Write,
    launch_line,
)
from services.vm_runner.vmm_options import UserRange

USERS = UserRange(first=1000, count=100)
ROOT = Footing(isolation=Isolation.USER_NAMESPACE, users=USERS)
ROOT_WITHOUT_USERS = Footing(isolation=Isolation.NAMESPACES, users=USERS)
ROOT_IN_A_CONTAINER = Footing(isolation=Isolation.NONE, users=USERS)
A_USER = Footing(isolation=Isolation.USER_NAMESPACE, users=None)
A_USER_WITHOUT_NAMESPACES = Footing(isolation=Isolation.NONE, users=None)
EVERY_FOOTING = (ROOT, ROOT_WITHOUT_USERS, ROOT_IN_A_CONTAINER, A_USER, A_USER_WITHOUT_NAMESPACES)

PROGRAM = Code(Path("/usr/bin/qemu"), Path("/usr/bin/qemu"))
FIRMWARE = Data(Path("/usr/share/qemu"), Path("/usr/share/qemu"))
NEEDS = VmmNeeds(
    program=ProgramFiles(code=(PROGRAM,), data=(FIRMWARE,)),
    vmlinux=Path("/s/guest/vmlinux"),
    initramfs=Path("/s/guest/initramfs"),
    descriptors=(Listen(Path("qmp.sock")), Read(Path("/s/pack")), Write(Path("/s/disk"))),
    device=None,
    device_group=None,
    vcpus=2,
    memory_mib=512,
    largest_file_bytes=8 << 30,
    cgroups=(Path("/sys/fs/cgroup/lns-r"),),
)
KVM = dataclasses.replace(NEEDS, device=Path("/dev/kvm"), device_group=105)

S = TypeVar("S")


def of_type(kind: type[S], switches: tuple[Switch, ...]) -> list[S]:
    return [switch for switch in switches if isinstance(switch, kind)]


def limits(footing: Footing, needs: VmmNeeds = NEEDS) -> dict[str, int]:
    return {limit.name: limit.value for limit in of_type(Limit, measures(footing, needs))}


def test_a_vmm_of_root_has_namespaces_and_a_user_of_its_own_and_no_group() -> None:
    switches = measures(ROOT, KVM)

    assert of_type(Isolate, switches) == [Isolate(with_users=True)]
    without = measures(ROOT_WITHOUT_USERS, KVM)
    assert of_type(Isolate, without) == [Isolate(with_users=False)]
    assert of_type(User, switches) == [User(1000, 100)]
    assert of_type(Group, switches) == []


def test_a_vmm_of_a_user_is_isolated_by_a_user_namespace_and_keeps_the_user() -> None:
    switches = measures(A_USER, KVM)

    assert of_type(Isolate, switches) == [Isolate(with_users=True)]
    assert of_type(User, switches) == []
    assert of_type(Group, switches) == []


def test_a_vmm_sees_its_program_its_kernel_and_no_disk() -> None:
    switches = measures(ROOT, NEEDS)

    assert of_type(Code, switches) == [PROGRAM]
    assert of_type(Data, switches) == [
        FIRMWARE,
        Data(NEEDS.vmlinux, Path("/boot/vmlinux")),
        Data(NEEDS.initramfs, Path("/boot/initramfs")),
    ]
    assert of_type(Device, switches) == [Device(Path("/dev/null"))]


def test_a_vmm_sees_the_hypervisor_s_device_where_it_uses_it() -> None:
    assert Device(Path("/dev/kvm")) in measures(ROOT, KVM)
    assert Device(Path("/dev/kvm")) in measures(A_USER, KVM)


def test_without_a_view_the_device_s_group_is_the_only_one() -> None:
    assert of_type(Group, measures(ROOT_IN_A_CONTAINER, KVM)) == [Group(105)]
    assert of_type(Group, measures(ROOT_IN_A_CONTAINER, NEEDS)) == []
    assert of_type(Group, measures(A_USER_WITHOUT_NAMESPACES, KVM)) == []


@pytest.mark.parametrize("footing", [ROOT_IN_A_CONTAINER, A_USER_WITHOUT_NAMESPACES])
def test_without_a_view_kernel_and_initramfs_are_descriptors_behind_the_others(
    footing: Footing,
) -> None:
    switches = measures(footing, NEEDS)
    given = [switch for switch in switches if isinstance(switch, Listen | Read | Write)]

    assert given == [*NEEDS.descriptors, Read(NEEDS.vmlinux), Read(NEEDS.initramfs)]
    assert boot_paths(footing, descriptors=3) == (
        Path("/proc/self/fd/6"),
        Path("/proc/self/fd/7"),
    )
    assert not of_type(Code, switches) + of_type(Data, switches) + of_type(Device, switches)


def test_with_a_view_kernel_and_initramfs_are_opened_where_it_has_them() -> None:
    vmlinux, initramfs = boot_paths(ROOT, descriptors=3)
    targets = [data.target for data in of_type(Data, measures(ROOT, NEEDS))]

    assert {vmlinux, initramfs} <= set(targets)


@pytest.mark.parametrize("footing", EVERY_FOOTING)
def test_every_vmm_has_limits_a_recorded_pid_and_a_cgroup(footing: Footing) -> None:
    switches = measures(footing, NEEDS)

    assert limits(footing)["core"] == 0
    assert limits(footing)["memlock"] == 0
    assert limits(footing)["fsize"] == 8 << 30
    assert 512 << 20 < limits(footing)["data"] < 4 << 30
    assert limits(footing)["nofile"] > 1024
    assert of_type(PidFile, switches) == [PidFile(Path("qemu.pid"))]
    assert of_type(Cgroup, switches) == [Cgroup(Path("/sys/fs/cgroup/lns-r"))]
    assert of_type(OomScore, switches)[0].score > 0


def test_only_a_user_of_its_own_has_its_threads_counted() -> None:
    assert limits(ROOT)["nproc"] > NEEDS.vcpus
    assert limits(ROOT_IN_A_CONTAINER)["nproc"] > NEEDS.vcpus
    assert "nproc" not in limits(A_USER)


def test_a_vmm_without_a_writable_disk_can_make_no_file_grow() -> None:
    assert limits(ROOT, dataclasses.replace(NEEDS, largest_file_bytes=0))["fsize"] == 0


@pytest.mark.parametrize(("first", "count"), [(0, 10), (1000, 0), (-5, 10), ((1 << 32) - 10, 10)])
def test_a_range_of_users_has_no_root_and_ends_within_32_bits(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="range of users"):
        UserRange(first=first, count=count)


SWITCHES: list[tuple[Switch, str]] = [
    (Isolate(with_users=False), "--isolate"),
    (Isolate(with_users=True), "--isolate --user-namespace"),
    (User(7, 9), "--user 7 9"),
    (Group(5), "--group 5"),
    (OomScore(500), "--oom-score 500"),
    (Cgroup(Path("/c")), "--cgroup /c"),
    (Limit("core", 0), "--limit core 0"),
    (Data(Path("/a"), Path("/b")), "--data /a /b"),
    (Code(Path("/a"), Path("/b")), "--code /a /b"),
    (Device(Path("/dev/null")), "--device /dev/null"),
    (Read(Path("/a")), "--read /a"),
    (Write(Path("/a")), "--write /a"),
    (Listen(Path("a.sock")), "--listen a.sock"),
    (PidFile(Path("pid")), "--pid-file pid"),
]


def test_switches_stand_before_the_program_in_their_order() -> None:
    line = launch_line(Path("/l"), (switch for switch, _ in SWITCHES), ("/q", "--user", "x"))

    expected = " ".join(text for _, text in SWITCHES)
    assert " ".join(line) == f"/l {expected} -- /q --user x"
