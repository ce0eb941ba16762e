"""Manifests by reference: from the store where a digest or the registry's word permits it."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import (
    BlobUnknown,
    ContentCorrupt,
    LimitExceeded,
    ManifestUnknown,
    PlatformUnsupported,
    RegistryProtocol,
)
from services.core.manifest import (
    MAX_MANIFEST_BYTES,
    Index,
    Manifest,
    parse_manifest,
    platform_of_config,
)
from services.core.platforms import Platform
from services.core.reference import Reference
from services.registry_gateway.fetch import BlobFetcher
from services.registry_gateway.pins import PinSession
from services.registry_gateway.ports import BlobStore, Registry, StoreIndex
from services.registry_gateway.progress import Board

MAX_CONFIG_BYTES: Final = 4 * 1024 * 1024
MAX_INDEX_DEPTH: Final = 3
_UNLABELLED_MAX: Final = 16
_NO_PLATFORM: Final = Platform(os="unknown", architecture="unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference names.

    Attributes:
        reference: as it was given, normalised.
        root: what it names.
        shown: the manifest of the wanted platform; `root` itself where none was wanted.
    """

    reference: Reference
    root: Manifest | Index
    shown: Manifest | Index


class Manifests:
    """Finds manifests and keeps their bytes in the store."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: BlobStore,
        index: StoreIndex,
        fetcher: BlobFetcher,
        machine: Platform,
    ) -> None:
        """Makes the use case.

        Args:
            registry: where manifests come from.
            store: where their bytes are kept.
            index: what tags name in the store.
            fetcher: fetches configs.
            machine: what the machine's guests execute; decides between variants where none is
                asked for.
        """
        self._machine = machine
        self._registry = registry
        self._store = store
        self._index = index
        self._fetcher = fetcher

    async def root(
        self, reference: Reference, *, offline: bool = False, pins: PinSession | None = None
    ) -> Manifest | Index:
        """Returns what a reference names.

        A digest that the store has is not asked for anywhere; a tag is looked up at the registry,
        unless `offline`, and its manifest fetched if the store lacks it.

        Raises:
            ManifestUnknown: it does not exist.
        """
        digest = reference.digest
        media_type = ""
        if digest is None:
            tag = await self._index.get_tag(store_key(reference))
            if tag is not None:
                digest, media_type = tag.root.digest, tag.root.media_type
                if not offline and await self._registry.resolve(reference) != digest:
                    digest = None
        if digest is not None:
            stored = await self.stored(digest, media_type=media_type, pins=pins)
            if stored is not None:
                return stored
        if offline:
            raise ManifestUnknown(
                f"the store has no {reference}",
                hint="pull it while the registry can be reached",
                metadata={"reference": str(reference)},
            )
        return await self._fetch(reference, media_type="", pins=pins)

    async def child(
        self,
        repository: Reference,
        descriptor: Descriptor,
        *,
        offline: bool = False,
        pins: PinSession | None = None,
    ) -> Manifest | Index:
        """Returns the manifest that a descriptor names, from the store or its repository.

        Raises:
            ManifestUnknown: neither has it.
            ContentCorrupt: it is not as its descriptor says.
        """
        found = await self.stored(descriptor.digest, media_type=descriptor.media_type, pins=pins)
        if found is None:
            pinned = repository.pinned(descriptor.digest)
            if offline:
                raise ManifestUnknown(
                    f"the store has no {pinned}", metadata={"reference": str(pinned)}
                )
            found = await self._fetch(pinned, media_type=descriptor.media_type, pins=pins)
        if found.descriptor.size != descriptor.size:
            raise ContentCorrupt(
                f"manifest {descriptor.digest} has {found.descriptor.size} bytes, the index says"
                f" {descriptor.size}",
                metadata={"digest": descriptor.digest},
            )
        return found

    async def select(
        self,
        reference: Reference,
        root: Manifest | Index,
        platform: Platform,
        *,
        offline: bool = False,
        pins: PinSession | None = None,
    ) -> Manifest:
        """Follows indexes to the manifest that suits a platform best; a manifest is what it is.

        An entry that does not say for which platform it is is judged by its config, if no other
        suits.

        Raises:
            PlatformUnsupported: an index has none for it.
            RegistryProtocol: indexes are nested too deeply.
        """
        here = root
        platform = platform.on(self._machine)
        for _ in range(MAX_INDEX_DEPTH):
            if isinstance(here, Manifest):
                return here
            found: Sequence[Platform] = ()
            if here.best(platform) is None:
                found = await self._platforms(reference, here, offline=offline, pins=pins)
            entry = here.select(platform, found)
            here = await self.child(reference, entry, offline=offline, pins=pins)
        if isinstance(here, Manifest):
            return here
        raise _too_deep(reference)

    async def require(
        self, reference: Reference, root: Manifest | Index, platform: Platform, *, offline: bool
    ) -> None:
        """Holds an image that is no index against the platform that was asked for.

        Raises:
            PlatformUnsupported: it is made for another one.
        """
        if not isinstance(root, Manifest) or not root.is_image:
            return
        offered = platform_of_config(await self.config(reference, root, offline=offline))
        if not platform.on(self._machine).accepts(offered):
            raise PlatformUnsupported(
                f"{reference} is made for {offered} alone, not for {platform}",
                hint="leave --platform out, or name an image that has the platform",
                metadata={"platform": str(platform), "digest": root.descriptor.digest},
            )

    async def _platforms(
        self, reference: Reference, index: Index, *, offline: bool, pins: PinSession | None
    ) -> list[Platform]:
        """Returns for which platforms the first entries are that do not say so."""
        found = []
        for entry in index.unlabelled[:_UNLABELLED_MAX]:
            manifest = await self.child(reference, entry, offline=offline, pins=pins)
            platform = _NO_PLATFORM
            if isinstance(manifest, Manifest) and manifest.is_image:
                raw = await self.config(reference, manifest, offline=offline)
                platform = platform_of_config(raw)
            found.append(platform)
        return found

    async def everything(
        self,
        reference: Reference,
        root: Manifest | Index,
        *,
        offline: bool = False,
        pins: PinSession | None = None,
    ) -> Sequence[Manifest | Index]:
        """Returns `root` and all that is below it, children before parents, each once.

        Raises:
            ManifestUnknown: one is missing.
            RegistryProtocol: indexes are nested too deeply.
        """
        found: dict[Digest, Manifest | Index] = {}

        async def visit(here: Manifest | Index, depth: int) -> None:
            if isinstance(here, Index):
                if depth == MAX_INDEX_DEPTH:
                    raise _too_deep(reference)
                for entry in here.manifests:
                    if entry.digest not in found:
                        below = await self.child(reference, entry, offline=offline, pins=pins)
                        await visit(below, depth + 1)
            found[here.descriptor.digest] = here

        await visit(root, 0)
        return list(found.values())

    async def config(
        self, reference: Reference, manifest: Manifest, *, offline: bool = False
    ) -> bytes:
        """Returns the config blob of a manifest, fetching it if the store lacks it.

        Raises:
            BlobUnknown: neither the store nor the repository has it.
            LimitExceeded: it is larger than 4 MiB.
        """
        blob = manifest.config
        if blob.size > MAX_CONFIG_BYTES:
            raise LimitExceeded(
                f"the config of {reference} has {blob.size} bytes; at most 4 MiB are accepted",
                metadata={"digest": blob.digest},
            )
        if not offline:
            await self._fetcher.fetch_all(reference, [blob], Board())
        return await self._store.read(blob.digest, limit=MAX_CONFIG_BYTES)

    async def stored(
        self, digest: Digest, *, media_type: str = "", pins: PinSession | None = None
    ) -> Manifest | Index | None:
        """Returns a manifest of the store, or None.

        Raises:
            RegistryProtocol: the blob of that digest is no manifest.
        """
        if pins is not None:
            await pins.add([digest])
        with contextlib.suppress(BlobUnknown):
            raw = await self._store.read(digest, limit=MAX_MANIFEST_BYTES)
            return parse_manifest(raw, media_type=media_type, digest=digest)
        return None

    async def _fetch(
        self, reference: Reference, *, media_type: str, pins: PinSession | None
    ) -> Manifest | Index:
        sent = await self._registry.fetch_manifest(reference)
        manifest = parse_manifest(
            sent.raw, media_type=media_type or sent.media_type, digest=reference.digest
        )
        digest = manifest.descriptor.digest
        if pins is not None:
            await pins.add([digest])
        await self._store.write(sent.raw, algorithm=digest.algorithm)
        return manifest


def store_key(reference: Reference) -> str:
    """Returns the name of a reference in the store: with the digest alone where it has one."""
    return str(reference.pinned(reference.digest) if reference.digest else reference)


def _too_deep(reference: Reference) -> RegistryProtocol:
    return RegistryProtocol(
        f"{reference}: indexes are nested deeper than {MAX_INDEX_DEPTH} levels",
        metadata={"reference": str(reference)},
    )
