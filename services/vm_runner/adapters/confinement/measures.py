"""The measures that confine a VMM, decided by pure code from what it needs and the host permits."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from services.vm_runner.adapters.confinement.switches import (
    FIRST_DESCRIPTOR,
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
    Ram,
    Read,
    Switch,
    User,
    Write,
)
from services.vm_runner.vmm_options import UserRange

PID_FILE = Path("qemu.pid")
NULL_DEVICE = Path("/dev/null")

_MIB = 1 << 20
_OOM_SCORE = 500
_VMLINUX = Path("/boot/vmlinux")
_INITRAMFS = Path("/boot/initramfs")

THREADS_BESIDE_CPUS = 128
"""Main loop, RCU, and the pool that does file I/O: at most 64 for each event loop."""

DATA_MIB_BESIDE_GUEST = 1536
"""Code buffer of the emulation, and the stacks and heaps of all those threads (address space)."""

DESCRIPTORS_BESIDE_DISKS = 1024
DESCRIPTORS_OF_DISK = 4


class Isolation(StrEnum):
    """Which namespaces a VMM has, with its mount view: none, all but one of users, or all."""

    NONE = "none"
    NAMESPACES = "namespaces"
    USER_NAMESPACE = "user-namespace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Footing:
    """What the host permits.

    Attributes:
        isolation: how namespaces are had.
        users: where a VMM's user is taken from; None where it keeps the service's.
    """

    isolation: Isolation
    users: UserRange | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFiles:
    """What a program needs to run: `code` to execute, `data` to read."""

    code: tuple[Code, ...]
    data: tuple[Data, ...]

    def sources(self) -> tuple[Path, ...]:
        """Returns the host's files."""
        return (*(code.source for code in self.code), *(data.source for data in self.data))


@dataclass(frozen=True, slots=True, kw_only=True)
class VmmNeeds:
    """What one VMM needs.

    Attributes:
        program: its program with what that needs.
        vmlinux: the guest's kernel.
        initramfs: the guest's initial file system.
        descriptors: sockets and disks, in the order of their numbers.
        device: the device that it executes guest code with, if any.
        device_group: the group to which that device is open, where its own users are not enough.
        vcpus: number of CPUs.
        memory_mib: size of the guest's memory.
        largest_file_bytes: size of its largest writable disk.
        cgroups: which it joins.
        ram: the file of its guest's memory, if that is in one.
    """

    program: ProgramFiles
    vmlinux: Path
    initramfs: Path
    descriptors: tuple[Read | Write | Listen, ...]
    device: Path | None
    device_group: int | None
    vcpus: int
    memory_mib: int
    largest_file_bytes: int
    cgroups: tuple[Path, ...]
    ram: Ram | None = None


def boot_paths(footing: Footing, *, descriptors: int) -> tuple[Path, Path]:
    """Returns by which paths a VMM opens kernel and initial file system.

    Args:
        footing: what the host permits.
        descriptors: how many it has already. Without a view of its own, the files come after them:
            the folders that they are in may be closed to its user.
    """
    if footing.isolation is not Isolation.NONE:
        return _VMLINUX, _INITRAMFS
    following = FIRST_DESCRIPTOR + descriptors
    own = Path("/proc/self/fd")
    return own / str(following), own / str(following + 1)


def measures(footing: Footing, needs: VmmNeeds) -> tuple[Switch, ...]:
    """Returns everything that confines a VMM."""
    return (
        PidFile(PID_FILE),
        *_identity(footing, needs),
        OomScore(_OOM_SCORE),
        *(Cgroup(directory) for directory in needs.cgroups),
        *_limits(footing, needs),
        *needs.descriptors,
        *_files(footing, needs),
        *(() if needs.ram is None else (needs.ram,)),
    )


def _identity(footing: Footing, needs: VmmNeeds) -> tuple[Switch, ...]:
    isolation: tuple[Switch, ...] = ()
    if footing.isolation is not Isolation.NONE:
        with_users = footing.isolation is Isolation.USER_NAMESPACE
        isolation = (Isolate(with_users=with_users),)
    if footing.users is None:
        return isolation
    user = User(footing.users.first, footing.users.count)
    # Isolated, it gets a device node of its own.
    if footing.isolation is Isolation.NONE and needs.device_group:
        return (*isolation, user, Group(needs.device_group))
    return (*isolation, user)


def _limits(footing: Footing, needs: VmmNeeds) -> tuple[Switch, ...]:
    disks = sum(not isinstance(descriptor, Listen) for descriptor in needs.descriptors)
    limits = (
        Limit("core", 0),
        Limit("memlock", 0),
        Limit("fsize", needs.largest_file_bytes),
        Limit("data", (needs.memory_mib + DATA_MIB_BESIDE_GUEST) * _MIB),
        Limit("nofile", DESCRIPTORS_BESIDE_DISKS + DESCRIPTORS_OF_DISK * disks),
    )
    if footing.users is None:  # the limit counts all that the user runs
        return limits
    return (*limits, Limit("nproc", needs.vcpus + THREADS_BESIDE_CPUS))


def _files(footing: Footing, needs: VmmNeeds) -> tuple[Switch, ...]:
    if footing.isolation is Isolation.NONE:
        return (Read(needs.vmlinux), Read(needs.initramfs))
    return (
        *needs.program.code,
        *needs.program.data,
        Data(needs.vmlinux, _VMLINUX),
        Data(needs.initramfs, _INITRAMFS),
        Device(NULL_DEVICE),
        *(() if needs.device is None else (Device(needs.device),)),
    )
