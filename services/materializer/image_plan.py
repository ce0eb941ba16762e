"""What an image is to be made of, read from manifests, configs and documents."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.core.artifacts.families import FILESET, KNOWLEDGE, MODEL, TOOL, family_of_manifest
from services.core.descriptor import OCI_EMPTY, Descriptor
from services.core.digest import Digest
from services.core.errors import (
    ArtifactTypeUnsupported,
    DigestInvalid,
    LayerUnsupported,
    RegistryProtocol,
    RequestInvalid,
)
from services.core.manifest import MAX_MANIFEST_BYTES, Manifest, parse_json_object, parse_manifest
from services.materializer.images import LayerSource, Mount, MountSource
from services.materializer.ports import Blobs

CONFIG_BYTES_MAX = 8 << 20
_CONTENT_FAMILIES = frozenset(family.slug for family in (TOOL, KNOWLEDGE, FILESET))
_FAMILIES = _CONTENT_FAMILIES | {MODEL.slug}
_ENCRYPTED = "+encrypted"
_TITLE = "org.opencontainers.image.title"
_KEY_VERSION = "lns-image 1"
_MOUNTS_VERSION = "lns-mounts 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPlan:
    """Mounts with their content at hand.

    Attributes:
        sources: what is mounted, by path.
        diff_id: stands for the content of the mounts' layer; None where nothing is mounted.
        mounts: the same as they were asked for.
        warnings: what a person should read.
    """

    sources: tuple[MountSource, ...] = ()
    diff_id: Digest | None = None
    mounts: tuple[Mount, ...] = ()
    warnings: tuple[str, ...] = ()


def request_key(manifest_digest: Digest | None, mounts: Sequence[Mount]) -> str:
    """What two requests for the same image have in common."""
    lines = [_KEY_VERSION, manifest_digest or "-"]
    lines += [
        json.dumps([mount.path, mount.family, mount.manifest_digest, mount.read_only])
        for mount in sorted(mounts, key=lambda mount: mount.path)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


async def read_layers(blobs: Blobs, manifest_digest: Digest) -> tuple[LayerSource, ...]:
    """The layers of an image, lowest first.

    Raises:
        BlobsMissing: manifest or config are not in the store.
        ArtifactTypeUnsupported: the digest names something else than an image.
        LayerUnsupported: a layer is of a kind that lns does not process.
        RegistryProtocol: manifest and config contradict each other.
    """
    manifest = await _read_manifest(blobs, manifest_digest)
    if not manifest.is_image:
        raise ArtifactTypeUnsupported(
            f"{manifest_digest} is an artifact of type {manifest.artifact_type!r}, not an image",
            metadata={"digest": manifest_digest},
        )
    raw = await blobs.read(manifest.config.digest, limit=CONFIG_BYTES_MAX)
    diff_ids = _diff_ids(parse_json_object(raw, what="image config"))
    if len(diff_ids) != len(manifest.layers):
        raise RegistryProtocol(
            f"the image {manifest_digest} has {len(manifest.layers)} layers, its config"
            f" {len(diff_ids)} diffIDs"
        )
    for layer in manifest.layers:
        _check_media_type(layer)
    return tuple(
        LayerSource(blob_digest=layer.digest, blob_bytes=layer.size, diff_id=diff_id)
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )


async def read_mounts(blobs: Blobs, mounts: Sequence[Mount]) -> MountPlan:
    """Mounts with their content, in the order of their paths.

    Raises:
        BlobsMissing: something of an artifact is not in the store.
        ArtifactTypeUnsupported: an artifact is not of the family that its mount says, or of one
            that cannot be mounted.
        RequestInvalid: two mounts are at one path.
    """
    ordered = sorted(mounts, key=lambda mount: mount.path)
    sources = []
    warnings = []
    mounted = []
    for before, mount in zip([None, *ordered], ordered, strict=False):
        if before is not None and before.path == mount.path:
            raise RequestInvalid(f"two artifacts are mounted at {mount.path}")
        source = await _read_mount(blobs, mount)
        if source is None:
            warnings.append(
                f"the {mount.family} for {mount.path} has no layers: nothing is mounted there"
            )
            continue
        sources.append(source)
        mounted.append(mount)
    return MountPlan(
        sources=tuple(sources),
        diff_id=_mounts_id(sources) if sources else None,
        mounts=tuple(mounted),
        warnings=tuple(warnings),
    )


async def _read_mount(blobs: Blobs, mount: Mount) -> MountSource | None:
    if mount.family not in _FAMILIES:
        raise ArtifactTypeUnsupported(f"a {mount.family} cannot be mounted")
    manifest = await _read_manifest(blobs, mount.manifest_digest)
    family = family_of_manifest(manifest)
    if family is None or family.slug != mount.family:
        raise ArtifactTypeUnsupported(
            f"the artifact for {mount.path} is no {mount.family}:"
            f" its type is {manifest.artifact_type!r}",
            metadata={"digest": mount.manifest_digest},
        )
    if mount.family == MODEL.slug:
        raw = await blobs.read(manifest.config.digest, limit=CONFIG_BYTES_MAX)
        spec = parse_json_object(raw, what="model document").get("spec")
        if not isinstance(spec, dict):
            raise RegistryProtocol(f"the model for {mount.path} has no spec")
        content = json.dumps(spec, ensure_ascii=False, indent=2) + "\n"
        return MountSource(path=mount.path, content=content)
    layers = [layer for layer in manifest.layers if layer.media_type != OCI_EMPTY]
    for layer in layers:
        _check_media_type(layer)
    if not layers:
        return None
    return MountSource(
        path=mount.path,
        blobs=tuple(layer.digest for layer in layers),
        titles=tuple(_single_file(layer, mount) for layer in layers),
        label=f"{mount.family} {mount.manifest_digest} at {mount.path}",
    )


def _single_file(layer: Descriptor, mount: Mount) -> str:
    """The name of the file that a layer is, as oras pushes files; empty for an archive.

    Raises:
        LayerUnsupported: it is no archive, and no name that a file can have.
    """
    if "tar" in layer.media_type:
        return ""
    title = layer.annotations.get(_TITLE, "")
    parts = title.split("/")
    if title and "\0" not in title and not {"", ".", ".."} & set(parts):
        return title
    if not title and layer.media_type in ("", "application/octet-stream"):
        return ""  # whatever it is, its bytes tell
    raise LayerUnsupported(
        f"the layer {layer.digest} of the {mount.family} for {mount.path} is a"
        f" {layer.media_type[:100]!r} with the title {title[:100]!r}, no archive and no file",
        hint="push it with `lns push --content`, or as a file whose title is its relative path",
        metadata={"digest": layer.digest},
    )


async def _read_manifest(blobs: Blobs, digest: Digest) -> Manifest:
    manifest = parse_manifest(await blobs.read(digest, limit=MAX_MANIFEST_BYTES), digest=digest)
    if not isinstance(manifest, Manifest):
        raise ArtifactTypeUnsupported(
            f"{digest} is an index; name the manifest of one platform",
            metadata={"digest": digest},
        )
    return manifest


def _diff_ids(config: dict[str, object]) -> list[Digest]:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None:
        return []
    if not isinstance(diff_ids, list) or not all(isinstance(one, str) for one in diff_ids):
        raise RegistryProtocol("the image config has no list of diffIDs")
    try:
        return [Digest(one) for one in diff_ids]
    except DigestInvalid as error:
        raise RegistryProtocol(f"a diffID of the image config: {error.message}") from error


def _check_media_type(layer: Descriptor) -> None:
    if _ENCRYPTED in layer.media_type:
        raise LayerUnsupported(
            f"the layer {layer.digest} is encrypted ({layer.media_type})",
            metadata={"digest": layer.digest},
        )


def _mounts_id(sources: Sequence[MountSource]) -> Digest:
    """Stands for the content of the mounts' layer: equal for equal content at equal paths."""
    lines = [_MOUNTS_VERSION]
    for source in sources:
        titles = list(source.titles) if any(source.titles) else []
        lines.append(json.dumps([source.path, source.content, *source.blobs, *titles]))
    return Digest.of("\n".join(lines).encode())
