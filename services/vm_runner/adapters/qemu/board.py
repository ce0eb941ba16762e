"""The board of a microVM, for each architecture: QEMU's program, machine, CPU, and kernel switches.

Everything else of the command line is the same for all: devices are on the PCI bus that both boards
have, at the same slots.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from services.vm_runner.architectures import Architecture


class Accelerator(StrEnum):
    """How guest code is executed."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What differs between architectures.

    Attributes:
        program: QEMU's, by name.
        package: the distribution's package that has the program.
        machine: value of `-machine`, without the devices that a microVM has no use for.
        emulated_cpu: value of `-cpu` where the host does not execute the code itself.
        console: name of the serial port in the guest.
        has_generation_id: whether QEMU has a generation id for it.
    """

    program: str
    package: str
    machine: str
    emulated_cpu: str
    console: str
    has_generation_id: bool


BOARDS: Final = {
    Architecture.X86_64: Board(
        program="qemu-system-x86_64",
        package="qemu-system-x86",
        machine="q35,smm=off,hpet=off,usb=off,graphics=off,vmport=off,sata=off,smbus=off,i8042=off",
        emulated_cpu="max",
        console="ttyS0",
        has_generation_id=True,
    ),
    Architecture.AARCH64: Board(
        program="qemu-system-aarch64",
        package="qemu-system-arm",
        machine="virt,gic-version=max,highmem=on",
        # The architected algorithm signs each return address in about a hundred emulated steps.
        emulated_cpu="max,pauth-impdef=on",
        console="ttyAMA0",
        has_generation_id=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """`-machine`: the board."""

    architecture: Architecture

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        return ("-machine", BOARDS[self.architecture].machine)


@dataclass(frozen=True, slots=True)
class Accel:
    """`-accel`."""

    accelerator: Accelerator

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        if self.accelerator is Accelerator.KVM:
            return ("-accel", "kvm")
        return ("-accel", "tcg,thread=multi,tb-size=128")


@dataclass(frozen=True, slots=True)
class Cpu:
    """`-cpu`: the host's where it executes the code itself, else all that is emulated."""

    accelerator: Accelerator
    architecture: Architecture

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        is_own = self.accelerator is Accelerator.KVM
        return ("-cpu", "host" if is_own else BOARDS[self.architecture].emulated_cpu)


@dataclass(frozen=True, slots=True)
class GenerationId:
    """A generation id, new with each start: a guest that was resumed notices, and reseeds."""

    architecture: Architecture

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value; QEMU has no such device for all."""
        if not BOARDS[self.architecture].has_generation_id:
            return ()
        return ("-device", "vmgenid,guid=auto")


@dataclass(frozen=True, slots=True)
class Kernel:
    """`-kernel`, `-initrd`, `-append`: what is booted; nothing of a run is in it."""

    vmlinux: Path
    initramfs: Path
    architecture: Architecture

    def arguments(self) -> tuple[str, ...]:
        """Returns the switches and their values."""
        append = f"console={BOARDS[self.architecture].console} {KERNEL_PARAMETERS}"
        return (
            "-kernel", str(self.vmlinux), "-initrd", str(self.initramfs), "-append", append,
        )  # fmt: skip


KERNEL_PARAMETERS = (
    "quiet loglevel=4 panic=-1 reboot=t "
    # Measured under emulation: without what follows the guest boots a fifth longer.
    "8250.nr_uarts=1 i8042.noaux cryptomgr.notests random.trust_cpu=on"
)
"""Of the guest's kernel: messages only of what goes wrong; a panic ends the machine at once."""


@dataclass(frozen=True, slots=True)
class Console:
    """The kernel's console, to QEMU's standard output: it can be read when QEMU is gone.

    QEMU writes a character only where there is room, and waits for room beside its other work:
    neither its CPUs nor QMP stand still when nobody reads.
    """

    def arguments(self) -> tuple[str, ...]:
        """Returns the switches and their values."""
        return ("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")
