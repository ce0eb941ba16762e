"""Manifests of this node only, for resolutions that must ask no registry."""

from services.core.platforms import Platform
from services.resolver.ports import FetchedManifest, ManifestSource


class StoredManifests:
    """A source of which only what is on this node counts; implements `ManifestSource`."""

    def __init__(self, source: ManifestSource) -> None:
        self._source = source

    async def fetch(
        self, reference: str, *, platform: Platform, offline: bool = False
    ) -> FetchedManifest:
        """See `ManifestSource.fetch`; `offline` or not."""
        return await self._source.fetch(reference, platform=platform, offline=True)
