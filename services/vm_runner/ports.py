"""What vm_runner needs from outside, as interfaces; `machines` and `bind_host` have two more."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from services.vm_runner.records.run_log import RunLog
from services.vm_runner.records.runs import Run, Volume


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
            InUse: another program listens there, or this user may not.
            RequestInvalid: it is no address of this machine.
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

    async def lease(self, run_id: str, image_digest: str) -> Image:
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

    async def room(self) -> int:
        """Returns what may be written on their disk; 0 or less where only records still may."""
        ...

    def directory(self, run_id: str) -> Path:
        """Returns a run's directory."""
        ...


class DiskMaker(Protocol):
    """Makes disks with an empty file system."""

    async def ensure(self, path: Path, *, size_bytes: int) -> None:
        """Makes a sparse disk image unless it exists.

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
