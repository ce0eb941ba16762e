"""What can be asked of, and changed in, a repository of a registry."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from services.core.artifacts.families import family_of_manifest
from services.core.descriptor import Descriptor
from services.core.errors import ArtifactTypeUnsupported, InUse, ManifestUnknown
from services.core.manifest import Manifest, parse_manifest
from services.core.platforms import Platform
from services.core.reference import Reference
from services.registry_gateway.manifests import Manifests, Resolved
from services.registry_gateway.pins import Pins
from services.registry_gateway.ports import Registry
from services.registry_gateway.push import read_referrers, referrers_tag

_TAGS_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a reference names, described.

    Attributes:
        resolved: reference, root and what is shown.
        config: the config blob; empty for an index.
        family: slug of the artifact's family; empty for an image, an index, or a stranger.
    """

    resolved: Resolved
    config: bytes
    family: str


class Repositories:
    """Manifests and tags of registries."""

    def __init__(self, *, registry: Registry, manifests: Manifests, pins: Pins) -> None:
        self._registry = registry
        self._manifests = manifests
        self._pins = pins

    async def get(
        self, reference: Reference, *, platform: Platform | None, config: bool, offline: bool
    ) -> tuple[Resolved, bytes]:
        """Returns a manifest and, where asked for, its config.

        Args:
            reference: what to get.
            platform: where given, an index is followed to its manifest.
            config: whether the config is wanted; an index has none.
            offline: whether the store alone may answer.

        Raises:
            ManifestUnknown: the registry has no such manifest.
            PlatformUnsupported: the index has none for the platform.
            BlobUnknown: the config is not there.
            LimitExceeded: the config is larger than 4 MiB.
        """
        async with self._pins.session() as pins:
            root = await self._manifests.root(reference, offline=offline, pins=pins)
            shown = root
            if platform is not None:
                shown = await self._manifests.select(
                    reference, root, platform, offline=offline, pins=pins
                )
            blob = b""
            if config and isinstance(shown, Manifest):
                await pins.add([shown.config.digest])
                blob = await self._manifests.config(reference, shown, offline=offline)
        return Resolved(reference=reference, root=root, shown=shown), blob

    async def inspect(self, reference: Reference, platform: Platform | None) -> Inspected:
        """Describes what a reference names; raises as `get` does."""
        resolved, config = await self.get(reference, platform=platform, config=True, offline=False)
        family = ""
        if isinstance(resolved.shown, Manifest):
            try:
                known = family_of_manifest(resolved.shown)
            except ArtifactTypeUnsupported:  # of a newer lns: described all the same
                known = None
            family = known.slug if known else ""
        return Inspected(resolved=resolved, config=config, family=family)

    async def list_tags(
        self, repository: Reference, *, after: str, limit: int
    ) -> tuple[Sequence[str], str]:
        """Returns tags from the first after `after`, and where the next page begins.

        Raises:
            ManifestUnknown: there is no such repository.
        """
        tags = await self._registry.list_tags(repository)
        start = bisect.bisect_right(tags, after) if after else 0
        page = tags[start : start + limit]
        return page, page[-1] if start + limit < len(tags) else ""

    async def tag(self, reference: Reference, tag: str) -> tuple[Reference, Descriptor]:
        """Gives a manifest one more tag in its repository.

        Raises:
            ManifestUnknown: there is no such manifest.
            ReferenceInvalid: the tag is not one.
        """
        named = reference.tagged(tag)
        root = await self._manifests.root(reference)
        await self._registry.push_manifest(named, root.raw, root.descriptor.media_type)
        return named, root.descriptor

    async def delete(self, reference: Reference, *, force: bool) -> Descriptor:
        """Deletes the manifest that a reference names, and with it all of its tags.

        Raises:
            ManifestUnknown: the registry has no such manifest.
            InUse: other tags name it and `force` is not set.
            RegistryDenied: the registry does not delete.
        """
        # By the registry's own word: the store may know a manifest that the registry lost.
        sent = await self._registry.fetch_manifest(reference)
        found = parse_manifest(
            sent.raw, media_type=sent.media_type, digest=reference.digest
        ).descriptor
        if not force:
            others = await self._other_tags(reference, found)
            if others:
                raise InUse(
                    f"{reference} shares its manifest with {', '.join(others[:10])}, which would"
                    " vanish with it",
                    hint="delete them all with --force",
                    metadata={"reference": str(reference), "digest": found.digest},
                )
        await self._registry.delete_manifest(reference.pinned(found.digest))
        return found

    async def _other_tags(self, reference: Reference, found: Descriptor) -> list[str]:
        others = []
        tags = await self._registry.list_tags(reference)
        for tag in tags[:_TAGS_LOOKED_AT]:
            if tag == reference.tag and reference.digest is None:
                continue
            named = reference.tagged(tag)
            try:
                digest = await self._registry.resolve(named)
            except ManifestUnknown:  # deleted meanwhile
                continue
            if digest == found.digest:
                others.append(tag)
        if len(tags) > _TAGS_LOOKED_AT:
            others.append(f"perhaps some of {len(tags) - _TAGS_LOOKED_AT} more tags")
        return others

    async def referrers(self, subject: Reference, artifact_type: str) -> Sequence[Descriptor]:
        """Returns what refers to a manifest, by the API or the fallback tag.

        Raises:
            ManifestUnknown: there is no such subject.
        """
        digest = subject.digest
        if digest is None:
            digest = (await self._manifests.root(subject)).descriptor.digest
        pinned = subject.pinned(digest)
        found = await self._registry.list_referrers(pinned)
        if found is None:
            found = await self._fallback(pinned)
        return [one for one in found if not artifact_type or one.artifact_type == artifact_type]

    async def _fallback(self, subject: Reference) -> Sequence[Descriptor]:
        try:
            sent = await self._registry.fetch_manifest(referrers_tag(subject))
        except ManifestUnknown:
            return ()
        index = read_referrers(subject, sent)
        return index.manifests if index is not None else ()
