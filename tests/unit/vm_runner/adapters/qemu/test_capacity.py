"""Machines that no host of this size can hold."""

from pathlib import Path

import pytest

from services.core.errors import CapacityExhausted, RequestInvalid
from services.vm_runner.adapters.qemu.capacity import VCPUS_MAX, check_size, host_memory_mib
from services.vm_runner.machines import MachineSpec
from tests.support.outcomes import passes


def spec(*, vcpus: int = 1, memory_mib: int = 512) -> MachineSpec:
    return MachineSpec(
        run_id="a" * 32, directory=Path("/x"), vcpus=vcpus, memory_mib=memory_mib, disks=()
    )


@pytest.mark.parametrize("fitting", [spec(), spec(vcpus=VCPUS_MAX), spec(memory_mib=1024)])
def test_what_fits_is_accepted(fitting: MachineSpec) -> None:
    with passes():
        check_size(fitting, host_mib=1024)


def test_more_cpus_than_a_machine_has_are_refused() -> None:
    with pytest.raises(RequestInvalid, match="at most 255 CPUs, and 1000 are asked for"):
        check_size(spec(vcpus=1000), host_mib=1024)


def test_more_memory_than_the_host_has_is_refused() -> None:
    with pytest.raises(CapacityExhausted, match="has 1024 MiB of memory, and 1025 are asked for"):
        check_size(spec(memory_mib=1025), host_mib=1024)


def test_the_memory_of_this_host_is_what_the_kernel_says() -> None:
    first = Path("/proc/meminfo").read_text("ascii").splitlines()[0].split()

    assert abs(host_memory_mib() - int(first[1]) // 1024) <= 1
