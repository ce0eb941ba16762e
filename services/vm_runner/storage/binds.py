"""Binds: directories and files of the host in microVMs, each served by a process of its own.

Which of a run's mounts are binds, what they are called on both sides, and when they are served. The
server outlives this process as the VMM does, and ends with the VMM.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog

from services.core.errors import LnsError, RequestInvalid
from services.core.run_plan import VolumeKind, VolumeMount
from services.vm_runner.channel.mounts import GuestBind
from services.vm_runner.machines import HostPort
from services.vm_runner.records.runs import Run
from services.vm_runner.storage.bind_host import BindHost, BindSource, ServedBind

log = structlog.get_logger()

MOST = 16
"""Binds of one run: each is a process."""

_NAMED_SECRETS = 5


class Binds:
    """The binds of live runs."""

    def __init__(self, host: BindHost, *, default_rate: int = 0) -> None:
        """Serves nothing yet.

        Args:
            host: the host's files.
            default_rate: bytes a second of each bind of a run that sets no rate; 0 is no limit.
        """
        self._host = host
        self._default_rate = default_rate
        self._sources: dict[str, tuple[BindSource, ...]] = {}

    async def look(self, run: Run) -> list[str]:
        """Looks at what a run is to bind, before it starts; returns what a person should read.

        Raises:
            RequestInvalid: something cannot be bound.
        """
        mounts = bind_mounts(run)
        if len(mounts) > MOST:
            raise RequestInvalid(f"a run has at most {MOST} binds of host paths")
        sources = tuple([await self._host.look(mount.source) for mount in mounts])
        self._sources[run.run_id] = sources
        return [
            line
            for mount, source in zip(mounts, sources, strict=True)
            for line in _remarks(mount, source)
        ]

    async def look_again(self, run: Run) -> None:
        """Looks at what a run has bound that an earlier process started; what is gone is gone."""
        try:
            await self.look(run)
        except LnsError as error:
            log.warning("bind_source_lost", run_id=run.run_id, message=error.message)
            self._sources[run.run_id] = tuple(
                BindSource(path=Path(mount.source), is_file=False) for mount in bind_mounts(run)
            )

    def let_go(self, run_id: str) -> None:
        """Forgets what was looked at."""
        self._sources.pop(run_id, None)

    def guest_mounts(self, run: Run) -> tuple[GuestBind, ...]:
        """Returns the binds of a run as its agent mounts them."""
        return tuple(
            GuestBind(
                port=port.name,
                target=mount.target,
                read_only=mount.read_only,
                is_file=source.is_file,
                user=run.plan.user,
            )
            for port, mount, source in zip(
                bind_ports(run), bind_mounts(run), self._sources.get(run.run_id, ()), strict=True
            )
        )

    async def serve(self, run: Run, directory: Path) -> None:
        """Has a microVM's binds served; those that are served already go on.

        Raises:
            VmFailed: one cannot be served.
        """
        for bind in self._served(run, directory):
            await self._host.serve(bind)

    @contextlib.asynccontextmanager
    async def watching(
        self, run: Run, directory: Path, *, on_lost: Callable[[str], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Calls `on_lost` with a line for users for each bind that ends while the block runs."""
        watches = [
            asyncio.create_task(self._watch(bind, mount, on_lost))
            for bind, mount in zip(self._served(run, directory), bind_mounts(run), strict=True)
        ]
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()
            for outcome in await asyncio.gather(*watches, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("bind_not_watched", exc_info=outcome)

    async def _watch(
        self, bind: ServedBind, mount: VolumeMount, on_lost: Callable[[str], Awaitable[None]]
    ) -> None:
        fate = await self._host.lost(bind)
        await on_lost(
            f"{bind.source} is bound to {mount.target} no longer, until the run is started again:"
            f" its file server {fate}"
        )

    async def ended(self, run: Run, directory: Path) -> None:
        """Returns when nothing is served any more to a microVM that has ended."""
        await self._host.ended(self._served(run, directory))

    def _served(self, run: Run, directory: Path) -> tuple[ServedBind, ...]:
        mounts = bind_mounts(run)
        known = self._sources.get(run.run_id)
        paths = [source.path for source in known] if known else [Path(m.source) for m in mounts]
        return tuple(
            ServedBind(
                run_id=run.run_id,
                directory=directory,
                port=port,
                source=path,
                read_only=mount.read_only,
                keep_secrets=mount.keep_secrets,
                rate=run.options.disk_rate_bytes or self._default_rate,
            )
            for port, mount, path in zip(bind_ports(run), mounts, paths, strict=True)
        )


def bind_mounts(run: Run) -> tuple[VolumeMount, ...]:
    """Returns the binds of a run."""
    return tuple(mount for mount in run.plan.volumes if mount.kind is VolumeKind.BIND)


def bind_ports(run: Run) -> tuple[HostPort, ...]:
    """Returns the ports of a run's binds, in their order."""
    return tuple(
        HostPort(name=f"lns.bind{number}", socket=f"bind{number}.sock")
        for number in range(len(bind_mounts(run)))
    )


def _remarks(mount: VolumeMount, source: BindSource) -> list[str]:
    lines = []
    if str(source.path) != mount.source:
        lines.append(f"{mount.source} is a link: {source.path} is bound to {mount.target}")
    if source.secrets and not mount.keep_secrets:
        some = ", ".join(source.secrets[:_NAMED_SECRETS])
        more = ", …" if len(source.secrets) > _NAMED_SECRETS else ""
        lines.append(
            f"{len(source.secrets)} file(s) in {source.path} look like secrets and are hidden from"
            f" the run: {some}{more} (`-v SOURCE:PATH:secrets` keeps them)"
        )
    return lines
