"""Pushing a document as a typed artifact."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from services.core.artifacts.families import Family, family_by_slug, infer_family
from services.core.descriptor import OCI_EMPTY, OCI_MANIFEST, Descriptor
from services.core.digest import Digest
from services.core.errors import BlobsMissing, RequestInvalid, Violation
from services.core.manifest import MAX_LAYERS, Manifest, parse_manifest
from services.core.reference import Reference
from services.registry_gateway.artifact_types import ArtifactTypes
from services.registry_gateway.manifests import store_key
from services.registry_gateway.pins import Pins
from services.registry_gateway.ports import BlobStore, StoredTag, StoreIndex
from services.registry_gateway.progress import Board
from services.registry_gateway.push import Pusher, descriptor_json

MAX_ANNOTATIONS_BYTES: Final = 256 * 1024
EMPTY: Final = b"{}"
EMPTY_LAYER: Final[Mapping[str, Any]] = {
    "mediaType": OCI_EMPTY,
    "digest": Digest.of(EMPTY),
    "size": len(EMPTY),
    "data": "e30=",
}
"""The one layer of an artifact without content: OCI forbids an empty list."""
_TITLE: Final = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedArtifact:
    """What a push left in the registry."""

    reference: Reference
    descriptor: Descriptor
    family: Family
    warnings: Sequence[str] = ()


class PushArtifact:
    """Validates documents and pushes them."""

    def __init__(
        self,
        *,
        pusher: Pusher,
        store: BlobStore,
        index: StoreIndex,
        pins: Pins,
        types: ArtifactTypes,
    ) -> None:
        self._pusher = pusher
        self._store = store
        self._index = index
        self._pins = pins
        self._types = types

    async def run(
        self,
        reference: Reference,
        *,
        family: str,
        document: bytes,
        layers: Sequence[Descriptor],
        annotations: Mapping[str, str],
        subject: Descriptor | None,
    ) -> PushedArtifact:
        """Pushes a document with layers that are in the store.

        Args:
            reference: where to.
            family: slug, or empty to infer it from the reference's path.
            document: YAML or JSON.
            layers: layers of content, lowest first.
            annotations: those of the manifest.
            subject: the manifest that the artifact refers to, or None.

        Raises:
            ArtifactInvalid: the document is not valid.
            RequestInvalid: no family is named; or the family takes no content.
            BlobsMissing: a layer is not in the store.
        """
        wanted = family_by_slug(family) if family else infer_family(reference)
        _check(wanted, layers, annotations)
        artifact = await self._types.check(reference, wanted, document)
        config = artifact.config_blob
        manifest = build_manifest(
            wanted,
            config,
            layers=_titled(artifact.name, layers),
            annotations=annotations,
            subject=subject,
        )
        board = Board()
        await self._push(reference, manifest, config, wanted, board)
        return PushedArtifact(
            reference=reference,
            descriptor=manifest.descriptor,
            family=wanted,
            warnings=board.warnings,
        )

    async def _push(
        self, reference: Reference, manifest: Manifest, config: bytes, family: Family, board: Board
    ) -> None:
        """Writes what is new into the store, pushes all of it, and records the tag."""
        async with self._pins.session() as pins:
            blobs = [manifest.config, *manifest.layers]
            await pins.add([manifest.descriptor.digest, *(blob.digest for blob in blobs)])
            if any(layer.media_type == OCI_EMPTY for layer in manifest.layers):
                await self._store.write(EMPTY)
            await self._check_layers(manifest.layers)
            await self._store.write(config)
            await self._store.write(manifest.raw)
            await self._pusher.push(reference, [manifest], self._store.source, board)
            await self._store.settle()
            await self._index.put_tag(
                StoredTag(
                    reference=store_key(reference),
                    root=manifest.descriptor,
                    manifest=None,
                    family=family.slug,
                    total_bytes=manifest.total_bytes,
                    created=datetime.now(UTC),
                )
            )

    async def _check_layers(self, layers: Sequence[Descriptor]) -> None:
        problems = []
        for layer in layers:
            size = await self._store.size(layer.digest)
            if size is None:
                problems.append(
                    Violation(
                        subject=layer.digest, description="is not in the store", type="MISSING"
                    )
                )
            elif size != layer.size:
                raise RequestInvalid(
                    f"layer {layer.digest} has {size} bytes, its descriptor says {layer.size}"
                )
        if problems:
            raise BlobsMissing(
                f"{len(problems)} of the layers are not in the store",
                hint="write them with WriteBlob first",
                violations=problems,
            )


def build_manifest(
    family: Family,
    config: bytes,
    *,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str],
    subject: Descriptor | None,
) -> Manifest:
    """Returns the manifest of an artifact; the same arguments give the same bytes."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": family.artifact_type,
        "config": {
            "mediaType": family.config_media_type,
            "digest": Digest.of(config),
            "size": len(config),
        },
        "layers": [descriptor_json(layer) for layer in layers] or [EMPTY_LAYER],
    }
    if subject is not None:
        document["subject"] = descriptor_json(subject)
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    manifest = parse_manifest(raw, media_type=OCI_MANIFEST)
    if not isinstance(manifest, Manifest):
        raise TypeError("the document that was built is not a manifest")
    return manifest


def _titled(name: str, layers: Sequence[Descriptor]) -> list[Descriptor]:
    """Returns layers with the file name that oras gives them when it pulls them."""
    titled = []
    for number, layer in enumerate(layers):
        title = f"{name}.tar.gz" if len(layers) == 1 else f"{name}-{number + 1}.tar.gz"
        titled.append(replace(layer, annotations={_TITLE: title, **layer.annotations}))
    return titled


def _check(family: Family, layers: Sequence[Descriptor], annotations: Mapping[str, str]) -> None:
    if layers and not family.has_content:
        raise RequestInvalid(
            f"artifacts of the family {family.slug} have no content",
            hint="leave --content out, or push a tool, knowledge or fileset",
        )
    if len(layers) > MAX_LAYERS:
        raise RequestInvalid(f"an artifact has at most {MAX_LAYERS} layers")
    if sum(len(key) + len(text) for key, text in annotations.items()) > MAX_ANNOTATIONS_BYTES:
        raise RequestInvalid(f"annotations have at most {MAX_ANNOTATIONS_BYTES} bytes")
