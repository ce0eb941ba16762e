"""Starts microVMs with QEMU and finds them again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from qemu.qmp import QMPClient
from qemu.qmp.error import QMPError

from services.core.errors import GuestUnreachable, HostUnready, VmFailed
from services.vm_runner.adapters.qemu.accelerator import AcceleratorChoice
from services.vm_runner.adapters.qemu.command_line import (
    CHANNEL_SOCKET,
    PID_FILE,
    QMP_SOCKET,
    Accelerator,
    Architecture,
    Name,
    command_line,
)
from services.vm_runner.adapters.qemu.process import (
    Process,
    find_process,
    find_program,
    read_messages,
    start_process,
)
from services.vm_runner.adapters.socket_channel import connect_unix, short_path
from services.vm_runner.ports import (
    ByteChannel,
    GuestFiles,
    Machine,
    MachineSpec,
    MachineUsage,
)

_LISTEN_SECONDS = 10.0
_QMP_SECONDS = 5.0
_LEFT_BEHIND = (CHANNEL_SOCKET, QMP_SOCKET, PID_FILE)


class QemuMachine:
    """A microVM of QEMU."""

    def __init__(self, process: Process, directory: Path, accelerator: Accelerator) -> None:
        self._process = process
        self._directory = directory
        self._accelerator = accelerator

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self._process.pid

    @property
    def accelerator(self) -> str:
        """`kvm` or `tcg`."""
        return self._accelerator.value

    async def connect(self) -> ByteChannel:
        """Connects to the guest's channel."""
        try:
            async with asyncio.timeout(_LISTEN_SECONDS):
                return await self._connect()
        except TimeoutError:
            raise GuestUnreachable("QEMU does not listen for the guest's channel") from None

    async def _connect(self) -> ByteChannel:
        while True:
            try:
                return await connect_unix(self._directory / CHANNEL_SOCKET)
            except OSError:
                if self._process.has_ended:
                    details = read_messages(self._directory)
                    raise GuestUnreachable(f"QEMU has ended: {details}") from None
                await asyncio.sleep(0.003)  # QEMU makes its sockets within some milliseconds

    async def wait(self) -> None:
        """Returns when QEMU has ended."""
        await self._process.wait()
        for name in _LEFT_BEHIND:
            (self._directory / name).unlink(missing_ok=True)

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

    async def diagnose(self) -> str:
        """Returns the last lines of QEMU's and the guest's messages."""
        messages = read_messages(self._directory)
        with contextlib.suppress(GuestUnreachable):
            arguments = {"device": "console", "size": 8192, "format": "utf8"}
            console = await self._execute("ringbuf-read", arguments)
            messages = f"{messages}\n{console}"
        return messages.strip()

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
        architecture: of host and guest.
    """

    def __init__(
        self,
        *,
        binary: str,
        files: GuestFiles,
        choice: AcceleratorChoice,
        architecture: Architecture,
    ) -> None:
        self._binary = binary
        self._files = files
        self._choice = choice
        self._architecture = architecture

    async def start(self, spec: MachineSpec) -> Machine:
        """Starts a microVM that outlives this process."""
        accelerator = await self._choice.choose(self.start_with)
        return await self.start_with(spec, accelerator)

    async def start_with(self, spec: MachineSpec, accelerator: Accelerator) -> Machine:
        """Starts a microVM with an accelerator."""
        program = self.find_program()
        kernel = await self._files.prepare()
        try:
            command = command_line(
                program,
                spec,
                vmlinux=kernel.vmlinux,
                initramfs=kernel.initramfs,
                accelerator=accelerator,
                architecture=self._architecture,
            )
        except ValueError as error:
            raise VmFailed(f"run {spec.run_id} cannot be booted: {error}") from error
        for name in _LEFT_BEHIND:
            (spec.directory / name).unlink(missing_ok=True)
        process = await start_process(command, spec.directory)
        return QemuMachine(process, spec.directory, accelerator)

    def find_program(self) -> str:
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
            return None
        accelerator = Accelerator.KVM if "kvm" in process.arguments() else Accelerator.TCG
        return QemuMachine(process, directory, accelerator)
