"""Manifests that were fetched before, by digest: what has a digest is asked for once."""

from collections import OrderedDict
from typing import Final

from services.core.errors import LnsError
from services.core.platforms import Platform
from services.core.reference import Reference
from services.resolver.metrics import MANIFESTS
from services.resolver.ports import FetchedManifest, ManifestSource

MAX_BYTES: Final = 64 * 1024 * 1024

_Key = tuple[str, str, Platform]


class ManifestCache:
    """Implements `ManifestSource` before another one.

    A tag is always looked up: what it names may have changed. Entries are kept by repository, since
    who may read one repository may not read another.

    Args:
        source: where manifests come from.
        max_bytes: how many bytes of manifests and configs are kept; the least used go first.
    """

    def __init__(self, source: ManifestSource, *, max_bytes: int = MAX_BYTES) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[_Key, FetchedManifest] = OrderedDict()

    async def fetch(
        self, reference: str, *, platform: Platform, offline: bool = False
    ) -> FetchedManifest:
        """See `ManifestSource.fetch`."""
        key = _key(reference, platform)
        if key is not None and key in self._entries:
            self._entries.move_to_end(key)
            MANIFESTS.labels("cache").inc()
            return self._entries[key]
        MANIFESTS.labels("gateway").inc()
        fetched = await self._source.fetch(reference, platform=platform, offline=offline)
        self._keep((fetched.repository, fetched.root.digest, platform), fetched)
        return fetched

    def _keep(self, key: _Key, fetched: FetchedManifest) -> None:
        if key in self._entries:
            return
        self._entries[key] = fetched
        self._bytes += _size(fetched)
        while self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= _size(oldest)


def _key(reference: str, platform: Platform) -> _Key | None:
    try:
        parsed = Reference.parse(reference)
    except LnsError:
        return None  # the source says what is wrong with it
    return (parsed.repository, parsed.digest, platform) if parsed.digest is not None else None


def _size(fetched: FetchedManifest) -> int:
    return len(fetched.manifest.raw) + len(fetched.config)
