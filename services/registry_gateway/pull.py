"""Pulling: an image or artifact with all its blobs into the store, then its tag."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from services.core.artifacts.families import family_of_manifest
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import ManifestUnknown, PlatformUnsupported
from services.core.manifest import Index, Manifest
from services.core.platforms import Platform
from services.core.reference import Reference
from services.registry_gateway.artifact_types import ArtifactTypes
from services.registry_gateway.fetch import BlobFetcher
from services.registry_gateway.manifests import Manifests, Resolved, store_key
from services.registry_gateway.pins import Pins, PinSession
from services.registry_gateway.ports import BlobStore, StoredTag, StoreIndex
from services.registry_gateway.progress import Board


class PullMode(Enum):
    """When the registry is asked."""

    ALWAYS = auto()
    MISSING = auto()
    NEVER = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class PullWish:
    """What is to be pulled.

    Attributes:
        reference: its name.
        platform: which manifest of an index; None is the gateway's own.
        all_platforms: whether all manifests of an index are pulled.
        mode: when the registry is asked.
        verify: whether what the store has is read and checked too.
    """

    reference: Reference
    platform: Platform | None = None
    all_platforms: bool = False
    mode: PullMode = PullMode.ALWAYS
    verify: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull brought.

    Attributes:
        resolved: reference, root and manifest.
        family: slug of the artifact's family; empty for an image.
        document: the artifact's document; empty for an image.
        transferred_bytes: what crossed the network.
        existing_blobs: how many blobs the store had.
    """

    resolved: Resolved
    family: str
    document: bytes
    transferred_bytes: int
    existing_blobs: int


class Pull:
    """Pulls."""

    def __init__(
        self,
        *,
        manifests: Manifests,
        fetcher: BlobFetcher,
        store: BlobStore,
        index: StoreIndex,
        pins: Pins,
        types: ArtifactTypes,
        platform: Platform,
    ) -> None:
        self._manifests = manifests
        self._fetcher = fetcher
        self._store = store
        self._index = index
        self._pins = pins
        self._types = types
        self._platform = platform

    async def run(self, wanted: PullWish, board: Board) -> Pulled:
        """Pulls what a reference names; the board shows the progress.

        Raises:
            ManifestUnknown: it does not exist, or the store lacks it and the mode is NEVER.
            PlatformUnsupported: no image exists for the platform.
            ArtifactInvalid: it is an artifact whose document is not valid.
            BlobUnknown: the registry lacks a blob that the manifest names.
            CapacityExhausted: the disk is full.
        """
        async with self._pins.session() as pins:
            if wanted.mode is not PullMode.ALWAYS:
                stored = await self._from_store(wanted, board, pins)
                if stored is not None:
                    return stored
                if wanted.mode is PullMode.NEVER:
                    raise ManifestUnknown(
                        f"the store does not have all of {wanted.reference}",
                        hint="pull it while the registry can be reached",
                        metadata={"reference": str(wanted.reference)},
                    )
            resolved, blobs = await self._resolve(wanted, pins, offline=False)
            await self._fetcher.fetch_all(wanted.reference, blobs, board, verify=wanted.verify)
            pulled = await self._pulled(resolved, board, offline=False)
            await self._record(resolved, pulled.family, blobs)
            return pulled

    async def _resolve(
        self, wanted: PullWish, pins: PinSession, *, offline: bool
    ) -> tuple[Resolved, Sequence[Descriptor]]:
        """Returns what is pulled and its blobs, all of it pinned."""
        find, reference = self._manifests, wanted.reference
        root = shown = await find.root(reference, offline=offline, pins=pins)
        if wanted.platform is not None:
            await find.require(reference, root, wanted.platform, offline=offline)
        try:
            platform = wanted.platform or self._platform
            shown = await find.select(reference, root, platform, offline=offline, pins=pins)
        except PlatformUnsupported:
            # Who wants all platforms and none in particular wants them on any machine.
            if wanted.platform is not None or not wanted.all_platforms:
                raise
        parts: Sequence[Manifest | Index] = (root, shown)
        if wanted.all_platforms:
            parts = await find.everything(reference, root, offline=offline, pins=pins)
        blobs = blobs_of(parts)
        await pins.add(blob.digest for blob in blobs)
        return Resolved(reference=reference, root=root, shown=shown), blobs

    async def _from_store(self, wanted: PullWish, board: Board, pins: PinSession) -> Pulled | None:
        """Returns what the store has, if it has all of it and the reference was pulled before."""
        if not await self._was_pulled(wanted.reference):
            return None
        try:
            resolved, blobs = await self._resolve(wanted, pins, offline=True)
        except ManifestUnknown:
            return None
        if wanted.verify:
            await self._fetcher.drop_damaged(blob.digest for blob in blobs)
        if await self._store.missing(blob.digest for blob in blobs):
            return None
        await self._fetcher.fetch_all(wanted.reference, blobs, board)  # marks them as existing
        return await self._pulled(resolved, board, offline=True)

    async def _was_pulled(self, reference: Reference) -> bool:
        """Says whether the store has a reference, or a digest by another name of its repository."""
        if await self._index.get_tag(store_key(reference)) is not None:
            return True
        if reference.digest is None:
            return False
        return any(
            tag.reference.startswith((f"{reference.repository}:", f"{reference.repository}@"))
            and reference.digest in (tag.root.digest, tag.manifest.digest if tag.manifest else "")
            for tag in await self._index.list_tags()
        )

    async def _pulled(self, resolved: Resolved, board: Board, *, offline: bool) -> Pulled:
        manifest, document, slug = resolved.shown, b"", ""
        family = family_of_manifest(manifest) if isinstance(manifest, Manifest) else None
        if family is not None and isinstance(manifest, Manifest):
            slug = family.slug
            document = await self._manifests.config(resolved.reference, manifest, offline=True)
            await self._types.check(resolved.reference, family, document, offline=offline)
        return Pulled(
            resolved=resolved,
            family=slug,
            document=document,
            transferred_bytes=board.moved,
            existing_blobs=board.existing,
        )

    async def _record(self, resolved: Resolved, family: str, blobs: Sequence[Descriptor]) -> None:
        root, manifest = resolved.root.descriptor, resolved.shown.descriptor
        await self._index.add_origin((blob.digest for blob in blobs), resolved.reference)
        await self._store.settle()
        await self._index.put_tag(
            StoredTag(
                reference=store_key(resolved.reference),
                root=root,
                manifest=None if root.digest == manifest.digest else manifest,
                family=family,
                total_bytes=sum(blob.size for blob in blobs),
                created=datetime.now(UTC),
            )
        )


def blobs_of(parts: Sequence[Manifest | Index]) -> list[Descriptor]:
    """Returns configs and layers of manifests, each once."""
    found: dict[Digest, Descriptor] = {}
    for part in parts:
        if isinstance(part, Manifest):
            for blob in (part.config, *part.layers):
                found.setdefault(blob.digest, blob)
    return list(found.values())
