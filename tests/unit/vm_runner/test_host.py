import platform
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.core.errors import HostUnready
from services.vm_runner.adapters.provisions import emulator_remedy, kernel_remedy, program_remedy
from services.vm_runner.architectures import Architecture
from services.vm_runner.host import (
    AcceleratorReport,
    ConfinementReport,
    Host,
    Needs,
    Verdict,
)


async def there() -> str:
    return "there"


async def missing() -> str:
    raise HostUnready("no guest kernel was found", hint="get one")


async def accelerator(_: bool) -> AcceleratorReport:
    return AcceleratorReport(accelerator="kvm", is_hardware=True, detail="works")


async def confinement() -> ConfinementReport:
    return ConfinementReport(detail="all", missing=())


def host(
    tmp_path: Path, foreign: Mapping[Architecture, Needs] | None = None, **needs: object
) -> Host:
    return Host(
        needs={"qemu": there, **needs},  # type: ignore[dict-item]  # functions of this module
        accelerator=accelerator,
        confinement=confinement,
        snapshots=there,
        home=tmp_path,
        foreign=foreign or {},
        platform="linux/own",
        devices=tmp_path,
    )


async def test_kvm_and_confinement_are_looked_at_although_the_kernel_is_missing(
    tmp_path: Path,
) -> None:
    report = await host(tmp_path, kernel=missing).examine(again=False)

    found = {check.name: check for check in report.checks}
    assert list(found) == ["kvm", "qemu", "kernel", "platforms", "confinement", "disk"]
    assert found["kvm"].verdict is Verdict.WARNING
    assert "does not exist; no guest was tried with it, for want of kernel" in found["kvm"].detail
    assert found["confinement"].verdict is Verdict.OK
    assert report.accelerator == ""


@pytest.mark.parametrize(("mode", "said"), [(0o600, "can be opened")])
async def test_a_device_that_exists_is_said(tmp_path: Path, mode: int, said: str) -> None:
    (tmp_path / "kvm").touch(mode)

    report = await host(tmp_path, kernel=missing).examine(again=False)

    assert said in report.checks[0].detail


async def test_with_all_that_is_needed_everything_is_tried(tmp_path: Path) -> None:
    report = await host(tmp_path).examine(again=False)

    names = [check.name for check in report.checks]
    assert names == ["kvm", "qemu", "platforms", "confinement", "snapshots", "disk"]
    assert report.accelerator == "kvm"


def test_a_package_advises_no_script_that_it_does_not_have(tmp_path: Path) -> None:
    own = Architecture(platform.machine())
    (foreign,) = own.others

    assert "make" not in program_remedy("guest", root=tmp_path)
    assert program_remedy("guest") == program_remedy("guest", own)
    assert program_remedy("guest") == "make -C services/vm_runner/guest"
    assert "`lns setup kernel`" in kernel_remedy(own)
    assert emulator_remedy(own) == "`lns setup qemu`"
    assert kernel_remedy(foreign) == emulator_remedy(foreign) == "`lns setup foreign`"
    assert f"scripts/setup/guest-agent {foreign}" in program_remedy("guest", foreign)
    assert "scripts/" not in program_remedy("guest", foreign, root=tmp_path)


async def test_what_emulates_another_architecture_is_a_choice_and_no_need(tmp_path: Path) -> None:
    there_and_not = {Architecture.X86_64: {"qemu": there}, Architecture.AARCH64: {"k": missing}}
    looked_at = host(tmp_path, foreign=there_and_not)

    await looked_at.require()
    await looked_at.require(Architecture.X86_64)
    with pytest.raises(HostUnready, match="linux/arm64 cannot be emulated: no guest kernel") as at:
        await looked_at.require(Architecture.AARCH64)
    assert at.value.hint == "get one"

    checks = (await looked_at.examine(again=False)).checks
    (check,) = (one for one in checks if one.name == "platforms")
    assert check.verdict is Verdict.OK
    assert check.detail == (
        "linux/own; linux/amd64/v3 by emulation; linux/arm64 cannot be emulated: no guest kernel"
        " was found"
    )
    assert check.remedy == "get one"


async def test_a_user_learns_what_would_permit_kvm_else_what_emulation_means(
    tmp_path: Path,
) -> None:
    async def remedy_of(remedy: str) -> str:
        async def forbidden(_: bool) -> AcceleratorReport:
            return AcceleratorReport(
                accelerator="tcg", is_hardware=False, detail="forbidden", remedy=remedy
            )

        subject = Host(
            needs={},
            accelerator=forbidden,
            confinement=confinement,
            snapshots=there,
            home=tmp_path,
            devices=tmp_path,
        )
        [check, *_] = (await subject.examine(again=False)).checks
        assert check.verdict is Verdict.WARNING
        return check.remedy

    assert await remedy_of("join") == "join"
    assert await remedy_of("") == (
        "runs work, but slower: use a machine with working hardware virtualization"
    )
