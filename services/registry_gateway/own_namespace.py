"""A namespace of the store's own, which is used like a registry and asks none.

References whose host is `STORE_HOST` never leave the node: what is pushed there is in the store
under that name, and what is pulled from there is what the store has. `lns run ./agent.yaml` puts an
agent there, so that everything behind it is as for any other reference.
"""

import asyncio
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, cast

from services.core.artifacts.families import family_of_manifest
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import BlobUnknown, LnsError, ManifestUnknown
from services.core.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from services.core.reference import STORE_HOST, Reference
from services.registry_gateway.manifests import store_key
from services.registry_gateway.ports import (
    BlobSource,
    BlobStore,
    Ingest,
    RawManifest,
    Registry,
    StoredTag,
    StoreIndex,
)
from services.registry_gateway.progress import Meter, Stage

_COPY_BYTES: Final = 1 << 20


class OwnNamespace:
    """Implements `Registry`: the store for its own host, the registries of the world for others."""

    def __init__(self, others: Registry, store: BlobStore, index: StoreIndex) -> None:
        self._others = others
        self._store = store
        self._index = index

    async def resolve(self, reference: Reference) -> Digest | None:
        """See `Registry.resolve`."""
        if not _is_own(reference):
            return await self._others.resolve(reference)
        return await self._digest(reference)

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """See `Registry.fetch_manifest`."""
        if not _is_own(reference):
            return await self._others.fetch_manifest(reference)
        digest = await self._digest(reference)
        try:
            raw = await self._store.read(digest, limit=MAX_MANIFEST_BYTES)
        except BlobUnknown:
            raise _unknown(reference) from None
        return RawManifest(raw=raw, media_type="")

    async def fetch_blob(self, repository: Reference, sink: Ingest, meter: Meter) -> None:
        """See `Registry.fetch_blob`; what the store lacks is nowhere else."""
        if not _is_own(repository):
            await self._others.fetch_blob(repository, sink, meter)
            return
        digest = sink.descriptor.digest
        raise BlobUnknown(f"the store has lost the blob {digest}", metadata={"digest": digest})

    async def push_blob(
        self,
        repository: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        meter: Meter,
        *,
        mount_from: Sequence[str] = (),
    ) -> None:
        """See `Registry.push_blob`."""
        if not _is_own(repository):
            await self._others.push_blob(
                repository, descriptor, source, meter, mount_from=mount_from
            )
            return
        meter.stage = Stage.EXISTS
        if await self._store.size(descriptor.digest) is None:
            ingest = await self._store.ingest(descriptor, resume=False)
            try:
                await asyncio.to_thread(_copy, source, ingest)
            finally:
                ingest.close()
            meter.stage = Stage.DONE

    async def offer_blob(
        self, repository: Reference, descriptor: Descriptor, *, mount_from: Sequence[str]
    ) -> Stage | None:
        """See `Registry.offer_blob`."""
        if not _is_own(repository):
            return await self._others.offer_blob(repository, descriptor, mount_from=mount_from)
        return Stage.EXISTS if await self._store.size(descriptor.digest) is not None else None

    async def push_manifest(self, reference: Reference, raw: bytes, media_type: str) -> bool:
        """See `Registry.push_manifest`."""
        if not _is_own(reference):
            return await self._others.push_manifest(reference, raw, media_type)
        await self._store.write(raw)
        if reference.tag is not None and reference.digest is None:
            await self._store.settle()
            await self._index.put_tag(_tag_of(reference, raw, media_type))
        return True

    async def list_tags(self, repository: Reference) -> Sequence[str]:
        """See `Registry.list_tags`."""
        if not _is_own(repository):
            return await self._others.list_tags(repository)
        prefix = f"{repository.repository}:"
        tags = [tag.reference for tag in await self._index.list_tags()]
        return [one.removeprefix(prefix) for one in tags if one.startswith(prefix)]

    async def list_referrers(self, subject: Reference) -> Sequence[Descriptor] | None:
        """See `Registry.list_referrers`; the store keeps no such list."""
        if not _is_own(subject):
            return await self._others.list_referrers(subject)
        return []

    async def delete_manifest(self, reference: Reference) -> None:
        """See `Registry.delete_manifest`."""
        if not _is_own(reference):
            await self._others.delete_manifest(reference)
            return
        prefix = f"{reference.repository}:"
        gone = [
            tag.reference
            for tag in await self._index.list_tags()
            if tag.reference.startswith(prefix) and tag.root.digest == reference.digest
        ]
        if not gone:
            raise _unknown(reference)
        await self._index.remove_tags(gone)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the registries of the world can do, they do."""
        return getattr(self._others, name)

    async def _digest(self, reference: Reference) -> Digest:
        if reference.digest is not None:
            return reference.digest
        tag = await self._index.get_tag(store_key(reference))
        if tag is None:
            raise _unknown(reference)
        return tag.root.digest


def _is_own(reference: Reference) -> bool:
    return reference.host == STORE_HOST


def _unknown(reference: Reference) -> ManifestUnknown:
    return ManifestUnknown(
        f"the store has no {reference}",
        hint="name a file beside the bundle, or a reference with the host of its registry",
        metadata={"reference": str(reference)},
    )


def _copy(source: BlobSource, ingest: Ingest) -> None:
    with source.open() as file:
        shutil.copyfileobj(file, cast("BinaryIO", ingest), _COPY_BYTES)
    ingest.commit()


def _tag_of(reference: Reference, raw: bytes, media_type: str) -> StoredTag:
    parsed = parse_manifest(raw, media_type=media_type)
    family = None
    total = 0
    if isinstance(parsed, Manifest):
        total = parsed.total_bytes
        try:
            family = family_of_manifest(parsed)
        except LnsError:  # an artifact that contradicts itself is of no family
            family = None
    return StoredTag(
        reference=store_key(reference),
        root=parsed.descriptor,
        manifest=None,
        family=family.slug if family else "",
        total_bytes=total,
        created=datetime.now(UTC),
    )
