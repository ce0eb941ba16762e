"""What the store has and keeps: tags, leases, pruning.

Pruning marks everything that tags, leases and pins reach and removes the rest. It needs no journal:
a crash leaves blobs that the next prune finds, and never a tag without what it needs.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from services.core.digest import Digest
from services.core.errors import BlobUnknown, ImageUnknown, InUse, LnsError, RequestInvalid
from services.core.manifest import MAX_MANIFEST_BYTES, Index, Manifest, parse_manifest
from services.core.reference import Reference
from services.registry_gateway.manifests import store_key
from services.registry_gateway.pins import Pins
from services.registry_gateway.ports import BlobStore, StoredLease, StoredTag, StoreIndex
from services.registry_gateway.pull import blobs_of

MAX_LEASE_DIGESTS: Final = 4096
MAX_LEASE_ID: Final = 200
MAX_LEASES: Final = 1000
WRITTEN_LIFE: Final = timedelta(hours=1)
_BATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune removed, or would remove."""

    digests: Sequence[Digest]
    freed_bytes: int


def utc_now() -> datetime:
    """Returns the time of day."""
    return datetime.now(UTC)


class StoredImages:
    """Tags and leases of the store, and its pruning."""

    def __init__(
        self,
        *,
        store: BlobStore,
        index: StoreIndex,
        pins: Pins,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._index = index
        self._pins = pins
        self._now = now
        self._pruning = asyncio.Lock()

    async def list_tags(self, *, after: str, limit: int) -> tuple[Sequence[StoredTag], str]:
        """Returns tags by reference, from the first after `after`, and where the next page begins.

        Args:
            after: the last reference of the page before, or empty.
            limit: most entries.
        """
        tags = [tag for tag in await self._index.list_tags() if tag.reference > after]
        return tags[:limit], tags[limit - 1].reference if len(tags) > limit else ""

    async def remove(self, reference: Reference) -> Sequence[str]:
        """Forgets a tag, or a digest with all its tags; returns the references that went.

        Raises:
            ImageUnknown: the store has no such reference.
            InUse: a lease needs it.
        """
        tags = await self._index.list_tags()
        if reference.digest is None:
            gone = [tag for tag in tags if tag.reference == store_key(reference)]
        else:
            wanted = reference.digest
            gone = [
                tag
                for tag in tags
                if wanted in (tag.root.digest, tag.manifest.digest if tag.manifest else None)
            ]
        if not gone:
            raise ImageUnknown(
                f"the store has no image {reference}",
                hint="`lns image ls` lists what it has",
                metadata={"image": str(reference)},
            )
        await self._check_leases(tags, gone)
        references = [tag.reference for tag in gone]
        await self._index.remove_tags(references)
        return references

    async def tag(self, source: Reference, target: Reference) -> StoredTag:
        """Gives what one reference of the store names another name there.

        Raises:
            ImageUnknown: the store has no such reference.
            RequestInvalid: the target has no tag.
        """
        if target.tag is None or target.digest is not None:
            raise RequestInvalid(f"{target} is no name with a tag", hint="write name:tag")
        named = await self._find(source)
        before = await self._index.get_tag(store_key(target))
        if before is not None and named.root.digest in _digests_of(before):
            return before
        tag = replace(named, reference=store_key(target), created=self._now())
        await self._index.put_tag(tag)
        return tag

    async def _find(self, reference: Reference) -> StoredTag:
        found = await self._index.get_tag(store_key(reference))
        if found is None and reference.digest is not None:
            tags = await self._index.list_tags()
            found = next((tag for tag in tags if reference.digest in _digests_of(tag)), None)
        if found is None:
            raise ImageUnknown(
                f"the store has no image {reference}",
                hint="`lns image ls` lists what it has",
                metadata={"image": str(reference)},
            )
        return found

    async def list_leases(self, prefix: str) -> Sequence[StoredLease]:
        """Returns the leases that hold, by id; those whose id begins with `prefix`."""
        leases = await self._index.list_leases(self._now())
        kept = sorted((one for one in leases if one.lease_id.startswith(prefix)), key=_lease_id)
        return kept[:MAX_LEASES]

    async def acquire(
        self, lease_id: str, *, holder: str, digests: Sequence[Digest], life: timedelta | None
    ) -> StoredLease:
        """Keeps blobs, and what manifests among them name, until released or run out.

        Raises:
            BlobUnknown: one is not in the store.
            RequestInvalid: the id is empty or too long, or there are too many digests.
        """
        if not lease_id or len(lease_id) > MAX_LEASE_ID or len(holder) > MAX_LEASE_ID:
            raise RequestInvalid(f"a lease has an id and a holder of at most {MAX_LEASE_ID} bytes")
        if len(digests) > MAX_LEASE_DIGESTS:
            raise RequestInvalid(f"a lease has at most {MAX_LEASE_DIGESTS} digests")
        async with self._pins.session() as pins:
            await pins.add(digests)
            missing = await self._store.missing(digests)
            if missing:
                first = min(missing)
                raise BlobUnknown(f"blob {first} is not in the store", metadata={"digest": first})
            lease = StoredLease(
                lease_id=lease_id,
                holder=holder,
                digests=tuple(dict.fromkeys(digests)),
                expires=self._now() + life if life is not None else None,
            )
            await self._store.settle()
            await self._index.put_lease(lease)
        return lease

    async def release(self, lease_id: str) -> None:
        """Gives a lease up; one that is gone is released."""
        await self._index.remove_lease(lease_id)

    async def keep_written(self, digest: Digest) -> None:
        """Keeps a blob that a client wrote for an hour, so that it can be named by a manifest."""
        await self.acquire(
            f"written {digest}", holder="WriteBlob", digests=[digest], life=WRITTEN_LIFE
        )

    async def prune(self, *, dry_run: bool, include_tagged: bool) -> Pruned:
        """Removes what no tag, lease or transfer needs.

        Args:
            dry_run: whether only to say what would go.
            include_tagged: whether tags that no lease needs go too.
        """
        async with self._pruning:
            with self._pins.pruning():
                tags = await self._index.list_tags()
                leased = await self._reached(await self._leased())
                if include_tagged:
                    unneeded = [tag for tag in tags if leased.isdisjoint(_digests_of(tag))]
                    if not dry_run:
                        await self._index.remove_tags(tag.reference for tag in unneeded)
                    tags = [tag for tag in tags if tag not in unneeded]
                roots = [d for tag in tags for d in _digests_of(tag)]
                needed = leased | await self._reached([*roots, *self._pins.all()])
                blobs = await self._store.list()
                garbage = sorted(digest for digest in blobs if digest not in needed)
                if dry_run:
                    return Pruned(digests=garbage, freed_bytes=sum(blobs[d] for d in garbage))
                return await self._remove(garbage)

    async def _remove(self, garbage: Sequence[Digest]) -> Pruned:
        gone: dict[Digest, int] = {}

        async def remove(batch: frozenset[Digest]) -> None:
            gone.update(await self._store.remove(batch))

        for start in range(0, len(garbage), _BATCH):
            await self._pins.remove_unpinned(garbage[start : start + _BATCH], remove)
        freed = sum(gone.values()) + await self._store.sweep_ingests(keep=self._pins.all())
        return Pruned(digests=sorted(gone), freed_bytes=freed)

    async def _leased(self) -> list[Digest]:
        leases = await self._index.list_leases(self._now())
        return [digest for lease in leases for digest in lease.digests]

    async def _check_leases(self, tags: Sequence[StoredTag], gone: Sequence[StoredTag]) -> None:
        """Raises InUse if a lease needs what only the tags that go keep reachable by name."""
        kept = {tag.root.digest for tag in tags if tag not in gone}
        leases = await self._index.list_leases(self._now())
        for tag in gone:
            if tag.root.digest in kept:
                continue
            for lease in leases:
                if set(_digests_of(tag)) & set(lease.digests):
                    raise InUse(
                        f"{tag.reference} is needed by {lease.holder or lease.lease_id}",
                        hint="stop what uses it first",
                        metadata={"image": tag.reference, "lease": lease.lease_id},
                    )

    async def _reached(self, roots: Iterable[Digest]) -> set[Digest]:
        """Returns the digests and everything that manifests among them name."""
        found: set[Digest] = set()
        pending = list(roots)
        while pending:
            digest = pending.pop()
            if digest in found:
                continue
            found.add(digest)
            below = await self._manifest(digest)
            if isinstance(below, Index):
                pending.extend(entry.digest for entry in below.manifests)
            elif below is not None:
                # Not `pending`: what a manifest names as a blob is never read as a manifest.
                found.update(blob.digest for blob in blobs_of([below]))
        return found

    async def _manifest(self, digest: Digest) -> Manifest | Index | None:
        size = await self._store.size(digest)
        if size is None or size > MAX_MANIFEST_BYTES:
            return None
        try:
            raw = await self._store.read(digest, limit=MAX_MANIFEST_BYTES)
            return parse_manifest(raw, digest=digest)
        except LnsError:  # what is no manifest names nothing
            return None


def _lease_id(lease: StoredLease) -> str:
    return lease.lease_id


def _digests_of(tag: StoredTag) -> list[Digest]:
    return [tag.root.digest] + ([tag.manifest.digest] if tag.manifest else [])
