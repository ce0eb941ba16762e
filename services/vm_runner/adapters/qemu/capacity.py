"""Whether this host can hold a microVM at all: said before QEMU fails, unclearly."""

import os

from services.core.errors import CapacityExhausted, RequestInvalid
from services.vm_runner.machines import MachineSpec

VCPUS_MAX = 255
"""CPUs of the largest machine: beyond it x86 needs an interrupt remapper that lns leaves out."""


def host_memory_mib() -> int:
    """Returns the memory of this host, in MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def check_size(spec: MachineSpec, *, host_mib: int) -> None:
    """Refuses what no boot could succeed with; more than is free now may still be asked for.

    Raises:
        RequestInvalid: more CPUs than a machine has.
        CapacityExhausted: more memory than the host has.
    """
    if spec.vcpus > VCPUS_MAX:
        raise RequestInvalid(
            f"a microVM has at most {VCPUS_MAX} CPUs, and {spec.vcpus} are asked for",
            hint="ask for fewer: `--cpus`, or `resources.cpu` of the sandbox",
        )
    if spec.memory_mib > host_mib:
        raise CapacityExhausted(
            f"this machine has {host_mib} MiB of memory, and {spec.memory_mib} are asked for",
            hint="ask for less: `--memory`, or `resources.memory` of the sandbox",
        )
