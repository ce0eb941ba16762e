"""Mirrors before registries: asked first for what is read, never for what is written.

A mirror is trusted no more than any registry: digests are checked, and what it fails at is asked of
the next one, at last of the registry itself. Each is shown its own credentials only.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import CapacityExhausted, DeadlineExceeded, LnsError
from services.core.reference import Reference
from services.registry_gateway.ports import BlobSource, Ingest, RawManifest, Registry
from services.registry_gateway.progress import Meter, Stage

log = structlog.get_logger()

T = TypeVar("T")


class MirroredRegistry:
    """Registries with mirrors; implements `Registry`."""

    def __init__(self, registry: Registry, mirrors: Mapping[str, Sequence[str]]) -> None:
        """Touches nothing yet.

        Args:
            registry: asks any host.
            mirrors: hosts to ask before a host, in order.
        """
        self._registry = registry
        self._mirrors = mirrors

    async def resolve(self, reference: Reference) -> Digest | None:
        """See `Registry`."""
        return await self._first(reference, self._registry.resolve)

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """See `Registry`."""
        return await self._first(reference, self._registry.fetch_manifest)

    async def fetch_blob(self, repository: Reference, sink: Ingest, meter: Meter) -> None:
        """See `Registry`."""

        async def fetch(place: Reference) -> None:
            await self._registry.fetch_blob(place, sink, meter)

        await self._first(repository, fetch)

    async def push_blob(
        self,
        repository: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        meter: Meter,
        *,
        mount_from: Sequence[str] = (),
    ) -> None:
        """See `Registry`."""
        await self._registry.push_blob(repository, descriptor, source, meter, mount_from=mount_from)

    async def offer_blob(
        self, repository: Reference, descriptor: Descriptor, *, mount_from: Sequence[str]
    ) -> Stage | None:
        """See `Registry`."""
        return await self._registry.offer_blob(repository, descriptor, mount_from=mount_from)

    async def push_manifest(self, reference: Reference, raw: bytes, media_type: str) -> bool:
        """See `Registry`."""
        return await self._registry.push_manifest(reference, raw, media_type)

    async def list_tags(self, repository: Reference) -> Sequence[str]:
        """See `Registry`; a mirror may know fewer tags, so the registry itself is asked."""
        return await self._registry.list_tags(repository)

    async def list_referrers(self, subject: Reference) -> Sequence[Descriptor] | None:
        """See `Registry`; asked of the registry itself, as tags are."""
        return await self._registry.list_referrers(subject)

    async def delete_manifest(self, reference: Reference) -> None:
        """See `Registry`."""
        await self._registry.delete_manifest(reference)

    async def _first(self, reference: Reference, ask: Callable[[Reference], Awaitable[T]]) -> T:
        for mirror in self._mirrors.get(reference.host, ()):
            try:
                return await ask(replace(reference, host=mirror))
            except (DeadlineExceeded, CapacityExhausted):
                raise
            except LnsError as error:
                log.info(
                    "mirror_failed", mirror=mirror, registry=reference.host, reason=error.reason
                )
        return await ask(reference)
