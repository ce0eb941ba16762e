"""MicroVMs, who starts them, and what they boot from, as interfaces."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from services.vm_runner.channel.byte_channel import ByteChannel


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of a microVM; the guest finds it by its serial, at most 20 ASCII characters."""

    serial: str
    path: Path
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """A port of a microVM beside its channel: the guest finds it by name, the host at a socket."""

    name: str
    socket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A microVM to start.

    Attributes:
        run_id: also its name, by which it is found again.
        directory: of its own, for sockets and logs.
        vcpus: number of CPUs.
        cpu_millis: most CPU time, in thousandths of a CPU; 0 stands for all of its CPUs.
        memory_mib: size of its memory.
        disks: in any order.
        ports: whose sockets, in `directory`, listen when the microVM has started.
    """

    run_id: str
    directory: Path
    vcpus: int
    cpu_millis: int = 0
    memory_mib: int
    disks: tuple[Disk, ...]
    ports: tuple[HostPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUsage:
    """What a VMM process uses of the host."""

    cpu_time: timedelta
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is known of a VMM whose guest cannot be reached.

    Attributes:
        end: how it ended, for people: `QEMU was killed by SIGSEGV`; empty while it lives.
        messages: the last lines of VMM and guest: printable, and not to be believed.
    """

    end: str
    messages: str


class Machine(Protocol):
    """A microVM whose VMM process was started, by this process or an earlier one."""

    @property
    def pid(self) -> int:
        """Process id of the VMM."""
        ...

    @property
    def accelerator(self) -> str:
        """`kvm` or `tcg`."""
        ...

    async def connect(self) -> ByteChannel:
        """Connects to the guest's channel; a new connection takes the place of an older one.

        Raises:
            GuestUnreachable: the VMM does not listen.
        """
        ...

    async def wait(self) -> None:
        """Returns when the VMM process has ended, however that came."""
        ...

    async def kill(self) -> None:
        """Ends the VMM process by force and waits for its end."""
        ...

    async def pause(self) -> None:
        """Holds the CPUs.

        Raises:
            GuestUnreachable: the VMM does not answer.
        """
        ...

    async def resume(self) -> None:
        """Lets the CPUs go on.

        Raises:
            GuestUnreachable: the VMM does not answer.
        """
        ...

    async def is_paused(self) -> bool:
        """Returns whether the CPUs are held.

        Raises:
            GuestUnreachable: the VMM does not answer.
        """
        ...

    async def diagnose(self) -> Diagnosis:
        """Returns what is known of it, after a moment for an end to come; never raises."""
        ...

    def usage(self) -> MachineUsage:
        """Returns what the VMM uses; zeros once it has ended."""
        ...


class Hypervisor(Protocol):
    """Starts microVMs and finds them again."""

    async def start(self, spec: MachineSpec) -> Machine:
        """Starts a microVM that outlives this process.

        Raises:
            HostUnready: the VMM, the kernel or the guest agent is missing.
            VmFailed: the VMM did not start.
        """
        ...

    async def adopt(self, run_id: str, directory: Path) -> Machine | None:
        """Returns the microVM of that name that an earlier process started, if it is alive."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFiles:
    """What a guest boots from.

    Attributes:
        vmlinux: the uncompressed kernel.
        initramfs: the agent and the modules it loads.
        release: of the kernel.
    """

    vmlinux: Path
    initramfs: Path
    release: str


class GuestFiles(Protocol):
    """Where kernel and initial file system of guests come from."""

    async def prepare(self) -> BootFiles:
        """Returns the boot files, made if they are not there.

        Raises:
            HostUnready: the kernel or the guest agent is missing, or cannot be used.
        """
        ...
