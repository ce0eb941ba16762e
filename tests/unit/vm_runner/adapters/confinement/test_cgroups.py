"""Cgroups of VMMs, in folders that play the kernel's."""

import os
from pathlib import Path

import pytest

from services.core.errors import VmFailed
from services.vm_runner.adapters.confinement.cgroups import (
    CgroupLimits,
    CgroupPlace,
    Cgroups,
    find_place,
    limit_files,
)

LIMITS = CgroupLimits(memory_bytes=512 << 20, cpu_millis=1500, pids=130)


class Kernel:
    """Mounted hierarchies and a process in them, as folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.proc.mkdir()
        self._mounts = ["22 1 8:1 / / rw,relatime - ext4 /dev/vda rw"]
        self._groups: list[str] = []
        self._write()

    def _write(self) -> None:
        (self.proc / "mountinfo").write_text("\n".join(self._mounts) + "\n")
        (self.proc / "cgroup").write_text("\n".join(self._groups) + "\n")

    def unified(self, own: str, *, controllers: str = "cpu memory pids io") -> Path:
        """Mounts version 2 with every group on the way to `own`; returns its top."""
        top = self.root / "unified"
        self._mounts.append(f"30 22 0:26 / {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw")
        self._groups.append(f"0::{own}")
        group = top
        for part in Path(own).parts:
            group = group / part.strip("/")
            group.mkdir(exist_ok=True)
            (group / "cgroup.controllers").write_text(controllers)
            (group / "cgroup.subtree_control").write_text("")
            (group / "cgroup.procs").write_text("")
        self._write()
        return top

    def version_1(self, name: str, own: str, *, root: str = "/") -> Path:
        """Mounts a controller of version 1; returns its top."""
        top = self.root / f"v1 {name}"
        escaped = str(top).replace(" ", "\\040")
        self._mounts.append(f"31 22 0:27 {root} {escaped} rw - cgroup cgroup rw,{name}")
        self._groups.append(f"5:{name}:{own}")
        (top / own.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self._write()
        return top

    def place(self, wanted: Path | None = None, *, is_root: bool = True) -> CgroupPlace | None:
        return find_place(wanted, is_root=is_root, proc=self.proc, is_delegated=self.is_delegated)

    delegated: Path | None = None

    def is_delegated(self, group: Path) -> bool:
        return group == self.delegated


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Folders that behave like the kernel's where the code depends on it.

    Groups are made with their files in them and removed with them; controllers that are switched on
    add up.
    """
    plain_write, plain_rmdir = Path.write_text, Path.rmdir

    def write(path: Path, text: str) -> int:
        if path.name == "cgroup.subtree_control" and text.startswith("+"):
            return plain_write(path, f"{path.read_text()} {text[1:]}")
        return plain_write(path, text)

    def rmdir(path: Path) -> None:
        for file in path.iterdir():
            file.unlink()
        plain_rmdir(path)

    kernel = Kernel(tmp_path)
    monkeypatch.setattr(Path, "write_text", write)
    monkeypatch.setattr(Path, "rmdir", rmdir)
    return kernel


def test_limits_of_version_2_are_written_as_the_kernel_reads_them() -> None:
    assert dict(limit_files(2, "cpu", LIMITS)) == {"cpu.max": "150000 100000"}
    assert dict(limit_files(2, "memory", LIMITS)) == {
        "memory.max": "536870912",
        "memory.oom.group": "1",
    }
    assert dict(limit_files(2, "pids", LIMITS)) == {"pids.max": "130"}


def test_limits_of_version_1_are_written_as_the_kernel_reads_them() -> None:
    assert limit_files(1, "cpu", LIMITS) == (
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "150000"),
    )
    assert dict(limit_files(1, "memory", LIMITS)) == {"memory.limit_in_bytes": "536870912"}
    assert dict(limit_files(1, "pids", LIMITS)) == {"pids.max": "130"}


def test_root_makes_groups_at_the_top_of_version_2(kernel: Kernel) -> None:
    top = kernel.unified("/user.slice/session-1.scope")

    place = kernel.place()

    assert place == CgroupPlace(version=2, folders=dict.fromkeys(("cpu", "memory", "pids"), top))
    assert [entry.name for entry in top.iterdir() if entry.name.startswith("lns")] == []


def test_a_user_uses_only_what_was_delegated(kernel: Kernel) -> None:
    kernel.unified("/user.slice/session-1.scope")

    assert kernel.place(is_root=False) is None


@pytest.mark.parametrize("is_root", [True, False])
def test_a_service_leaves_a_delegated_group_for_one_below_it(kernel: Kernel, is_root: bool) -> None:
    own = kernel.unified("/system.slice/lns.service") / "system.slice" / "lns.service"
    kernel.delegated = own
    (own / "cgroup.procs").write_text("41\n")

    place = kernel.place(is_root=is_root)

    assert place is not None
    assert set(place.folders.values()) == {own}
    assert (own / "service" / "cgroup.procs").read_text() == "41"


def test_a_service_that_starts_in_the_group_it_left_for_uses_the_one_above(kernel: Kernel) -> None:
    own = kernel.unified("/lns.service/service") / "lns.service"
    kernel.delegated = own

    place = kernel.place(is_root=False)

    assert place is not None
    assert set(place.folders.values()) == {own}


def test_the_settings_name_the_folder(kernel: Kernel) -> None:
    wanted = kernel.unified("/elsewhere") / "elsewhere"

    place = kernel.place(wanted, is_root=False)

    assert place is not None
    assert set(place.folders.values()) == {wanted}


def test_only_controllers_that_are_handed_on_are_used(kernel: Kernel) -> None:
    kernel.unified("/", controllers="memory io")

    place = kernel.place()

    assert place is not None
    assert set(place.folders) == {"memory"}


def test_hierarchies_of_version_1_are_used_below_the_service_s_own_groups(kernel: Kernel) -> None:
    kernel.unified("/", controllers="")
    memory = kernel.version_1("memory", "/session/abc")
    pids = kernel.version_1("pids", "/")

    place = kernel.place(is_root=False)

    assert place == CgroupPlace(version=1, folders={"memory": memory / "session/abc", "pids": pids})


def test_in_a_container_a_group_s_path_counts_from_what_is_mounted(kernel: Kernel) -> None:
    top = kernel.version_1("memory", "/docker/c1/x", root="/docker/c1")
    (top / "x").mkdir()

    place = kernel.place()

    assert place == CgroupPlace(version=1, folders={"memory": top / "x"})


def test_where_nothing_can_be_made_no_group_exists(kernel: Kernel) -> None:
    kernel.version_1("freezer", "/")

    assert kernel.place() is None
    assert find_place(is_root=True, proc=kernel.root / "nothing") is None


def test_a_group_is_made_with_its_limits_and_removed(kernel: Kernel) -> None:
    top = kernel.unified("/")
    cgroups = Cgroups(kernel.place())

    groups = cgroups.make("r1", LIMITS)

    assert groups == (top / "lns-r1",)
    assert (top / "lns-r1" / "memory.max").read_text() == "536870912"
    assert (top / "lns-r1" / "cpu.max").read_text() == "150000 100000"
    assert (top / "lns-r1" / "pids.max").read_text() == "130"
    cgroups.remove("r1")
    assert not (top / "lns-r1").exists()
    cgroups.remove("r1")  # a second time is no error


def test_of_version_1_a_vmm_joins_a_group_for_each_controller(kernel: Kernel) -> None:
    memory, pids = kernel.version_1("memory", "/"), kernel.version_1("pids", "/")

    groups = Cgroups(kernel.place()).make("r1", LIMITS)

    assert set(groups) == {memory / "lns-r1", pids / "lns-r1"}


def test_a_group_that_cannot_be_made_fails_the_start_and_leaves_nothing(kernel: Kernel) -> None:
    """Rather no run than one without limits."""
    top = kernel.version_1("cpu", "/")
    place = CgroupPlace(version=1, folders={"cpu": top, "pids": top / "missing"})

    with pytest.raises(VmFailed, match="cgroup"):
        Cgroups(place).make("r1", LIMITS)

    assert list(top.iterdir()) == []


def test_without_a_place_there_is_nothing_to_join() -> None:
    assert Cgroups(None).make("r1", LIMITS) == ()
    Cgroups(None).remove("r1")


def test_a_group_that_is_still_in_use_is_logged_and_left(
    tmp_path: Path, log_entries: list[dict[str, object]]
) -> None:
    (tmp_path / "lns-r1" / "below").mkdir(parents=True)

    Cgroups(CgroupPlace(version=2, folders={"memory": tmp_path})).remove("r1")

    assert [entry["event"] for entry in log_entries] == ["cgroup_not_removed"]


def test_groups_that_nobody_removed_go_when_they_are_old(kernel: Kernel) -> None:
    """A new one may be another service's, whose VMM is about to join."""
    top = kernel.unified("/")
    cgroups = Cgroups(kernel.place())
    for name in ("old", "new"):
        cgroups.make(name, LIMITS)
    (top / "other-old").mkdir()
    for path in (top / "lns-old", top / "other-old"):
        os.utime(path, (1, 1))

    cgroups.sweep()

    assert {path.name for path in top.iterdir() if path.is_dir()} == {"lns-new", "other-old"}
