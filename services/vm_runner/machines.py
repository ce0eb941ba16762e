"""MicroVMs, who starts them, and what they boot from, as interfaces."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from services.vm_runner.architectures import Architecture
from services.vm_runner.channel.byte_channel import ByteChannel


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of a microVM; the guest finds it by its serial, at most 20 ASCII characters.

    Attributes:
        size_bytes: of a disk whose file may not exist yet.
    """

    serial: str
    path: Path
    read_only: bool
    size_bytes: int = 0


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
        disk_rate: most bytes a second that its disks read and write together; 0 is no limit.
        memory_file: where its memory is kept so that it can be saved; None keeps it for itself.
        architecture: of its CPUs; None is the host's own.
    """

    run_id: str
    directory: Path
    vcpus: int
    cpu_millis: int = 0
    memory_mib: int
    disks: tuple[Disk, ...]
    ports: tuple[HostPort, ...] = ()
    disk_rate: int = 0
    memory_file: Path | None = None
    architecture: Architecture | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMachine:
    """What a microVM is resumed from, any number of times: nothing of it is written to.

    Attributes:
        memory: the memory's content, a file of the memory's size; None where `state` has it, too.
        state: of processors and devices.
    """

    memory: Path | None
    state: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUsage:
    """What a VMM process uses of the host."""

    cpu_time: timedelta
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is known of a VMM whose guest cannot be reached.

    Attributes:
        end: how it ended, for users: `QEMU was killed by SIGSEGV`; empty while it lives.
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

    async def save(self, state: Path) -> None:
        """Stops it and writes the state of processors and devices; only its end is left to it.

        Its memory is in `MachineSpec.memory_file`, which it must have been started with.

        Raises:
            GuestUnreachable: the VMM does not answer.
            VmFailed: the state cannot be saved.
        """
        ...

    async def save_whole(self, state: Path) -> None:
        """Holds the CPUs and writes memory and state into one file; `resume` has it go on.

        Raises:
            GuestUnreachable: the VMM does not answer.
            CapacityExhausted: the disk has no room for it.
            VmFailed: it cannot be saved.
        """
        ...

    async def hand_over(self, spec: MachineSpec) -> None:
        """Makes it the machine of a run: found by the run's id, with its files and limits.

        Args:
            spec: of the run's machine, equal to this one's but for id, directory, disks' places
                and share of the processors.

        Raises:
            VmFailed: it cannot be handed over, and is of no further use.
        """
        ...

    async def diagnose(self) -> Diagnosis:
        """Returns what is known of it, after a moment for an end to come; never raises."""
        ...

    async def usage(self) -> MachineUsage:
        """Returns what the VMM uses; zeros once it has ended."""
        ...

    async def wait_out_of_room(self) -> None:
        """Returns when the guest is stopped at a write for which the host's disk has no room.

        Raises:
            GuestUnreachable: the VMM does not answer.
        """
        ...

    async def leave(self) -> None:
        """Lets go of the VMM, which goes on."""
        ...

    def open_files(self) -> tuple[Path, ...]:
        """Returns the files that the VMM has open, where that may be seen; none else."""
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

    async def resume(
        self, spec: MachineSpec, saved: SavedMachine, *, is_held: bool = False
    ) -> Machine:
        """Starts a microVM where another one was saved, which had the same fingerprint.

        With `is_held` its CPUs are held until its own `resume`.

        It has a generation id of its own (vmgenid), and sees its memory as a private copy; one
        whose `saved` has the memory in its state has it in `memory_file`, if the spec names one.
        Whether the resumption goes well shows in whether the guest answers.

        Raises:
            HostUnready: the VMM is missing.
            VmFailed: the VMM did not start.
        """
        ...

    async def fingerprint(self, spec: MachineSpec) -> str:
        """Returns a text that is equal where one machine can be resumed from the other's state.

        It stands for everything but the content of disks: VMM, machine, processors, memory, kernel,
        agent, ports, and the disks' number, sizes and order.

        Raises:
            HostUnready: the VMM, the kernel or the guest agent is missing.
        """
        ...

    async def adopt(self, run_id: str, directory: Path) -> Machine | None:
        """Returns the microVM of that name that an earlier process started, if it is alive."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFiles:
    """What a guest boots from.

    Attributes:
        vmlinux: the uncompressed kernel; on arm64, its `Image`.
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
