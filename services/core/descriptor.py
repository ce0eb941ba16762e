"""Descriptors and media types, as the OCI image specification 1.1 has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from services.core.digest import Digest
from services.core.errors import RequestInvalid
from services.core.platforms import Platform

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
OCI_IMAGE_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_IMAGE_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER_TAR: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_LAYER_TAR: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"

_FOREIGN: Final = (".foreign.", ".nondistributable.")
"""What the media types of layers have in them that a registry need not have."""

INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
IMAGE_CONFIG_TYPES: Final = frozenset({OCI_IMAGE_CONFIG, DOCKER_IMAGE_CONFIG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Points at content by media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    platform: Platform | None = None
    has_urls: bool = False
    """Whether its manifest names other addresses of the content; lns never asks those."""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise RequestInvalid(f"descriptor {self.digest} has the size {self.size}")

    @property
    def is_index(self) -> bool:
        """Whether it points at an index (a manifest list)."""
        return self.media_type in INDEX_TYPES

    @property
    def is_manifest(self) -> bool:
        """Whether it points at an image manifest."""
        return self.media_type in MANIFEST_TYPES

    @property
    def is_foreign(self) -> bool:
        """Whether its registry may lack the content on purpose (bases of Windows images)."""
        return self.has_urls or any(kind in self.media_type for kind in _FOREIGN)
