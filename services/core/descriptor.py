"""Descriptors, platforms and media types, as the OCI image specification 1.1 has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from services.core.digest import Digest
from services.core.errors import PlatformUnsupported, RequestInvalid

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

INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
IMAGE_CONFIG_TYPES: Final = frozenset({OCI_IMAGE_CONFIG, DOCKER_IMAGE_CONFIG})

_ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A platform in the terms of the OCI image index: `linux/amd64`, `linux/arm64/v8`."""

    os: str = "linux"
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `os/architecture[/variant]`, or an architecture alone (then Linux).

        Machine names of `uname -m` are accepted for architectures.

        Raises:
            RequestInvalid: the text is not a platform.
        """
        parts = text.split("/")
        if len(parts) == 1:
            parts = ["linux", *parts]
        if len(parts) not in (2, 3) or not all(parts) or len(text) > 100:  # noqa: PLR2004 - os/architecture[/variant]
            raise RequestInvalid(
                f"{text[:100]!r} is not a platform", hint="write os/architecture: linux/amd64"
            )
        architecture = _ARCHITECTURES.get(parts[1], parts[1])
        return cls(
            os=parts[0],
            architecture=architecture,
            variant=parts[2] if len(parts) == 3 else "",  # noqa: PLR2004 - see above
        )

    @classmethod
    def of_machine(cls, machine: str) -> Self:
        """Returns the Linux platform of a machine name as `uname -m` prints it.

        Raises:
            PlatformUnsupported: lns runs on x86-64 and aarch64 only.
        """
        architecture = _ARCHITECTURES.get(machine)
        if architecture is None:
            raise PlatformUnsupported(f"lns does not run on {machine}")
        return cls(os="linux", architecture=architecture)

    def accepts(self, offered: "Platform") -> bool:
        """Says whether an image for `offered` runs where this platform is asked for.

        arm64's variant `v8` is its only one and may be left out on either side.
        """
        if (self.os, self.architecture) != (offered.os, offered.architecture):
            return False
        default = "v8" if self.architecture == "arm64" else ""
        return not self.variant or (self.variant or default) == (offered.variant or default)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Points at content by media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    platform: Platform | None = None

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
