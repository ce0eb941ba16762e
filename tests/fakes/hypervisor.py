"""A hypervisor without virtual machines: the guest agent itself, run as an ordinary process.

The agent speaks the real protocol and starts real processes, with no boundary around them: only for
commands that tests choose. A relay stands between host and agent as QEMU does: it outlives its
connections, a new one takes the place of an older one, and what goes to nobody is lost. Machines
live as long as the `FakeHost`, not as long as the hypervisor: a second one adopts them.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from services.core.errors import GuestUnreachable, HostUnready, VmFailed
from services.vm_runner.adapters.socket_channel import adopt_socket
from services.vm_runner.channel.byte_channel import ByteChannel
from services.vm_runner.machines import Diagnosis, Machine, MachineSpec, MachineUsage, SavedMachine
from tests.support.guest_agent import agent_command

_CHUNK = 65536


class FakeHost:
    """What outlives a service on a real host: the machines."""

    def __init__(self, agent: Path) -> None:
        self.agent = agent
        self.machines: dict[str, FakeMachine] = {}
        self.asleep: dict[str, FakeMachine] = {}

    async def close(self) -> None:
        for machine in self.asleep.values():
            machine.wake("")
        for machine in list(self.machines.values()):
            machine.saved = ""
            await machine.kill()


class FakeHypervisor:
    """Starts agents.

    Args:
        host: where they run.
        fail_next: raised instead of starting the next machine.
        unready: raised by every start.
        dying: so many of the next machines end before their guest says a word.
        mute: so many of the next machines live, and their guest never says a word.
    """

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.specs: list[MachineSpec] = []
        self.resumed: list[MachineSpec] = []
        self.version = 1
        self.fail_next: VmFailed | None = None
        self.unready: HostUnready | None = None
        self.dying = 0
        self.mute = 0

    async def start(self, spec: MachineSpec) -> Machine:
        self.specs.append(spec)
        if self.unready is not None:
            raise self.unready
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        machine = FakeMachine(
            self.host,
            spec.run_id,
            files=tuple(disk.path for disk in spec.disks),
            memory_file=spec.memory_file,
        )
        self.host.machines[spec.run_id] = machine
        if self.mute > 0:
            self.mute -= 1
            await machine.pause()
        elif self.dying > 0:
            self.dying -= 1
            await machine.kill()
        return machine

    async def resume(
        self, spec: MachineSpec, saved: SavedMachine, *, is_held: bool = False
    ) -> Machine:
        self.resumed.append(spec)
        if not saved.state.read_text().startswith("saved"):
            raise VmFailed("the microVM could not be resumed: its state cannot be read")
        if saved.memory is None and spec.memory_file is None:
            return self.host.asleep.pop(saved.state.read_text()).wake(spec.run_id)
        return await self.start(spec)

    async def fingerprint(self, spec: MachineSpec) -> str:
        disks = [(disk.serial, disk.read_only, disk.size_bytes) for disk in spec.disks]
        machine = (spec.architecture, spec.vcpus, spec.memory_mib)
        return repr((self.version, machine, disks, spec.ports))

    async def adopt(self, run_id: str, directory: Path) -> Machine | None:
        return self.host.machines.get(run_id)


class FakeMachine:
    """One agent and the relay before it."""

    accelerator = "tcg"

    def __init__(
        self,
        host: FakeHost,
        run_id: str,
        *,
        files: tuple[Path, ...] = (),
        memory_file: Path | None = None,
    ) -> None:
        self.files = files
        self.saved = ""
        self._host = host
        self._memory_file = memory_file
        self._run_id = run_id
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._agent_side = ours
        with theirs:
            self._process = subprocess.Popen(
                agent_command(host.agent, theirs),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._host_side: socket.socket | None = None
        self._ended = asyncio.Event()
        self._paused = False
        self._going = asyncio.Event()
        self._going.set()
        # The agent writes whole frames; a quiet one leaves none half sent here.
        self._between_frames = asyncio.Lock()
        self._tasks = {asyncio.create_task(self._from_agent())}

    @property
    def pid(self) -> int:
        return self._process.pid

    async def connect(self) -> ByteChannel:
        if self._ended.is_set():
            raise GuestUnreachable("the machine has ended")
        self.disconnect()
        relay, client = socket.socketpair()
        relay.setblocking(False)
        self._host_side = relay
        task = asyncio.create_task(self._to_agent(relay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: relay.close())  # also where it never began
        try:
            return await adopt_socket(client)
        except BaseException:
            client.close()
            raise

    def disconnect(self) -> None:
        """Cuts the connection, as the end of a service does."""
        if self._host_side is not None:
            with contextlib.suppress(OSError):
                self._host_side.shutdown(socket.SHUT_RDWR)
            self._host_side = None

    async def forge(self, data: bytes) -> None:
        """Sends bytes to the host as if the guest had, between two of its frames."""
        async with self._between_frames:
            if self._host_side is not None:
                with contextlib.suppress(OSError):
                    await asyncio.get_running_loop().sock_sendall(self._host_side, data)

    async def wait(self) -> None:
        await self._ended.wait()

    async def save_whole(self, state: Path) -> None:
        """The agent itself is what is saved: it stands still until it is resumed elsewhere."""
        await self.pause()
        self.saved = f"saved {self._run_id}"
        state.write_text(self.saved)  # noqa: ASYNC240 - a few bytes of a test

    def wake(self, run_id: str) -> "FakeMachine":
        """Is the machine of a VMM that has taken it up, with its CPUs held."""
        self.saved, self._run_id = "", run_id
        self._ended = asyncio.Event()
        self._host.machines[run_id] = self
        return self

    async def kill(self) -> None:
        if self.saved and not self._ended.is_set():
            self._host.asleep[self.saved] = self
            self._host.machines.pop(self._run_id, None)
            self._ended.set()
            self.disconnect()
            return
        self._process.kill()
        await self._end()

    async def pause(self) -> None:
        self._signal_all(signal.SIGSTOP)
        self._paused = True
        self._going.clear()

    async def resume(self) -> None:
        self.saved = ""
        self._signal_all(signal.SIGCONT)
        self._paused = False
        self._going.set()

    async def is_paused(self) -> bool:
        return self._paused

    async def save(self, state: Path) -> None:
        if self._ended.is_set():
            raise GuestUnreachable("the machine has ended")
        if self._memory_file is None:
            raise VmFailed("the microVM could not be saved: its memory is in no file")
        await self.pause()
        with self._memory_file.open("r+b") as file:  # it keeps its size
            file.write(b"memory")
        state.write_text("saved")  # noqa: ASYNC240 - a few bytes of a test

    async def hand_over(self, spec: MachineSpec) -> None:
        if self._ended.is_set():
            raise VmFailed("a microVM cannot be handed over: it has ended")
        del self._host.machines[self._run_id]
        self._run_id = spec.run_id
        self._host.machines[spec.run_id] = self

    async def diagnose(self) -> Diagnosis:
        end = "the agent was killed by SIGKILL" if self._ended.is_set() else ""
        return Diagnosis(end=end, messages="the agent's console")

    async def wait_out_of_room(self) -> None:
        await asyncio.get_running_loop().create_future()

    def open_files(self) -> tuple[Path, ...]:
        return self.files

    async def leave(self) -> None:
        pass

    async def usage(self) -> MachineUsage:
        if self._ended.is_set():
            return MachineUsage(cpu_time=timedelta(), memory_bytes=0)
        return MachineUsage(cpu_time=timedelta(milliseconds=1), memory_bytes=1)

    # ---- inside ----

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in (self.pid, *_descendants(self.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _from_agent(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._agent_side, _CHUNK):
                async with self._between_frames:
                    if self._host_side is not None:
                        with contextlib.suppress(OSError):
                            await loop.sock_sendall(self._host_side, data)
        await self._end()

    async def _to_agent(self, relay: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with relay, contextlib.suppress(OSError):
            while data := await loop.sock_recv(relay, _CHUNK):
                await self._going.wait()
                await loop.sock_sendall(self._agent_side, data)

    async def _end(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        self._host.machines.pop(self._run_id, None)
        try:
            for pid in _descendants(self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self.disconnect()
            current = asyncio.current_task()
            for task in list(self._tasks):
                if task is not current:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        finally:  # also where the test ends meanwhile
            self._agent_side.close()


def _descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        yield from _descendants(child)
        yield child
