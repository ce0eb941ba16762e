"""What the resolver needs from the world: manifests."""

from dataclasses import dataclass
from typing import Protocol

from services.core.descriptor import Descriptor
from services.core.manifest import Manifest
from services.core.platforms import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedManifest:
    """A manifest with its config, all digests verified.

    Attributes:
        reference: the reference that was asked for, normalised.
        repository: `host/repository`.
        root: descriptor of what the reference names: an index where it names one.
        manifest: the manifest; of the asked platform where the root is an index.
        config: the config blob.
    """

    reference: str
    repository: str
    root: Descriptor
    manifest: Manifest
    config: bytes

    @property
    def host(self) -> str:
        """Host of the registry."""
        return self.repository.partition("/")[0]

    @property
    def pinned(self) -> str:
        """Reference to the manifest by its digest."""
        return f"{self.repository}@{self.manifest.descriptor.digest}"


class ManifestSource(Protocol):
    """Where manifests come from."""

    async def fetch(
        self, reference: str, *, platform: Platform, offline: bool = False
    ) -> FetchedManifest:
        """Fetches a manifest with its config; an index is followed to the platform.

        Args:
            reference: as a person writes it; a bare name is in the default registry.
            platform: which manifest of an index is wanted.
            offline: whether only what is on this node may answer.

        Raises:
            ReferenceInvalid: the reference does not follow the grammar.
            ManifestUnknown: there is no such manifest, or not on this node.
            BlobUnknown: its config is missing.
            PlatformUnsupported: an index has nothing for the platform.
            RegistryUnauthenticated: the registry wants a login.
            RegistryDenied: the registry does not permit it.
            RegistryProtocol: what came is no manifest.
            ContentCorrupt: what came does not match its digest.
            LimitExceeded: it is larger than lns accepts.
            RegistryUnavailable: the registry cannot be reached; trying again may help.
            TooManyRequests: the registry asks to slow down.
            DeadlineExceeded: it took too long.
            ServiceUnavailable: the gateway cannot be reached.
        """
