"""QEMU's command line, built by pure code: one type for each switch, named after it.

Each type's `arguments` returns what stands on the command line. QEMU opens neither sockets nor
disks: it is given descriptors, numbered in the order of `descriptors`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.vm_runner.adapters.confinement.switches import (
    FIRST_DESCRIPTOR,
    Listen,
    Read,
    Write,
)
from services.vm_runner.adapters.qemu.board import (
    Accel,
    Accelerator,
    Console,
    Cpu,
    GenerationId,
    Kernel,
    Machine,
)
from services.vm_runner.adapters.qemu.disk_rate import DISK_RATE, DiskRate
from services.vm_runner.architectures import Architecture
from services.vm_runner.machines import Disk, HostPort, MachineSpec, SavedMachine

CHANNEL_SOCKET = "channel.sock"
QMP_SOCKET = "qmp.sock"
MAX_DISKS = 200
MEMORY_PATH = "/proc/self/lns-ram"

_QMP_DESCRIPTOR = FIRST_DESCRIPTOR
_CHANNEL_DESCRIPTOR = FIRST_DESCRIPTOR + 1
_FIRST_DISK_DESCRIPTOR = FIRST_DESCRIPTOR + 2
_FIRST_DISK_SLOT = 3
_FUNCTIONS = 8


class Switch(Protocol):
    """One switch of the command line."""

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        ...


@dataclass(frozen=True, slots=True)
class Name:
    """`-name`: by which the process of a run is found again."""

    run_id: str

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("-name", f"guest=lns-{self.run_id}")


@dataclass(frozen=True, slots=True)
class Bare:
    """Nothing that is not asked for: no default devices, no configuration files, no window."""

    def arguments(self) -> tuple[str, ...]:
        """Returns the switches."""
        return ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`-sandbox`: QEMU's own filter of system calls, with everything denied that it knows."""

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return (
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        )


@dataclass(frozen=True, slots=True)
class Smp:
    """`-smp`: the number of CPUs."""

    vcpus: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("-smp", str(self.vcpus))


@dataclass(frozen=True, slots=True)
class Memory:
    """`-m`: the size of the memory in MiB."""

    mib: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("-m", f"{self.mib}M")


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """`-object`: memory that is kept in a file, shared with it or a private copy.

    No file has that path: the launcher hands the memory's over when QEMU makes one.
    """

    mib: int
    is_shared: bool

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        share = "on" if self.is_shared else "off"
        return (
            "-object",
            f"memory-backend-file,id=ram,size={self.mib}M,mem-path={MEMORY_PATH},share={share}",
            "-machine",
            "memory-backend=ram",
        )


@dataclass(frozen=True, slots=True)
class PrivateMemory:
    """The same memory without a file; by one name it can be resumed as the other."""

    mib: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        backend = f"memory-backend-ram,id=ram,size={self.mib}M"
        return ("-object", backend, "-machine", "memory-backend=ram")


@dataclass(frozen=True, slots=True)
class Incoming:
    """`-incoming`: nothing is executed before QMP says what is resumed."""

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("-incoming", "defer")


@dataclass(frozen=True, slots=True)
class Qmp:
    """`-qmp`: the control socket."""

    def arguments(self) -> tuple[str, ...]:
        """Returns the switches and their values."""
        return (
            "-chardev", f"socket,id=qmp,fd={_QMP_DESCRIPTOR},server=on,wait=off",
            "-mon", "chardev=qmp,mode=control",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Channel:
    """The channel between host and guest: a virtio port on a unix socket.

    The first port of the device is the kernel's for a console.
    """

    further: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switches and their values."""
        return (
            "-chardev", f"socket,id=channel,fd={_CHANNEL_DESCRIPTOR},server=on,wait=off",
            "-device", f"virtio-serial-pci,max_ports={2 + self.further}",
            "-device", "virtserialport,chardev=channel,name=lns.channel",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FurtherPort:
    """A further virtio port of the same device, on a unix socket of its own."""

    port: HostPort
    number: int
    descriptor: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switches and their values."""
        chardev = f"port{self.number}"
        return (
            "-chardev", f"socket,id={chardev},fd={self.descriptor},server=on,wait=off",
            "-device", f"virtserialport,chardev={chardev},name={self.port.name}",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """`-add-fd`, `-blockdev` and `-device`: one disk.

    Eight disks share a slot of the bus as functions of one device, so that an image of many layers
    fits.
    """

    disk: Disk
    number: int
    is_limited: bool = False

    def arguments(self) -> tuple[str, ...]:
        """Returns the switches and their values."""
        slot, function = divmod(self.number, _FUNCTIONS)
        address = f"addr=0x{slot + _FIRST_DISK_SLOT:x}.{function},multifunction=on"
        node = f"disk{self.number}"
        shown = f"{node}-limited" if self.is_limited else node
        return (
            "-add-fd",
            f"fd={_FIRST_DISK_DESCRIPTOR + self.number},set={self.number}",
            "-blockdev",
            f"driver=file,node-name={node},filename=/dev/fdset/{self.number},{self._mode}",
            *(self._limited(node, shown) if self.is_limited else ()),
            "-device",
            f"virtio-blk-pci,drive={shown},serial={self.disk.serial},num-queues=1,{address}",
        )

    def _limited(self, node: str, shown: str) -> tuple[str, ...]:
        group = f"driver=throttle,throttle-group={DISK_RATE},node-name={shown},file={node}"
        return ("-blockdev", f"{group},{self._mode}")

    @property
    def _mode(self) -> str:
        return "read-only=on" if self.disk.read_only else "discard=unmap,detect-zeroes=unmap"


def descriptors(
    spec: MachineSpec, saved: SavedMachine | None = None
) -> tuple[Read | Write | Listen, ...]:
    """Returns what QEMU is given, in the order of the descriptors' numbers."""
    disks = (Read(disk.path) if disk.read_only else Write(disk.path) for disk in spec.disks)
    ports = (Listen(Path(port.socket)) for port in spec.ports)
    state = () if saved is None else (Read(saved.state),)
    return (Listen(Path(QMP_SOCKET)), Listen(Path(CHANNEL_SOCKET)), *disks, *ports, *state)


def state_descriptor(spec: MachineSpec) -> int:
    """Returns the number of the descriptor of the state that a machine is resumed from."""
    return _FIRST_DISK_DESCRIPTOR + len(spec.disks) + len(spec.ports)


def command_line(
    binary: str,
    spec: MachineSpec,
    *,
    vmlinux: Path,
    initramfs: Path,
    accelerator: Accelerator,
    architecture: Architecture,
    is_resumed: bool = False,
    has_memory_file: bool = True,
) -> tuple[str, ...]:
    """Returns the whole command line of a microVM.

    One that is resumed has its memory from a file, or, without `has_memory_file`, from its state.

    Raises:
        ValueError: more disks than the bus has room for.
    """
    if len(spec.disks) > MAX_DISKS:
        raise ValueError(f"{len(spec.disks)} disks; at most {MAX_DISKS} fit")
    switches: Iterable[Switch] = (
        Name(spec.run_id),
        Bare(),
        Sandbox(),
        Machine(architecture),
        Accel(accelerator),
        Cpu(accelerator, architecture),
        Smp(spec.vcpus),
        Memory(spec.memory_mib),
        _memory(spec, is_resumed=is_resumed and has_memory_file),
        GenerationId(architecture),
        Kernel(vmlinux, initramfs, architecture),
        Console(),
        Qmp(),
        Channel(further=len(spec.ports)),
        *(
            FurtherPort(port, number, _FIRST_DISK_DESCRIPTOR + len(spec.disks) + number)
            for number, port in enumerate(spec.ports)
        ),
        *((DiskRate(spec.disk_rate),) if spec.disk_rate else ()),
        *(
            BlockDevice(disk, number, is_limited=spec.disk_rate > 0)
            for number, disk in enumerate(spec.disks)
        ),
        *((Incoming(),) if is_resumed else ()),
    )
    return (binary, *(argument for switch in switches for argument in switch.arguments()))


def _memory(spec: MachineSpec, *, is_resumed: bool) -> Switch:
    if is_resumed:
        return MemoryFile(spec.memory_mib, is_shared=False)
    if spec.memory_file is not None:
        return MemoryFile(spec.memory_mib, is_shared=True)
    return PrivateMemory(spec.memory_mib)
