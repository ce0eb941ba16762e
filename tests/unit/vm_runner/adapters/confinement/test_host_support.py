"""What this host permits, found with a script that plays the launcher; what each VMM is given."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from services.core.errors import HostUnready
from services.vm_runner.adapters.confinement.cgroups import CgroupLimits, CgroupPlace, Cgroups
from services.vm_runner.adapters.confinement.confinement import (
    Confinement,
    VmmStart,
    cgroup_limits,
    device_group,
)
from services.vm_runner.adapters.confinement.host_support import HostSupport
from services.vm_runner.adapters.confinement.measures import Footing, Isolation, ProgramFiles
from services.vm_runner.adapters.confinement.switches import Code
from services.vm_runner.machines import BootFiles, Disk, MachineSpec
from services.vm_runner.vmm_options import ConfinementMode, UserRange

USERS = UserRange(first=1000, count=100)
PROGRAM = Path("/usr/bin/qemu")
FILES = ProgramFiles(code=(Code(PROGRAM, PROGRAM),), data=())


def refuses(switch: str, said: str) -> str:
    return f'case " $* " in *" {switch} "*) echo "lns-confine: {said}" >&2; exit 125;; esac'


REFUSES_NAMESPACES = refuses("--isolate", "clone: Operation not permitted")
REFUSES_USERS = refuses("--user", "setgroups: Operation not permitted")

Support = Callable[..., HostSupport]


@pytest.fixture
def support(tmp_path: Path) -> Support:
    def make(
        script: str = "",
        *,
        users: UserRange | None = USERS,
        mode: ConfinementMode = ConfinementMode.AUTO,
    ) -> HostSupport:
        launcher = tmp_path / "launcher"
        launcher.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n{script}\nexit 0\n')
        launcher.chmod(0o755)
        return HostSupport(launcher=launcher, mode=mode, users=users)

    return make


@pytest.mark.parametrize("users", [USERS, None])
async def test_a_host_that_permits_it_gives_namespaces_of_users_too(
    support: Support, users: UserRange | None
) -> None:
    found = support(users=users)

    expected = Footing(isolation=Isolation.USER_NAMESPACE, users=users)
    assert await found.find(PROGRAM, FILES) == expected
    assert found.obstacle == ""


async def test_root_has_the_other_namespaces_where_there_are_none_of_users(
    support: Support,
) -> None:
    found = support(refuses("--user-namespace", "user namespace: No space left on device"))

    assert await found.find(PROGRAM, FILES) == Footing(isolation=Isolation.NAMESPACES, users=USERS)
    assert found.obstacle == "user namespace: No space left on device"


async def test_it_is_found_out_by_starting_the_program_and_once(
    support: Support, tmp_path: Path
) -> None:
    found = support()
    await found.find(PROGRAM, FILES)
    await found.find(PROGRAM, FILES)

    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("--wait --user 1000 100 --isolate --user-namespace --code")
    assert call.endswith(f"-- {PROGRAM} --version")


@pytest.mark.parametrize("users", [USERS, None])
async def test_a_host_without_namespaces_gives_the_rest_and_says_why(
    support: Support, users: UserRange | None
) -> None:
    found = support(REFUSES_NAMESPACES, users=users)

    assert await found.find(PROGRAM, FILES) == Footing(isolation=Isolation.NONE, users=users)
    assert found.obstacle == "clone: Operation not permitted"


async def test_a_program_whose_files_are_not_known_gets_no_view(support: Support) -> None:
    found = support()

    assert (await found.find(PROGRAM, ValueError("a script"))).isolation is Isolation.NONE
    assert found.obstacle == "a script"


async def test_settings_that_require_namespaces_refuse_a_host_without(support: Support) -> None:
    found = support(REFUSES_NAMESPACES, mode=ConfinementMode.REQUIRED)

    with pytest.raises(HostUnready, match="not permitted") as refused:
        await found.find(PROGRAM, FILES)

    assert "vm_runner.confinement" in refused.value.hint


async def test_root_never_starts_a_vmm_as_root(support: Support) -> None:
    found = support(REFUSES_USERS)

    with pytest.raises(HostUnready, match="setgroups") as refused:
        await found.find(PROGRAM, FILES)

    assert "CAP_SETUID" in refused.value.hint


async def test_a_launcher_that_was_not_built_is_named(tmp_path: Path) -> None:
    launcher = tmp_path / "none"
    found = HostSupport(launcher=launcher, mode=ConfinementMode.AUTO, users=None)

    with pytest.raises(HostUnready, match=str(launcher)) as refused:
        await found.find(PROGRAM, FILES)

    assert refused.value.hint == "make -C services/vm_runner/confine"


def confinement(support: HostSupport, cgroups: Cgroups) -> Confinement:
    return Confinement(launcher=Path("/launcher"), support=support, cgroups=cgroups)


@pytest.mark.parametrize(
    ("script", "place", "missing"),
    [
        (REFUSES_NAMESPACES, None, ["namespaces and a mount view: ", "cgroups: none"]),
        (REFUSES_NAMESPACES, "tmp", ["namespaces and a mount view: "]),
    ],
)
async def test_the_doctor_hears_what_holds_and_what_is_missing(
    support: Support, tmp_path: Path, script: str, place: str | None, missing: list[str]
) -> None:
    folders = CgroupPlace(version=2, folders={"cpu": tmp_path, "memory": tmp_path})
    cgroups = Cgroups(folders if place else None)

    report = await confinement(support(script), cgroups).report(PROGRAM)

    assert all(said.startswith(start) for said, start in zip(report.missing, missing, strict=True))
    assert "a user" in report.detail
    assert ("cgroups v2: cpu, memory" in report.detail) is (place is not None)


async def test_a_start_has_the_size_of_its_disk_its_cgroup_and_its_command(
    support: Support, tmp_path: Path
) -> None:
    disk = tmp_path / "writable.img"
    disk.write_bytes(bytes(5000))
    made = confinement(
        support(REFUSES_NAMESPACES), Cgroups(CgroupPlace(version=2, folders={"pids": tmp_path}))
    )
    spec = MachineSpec(
        run_id="r1",
        directory=tmp_path,
        vcpus=2,
        memory_mib=256,
        disks=(
            Disk(serial="pack", path=tmp_path / "huge", read_only=True),
            Disk(serial="writable", path=disk, read_only=False),
        ),
    )
    boot = BootFiles(vmlinux=Path("/k"), initramfs=Path("/i"), release="6")
    start = VmmStart(spec=spec, boot=boot, descriptors=(), device=None, command=("/q", "-x"))

    line = " ".join(await made.launch_line(await made.ground(PROGRAM), start))

    assert line.startswith("/launcher --pid-file")
    assert line.endswith("-- /q -x")
    assert "--limit fsize 5000 " in line
    assert f"--cgroup {tmp_path}/lns-r1 " in line


async def test_a_start_without_its_device_is_refused_by_name(
    support: Support, tmp_path: Path
) -> None:
    made = confinement(support(REFUSES_NAMESPACES), Cgroups(None))
    spec = MachineSpec(run_id="r", directory=tmp_path, vcpus=1, memory_mib=64, disks=())
    boot = BootFiles(vmlinux=Path("/k"), initramfs=Path("/i"), release="6")
    device = tmp_path / "kvm"
    start = VmmStart(spec=spec, boot=boot, descriptors=(), device=device, command=("/q",))

    with pytest.raises(HostUnready, match=str(device)):
        await made.launch_line(await made.ground(PROGRAM), start)


def spec_of(*, vcpus: int, cpu_millis: int = 0, memory_mib: int = 512) -> MachineSpec:
    return MachineSpec(
        run_id="r",
        directory=Path("/"),
        vcpus=vcpus,
        cpu_millis=cpu_millis,
        memory_mib=memory_mib,
        disks=(),
    )


def test_a_vmm_may_take_what_its_guest_was_given_and_room_for_itself() -> None:
    limits = cgroup_limits(spec_of(vcpus=2, cpu_millis=1500))

    assert limits == CgroupLimits(memory_bytes=896 << 20, cpu_millis=1600, pids=130)


def test_without_a_share_the_cpus_are_the_limit() -> None:
    assert cgroup_limits(spec_of(vcpus=3)).cpu_millis == 3100


@pytest.mark.parametrize(
    ("mode", "gid", "group"),
    [(0o660, 105, 105), (0o666, 105, None), (0o600, 0, None), (0o660, 0, None), (0o640, 105, None)],
)
def test_a_device_s_group_counts_where_it_decides(mode: int, gid: int, group: int | None) -> None:
    status = os.stat_result((stat.S_IFCHR | mode, 1, 1, 1, 0, gid, 0, 0, 0, 0))

    assert device_group(status) == group
