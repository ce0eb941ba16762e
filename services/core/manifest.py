"""Manifests and indexes, parsed from hostile bytes.

Parsing checks what lns relies on (types, digests, sizes, counts) and keeps the raw bytes: a digest
is only ever taken of those, never of a serialization of the parsed form.

Manifests of images are read as tolerantly as docker reads them: to Go's JSON, null and absent are
the empty value of a member's type. Those of artifacts of ours are written by lns and read strictly.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.core.descriptor import (
    IMAGE_CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from services.core.digest import Digest
from services.core.errors import (
    DigestInvalid,
    LimitExceeded,
    PlatformUnsupported,
    RegistryProtocol,
)
from services.core.platforms import Platform, describe_platforms, way_out

MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MAX_LAYERS: Final = 512
MAX_INDEX_ENTRIES: Final = 1024
OWN_ARTIFACTS: Final = "application/vnd.lens."
"""How the media types of lns's own artifacts begin."""

_MAX_DEPTH: Final = 32
_MAX_SIZE: Final = 1 << 53
_ATTESTS: Final = "vnd.docker.reference.type"
"""The annotation of an index entry that says something about another entry (BuildKit)."""

_FOREIGN_TO_INDEX: Final = ("config", "layers", "fsLayers")
_FOREIGN_TO_MANIFEST: Final = ("manifests", "fsLayers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image manifest: of an image, or of an artifact.

    Attributes:
        raw: the bytes as the registry gave them.
        descriptor: media type, digest and size of `raw`.
        artifact_type: the manifest's `artifactType`; else, as OCI says, its config's media type.
        config: descriptor of the config blob.
        layers: descriptors of the layers, lowest first.
        subject: the manifest that this one refers to, or None.
        annotations: annotations of the manifest.
    """

    raw: bytes
    descriptor: Descriptor
    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    annotations: Mapping[str, str]

    @property
    def is_image(self) -> bool:
        """Whether it is a container image rather than another artifact."""
        return self.config.media_type in IMAGE_CONFIG_TYPES

    @property
    def total_bytes(self) -> int:
        """Sum of the sizes of config and layers."""
        return self.config.size + sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An image index (a Docker manifest list): one manifest a platform.

    Attributes:
        raw: the bytes as the registry gave them.
        descriptor: media type, digest and size of `raw`.
        manifests: its entries in order.
        annotations: annotations of the index.
    """

    raw: bytes
    descriptor: Descriptor
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms that the index offers, in order."""
        return tuple(entry.platform for entry in self.manifests if entry.platform is not None)

    @property
    def unlabelled(self) -> tuple[Descriptor, ...]:
        """Entries that may be an image and do not say for which platform; its config does."""
        return tuple(
            entry
            for entry in self.manifests
            if (entry.is_manifest or not entry.media_type)
            and not entry.artifact_type
            and _ATTESTS not in entry.annotations
            and (entry.platform is None or not entry.platform.is_known)
        )

    def best(self, platform: Platform) -> Descriptor | None:
        """Returns the entry that suits a platform best by what the index says, or None.

        Of entries that suit it equally well the first is taken.
        """
        ranked = [
            (rank, entry)
            for entry in self.manifests
            if entry.platform is not None and entry.platform.is_known
            if (rank := platform.rank(entry.platform)) is not None
        ]
        return max(ranked, key=lambda one: one[0])[1] if ranked else None

    def select(self, platform: Platform, found: Sequence[Platform] = ()) -> Descriptor:
        """Returns the entry that suits a platform best.

        Args:
            platform: what is asked for, with the variant that the machine executes.
            found: for which platforms `unlabelled` are, in their order, where that is known.

        Raises:
            PlatformUnsupported: it has none for the platform; the message lists those it has.
        """
        entry = self.best(platform)
        if entry is not None:
            return entry
        ranked = [
            (rank, unlabelled)
            for unlabelled, offered in zip(self.unlabelled, found, strict=False)
            if (rank := platform.rank(offered)) is not None
        ]
        if ranked:
            return max(ranked, key=lambda one: one[0])[1]
        known = [one for one in self.platforms if one.is_known and one.os != "unknown"]
        raise PlatformUnsupported(
            f"no manifest exists for {platform}; the index offers"
            f" {describe_platforms([*known, *found])}",
            hint=way_out(platform, [*known, *found]),
            metadata={"platform": str(platform), "digest": self.descriptor.digest},
        )


def parse_manifest(
    raw: bytes, *, media_type: str = "", digest: Digest | None = None
) -> Manifest | Index:
    """Parses a manifest or an index.

    Args:
        raw: bytes whose digest the caller has verified.
        digest: that digest, where the bytes are known by it; else they get their sha256.
        media_type: what the registry or a descriptor called it; decides where the document has no
            `mediaType` of its own. Where both exist they must agree, so that nobody reads the
            same bytes as two things.

    Raises:
        RegistryProtocol: it is neither, or not well formed.
        LimitExceeded: it is larger or longer than lns accepts.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise LimitExceeded(f"manifest of {len(raw)} bytes; at most 4 MiB are accepted")
    document = parse_json_object(raw, what="manifest")
    kind = _kind(document, media_type)
    descriptor = Descriptor(media_type=kind, digest=digest or Digest.of(raw), size=len(raw))
    annotations = _annotations(document, "manifest")
    if kind in INDEX_TYPES:
        entries = _list(document, "manifests", MAX_INDEX_ENTRIES)
        return Index(
            raw=raw,
            descriptor=descriptor,
            manifests=tuple(parse_descriptor(one, what="index entry") for one in entries),
            annotations=annotations,
        )
    config = parse_descriptor(document.get("config"), what="config")
    is_own = config.media_type.startswith(OWN_ARTIFACTS)
    if is_own and document.get("layers") is None:
        raise RegistryProtocol("manifest has no list of layers")
    layers = tuple(
        parse_descriptor(one, what="layer") for one in _list(document, "layers", MAX_LAYERS)
    )
    subject = document.get("subject")
    return Manifest(
        raw=raw,
        descriptor=descriptor,
        artifact_type=_text(document, "artifactType", "manifest") or config.media_type,
        config=config,
        layers=layers,
        subject=None if subject is None else parse_descriptor(subject, what="subject"),
        annotations=annotations,
    )


def parse_descriptor(value: object, *, what: str) -> Descriptor:
    """Parses one descriptor of a JSON document.

    Raises:
        RegistryProtocol: it is not a descriptor; the message begins with `what`.
    """
    if not isinstance(value, dict):
        raise RegistryProtocol(f"{what} is not a descriptor")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise RegistryProtocol(f"{what} has the size {str(size)[:40]!r}")
    try:
        digest = Digest(_text(value, "digest", what))
    except DigestInvalid as error:
        raise RegistryProtocol(f"{what}: {error.message}") from error
    platform = value.get("platform")
    return Descriptor(
        media_type=_text(value, "mediaType", what),
        digest=digest,
        size=size,
        artifact_type=_text(value, "artifactType", what),
        annotations=_annotations(value, what),
        platform=None if platform is None else _parse_platform(platform, what),
        has_urls=bool(value.get("urls")),
    )


def platform_of_config(raw: bytes) -> Platform:
    """Returns the platform that the config blob of an image names, of whatever spelling.

    Raises:
        RegistryProtocol: it is not a JSON object, or a member is not text.
    """
    return _parse_platform(parse_json_object(raw, what="image config"), "image config")


def parse_json_object(raw: bytes, *, what: str) -> dict[str, object]:
    """Parses a JSON object of bounded depth with unique keys from hostile bytes.

    Raises:
        RegistryProtocol: it is not UTF-8, not JSON, no object, repeats a key, or is too deep.
    """
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RegistryProtocol(f"{what} is not JSON: {reason[:200]}") from error
    if not isinstance(value, dict):
        raise RegistryProtocol(f"{what} is not a JSON object")
    if not _is_shallow(value):
        raise RegistryProtocol(f"{what} is nested deeper than {_MAX_DEPTH} levels")
    return value


def _is_shallow(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (
                parent.values()
                if isinstance(parent, dict)
                else parent
                if isinstance(parent, list)
                else ()
            )
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return result


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _kind(document: Mapping[str, object], sent_as: str) -> str:
    """Returns the media type that a document is read as, the same for every reader."""
    declared = _text(document, "mediaType", "manifest")
    if sent_as in INDEX_TYPES | MANIFEST_TYPES and declared and declared != sent_as:
        raise RegistryProtocol(
            f"manifest says it is {declared[:100]!r} and was sent as {sent_as!r}"
        )
    kind = declared or sent_as or _guess(document)
    if kind not in INDEX_TYPES | MANIFEST_TYPES:
        raise RegistryProtocol(
            f"media type {kind[:100]!r} is neither an image manifest nor an index"
        )
    # A document with the members of two kinds is two things to two readers (CVE-2021-41190).
    foreign = _FOREIGN_TO_INDEX if kind in INDEX_TYPES else _FOREIGN_TO_MANIFEST
    for member in foreign:
        if document.get(member) is not None:
            raise RegistryProtocol(f"manifest of the type {kind} has {member}")
    return kind


def _guess(document: Mapping[str, object]) -> str:
    """Tells an OCI document without `mediaType` by its members, as the specification permits."""
    if "manifests" in document and "config" not in document:
        return OCI_INDEX
    return OCI_MANIFEST if "config" in document else ""


def _list(document: Mapping[str, object], key: str, limit: int) -> list[object]:
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RegistryProtocol(f"{key} of the manifest is not a list")
    if len(value) > limit:
        raise LimitExceeded(f"manifest has {len(value)} {key}; at most {limit} are accepted")
    return value


def _text(value: Mapping[str, object], key: str, what: str) -> str:
    text = value.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise RegistryProtocol(f"{key} of {what} is not a string")
    return text


def _annotations(value: Mapping[str, object], what: str) -> Mapping[str, str]:
    annotations = value.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(
        text is None or isinstance(text, str) for text in annotations.values()
    ):
        raise RegistryProtocol(f"annotations of {what} are not strings")
    return {name: text or "" for name, text in annotations.items()}


def _parse_platform(value: object, what: str) -> Platform:
    if not isinstance(value, dict):
        raise RegistryProtocol(f"platform of {what} is not an object")
    return Platform.of(
        _text(value, "os", what),
        _text(value, "architecture", what),
        _text(value, "variant", what),
    )
