"""Starts microVMs with QEMU and finds them again."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from qemu.qmp import QMPClient
from qemu.qmp.error import QMPError

from services.core.errors import GuestUnreachable, HostUnready, LnsError, VmFailed
from services.vm_runner.adapters.confinement.confinement import (
    KVM_DEVICE,
    Confinement,
    VmmStart,
)
from services.vm_runner.adapters.confinement.measures import PID_FILE, boot_paths
from services.vm_runner.adapters.processes import Process, find_process
from services.vm_runner.adapters.qemu.accelerator import AcceleratorChoice
from services.vm_runner.adapters.qemu.capacity import check_size, host_memory_mib
from services.vm_runner.adapters.qemu.command_line import (
    CHANNEL_SOCKET,
    QMP_SOCKET,
    Accelerator,
    Architecture,
    Name,
    command_line,
    descriptors,
)
from services.vm_runner.adapters.qemu.message_pipe import MessagePipe
from services.vm_runner.adapters.qemu.process import find_program, start_process
from services.vm_runner.adapters.socket_channel import connect_unix, short_path
from services.vm_runner.channel.byte_channel import ByteChannel
from services.vm_runner.machines import Diagnosis, GuestFiles, Machine, MachineSpec, MachineUsage

_QMP_SECONDS = 5.0
_END_SECONDS = 1.0  # from the end of its sockets to the end of the process
_PANIC = re.compile(r"Kernel panic - not syncing: (\S[^\n]{0,200})")
_LEFT_BEHIND = (CHANNEL_SOCKET, QMP_SOCKET, str(PID_FILE))


class QemuMachine:
    """A microVM of QEMU.

    Args:
        process: of QEMU.
        directory: of the run.
        accelerator: how guest code is executed.
        messages: what QEMU says.
        on_end: called when QEMU has ended.
    """

    def __init__(
        self,
        process: Process,
        directory: Path,
        accelerator: Accelerator,
        *,
        messages: MessagePipe,
        on_end: Callable[[], None],
    ) -> None:
        self._process = process
        self._directory = directory
        self._accelerator = accelerator
        self._messages = messages
        self._on_end = on_end

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self._process.pid

    @property
    def accelerator(self) -> str:
        """`kvm` or `tcg`."""
        return self._accelerator.value

    async def connect(self) -> ByteChannel:
        """Connects to the guest's channel, whose socket listened before QEMU was there."""
        try:
            return await connect_unix(self._directory / CHANNEL_SOCKET)
        except OSError as error:
            if self._process.has_ended:
                raise GuestUnreachable(f"QEMU {self._process.fate}") from None
            raise GuestUnreachable(f"QEMU cannot be reached: {error.strerror}") from None

    async def wait(self) -> None:
        """Returns when QEMU has ended and nothing of it is left."""
        await self._process.wait()
        self._messages.close()
        _clear(self._directory)
        self._on_end()

    async def kill(self) -> None:
        """Ends QEMU by force and waits for its end."""
        await self._process.kill()
        await self.wait()

    async def pause(self) -> None:
        """Holds the CPUs."""
        await self._execute("stop")

    async def resume(self) -> None:
        """Lets the CPUs go on."""
        await self._execute("cont")

    async def is_paused(self) -> bool:
        """Returns whether the CPUs are held."""
        status = await self._execute("query-status")
        return isinstance(status, dict) and status.get("status") == "paused"

    async def diagnose(self) -> Diagnosis:
        """Returns how QEMU ended, and the last lines of its messages and the guest's console."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        messages = self._messages.read()
        end = f"QEMU {self._process.fate}" if self._process.has_ended else ""
        if panic := _PANIC.search(messages):
            end = f"the guest's kernel panicked: {panic[1]}"
        return Diagnosis(end=end, messages=messages)

    def usage(self) -> MachineUsage:
        """Returns what QEMU uses."""
        return self._process.usage()

    async def _execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        try:
            async with asyncio.timeout(_QMP_SECONDS), self._qmp() as client:
                return await client.execute(command, arguments)
        except (TimeoutError, OSError, QMPError, EOFError) as error:
            raise GuestUnreachable(f"QEMU does not answer {command}: {error}") from error

    @contextlib.asynccontextmanager
    async def _qmp(self) -> AsyncIterator[QMPClient]:
        client = QMPClient("lns")
        # A refused connection, which is an error there, is a VMM that has just ended.
        client.logger.setLevel(logging.CRITICAL)
        with short_path(self._directory / QMP_SOCKET) as path:
            await client.connect(path)
        try:
            yield client
        finally:
            await client.disconnect()


class QemuHypervisor:
    """QEMU on this host.

    Args:
        binary: QEMU's program, by name or path.
        files: where kernel and initial file system come from.
        choice: how guest code is executed.
        confinement: of QEMU's processes.
        architecture: of host and guest.
    """

    def __init__(
        self,
        *,
        binary: str,
        files: GuestFiles,
        choice: AcceleratorChoice,
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

    async def start_with(self, spec: MachineSpec, accelerator: Accelerator) -> Machine:
        """Starts a microVM with an accelerator."""
        boot = await self._files.prepare()
        ground = await self._confinement.ground(self.find_program())
        given = descriptors(spec)
        vmlinux, initramfs = boot_paths(ground.footing, descriptors=len(given))
        try:
            command = command_line(
                str(ground.program),
                spec,
                vmlinux=vmlinux,
                initramfs=initramfs,
                accelerator=accelerator,
                architecture=self._architecture,
            )
        except ValueError as error:
            raise VmFailed(f"run {spec.run_id} cannot be booted: {error}") from error
        start = VmmStart(
            spec=spec,
            boot=boot,
            descriptors=given,
            device=KVM_DEVICE if accelerator is Accelerator.KVM else None,
            command=command,
        )
        _clear(spec.directory)
        messages = MessagePipe(spec.directory)
        try:
            line = await self._confinement.launch_line(ground, start)
            process = await start_process(line, spec.directory, messages=messages)
        except LnsError as error:
            error.metadata.setdefault("details", messages.read())
            messages.close()
            _clear(spec.directory)
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
            messages=messages,
            on_end=lambda: self._confinement.release(run_id),
        )

    def find_program(self) -> Path:
        """Returns the path of QEMU's program.

        Raises:
            HostUnready: it is not installed.
        """
        program = find_program(self._binary)
        if program is None:
            package = "arm" if self._architecture is Architecture.AARCH64 else "x86"
            raise HostUnready(
                f"{self._binary} is not installed",
                hint=f"apt-get install --no-install-recommends qemu-system-{package}",
                metadata={"program": self._binary},
            )
        return program

    async def adopt(self, run_id: str, directory: Path) -> Machine | None:
        """Returns the microVM of that name that an earlier process started, if it is alive."""
        marker = Name(run_id).arguments()[1]
        process = find_process(directory / PID_FILE, marker=marker)
        if process is None:
            self._confinement.release(run_id)
            return None
        accelerator = Accelerator.KVM if "kvm" in process.arguments() else Accelerator.TCG
        messages = MessagePipe(directory)
        messages.open()
        return self._machine(process, run_id, directory, accelerator, messages)


def _clear(directory: Path) -> None:
    """Removes what a VMM leaves in the run's directory."""
    for name in _LEFT_BEHIND:
        (directory / name).unlink(missing_ok=True)
    for socket in directory.glob("bind*.sock"):
        socket.unlink(missing_ok=True)
