"""Confinement of this node's VMMs: what each needs, what the host permits, put together."""

import asyncio
import os
import platform
import stat
from dataclasses import dataclass
from pathlib import Path

from services.core.errors import HostUnready
from services.vm_runner.adapters.confinement.cgroups import CgroupLimits, Cgroups
from services.vm_runner.adapters.confinement.host_support import HostSupport
from services.vm_runner.adapters.confinement.measures import (
    THREADS_BESIDE_CPUS,
    Footing,
    Isolation,
    ProgramFiles,
    VmmNeeds,
    measures,
)
from services.vm_runner.adapters.confinement.program_files import ProgramFinder
from services.vm_runner.adapters.confinement.switches import Listen, Ram, Read, Write, launch_line
from services.vm_runner.host import ConfinementReport
from services.vm_runner.machines import BootFiles, MachineSpec

KVM_DEVICE = Path("/dev/kvm")

_MIB = 1 << 20
_MEMORY_MIB_BESIDE_GUEST = 384
"""QEMU itself with the code buffer of the emulation, and some page cache for the disks."""

_STATE_BYTES = 64 << 20
"""Most that a machine without a writable disk writes to a file: its own state, when it is saved."""

_CPU_MILLIS_BESIDE_GUEST = 100
"""For the VMM's own threads: a guest that takes its whole share shall not slow them down."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known before the first VMM: what QEMU needs, and what the host permits."""

    program: Path
    files: ProgramFiles
    footing: Footing


@dataclass(frozen=True, slots=True, kw_only=True)
class VmmStart:
    """A VMM to start.

    Attributes:
        spec: of the microVM.
        boot: kernel and initial file system, where they are on the host.
        descriptors: what QEMU is given.
        device: that executes guest code, if any.
        command: QEMU's command line.
        ram: the file of the guest's memory, if that is in one.
    """

    spec: MachineSpec
    boot: BootFiles
    descriptors: tuple[Read | Write | Listen, ...]
    device: Path | None
    command: tuple[str, ...]
    ram: Ram | None = None


class Confinement:
    """Confines VMMs.

    Args:
        launcher: the program that starts others confined.
        support: what the host permits.
        cgroups: where VMMs' limits are written.
    """

    def __init__(self, *, launcher: Path, support: HostSupport, cgroups: Cgroups) -> None:
        self._launcher = launcher
        self._support = support
        self._cgroups = cgroups
        self._finder = ProgramFinder()

    async def ground(self, program: Path) -> Ground:
        """Returns on what VMMs of a program stand.

        Raises:
            HostUnready: they cannot be confined as they must be.
        """
        files: ProgramFiles | ValueError
        try:
            files = await self._finder.find(program)
        except ValueError as error:
            files = error
        footing = await self._support.find(program, files)
        if not isinstance(files, ProgramFiles):
            if footing.isolation is not Isolation.NONE:  # QEMU is being replaced right now
                raise HostUnready(f"{program} cannot be used: {files}", hint="try again")
            files = ProgramFiles(code=(), data=())
        return Ground(program, files, footing)

    async def launch_line(self, ground: Ground, start: VmmStart) -> tuple[str, ...]:
        """Returns the command line that starts a VMM confined; its cgroup is made.

        Raises:
            HostUnready: its device is not there.
            VmFailed: the cgroup cannot be made.
        """
        return await asyncio.to_thread(self._launch_line, ground, start)

    def _launch_line(self, ground: Ground, start: VmmStart) -> tuple[str, ...]:
        spec = start.spec
        needs = VmmNeeds(
            program=ground.files,
            vmlinux=start.boot.vmlinux.resolve(),
            initramfs=start.boot.initramfs.resolve(),
            descriptors=start.descriptors,
            device=start.device,
            device_group=_device_group(start.device) if start.device else None,
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
            largest_file_bytes=max(
                (_size(disk.path) for disk in spec.disks if not disk.read_only),
                default=_STATE_BYTES,
            ),
            cgroups=self._cgroups.make(spec.run_id, cgroup_limits(spec)),
            ram=start.ram,
        )
        return launch_line(self._launcher, measures(ground.footing, needs), start.command)

    def limit(self, run_id: str, spec: MachineSpec) -> None:
        """Gives a VMM that runs already the limits of another machine of its kind.

        Raises:
            VmFailed: they cannot be written.
        """
        self._cgroups.make(run_id, cgroup_limits(spec))

    def release(self, run_id: str) -> None:
        """Removes what a VMM that has ended leaves in the kernel."""
        self._cgroups.remove(run_id)

    async def report(self, program: Path) -> ConfinementReport:
        """Returns how VMMs are confined.

        Raises:
            HostUnready: they cannot be confined as they must be.
        """
        footing = (await self.ground(program)).footing
        holds, missing = ["no capabilities", "filtered system calls"], []
        if footing.isolation is Isolation.NONE:
            missing.append(f"namespaces and a mount view: {self._support.obstacle}")
        else:
            holds.insert(0, "namespaces and a mount view")
            if footing.isolation is Isolation.NAMESPACES:
                missing.append(f"a user namespace: {self._support.obstacle}")
        if footing.users is not None:
            holds.insert(0, "a user")
        if self._cgroups.place is None:
            missing.append("cgroups: none may be made here")
        else:
            holds.append(self._cgroups.place.describe())
        return ConfinementReport(detail=f"each VMM has {', '.join(holds)}", missing=tuple(missing))


def cgroup_limits(spec: MachineSpec) -> CgroupLimits:
    """Returns the limits of a VMM: its guest's, and room for itself."""
    return CgroupLimits(
        memory_bytes=(spec.memory_mib + _MEMORY_MIB_BESIDE_GUEST) * _MIB,
        cpu_millis=(spec.cpu_millis or spec.vcpus * 1000) + _CPU_MILLIS_BESIDE_GUEST,
        pids=spec.vcpus + THREADS_BESIDE_CPUS,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the launcher will say so
        return 0


def _device_group(device: Path) -> int | None:
    try:
        return device_group(device.stat())
    except OSError as error:
        raise HostUnready(f"{device} cannot be used: {error.strerror}") from error


def device_group(status: os.stat_result) -> int | None:
    """Returns the group to which a device is open where it is not open to everybody."""
    everybody = status.st_mode & (stat.S_IROTH | stat.S_IWOTH) == stat.S_IROTH | stat.S_IWOTH
    group = status.st_mode & (stat.S_IRGRP | stat.S_IWGRP) == stat.S_IRGRP | stat.S_IWGRP
    return status.st_gid if group and not everybody and status.st_gid else None


def default_launcher(package: Path) -> Path:
    """Returns where the launcher for this host's architecture is built."""
    return package / "confine" / "build" / f"lns-confine-{platform.machine()}"
