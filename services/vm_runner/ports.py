"""What vm_runner needs from outside, as interfaces."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from services.vm_runner.run_log import RunLog
from services.vm_runner.runs import Run, Volume


class ByteChannel(Protocol):
    """A connected, ordered, reliable byte stream."""

    async def read(self, most: int) -> bytes:
        """Waits for bytes; empty at the end.

        Raises:
            OSError: it broke.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Writes everything, at the pace of the other end.

        Raises:
            OSError: it broke.
        """
        ...

    async def close(self) -> None:
        """Closes it; never raises."""
        ...


class ClientConnection(Protocol):
    """A client's connection to a published port."""

    async def read(self, most: int) -> bytes:
        """Waits for bytes; empty at the end.

        Raises:
            OSError: it broke.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Writes everything, at the client's pace.

        Raises:
            OSError: it broke.
        """
        ...

    def end(self) -> None:
        """Says that nothing more follows; reading goes on."""
        ...

    def abort(self) -> None:
        """Closes it, now; never raises."""
        ...


class Listener(Protocol):
    """A port of the host that is listened at."""

    @property
    def port(self) -> int:
        """The port's number."""
        ...

    async def close(self) -> None:
        """Stops listening; connections that stand go on."""
        ...


class PortListeners(Protocol):
    """Ports of the host."""

    async def listen(
        self, ip: str, port: int, serve: Callable[[ClientConnection], Awaitable[None]]
    ) -> Listener:
        """Listens at an address; each connection is served by a task of its own.

        Args:
            ip: an address of this machine.
            port: 0 picks a free one.
            serve: called with each connection.

        Raises:
            InUse: somebody listens there, or this user may not.
            RequestInvalid: it is no address of this machine.
        """
        ...


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


class Image(Protocol):
    """A composefs image on this node."""

    @property
    def metadata_path(self) -> Path:
        """The metadata image."""
        ...

    @property
    def pack_paths(self) -> tuple[Path, ...]:
        """The object packs, lowest layer first."""
        ...

    @property
    def read_only_paths(self) -> tuple[str, ...]:
        """Paths that the workload may not change."""
        ...

    @property
    def has_acl(self) -> bool:
        """Whether an inode has an access control list."""
        ...


class ImageSource(Protocol):
    """The node's image store."""

    async def lease(self, run_id: str, digest: str) -> Image:
        """Keeps an image from being pruned for a run, until it is released.

        Raises:
            ImageUnknown: the store has no such image.
            ServiceUnavailable: the store cannot be reached.
        """
        ...

    async def release(self, run_id: str) -> None:
        """Gives a run's lease up.

        Raises:
            ServiceUnavailable: the store cannot be reached.
        """
        ...


class RunStore(Protocol):
    """Where runs are recorded; a directory each."""

    async def load(self) -> tuple[Run, ...]:
        """Returns every recorded run; what cannot be read is logged and left alone."""
        ...

    async def save(self, run: Run) -> None:
        """Records a run, durably.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...

    async def remove(self, run_id: str) -> None:
        """Removes a run with its directory."""
        ...

    async def size(self, run_id: str) -> int:
        """Returns the bytes that a run takes on the disk."""
        ...

    def directory(self, run_id: str) -> Path:
        """Returns a run's directory."""
        ...


class DiskMaker(Protocol):
    """Makes disks with an empty file system."""

    async def ensure(self, path: Path, *, size_bytes: int) -> None:
        """Makes a sparse disk image unless it is there.

        Raises:
            HostUnready: the tool that formats it is missing.
            CapacityExhausted: the disk of the host is full.
        """
        ...


class VolumeStore(Protocol):
    """Where named volumes are recorded; a directory each."""

    async def load(self) -> tuple[Volume, ...]:
        """Returns every recorded volume; what cannot be read is logged and left alone."""
        ...

    async def save(self, volume: Volume) -> None:
        """Records a volume, durably.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...

    async def remove(self, name: str) -> None:
        """Removes a volume and what it holds."""
        ...

    async def used_bytes(self, name: str) -> int:
        """Returns what a volume takes on the disk."""
        ...

    def disk(self, name: str) -> Path:
        """Returns a volume's disk image."""
        ...


class LogStorage(Protocol):
    """Where the logs of runs are."""

    def open(self, run: Run) -> RunLog:
        """Returns the log of a run; there is one object for each run."""
        ...
