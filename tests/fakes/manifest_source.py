"""A registry in memory behind the resolver's port; `tests/contract/resolver` keeps it honest."""

import json
from dataclasses import dataclass, field
from typing import Any

from services.core.artifacts.documents import canonical_json
from services.core.artifacts.families import Family
from services.core.descriptor import (
    OCI_IMAGE_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
)
from services.core.digest import Digest
from services.core.errors import LnsError, ManifestUnknown
from services.core.manifest import Index, Manifest, parse_manifest
from services.core.platforms import Platform
from services.core.reference import Reference
from services.resolver.ports import FetchedManifest

AMD64 = Platform(architecture="amd64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question to the source."""

    reference: str
    offline: bool


@dataclass(slots=True)
class FakeManifests:
    """Implements `ManifestSource` on what tests put into it.

    Attributes:
        asked: every question, in order.
        failures: what a question for a repository (`host/path`) is answered with instead.
        node: digests that this node has, also of what was fetched once.
    """

    asked: list[Asked] = field(default_factory=list)
    failures: dict[str, LnsError] = field(default_factory=dict)
    node: set[Digest] = field(default_factory=set)
    _tags: dict[str, Digest] = field(default_factory=dict)
    _manifests: dict[tuple[str, Digest], bytes] = field(default_factory=dict)
    _blobs: dict[Digest, bytes] = field(default_factory=dict)

    async def fetch(
        self, reference: str, *, platform: Platform, offline: bool = False
    ) -> FetchedManifest:
        """See `ManifestSource.fetch`."""
        self.asked.append(Asked(reference=reference, offline=offline))
        parsed = Reference.parse(reference)
        if parsed.repository in self.failures:
            raise self.failures[parsed.repository]
        digest = parsed.digest or self._tags.get(str(parsed))
        if digest is None or (offline and digest not in self.node):
            raise _unknown(parsed)
        root = self._manifest(parsed, digest)
        manifest = root
        while isinstance(manifest, Index):
            chosen = manifest.select(platform).digest
            if offline and chosen not in self.node:
                raise _unknown(parsed)
            manifest = self._manifest(parsed, chosen)
        self.node |= {root.descriptor.digest, manifest.descriptor.digest}
        return FetchedManifest(
            reference=str(parsed),
            repository=parsed.repository,
            root=root.descriptor,
            manifest=manifest,
            config=self._blobs[manifest.config.digest],
        )

    def parsed(self, repository: str, digest: Digest) -> Manifest | Index:
        """Returns a manifest that was put."""
        return parse_manifest(self._manifests[repository, digest], digest=digest)

    def _manifest(self, reference: Reference, digest: Digest) -> Manifest | Index:
        raw = self._manifests.get((reference.repository, digest))
        if raw is None:
            raise _unknown(reference)
        return parse_manifest(raw)

    def put_image(
        self,
        reference: str,
        config: dict[str, Any] | None = None,
        *,
        platforms: tuple[Platform, ...] = (AMD64,),
        index: bool = False,
    ) -> Descriptor:
        """Puts an image whose `config` is this; an index if asked for or of several platforms."""
        parsed = Reference.parse(reference)
        entries = []
        for platform in platforms:
            raw = json.dumps(
                {
                    "os": platform.os,
                    "architecture": platform.architecture,
                    **({"variant": platform.variant} if platform.variant else {}),
                    "config": {"Cmd": ["/bin/true"]} if config is None else config,
                }
            ).encode()
            manifest = self.put_manifest(parsed, raw, OCI_IMAGE_CONFIG, tag=False)
            entries.append(
                {
                    "mediaType": OCI_MANIFEST,
                    "digest": manifest.digest,
                    "size": manifest.size,
                    "platform": {"os": platform.os, "architecture": platform.architecture},
                }
            )
        if len(entries) == 1 and not index:
            self._tags[str(parsed)] = manifest.digest
            return manifest
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        return self._put(parsed, json.dumps(document).encode(), tag=True)

    def put_artifact(
        self, reference: str, family: Family, document: dict[str, Any], *, layers: int = 0
    ) -> Descriptor:
        """Puts an artifact without looking at its document."""
        return self.put_manifest(
            Reference.parse(reference),
            canonical_json(document),
            family.config_media_type,
            artifact_type=family.artifact_type,
            layers=layers,
        )

    def put_manifest(
        self,
        reference: Reference,
        config: bytes,
        config_media_type: str,
        *,
        artifact_type: str = "",
        layers: int = 0,
        tag: bool = True,
    ) -> Descriptor:
        """Puts a manifest with this config."""
        digest = Digest.of(config)
        self._blobs[digest] = config
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": config_media_type, "digest": digest, "size": len(config)},
            "layers": [
                {"mediaType": OCI_LAYER_GZIP, "digest": Digest.of(bytes(number)), "size": number}
                for number in range(layers)
            ],
        }
        if artifact_type:
            document["artifactType"] = artifact_type
        return self._put(reference, json.dumps(document).encode(), tag=tag)

    def _put(self, reference: Reference, raw: bytes, *, tag: bool) -> Descriptor:
        descriptor = parse_manifest(raw).descriptor
        self._manifests[reference.repository, descriptor.digest] = raw
        if tag:
            self._tags[str(reference)] = descriptor.digest
        return descriptor


def _unknown(reference: Reference) -> ManifestUnknown:
    return ManifestUnknown(f"there is no {reference}", metadata={"reference": str(reference)})
