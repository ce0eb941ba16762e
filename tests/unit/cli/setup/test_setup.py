"""`lns setup` with real programs in place of the distribution's: what each step does and says."""

import hashlib
import json
import os
import platform
import stat
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.app import dispatch
from cli.commands.doctor import missing_steps
from cli.setup.apt import Apt
from cli.setup.machine import Machine
from cli.setup.steps import Outcome, Result, take
from cli.setup.vmm import VmmStep
from services.chassis.guest_kernels import kernel_folders
from services.core.errors import HostUnready

PACKAGE = "linux-image-6.12.9+deb12-cloud-amd64"
OLDER = "linux-image-6.12.8+deb12-cloud-amd64"
RELEASE = "6.12.9+deb12-cloud-amd64"
OWN = platform.machine()


def bzimage(release: str) -> bytes:
    """A kernel as far as its header goes, in the form of the x86 boot protocol."""
    image = bytearray(0x400)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x100)
    image[0x300 : 0x300 + len(release) + 10] = release.encode() + b" (builder)"
    return bytes(image)


def package(folder: Path, *, release: str = RELEASE) -> Path:
    """A Debian package with a kernel and a module, made by dpkg-deb."""
    tree = folder / "tree"
    for name, content in {
        "DEBIAN/control": f"Package: linux-image-{release}\nVersion: 1\nArchitecture: all\n"
        "Maintainer: nobody <nobody@localhost>\nDescription: a kernel\n",
        f"boot/vmlinuz-{release}": "kernel",
        f"lib/modules/{release}/kernel/fs/erofs.ko": "module",
    }.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tree / "DEBIAN").chmod(0o755)
    target = folder / f"linux-image-{release}_1_amd64.deb"
    subprocess.run(
        ["dpkg-deb", "--build", tree, target], check=True, capture_output=True, timeout=60
    )
    return target


class Distribution:
    """A folder of programs that stands for the machine's: apt answers as it is told to."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.home = folder / "home"
        self.home.mkdir()
        self.calls = folder / "calls"
        self.calls.touch()
        for name in ("sh", "cp", "dpkg-deb", "tar", "touch", "chmod", "rm", "cat"):
            found = next(path for at in ("/usr/bin", "/bin") if (path := Path(at) / name).exists())
            (self.bin / name).symlink_to(found)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "LNS_HOME": str(self.home / "state"),
            "PATH": str(self.bin),
            "XDG_CACHE_HOME": str(self.home / "cache"),
        }

    @property
    def kernels(self) -> Path:
        return self.home / "cache" / "lns" / "kernel"

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n{script}\n')
        path.chmod(0o755)

    def apt(self, get: str, *known: str) -> None:
        self.program("apt-get", get)
        lines = "".join(f"echo '{name} - Linux'\n" for name in known)
        self.program("apt-cache", lines)

    def called(self, program: str) -> list[str]:
        lines = self.calls.read_text().splitlines()
        return [line for line in lines if line.startswith(f"{program} ")]


@pytest.fixture
def machine(tmp_path: Path) -> Distribution:
    return Distribution(tmp_path)


def setup(
    machine: Distribution, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, Sequence[dict[str, str]]]:
    """Runs the command; returns its exit code and how the steps ended."""
    code = dispatch(["setup", "--format", "json", *arguments], machine.environment)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def serve_package(machine: Distribution, tmp_path: Path) -> Path:
    """Has apt serve a kernel; returns its package."""
    made = package(tmp_path)
    machine.apt(
        f'for one; do last=$one; done; [ "$last" = {PACKAGE} ] && cp {made} .', OLDER, PACKAGE
    )
    return made


def test_the_distributions_newest_kernel_is_fetched_unpacked_and_recorded_once(
    machine: Distribution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = serve_package(machine, tmp_path)
    digest = f"sha256:{hashlib.sha256(made.read_bytes()).hexdigest()}"

    code, (first,) = setup(machine, capsys, "kernel", "--yes")
    again, (second,) = setup(machine, capsys, "kernel")

    assert (code, first["result"]) == (0, "done")
    assert RELEASE in first["detail"]
    assert digest in first["detail"]
    folder = machine.kernels / RELEASE
    assert json.loads((folder / "lns-kernel.json").read_text())["digest"] == digest
    assert (folder / "lib" / "modules" / RELEASE / "kernel" / "fs" / "erofs.ko").exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert (again, second["result"], second["detail"]) == (0, "already", first["detail"])
    assert len(machine.called("apt-get")) == 1
    assert [path.name for path in machine.kernels.iterdir()] == [RELEASE]


def test_an_update_takes_what_is_newer_and_nothing_else(
    machine: Distribution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve_package(machine, tmp_path)
    older = machine.kernels / "6.12.8+deb12-cloud-amd64" / "boot"
    older.mkdir(parents=True)
    (older / "vmlinuz-6.12.8+deb12-cloud-amd64").touch()

    _, (without,) = setup(machine, capsys, "kernel", "--yes")
    _, (updated,) = setup(machine, capsys, "kernel", "--yes", "--update")
    _, (again,) = setup(machine, capsys, "kernel", "--yes", "--update")

    assert [one["result"] for one in (without, updated, again)] == ["already", "done", "already"]
    assert RELEASE in updated["detail"]


def test_nothing_is_changed_where_nobody_can_be_asked(
    machine: Distribution,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve_package(machine, tmp_path)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        code, (step,) = setup(machine, capsys, "kernel")

    assert (code, step["result"]) == (1, "failed")
    assert "nobody can be asked" in step["detail"]
    assert "--yes" in step["remedy"]
    assert machine.called("apt-get") == []


@pytest.mark.parametrize(
    ("get", "known", "said"),
    [
        ("exit 0", (), "apt knows no linux-image-6.12.*-cloud-"),
        ('echo "E: no network" >&2; exit 100', (), "apt could not: no network"),
        ('echo "E: no such file" >&2; exit 100', (PACKAGE,), "apt could not: no such file"),
        ("echo nothing >x.deb", (PACKAGE,), "dpkg-deb could not"),
    ],
)
def test_a_kernel_that_cannot_be_had_is_said_with_the_reason_and_leaves_nothing(
    machine: Distribution,
    capsys: pytest.CaptureFixture[str],
    get: str,
    known: tuple[str, ...],
    said: str,
) -> None:
    machine.apt(get, *known)

    code, (step,) = setup(machine, capsys, "kernel", "--yes")

    assert (code, step["result"]) == (1, "failed")
    assert said in step["detail"]
    assert step["remedy"]
    assert not machine.kernels.exists() or list(machine.kernels.iterdir()) == []


def test_a_named_kernel_is_the_one_that_runs_get_until_an_update(
    machine: Distribution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve_package(machine, tmp_path)
    setup(machine, capsys, "kernel", "--yes")
    own = tmp_path / "own"
    own.write_bytes(bzimage("6.9.1-mine"))

    _, (taken,) = setup(machine, capsys, "kernel", "--yes", "--kernel", str(own))
    _, (again,) = setup(machine, capsys, "kernel", "--yes", "--kernel", str(own))
    (chosen,) = kernel_folders(machine.kernels)
    images = [path.name for path in chosen.glob("boot/*")]
    _, (left,) = setup(machine, capsys, "kernel", "--yes", "--update")

    assert [one["result"] for one in (taken, again, left)] == ["done", "already", "done"]
    assert "6.9.1-mine, chosen, sha256:" in taken["detail"]
    assert images == ["vmlinuz-6.9.1-mine"]
    assert (chosen.parent / "named").exists()
    assert left["detail"].startswith(f"{RELEASE}, sha256:")


def test_a_named_package_and_the_modules_beside_a_named_image_are_taken(
    machine: Distribution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = package(tmp_path, release="6.8.0-x")
    boot = tmp_path / "system" / "boot"
    modules = tmp_path / "system" / "lib" / "modules" / "6.9.1-mine"
    boot.mkdir(parents=True)
    modules.mkdir(parents=True)
    (boot / "vmlinuz").write_bytes(bzimage("6.9.1-mine"))

    packaged, _ = setup(machine, capsys, "kernel", "-y", "--kernel", str(made))
    (first,) = kernel_folders(machine.kernels)
    assert (first / "lib/modules/6.8.0-x/kernel/fs/erofs.ko").exists()
    image, _ = setup(machine, capsys, "kernel", "-y", "--kernel", str(boot / "vmlinuz"))
    (second,) = kernel_folders(machine.kernels)

    assert (packaged, image) == (0, 0)
    assert (second / "lib/modules/6.9.1-mine").resolve() == modules


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no kernel"),
        (b"#!/bin/sh\n", "is no kernel"),
        (b"!<arch>\ndebian-binary\n", "dpkg-deb could not"),
        (bytes(0x202) + b"HdrS", ""),
        (bzimage("../../evil"), ""),
    ],
)
def test_a_file_is_judged_by_its_bytes_and_its_release_leads_nowhere_else(
    machine: Distribution,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    said: str,
) -> None:
    own = tmp_path / "vmlinuz-6.12"
    own.write_bytes(content)

    code, (step,) = setup(machine, capsys, "kernel", "-y", "--kernel", str(own))

    assert (code != 0) == bool(said)
    assert said in step["detail"]
    named = machine.kernels / "named"
    assert not named.exists() or [path.name[:2] for path in named.iterdir()] == ["0-"]


def test_a_digest_that_is_stated_must_be_the_files(
    machine: Distribution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "vmlinuz"
    own.write_bytes(bzimage("6.9.1"))
    digest = f"sha256:{hashlib.sha256(own.read_bytes()).hexdigest()}"
    take_it = ("kernel", "-y", "--kernel", str(own), "--digest")

    refused, (step,) = setup(machine, capsys, *take_it, f"sha256:{'0' * 64}")
    taken, _ = setup(machine, capsys, *take_it, digest)
    malformed, _ = setup(machine, capsys, *take_it, "sha256:00")

    assert (refused, taken, malformed) == (1, 0, 1)
    assert digest in step["detail"]


def test_what_foreign_guests_need_is_kept_apart_from_what_is_the_machine_s(
    machine: Distribution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign, debian = ("aarch64", "arm64") if OWN == "x86_64" else ("x86_64", "amd64")
    release = f"6.12.9+deb12-cloud-{debian}"
    made = package(tmp_path, release=release)
    get = f'case "$*" in *download*) cp {made} .;; esac'
    machine.apt(get, f"linux-image-{release}")
    for program in (f"qemu-system-{foreign}", "mkfs.ext4"):
        machine.program(program, "")

    code, steps = setup(machine, capsys, "foreign", "--yes")
    _, again = setup(machine, capsys, "foreign")

    assert code == 0
    assert [(one["step"], one["result"]) for one in steps] == [
        ("foreign qemu", "already"),
        ("foreign kernel", "done"),
    ]
    assert [one["result"] for one in again] == ["already", "already"]
    assert (machine.kernels / "foreign" / release / "boot" / f"vmlinuz-{release}").exists()
    assert not any(folder.name == release for folder in kernel_folders(machine.kernels))
    calls = machine.called("apt-get") + machine.called("apt-cache")
    lists = machine.kernels / "foreign" / ".apt"
    assert calls
    for call in calls:
        assert f"APT::Architecture={debian} " in call
        assert f"Dir::State={lists} " in call
        assert f"Dir::State::status={lists}/status " in call


def test_an_emulator_that_is_missing_is_installed(machine: Distribution) -> None:
    machine.apt("exit 0")

    (outcome,) = take(
        [VmmStep(at(machine, is_root=False), foreign="aarch64")],
        consent=lambda _: True,
        note=lambda _: None,
    )

    assert "qemu-system-arm" in outcome.remedy
    assert outcome.step == "foreign qemu"


def test_qemu_comes_from_the_distribution_and_stays(machine: Distribution) -> None:
    install = "".join(
        f"printf '#!/bin/sh\\n' >{machine.bin}/{one}; chmod 755 {machine.bin}/{one}\n"
        for one in ("qemu-system-x86_64", "mkfs.ext4")
    )
    machine.apt(install)

    first = take_vmm(machine, is_root=True)
    second = take_vmm(machine, is_root=True)

    assert (first.result, second.result) == (Result.DONE, Result.ALREADY)
    (call,) = machine.called("apt-get")
    assert "--no-install-recommends install qemu-system-" in call


def test_without_root_the_command_to_type_is_said(machine: Distribution) -> None:
    machine.apt("exit 0")

    outcome = take_vmm(machine, is_root=False)

    assert outcome.result is Result.FAILED
    assert "needs root" in outcome.detail
    assert "`sudo apt-get install --no-install-recommends qemu-system-x86" in outcome.remedy
    assert machine.called("apt-get") == []


def test_without_root_old_lists_of_packages_are_refreshed_by_the_user(
    machine: Distribution,
) -> None:
    machine.apt("exit 100")

    with pytest.raises(HostUnready, match="lists of packages") as caught:
        Apt(at(machine, is_root=False)).refresh()

    assert caught.value.hint == "`sudo apt-get update`, then this step again"


def test_a_package_that_lacks_its_program_is_no_success(machine: Distribution) -> None:
    machine.apt("exit 0")

    outcome = take_vmm(machine, is_root=True)

    assert outcome.result is Result.FAILED
    assert "although apt installed" in outcome.detail


def test_doctor_knows_the_step_for_each_thing_that_is_missing() -> None:
    def check(name: str, verdict: str) -> dict[str, str]:
        return {"name": name, "verdict": verdict, "detail": "", "remedy": ""}

    missing = [check("kernel", "failed"), check("mkfs.ext4", "failed"), check("qemu", "failed")]
    well = [check("kernel", "ok"), check("kvm", "warning"), check("services", "failed")]

    assert missing_steps(missing) == ["qemu", "kernel"]
    assert missing_steps(well) == []


def at(machine: Distribution, *, is_root: bool) -> Machine:
    return Machine(
        environment=machine.environment, is_root=is_root, architecture="x86_64", system_paths="/-"
    )


def take_vmm(machine: Distribution, *, is_root: bool) -> Outcome:
    steps = [VmmStep(at(machine, is_root=is_root))]
    (outcome,) = take(steps, consent=lambda _: True, note=lambda _: None)
    return outcome
