"""Copying from registry to registry: byte for byte, with what belongs to it."""

from collections.abc import Sequence
from typing import Final

from services.chassis.tasks import together
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import (
    BlobUnknown,
    LimitExceeded,
    ManifestUnknown,
    RegistryDenied,
    RegistryProtocol,
    RegistryUnauthenticated,
)
from services.core.manifest import Index, Manifest
from services.core.platforms import Platform
from services.core.reference import Reference
from services.registry_gateway.fetch import BlobFetcher
from services.registry_gateway.manifests import Manifests
from services.registry_gateway.pins import Pins, PinSession
from services.registry_gateway.ports import BlobStore, Registry
from services.registry_gateway.progress import Board
from services.registry_gateway.pull import blobs_of
from services.registry_gateway.push import Pusher
from services.registry_gateway.push_image import PushedImage
from services.registry_gateway.repositories import Repositories

_SUFFIXES: Final = ("sig", "att", "sbom")
"""Tags `sha256-HEX.SUFFIX`, under which cosign keeps signatures, attestations and SBOMs."""
_MOST: Final = 1000
_LOOKED_AT: Final = 8
"""Manifests whose belongings are looked for at a time."""


class CopyImage:
    """Copies; what the target has or can mount is not fetched."""

    def __init__(
        self,
        *,
        registry: Registry,
        pusher: Pusher,
        fetcher: BlobFetcher,
        manifests: Manifests,
        store: BlobStore,
        pins: Pins,
        repositories: Repositories,
    ) -> None:
        self._registry = registry
        self._pusher = pusher
        self._fetcher = fetcher
        self._manifests = manifests
        self._store = store
        self._pins = pins
        self._repositories = repositories

    async def run(
        self,
        source: Reference,
        target: Reference,
        *,
        platform: Platform | None,
        referrers: bool,
        board: Board,
    ) -> PushedImage:
        """Copies what a reference names.

        Args:
            source: what is copied.
            target: where it goes.
            platform: of an index, the one manifest that is copied; None copies all of it.
            referrers: whether what refers to it (signatures, SBOMs, attestations) goes too: by the
                referrers API or its fallback tag, and by cosign's tags.
            board: shows the progress, and takes what could not be copied as warnings.

        Raises:
            ManifestUnknown: there is no such source, or a part of the index is missing.
            PlatformUnsupported: the source has nothing for the platform.
            LimitExceeded: more than 1,000 manifests refer to it.
        """
        async with self._pins.session() as pins:
            find = self._manifests
            root = await find.root(source, pins=pins)
            if platform is None:
                parts = await find.everything(source, root, pins=pins)
            else:
                await find.require(source, root, platform, offline=False)
                parts = [await find.select(source, root, platform, pins=pins)]
            await self._copy(source, target, parts, pins, board)
            if referrers:
                digests = [part.descriptor.digest for part in parts]
                await self._copy_belongings(source, target, digests, pins, board)
        return PushedImage(
            reference=target,
            descriptor=parts[-1].descriptor,
            transferred_bytes=board.moved,
            warnings=board.warnings,
        )

    async def _copy(
        self,
        source: Reference,
        target: Reference,
        parts: Sequence[Manifest | Index],
        pins: PinSession,
        board: Board,
    ) -> None:
        blobs = blobs_of(parts)
        await pins.add(blob.digest for blob in blobs)
        near = [source.path] if source.host == target.host and source.path != target.path else []
        left = await together(self._bring(source, target, blob, near, board) for blob in blobs)
        await self._pusher.push(
            target, parts, self._store.source, board, without=frozenset(filter(None, left))
        )

    async def _bring(
        self,
        source: Reference,
        target: Reference,
        blob: Descriptor,
        near: Sequence[str],
        board: Board,
    ) -> Digest | None:
        """Sees to it that a blob can be pushed; returns the digest of one that is left out."""
        if await self._registry.offer_blob(target, blob, mount_from=near) is None:
            try:
                await self._fetcher.fetch_all(source, [blob], board)
            except BlobUnknown:
                if not blob.is_foreign:
                    raise
                board.warn(
                    f"the foreign layer {blob.digest} was not copied: {source.host} lacks it"
                )
                return blob.digest
        return None

    async def _copy_belongings(
        self,
        source: Reference,
        target: Reference,
        digests: Sequence[Digest],
        pins: PinSession,
        board: Board,
    ) -> None:
        """Copies what refers to manifests, and what refers to that in turn."""
        seen = set(digests)
        pending = list(digests)
        while pending:
            some, pending = pending[:_LOOKED_AT], pending[_LOOKED_AT:]
            found = await together(self._belongings(source, digest, board) for digest in some)
            for named, root in (one for group in found for one in group):
                digest = root.descriptor.digest
                if digest in seen:
                    continue
                seen.add(digest)
                if len(seen) > _MOST:
                    raise LimitExceeded(f"more than {_MOST} manifests belong to {source}")
                parts = await self._manifests.everything(source, root, pins=pins)
                place = target.tagged(named) if named else target.pinned(digest)
                await self._copy(source, place, parts, pins, board)
                pending.append(digest)

    async def _belongings(
        self, source: Reference, digest: Digest, board: Board
    ) -> list[tuple[str, Manifest | Index]]:
        """Returns what belongs to one manifest, each with its tag where that is how it is found."""
        found: list[tuple[str, Manifest | Index]] = []
        try:
            listed = await self._repositories.referrers(source.pinned(digest), "")
            found += [("", await self._manifests.child(source, one)) for one in listed]
        except (
            RegistryDenied,
            RegistryProtocol,
            RegistryUnauthenticated,
            ManifestUnknown,
        ) as error:
            board.warn(f"what refers to {digest} was not copied: {error.message}")
        for suffix in _SUFFIXES:
            tag = f"{digest.algorithm}-{digest.hex[:64]}.{suffix}"
            try:
                found.append((tag, await self._manifests.root(source.tagged(tag))))
            except ManifestUnknown:
                continue
        return found
