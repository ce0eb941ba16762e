"""Each measure that confines a VMM, read from the kernel about one that runs."""

import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.vm_runner.adapters.confinement.cgroups import CgroupPlace, find_place
from services.vm_runner.settings import VmSettings
from tests.support.lns_command import Lns

MEMORY_MIB = 256
NAMESPACES = ("ipc", "mnt", "net", "pid", "user", "uts")

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="the services of another user are no root")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vmm:
    """What the kernel says of the VMM of a run that is alive."""

    pid: int
    run_id: str
    directory: Path
    home: Path
    status: Mapping[str, str]
    limits: Mapping[str, tuple[str, str]]
    mounts: tuple[tuple[str, str, frozenset[str]], ...]
    descriptors: Mapping[int, str]
    writable: frozenset[int]

    @property
    def proc(self) -> Path:
        """Its folder in /proc."""
        return Path("/proc", str(self.pid))


def examine(lns: Lns, run_id: str) -> Vmm:
    directory = lns.home / "runs" / run_id
    pid = int((directory / "qemu.pid").read_text())
    proc = Path("/proc", str(pid))
    status = (line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
    limits = (re.split(r"\s{2,}", line) for line in (proc / "limits").read_text().splitlines())
    mounts = (line.split(" ") for line in (proc / "mountinfo").read_text().splitlines())
    descriptors = {int(entry.name): str(entry.readlink()) for entry in (proc / "fd").iterdir()}
    flags = {number: fdinfo(proc, number)["flags"] for number in descriptors}
    return Vmm(
        pid=pid,
        run_id=run_id,
        directory=directory,
        home=lns.home,
        status={pair[0]: pair[1].strip() for pair in status if len(pair) == 2},
        limits={columns[0]: (columns[1], columns[2]) for columns in limits},
        mounts=tuple((part[3], part[4], frozenset(part[5].split(","))) for part in mounts),
        descriptors=descriptors,
        writable=frozenset(number for number, text in flags.items() if int(text, 8) & 3),
    )


def fdinfo(proc: Path, number: int) -> dict[str, str]:
    lines = (proc / "fdinfo" / str(number)).read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def vmm(lns: Lns, image: str) -> Iterator[Vmm]:
    """One VMM for all the tests of this module."""
    name = f"confined-{secrets.token_hex(3)}"
    run_id = lns.ok(
        *("run", "-d", "-q", "--name", name, "-m", str(MEMORY_MIB), image, "--", "sleep", "1000")
    )
    yield examine(lns, run_id)
    lns.ok("rm", "-f", name)


@root_only
def test_its_user_is_its_own_and_no_group_comes_with_it(vmm: Vmm) -> None:
    user = VmSettings.__dataclass_fields__["vmm_user_first"].default + vmm.pid

    assert vmm.status["Uid"].split() == [str(user)] * 4
    assert vmm.status["Gid"].split() == [str(user)] * 4
    assert vmm.status["Groups"] == ""


@pytest.mark.parametrize("kind", ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
def test_it_has_no_capabilities_and_can_get_none(vmm: Vmm, kind: str) -> None:
    assert int(vmm.status[kind], 16) == 0


def test_no_program_gives_it_privileges(vmm: Vmm) -> None:
    assert vmm.status["NoNewPrivs"] == "1"


def test_its_system_calls_are_filtered_by_the_launcher_and_by_qemu(vmm: Vmm) -> None:
    assert vmm.status["Seccomp"] == "2"
    assert int(vmm.status["Seccomp_filters"]) >= 2
    tasks = {path.name: (path / "status").read_text() for path in (vmm.proc / "task").iterdir()}
    assert len(tasks) > 1
    assert all("Seccomp:\t2\n" in text for text in tasks.values())


@pytest.mark.parametrize("kind", NAMESPACES)
def test_its_namespaces_are_its_own(vmm: Vmm, kind: str) -> None:
    own = (vmm.proc / "ns" / kind).readlink()

    assert own != Path("/proc/self/ns", kind).readlink()


def test_it_sees_itself_as_the_only_process(vmm: Vmm) -> None:
    assert vmm.status["NSpid"].split() == [str(vmm.pid), "1"]
    assert not list((vmm.proc / "root").glob("proc/*"))


def test_its_network_has_nothing_but_a_loopback_that_is_down(vmm: Vmm) -> None:
    lines = (vmm.proc / "net" / "dev").read_text().splitlines()[2:]

    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert (
        vmm.proc / "net" / "fib_trie"
    ).read_text() == ""  # an interface that is up has an address
    assert (vmm.proc / "net" / "if_inet6").read_text() == ""
    assert len((vmm.proc / "net" / "unix").read_text().splitlines()) == 1


def test_it_sees_nothing_of_the_state_directory_but_kernel_and_initramfs(vmm: Vmm) -> None:
    ours = {
        target: Path(source).name
        for source, target, _ in vmm.mounts
        if vmm.home.name in Path(source).parts
    }

    assert ours == {"/boot/vmlinux": "vmlinux", "/boot/initramfs": "initramfs"}


def test_every_mount_is_read_only_and_of_what_it_needs(vmm: Vmm) -> None:
    for _, target, options in vmm.mounts:
        assert {"ro", "nosuid"} <= options, target
        assert re.match(r"/$|/boot/|/etc/ld\.so\.cache$|(/usr)?/(lib|share|bin)|/dev/null$", target)
        assert "noexec" in options or re.search(r"\.so[.\d]*$|/bin/qemu", target), target


def test_its_root_holds_what_is_mounted_and_one_device(vmm: Vmm) -> None:
    root = vmm.proc / "root"

    assert {path.name for path in root.iterdir()} <= {"boot", "dev", "etc", "lib", "lib64", "usr"}
    assert [path.name for path in (root / "dev").iterdir()] == ["null"]
    assert [path.name for path in (root / "etc").iterdir()] == ["ld.so.cache"]


def test_its_descriptors_are_its_sockets_and_its_disks(vmm: Vmm) -> None:
    files = {number: Path(text) for number, text in vmm.descriptors.items() if text.startswith("/")}
    disks = {path.name for path in files.values()} - {"null", "qemu.messages"}
    written = {files[number].name for number in files.keys() & vmm.writable}

    assert written == {"null", "qemu.messages", "writable.img"} - (
        set() if 0 in vmm.writable else {"null"}
    )
    # Where it was resumed from a snapshot, its memory is a private copy of what that one saved.
    saved = {"memory"} & disks
    images = {name for name in disks if name.endswith(".cfs")}
    assert disks - {"writable.img"} == {"objects.erofs", *images, *saved}
    others = {
        re.sub(r":.*", "", text)
        for text in set(vmm.descriptors.values()) - set(map(str, files.values()))
    }
    assert others == {"anon_inode", "socket"}


def test_what_it_writes_is_bounded(vmm: Vmm) -> None:
    """Its messages go to a pipe of fixed size; a file grows no further than its disk."""
    assert stat.S_ISFIFO((vmm.directory / "qemu.messages").stat().st_mode)
    assert vmm.descriptors[1] == vmm.descriptors[2] == str(vmm.directory / "qemu.messages")
    size = str((vmm.directory / "writable.img").stat().st_size)
    assert vmm.limits["Max file size"] == (size, size)


def test_limits_hold_for_it(vmm: Vmm) -> None:
    assert vmm.limits["Max core file size"] == ("0", "0")
    assert vmm.limits["Max locked memory"] == ("0", "0")
    assert int(vmm.limits["Max data size"][1]) < (MEMORY_MIB + 2048) << 20
    assert int(vmm.limits["Max open files"][1]) < 4096
    if os.geteuid() == 0:
        assert int(vmm.limits["Max processes"][1]) < 256


def test_it_is_killed_before_others_when_memory_is_short(vmm: Vmm) -> None:
    assert (vmm.proc / "oom_score_adj").read_text() == "500\n"


def test_it_inherits_nothing_of_the_service_s_environment(vmm: Vmm) -> None:
    assert (vmm.proc / "environ").read_bytes() == b""


def test_only_the_service_s_user_can_open_its_sockets(vmm: Vmm) -> None:
    for name in ("channel.sock", "qmp.sock"):
        found = (vmm.directory / name).stat()
        assert stat.S_IMODE(found.st_mode) & 0o077 == 0
        assert found.st_uid == os.geteuid()


def test_its_cgroups_have_the_run_s_limits(lns: Lns, vmm: Vmm) -> None:
    """Where groups may be made; where not, the doctor says so."""
    place = find_place(is_root=os.geteuid() == 0)
    if place is None:
        assert "cgroups: none" in lns.run("doctor").stdout
        return
    for controller, folder in place.folders.items():
        group = folder / f"lns-{vmm.run_id}"
        assert str(vmm.pid) in (group / "cgroup.procs").read_text().split()
        check_limit(controller, group)


def check_limit(controller: str, group: Path) -> None:
    values = {path.name: path.read_text().strip() for path in group.glob(f"{controller}.*max*")}
    values |= {path.name: path.read_text().strip() for path in group.glob("*limit_in_bytes")}
    values |= {path.name: path.read_text().strip() for path in group.glob("cpu.cfs_quota_us")}
    if controller == "memory":
        limit = int(values.get("memory.max") or values["memory.limit_in_bytes"])
        assert MEMORY_MIB << 20 < limit < (MEMORY_MIB + 512) << 20
    elif controller == "cpu":
        quota = int((values.get("cpu.max") or values["cpu.cfs_quota_us"]).split()[0])
        assert 100_000 <= quota <= 120_000
    else:
        assert 64 < int(values["pids.max"]) < 256


def test_two_vmms_are_two_users_in_namespaces_of_their_own(lns: Lns, vmm: Vmm, image: str) -> None:
    """… and the end of one leaves nothing of it behind."""
    run_id = lns.ok("run", "-d", "-q", "-m", str(MEMORY_MIB), image, "--", "sleep", "1000")
    other = examine(lns, run_id)
    groups = groups_of(other)

    assert (other.status["Uid"] != vmm.status["Uid"]) or os.geteuid() != 0
    for kind in NAMESPACES:
        assert (other.proc / "ns" / kind).readlink() != (vmm.proc / "ns" / kind).readlink()
    assert all(group.exists() for group in groups)

    lns.ok("stop", "-t", "1", run_id)
    lns.ok("rm", run_id)

    assert not any(group.exists() for group in groups)
    assert not other.directory.exists()
    assert not alive(other.pid)
    assert f"lns-{run_id}" not in Path("/proc/self/mountinfo").read_text()


def alive(pid: int) -> bool:
    """Whether a process of that number is a VMM, or the rest of one."""
    try:
        return "qemu-system" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def groups_of(vmm: Vmm) -> list[Path]:
    place: CgroupPlace | None = find_place(is_root=os.geteuid() == 0)
    return [folder / f"lns-{vmm.run_id}" for folder in place.folders.values()] if place else []


def test_the_doctor_says_how_vmms_are_confined(lns: Lns) -> None:
    (line,) = (line for line in lns.run("doctor").stdout.splitlines() if " confinement " in line)

    assert "namespaces and a mount view" in line.partition("lacks")[0]
    assert ("a user" in line) is (os.geteuid() == 0)
