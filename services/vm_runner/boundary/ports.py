"""What the boundary needs from outside: workers, names and connections, files."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from services.core.egress.addresses import Address
from services.vm_runner.egress_worker.orders import Leaf, ToWorker
from services.vm_runner.egress_worker.reports import ToRunner


class WorkerLink(Protocol):
    """The control socket of a live worker."""

    def messages(self) -> AsyncIterator[ToRunner]:
        """Yields what the worker says until the socket ends.

        Raises:
            ControlViolation: it said what no worker says.
        """
        ...

    async def send(self, message: ToWorker, connection: socket.socket | None = None) -> None:
        """Sends a message, with a connection beside it; that one stays open here.

        Raises:
            MessageTooLong: it does not fit one packet.
            OSError: the worker is gone.
        """
        ...

    async def close(self) -> None:
        """Lets the worker alone; never raises."""
        ...


class EgressWorkers(Protocol):
    """The egress workers of a node, at most one of each run."""

    async def adopt(self, run_id: str, directory: Path) -> WorkerLink | None:
        """Returns a link to the worker that an earlier service started, if it lives."""
        ...

    async def start(self, run_id: str, directory: Path) -> WorkerLink:
        """Starts the worker of a run and returns a link to it.

        Raises:
            VmFailed: it cannot be started.
        """
        ...

    async def ended(self, run_id: str, directory: Path) -> None:
        """Returns when the worker of a run whose microVM has ended is gone."""
        ...


class Network(Protocol):
    """The host's names and connections."""

    async def resolve(self, name: str) -> tuple[Address, ...]:
        """Looks a name up, once.

        Raises:
            HostUnreachable: it has no address, or no answer came in time.
        """
        ...

    async def dial(self, address: Address, port: int) -> socket.socket:
        """Connects.

        Raises:
            HostUnreachable: no answer came in time.
        """
        ...


class HostUnreachable(Exception):
    """A name or an address that was allowed does not lead anywhere; the text says why."""


class AuditStorage(Protocol):
    """The file, or files, of one run's audit log."""

    async def open(self) -> bytes:
        """Cuts off a line that a crash left half written; returns the last whole lines."""
        ...

    async def append(self, data: bytes) -> None:
        """Writes whole lines behind the others.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...

    def read(self) -> AsyncIterator[bytes]:
        """Yields the whole log, oldest line first, in pieces."""
        ...


class BoundaryFiles(Protocol):
    """What the boundary keeps of a run in its directory, and the policy files of projects."""

    def audit(self, directory: Path) -> AuditStorage:
        """Returns the audit log of a run."""
        ...

    async def read_policy(self, path: Path) -> tuple[object, bytes] | None:
        """Returns a policy file's text with a stamp that changes when it does; None: not there.

        Raises:
            LimitExceeded: it is larger than 1 MiB.
            OSError: it cannot be read.
        """
        ...

    async def stamp(self, path: Path) -> object:
        """Returns what changes when a policy file does; None while it is not there."""
        ...

    async def write(self, path: Path, data: bytes) -> None:
        """Replaces a file of a run, durably.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...

    async def read(self, path: Path) -> bytes:
        """Returns a file of a run; empty if it does not exist."""
        ...


class Authority(Protocol):
    """The certificate authority of one run."""

    @property
    def certificate(self) -> bytes:
        """Its certificate, PEM."""
        ...

    async def leaf(self, name: str) -> Leaf:
        """Returns a certificate for a name, and its key."""
        ...


class Authorities(Protocol):
    """Certificate authorities, one of each run."""

    async def of(self, directory: Path) -> Authority:
        """Returns the authority of a run, which is made the first time.

        Raises:
            CapacityExhausted: the disk is full.
        """
        ...
