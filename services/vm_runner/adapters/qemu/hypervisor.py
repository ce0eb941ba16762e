"""Starts microVMs with QEMU and finds them again."""

import asyncio
import hashlib
import platform
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from services.core.errors import HostUnready, LnsError, VmFailed
from services.vm_runner.adapters.confinement.confinement import (
    KVM_DEVICE,
    Confinement,
    VmmStart,
)
from services.vm_runner.adapters.confinement.measures import PID_FILE, boot_paths
from services.vm_runner.adapters.confinement.switches import Ram
from services.vm_runner.adapters.processes import Process, find_process
from services.vm_runner.adapters.provisions import emulator_remedy
from services.vm_runner.adapters.qemu.accelerator import Choice
from services.vm_runner.adapters.qemu.board import BOARDS, Accelerator
from services.vm_runner.adapters.qemu.capacity import check_size, host_memory_mib
from services.vm_runner.adapters.qemu.command_line import (
    Name,
    command_line,
    descriptors,
    state_descriptor,
)
from services.vm_runner.adapters.qemu.machine import NAME_FILE, QemuMachine, clear
from services.vm_runner.adapters.qemu.message_pipe import MessagePipe
from services.vm_runner.adapters.qemu.process import find_program, start_process
from services.vm_runner.architectures import Architecture
from services.vm_runner.machines import (
    BootFiles,
    GuestFiles,
    Machine,
    MachineSpec,
    SavedMachine,
)


class QemuHypervisor:
    """QEMU on this host, for guests of one architecture.

    Args:
        binary: QEMU's program, by name or path.
        files: where kernel and initial file system come from.
        choice: how guest code is executed.
        confinement: of QEMU's processes.
        architecture: of the guests.
    """

    def __init__(
        self,
        *,
        binary: str,
        files: GuestFiles,
        choice: Choice,
        confinement: Confinement,
        architecture: Architecture,
    ) -> None:
        self._binary = binary
        self._files = files
        self._choice = choice
        self._confinement = confinement
        self._architecture = architecture

    async def start(self, spec: MachineSpec) -> Machine:
        """Starts a microVM that outlives this process."""
        check_size(spec, host_mib=host_memory_mib())
        accelerator = await self._choice.choose(self.start_with)
        return await self.start_with(spec, accelerator)

    async def resume(
        self, spec: MachineSpec, saved: SavedMachine, *, is_held: bool = False
    ) -> Machine:
        """Starts a microVM where another one was saved."""
        accelerator = await self._choice.choose(self.start_with)
        machine = await self._start(spec, accelerator, saved)
        try:
            await machine.take_up(state_descriptor(spec), ignores_shared=saved.memory is not None)
            if not is_held:
                await machine.resume()
        except BaseException as error:
            if isinstance(error, VmFailed):
                error.metadata.setdefault("details", (await machine.diagnose()).messages)
            await machine.kill()
            raise
        return machine

    async def start_with(self, spec: MachineSpec, accelerator: Accelerator) -> Machine:
        """Starts a microVM with an accelerator."""
        return await self._start(spec, accelerator, None)

    async def fingerprint(self, spec: MachineSpec) -> str:
        """Returns a text that is equal where one machine can be resumed from the other's state."""
        accelerator = await self._choice.choose(self.start_with)
        boot = await self._files.prepare()
        return await asyncio.to_thread(self._fingerprint, spec, accelerator, boot)

    def _fingerprint(self, spec: MachineSpec, accelerator: Accelerator, boot: BootFiles) -> str:
        program = self.find_program()
        status = program.stat()
        command = command_line(
            str(program),
            replace(spec, run_id="", disk_rate=0),
            vmlinux=boot.vmlinux,  # its folder's name is a digest of what it is made from
            initramfs=boot.initramfs,
            accelerator=accelerator,
            architecture=self._architecture,
            is_resumed=True,
        )
        sizes = (
            f"{disk.path.stat().st_size if disk.path.exists() else disk.size_bytes}"
            for disk in spec.disks
        )
        processor = _processor() if accelerator is Accelerator.KVM else ""
        parts = (
            self._architecture,
            *(str(status.st_size), str(status.st_mtime_ns), processor),
            *sizes,
            *command,
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    async def _start(
        self, spec: MachineSpec, accelerator: Accelerator, saved: SavedMachine | None
    ) -> QemuMachine:
        boot = await self._files.prepare()
        ground = await self._confinement.ground(self.find_program())
        given = descriptors(spec, saved)
        vmlinux, initramfs = boot_paths(ground.footing, descriptors=len(given))
        try:
            command = command_line(
                str(ground.program),
                spec,
                vmlinux=vmlinux,
                initramfs=initramfs,
                accelerator=accelerator,
                architecture=self._architecture,
                is_resumed=saved is not None,
                has_memory_file=saved is None or saved.memory is not None,
            )
        except ValueError as error:
            raise VmFailed(f"run {spec.run_id} cannot be booted: {error}") from error
        start = VmmStart(
            spec=spec,
            boot=boot,
            descriptors=given,
            device=KVM_DEVICE if accelerator is Accelerator.KVM else None,
            command=command,
            ram=_ram(spec, saved),
        )
        clear(spec.directory)
        messages = MessagePipe(spec.directory)
        try:
            line = await self._confinement.launch_line(ground, start)
            process = await start_process(line, spec.directory, messages=messages)
        except LnsError as error:
            error.metadata.setdefault("details", messages.read())
            messages.close()
            clear(spec.directory)
            self._confinement.release(spec.run_id)
            raise
        return self._machine(process, spec.run_id, spec.directory, accelerator, messages)

    def _machine(
        self,
        process: Process,
        run_id: str,
        directory: Path,
        accelerator: Accelerator,
        messages: MessagePipe,
    ) -> QemuMachine:
        messages.watch()
        return QemuMachine(
            process,
            directory,
            accelerator,
            name=run_id,
            messages=messages,
            confinement=self._confinement,
        )

    def find_program(self) -> Path:
        """Returns the path of QEMU's program.

        Raises:
            HostUnready: it is not installed.
        """
        program = find_program(self._binary)
        if program is None:
            package = BOARDS[self._architecture].package
            raise HostUnready(
                f"{self._binary} is not installed",
                hint=f"{emulator_remedy(self._architecture)}, or install Debian's {package}",
                metadata={"program": self._binary},
            )
        return program

    def needs(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """Returns what guests need beside what all do: functions that describe it, or raise.

        They raise HostUnready: it is missing, or cannot be used.
        """

        async def program() -> str:
            return str(self.find_program())

        async def kernel() -> str:
            return f"Linux {(await self._files.prepare()).release}, with the guest agent"

        return {"qemu": program, "kernel": kernel}

    async def adopt(self, run_id: str, directory: Path) -> Machine | None:
        """Returns the microVM of that name that an earlier process started, if it is alive."""
        name = _name_in(directory) or run_id
        marker = Name(name).arguments()[1]
        process = find_process(directory / PID_FILE, marker=marker)
        if process is None:
            self._confinement.release(name)
            return None
        accelerator = Accelerator.KVM if "kvm" in process.arguments() else Accelerator.TCG
        messages = MessagePipe(directory)
        messages.open()
        return self._machine(process, name, directory, accelerator, messages)


def _name_in(directory: Path) -> str:
    """Returns the name of a VMM that was started for nobody and handed over; else nothing."""
    try:
        return (directory / NAME_FILE).read_text()
    except (OSError, ValueError):
        return ""


def _ram(spec: MachineSpec, saved: SavedMachine | None) -> Ram | None:
    if saved is not None and saved.memory is not None:
        return Ram(saved.memory, is_shared=False)
    return None if spec.memory_file is None else Ram(spec.memory_file, is_shared=True)


def _processor() -> str:
    """Returns what the host's processor is, as far as a guest that it executes can tell."""
    wanted = ("model name", "stepping", "microcode", "flags", "Features", "CPU part")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    first = {name: line for line in reversed(lines) for name in wanted if line.startswith(name)}
    return "\n".join((platform.release(), *(first[name] for name in sorted(first))))
