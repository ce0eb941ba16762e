"""What the boundaries of all runs share, and the boundary of each run."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from services.vm_runner.boundary.approvals import Approvals
from services.vm_runner.boundary.ports import Authorities, BoundaryFiles, EgressWorkers, Network
from services.vm_runner.boundary.records import EgressRecord
from services.vm_runner.boundary.run_credentials import CredentialSource
from services.vm_runner.machines import HostPort
from services.vm_runner.records.runs import Run

EGRESS_PORT = HostPort(name="lns.egress", socket="egress.sock")
"""The port of the microVM at which the run's egress worker is."""

APPROVE_SECONDS = 60.0
"""How long an approval is waited for where the run names no time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundarySettings:
    """What holds for every run.

    Attributes:
        names: addresses that stand for names in the guests.
        connections: open at once, of one run; further ones are refused.
        waiting: asked for and not answered, of one run; further ones are refused.
        authorities: files with the only roots that count for a host or `*.host`.
        identities: files with the client certificate for a host or `*.host`, and its key.
    """

    names: IPv4Network
    connections: int = 1024
    waiting: int = 512
    authorities: Mapping[str, Path] = field(default_factory=dict)
    identities: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryOutside:
    """What boundaries need from outside."""

    workers: EgressWorkers
    network: Network
    files: BoundaryFiles
    authorities: Authorities
    approvals: Approvals
    credentials: CredentialSource
    settings: BoundarySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedRun:
    """What a boundary needs of its run.

    Attributes:
        run: the run as it is recorded now.
        directory: of the run.
        notice: shows a notice to users.
        decided: takes what was decided about something that the run reaches.
    """

    run: Callable[[], Run]
    directory: Path
    notice: Callable[[str], Awaitable[None]]
    decided: Callable[[EgressRecord], None] = lambda _: None


def resolver_address(settings: BoundarySettings) -> str:
    """Returns the address of the name server that guests are given: any would do."""
    return str(settings.names[2])
