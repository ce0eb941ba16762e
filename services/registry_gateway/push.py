"""Pushing: blobs first, then manifests from the leaves to the root, each byte for byte."""

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from services.chassis.tasks import together
from services.core.descriptor import OCI_INDEX, Descriptor
from services.core.digest import Digest
from services.core.errors import (
    BlobsMissing,
    LimitExceeded,
    ManifestUnknown,
    RegistryProtocol,
    RequestInvalid,
)
from services.core.manifest import (
    MAX_INDEX_ENTRIES,
    Index,
    Manifest,
    parse_json_object,
    parse_manifest,
)
from services.core.reference import Reference
from services.registry_gateway.metrics import BLOBS, TRANSFER_SECONDS, TRANSFERRED_BYTES
from services.registry_gateway.ports import BlobSource, RawManifest, Registry, StoreIndex
from services.registry_gateway.progress import Board, Meter, Stage
from services.registry_gateway.pull import blobs_of

SourceOf = Callable[[Descriptor], BlobSource]
_TRIES: Final = 2
_OUTCOMES: Final = {Stage.EXISTS: "exists", Stage.MOUNTED: "mounted", Stage.DONE: "moved"}


class Pusher:
    """Puts manifests with everything they name into a repository."""

    def __init__(self, registry: Registry, index: StoreIndex) -> None:
        self._registry = registry
        self._index = index
        self._referrers = asyncio.Lock()

    async def push(
        self,
        target: Reference,
        parts: Sequence[Manifest | Index],
        source_of: SourceOf,
        board: Board,
        *,
        without: Collection[Digest] = (),
    ) -> None:
        """Pushes what `parts` name and the parts themselves.

        Args:
            target: where the last part, the root, gets its name.
            parts: manifests and indexes, children before parents.
            source_of: the bytes of configs and layers.
            board: shows the progress.
            without: blobs that are not pushed: foreign layers that the source lacks, too.

        Raises:
            RequestInvalid: the target has a digest that is not the root's.
            ArtifactInvalid: the registry validates artifacts and refused this one.
            BlobsMissing: the registry still misses something after everything was pushed.
        """
        root = parts[-1]
        if target.digest is not None and target.digest != root.descriptor.digest:
            raise RequestInvalid(
                f"{target} cannot be pushed: the source has the digest {root.descriptor.digest}",
                hint="leave the digest out",
                metadata={"reference": str(target)},
            )
        blobs = [blob for blob in blobs_of(parts) if blob.digest not in without]
        for attempt in range(_TRIES):
            await together(self._push_blob(target, blob, source_of, board) for blob in blobs)
            try:
                await self._push_manifests(target, parts, board)
            except BlobsMissing:
                # A registry that was cleaned between the two steps lost what it had.
                if attempt + 1 == _TRIES:
                    raise
            else:
                break
        await self._index.add_origin((blob.digest for blob in blobs), target)

    async def _push_blob(
        self, target: Reference, blob: Descriptor, source_of: SourceOf, board: Board
    ) -> None:
        meter = Meter(blob.digest, blob.size)
        board.add(meter)
        origins = await self._index.origins(blob.digest, target.host)
        try:
            with TRANSFER_SECONDS.labels("out").time():
                await self._registry.push_blob(
                    target,
                    blob,
                    source_of(blob),
                    meter,
                    mount_from=[path for path in origins if path != target.path],
                )
        finally:
            TRANSFERRED_BYTES.labels("out").inc(meter.moved)
            BLOBS.labels("out", _OUTCOMES.get(meter.stage, "failed")).inc()

    async def _push_manifests(
        self, target: Reference, parts: Sequence[Manifest | Index], board: Board
    ) -> None:
        for part in parts:
            named = target.pinned(part.descriptor.digest)
            if part is parts[-1] and target.tag is not None:
                named = target.tagged(target.tag)
            indexed = await self._registry.push_manifest(
                named, part.raw, part.descriptor.media_type
            )
            if isinstance(part, Manifest) and part.subject is not None and not indexed:
                await self._add_referrer(target.pinned(part.subject.digest), part, board)

    async def _add_referrer(self, subject: Reference, referrer: Manifest, board: Board) -> None:
        """Adds a referrer to the fallback tag of its subject, where the API is missing.

        Writers of one gateway take turns; those of others may win, as the specification has it.
        """
        tag = referrers_tag(subject)
        async with self._referrers:
            index: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
            try:
                sent = await self._registry.fetch_manifest(tag)
            except ManifestUnknown:
                pass
            else:
                before = read_referrers(subject, sent)
                if before is None:
                    board.warn(
                        f"{tag} is not a list of referrers, so it was left as it is:"
                        f" {referrer.descriptor.digest} is pushed, and listed nowhere as a"
                        f" referrer of {subject.digest}"
                    )
                    return
                if any(entry.digest == referrer.descriptor.digest for entry in before.manifests):
                    return
                if len(before.manifests) >= MAX_INDEX_ENTRIES:
                    raise LimitExceeded(f"{subject} has {len(before.manifests)} referrers already")
                # As others wrote it: members that lns does not know stay.
                index = parse_json_object(sent.raw, what=str(tag))
            listed = index["manifests"]
            described = (
                descriptor_json(referrer.descriptor)
                | {"artifactType": referrer.artifact_type}
                | ({"annotations": dict(referrer.annotations)} if referrer.annotations else {})
            )
            index["manifests"] = [*listed, described]
            await self._registry.push_manifest(tag, json.dumps(index).encode(), OCI_INDEX)


def referrers_tag(subject: Reference) -> Reference:
    """Returns the fallback tag that lists what refers to a digest (OCI distribution 1.1)."""
    if subject.digest is None:
        raise ValueError("a subject has a digest")
    digest = subject.digest
    return subject.tagged(f"{digest.algorithm[:32]}-{digest.hex[:64]}")


def read_referrers(subject: Reference, sent: RawManifest) -> Index | None:
    """Returns what a fallback tag named as a list of referrers, or None where it is not one.

    Registries that resolve the tag `sha256-HEX` as the digest send the subject itself, an index of
    platforms at times; others may have any image under that name.
    """
    try:
        index = parse_manifest(sent.raw, media_type=sent.media_type)
        # Strictly: the reader of images takes an absent list for an empty one.
        listed = parse_json_object(sent.raw, what="list of referrers").get("manifests")
    except (RegistryProtocol, LimitExceeded):
        return None
    if not isinstance(listed, list):
        return None
    if not isinstance(index, Index) or index.descriptor.media_type != OCI_INDEX:
        return None
    if index.descriptor.digest == subject.digest:
        return None
    if any(one.platform is not None or one.digest == subject.digest for one in index.manifests):
        return None
    return index


def descriptor_json(descriptor: Descriptor) -> dict[str, Any]:
    """Returns a descriptor as OCI documents hold it."""
    value: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.artifact_type:
        value["artifactType"] = descriptor.artifact_type
    if descriptor.annotations:
        value["annotations"] = dict(descriptor.annotations)
    if descriptor.platform is not None:
        platform = descriptor.platform
        value["platform"] = {"os": platform.os, "architecture": platform.architecture}
        if platform.variant:
            value["platform"]["variant"] = platform.variant
    return value
