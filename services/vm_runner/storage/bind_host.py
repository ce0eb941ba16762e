"""What binds need from the host, as an interface."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.vm_runner.machines import HostPort


@dataclass(frozen=True, slots=True, kw_only=True)
class BindSource:
    """What is to be bound, as it was found on the host.

    Attributes:
        path: absolute, without symbolic links.
        is_file: whether it is a file and no directory.
        secrets: names at its top that look like secrets.
    """

    path: Path
    is_file: bool
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBind:
    """What is served at a port of a microVM; at most one server of each port is alive.

    `rate` is how many bytes a second it reads and writes at most; 0 is no limit.
    """

    run_id: str
    directory: Path
    port: HostPort
    source: Path
    read_only: bool
    keep_secrets: bool
    rate: int = 0


class BindHost(Protocol):
    """The host's files, as they are bound into microVMs."""

    async def look(self, source: str) -> BindSource:
        """Looks at what is to be bound.

        Raises:
            RequestInvalid: it is not there, cannot be opened, or may not be bound.
        """
        ...

    async def serve(self, bind: ServedBind) -> None:
        """Has a bind served until its microVM ends, also by nobody's but its own doing.

        Raises:
            VmFailed: it cannot be served.
        """
        ...

    async def lost(self, bind: ServedBind) -> str:
        """Returns when a bind is served no longer; how that came, a verb first: `was killed by …`.

        Its microVM may have ended: then that is how it should be.
        """
        ...

    async def ended(self, binds: tuple[ServedBind, ...]) -> None:
        """Returns when nothing is served any more at the ports of a microVM that has ended."""
        ...
