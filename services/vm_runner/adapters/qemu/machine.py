"""One microVM of QEMU: its process, its control socket, its files in a run's directory."""

import asyncio
import contextlib
import os
import re
from datetime import timedelta
from pathlib import Path

from qemu.qmp import QMPClient
from qemu.qmp.error import QMPError

from services.chassis.own_threads import OwnThreads
from services.core.errors import GuestUnreachable, VmFailed
from services.vm_runner.adapters.confinement.confinement import Confinement
from services.vm_runner.adapters.confinement.measures import PID_FILE
from services.vm_runner.adapters.processes import Process, open_files
from services.vm_runner.adapters.qemu.board import Accelerator
from services.vm_runner.adapters.qemu.command_line import CHANNEL_SOCKET, QMP_SOCKET
from services.vm_runner.adapters.qemu.control import QemuControl
from services.vm_runner.adapters.qemu.message_pipe import MessagePipe
from services.vm_runner.adapters.socket_channel import connect_unix
from services.vm_runner.channel.byte_channel import ByteChannel
from services.vm_runner.machines import Diagnosis, MachineSpec, MachineUsage

_QMP_SECONDS = 5.0
_SAVE_SECONDS = 30.0
_POLL_SECONDS = 0.01
_END_SECONDS = 1.0  # from the end of its sockets to the end of the process
_PANIC = re.compile(r"Kernel panic - not syncing: (\S[^\n]{0,200})")
_LOOKS = OwnThreads(4, seconds=5.0, name="vmm-usage")
_SAVE_WHOLE_SECONDS = 300.0
_TAKE_UP_SECONDS = 60.0
_NO_LIMIT = {"max-bandwidth": 1 << 40}  # bytes a second; by default it is that of a network
_HELD = ("paused", "postmigrate")  # the second where it was saved, and did not go on
_NAMED_MEMORY = "memory-backend=ram"
NAME_FILE = "qemu.name"
_PORT_SOCKETS = ("bind*.sock", "egress.sock")  # others in there are not the VMM's
_LEFT_BEHIND = (CHANNEL_SOCKET, QMP_SOCKET, NAME_FILE, str(PID_FILE))


class QemuMachine:
    """A microVM of QEMU.

    Args:
        process: of QEMU.
        directory: of the run.
        accelerator: how guest code is executed.
        name: of the VMM, which a run that it is handed over to does not change.
        messages: what QEMU says.
        confinement: of QEMU.
    """

    def __init__(
        self,
        process: Process,
        directory: Path,
        accelerator: Accelerator,
        *,
        name: str,
        messages: MessagePipe,
        confinement: Confinement,
    ) -> None:
        self._process = process
        self._directory = directory
        self._accelerator = accelerator
        self._name = name
        self._messages = messages
        self._confinement = confinement
        self._control = QemuControl(directory)

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self._process.pid

    @property
    def accelerator(self) -> str:
        """`kvm` or `tcg`."""
        return self._accelerator.value

    async def connect(self) -> ByteChannel:
        """Connects to the guest's channel, whose socket listened before QEMU was started."""
        try:
            return await connect_unix(self._directory / CHANNEL_SOCKET)
        except OSError as error:
            if self._process.has_ended:
                raise GuestUnreachable(f"QEMU {self._process.fate}") from None
            raise GuestUnreachable(f"QEMU cannot be reached: {error.strerror}") from None

    async def wait(self) -> None:
        """Returns when QEMU has ended and nothing of it is left."""
        await self._process.wait()
        await self._control.leave()
        self._messages.close()
        clear(self._directory)
        self._confinement.release(self._name)

    async def kill(self) -> None:
        """Ends QEMU by force and waits for its end."""
        await self._process.kill()
        await self.wait()

    async def pause(self) -> None:
        """Holds the CPUs."""
        await self._control.execute("stop")

    async def resume(self) -> None:
        """Lets the CPUs go on."""
        await self._control.execute("cont")

    async def is_paused(self) -> bool:
        """Returns whether the CPUs are held."""
        status = await self._control.execute("query-status")
        return isinstance(status, dict) and status.get("status") in _HELD

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

    async def usage(self) -> MachineUsage:
        """Returns what QEMU uses; zeros also where the kernel does not say so in time."""
        try:
            return await _LOOKS.run(self._process.usage)
        except TimeoutError:
            return MachineUsage(cpu_time=timedelta(), memory_bytes=0)

    async def wait_out_of_room(self) -> None:
        """Returns when the guest is stopped at a write for which the host's disk has no room."""
        await self._control.wait_out_of_room()

    def open_files(self) -> tuple[Path, ...]:
        """Returns the files that QEMU has open, where this user may see that; none else."""
        return open_files(self._process.pid)

    async def leave(self) -> None:
        """Closes the connection to QEMU, which goes on."""
        await self._control.leave()

    async def save(self, state: Path) -> None:
        """Stops it and writes the state of processors and devices."""
        await self._save(state, seconds=_SAVE_SECONDS, ignores_shared=True)

    async def save_whole(self, state: Path) -> None:
        """Holds the CPUs and writes memory and state into one file."""
        if _NAMED_MEMORY not in self._process.arguments():
            raise VmFailed("its VMM was started by an earlier version of lns, which cannot save it")
        await self._save(state, seconds=_SAVE_WHOLE_SECONDS, ignores_shared=False)

    async def _save(self, state: Path, *, seconds: float, ignores_shared: bool) -> None:
        descriptor = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            async with asyncio.timeout(seconds), self._control.client() as client:
                await client.execute("stop")
                await _set_ignore_shared(client, ignores_shared)
                await client.execute("migrate-set-parameters", _NO_LIMIT)
                client.send_fd_scm(descriptor)
                await client.execute("getfd", {"fdname": "state"})
                await client.execute("migrate", {"uri": "fd:state"})
                await _migrated(client)
            await asyncio.to_thread(os.fsync, descriptor)
        except BaseException as error:
            with contextlib.suppress(GuestUnreachable):  # at its end it would hold the CPUs again
                await self._control.execute("migrate_cancel")
            if isinstance(error, TimeoutError | OSError | QMPError | EOFError):
                raise VmFailed(f"the microVM could not be saved: {error}") from error
            raise
        finally:
            os.close(descriptor)

    async def hand_over(self, spec: MachineSpec) -> None:
        """Makes it the machine of a run: found by the run's id, with its files and limits."""
        if self._process.has_ended:
            raise VmFailed(f"a microVM cannot be handed over: QEMU {self._process.fate}")
        try:
            await asyncio.to_thread(self._confinement.limit, self._name, spec)
            await asyncio.to_thread(self._move, spec)
        except OSError as error:
            raise VmFailed(f"a microVM cannot be handed over: {error}") from error

    def _move(self, spec: MachineSpec) -> None:
        (spec.directory / NAME_FILE).write_text(self._name)
        sockets = (CHANNEL_SOCKET, QMP_SOCKET, *(port.socket for port in spec.ports))
        # The pid comes last: with it the VMM is the run's, also for a service that starts anew.
        for file in (*sockets, str(PID_FILE)):
            (self._directory / file).rename(spec.directory / file)
        self._messages.move(spec.directory)
        self._directory = self._control.directory = spec.directory

    async def take_up(self, descriptor: int, *, ignores_shared: bool) -> None:
        """Has a VMM that waits take up the state that its descriptor holds; CPUs are held."""
        seconds = _QMP_SECONDS if ignores_shared else _TAKE_UP_SECONDS
        try:
            async with asyncio.timeout(seconds), self._control.client() as client:
                await _set_ignore_shared(client, ignores_shared)
                await client.execute("migrate-incoming", {"uri": f"fd:{descriptor}"})
                await _taken_up(client)
        except (TimeoutError, OSError, QMPError, EOFError) as error:
            raise VmFailed(f"the microVM could not be resumed: {error}") from error


async def _set_ignore_shared(client: QMPClient, is_on: bool) -> None:
    """Says whether memory stays in its file; a VMM that was resumed has it from then on."""
    wanted = {"capability": "x-ignore-shared", "state": is_on}
    await client.execute("migrate-set-capabilities", {"capabilities": [wanted]})


async def _migrated(client: QMPClient) -> None:
    while True:
        found = await client.execute("query-migrate")
        status = found.get("status") if isinstance(found, dict) else None
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            reason = found.get("error-desc", status) if isinstance(found, dict) else status
            raise VmFailed(f"the microVM could not be saved: {reason}")
        await asyncio.sleep(_POLL_SECONDS)


async def _taken_up(client: QMPClient) -> None:
    while True:
        found = await client.execute("query-status")
        if isinstance(found, dict) and found.get("status") != "inmigrate":
            return
        await asyncio.sleep(_POLL_SECONDS)


def clear(directory: Path) -> None:
    """Removes what a VMM leaves in the run's directory."""
    for name in _LEFT_BEHIND:
        (directory / name).unlink(missing_ok=True)
    for pattern in _PORT_SOCKETS:
        for socket in directory.glob(pattern):
            socket.unlink(missing_ok=True)
