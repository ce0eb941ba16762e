"""What can be set of the materializer."""

import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from services.chassis.settings import PeerSettings, ProcessSettings
from services.chassis.settings_checks import check_fields
from services.chassis.settings_tree import setting
from services.chassis.settings_values import ByteCount
from services.materializer.layers.limits import LayerLimits


class BlobAccess(StrEnum):
    """How blobs reach the materializer."""

    SHARED = "shared"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """The most that one layer of an image may bring; beyond it the layer is refused."""

    entries: int = field(default=500_000, metadata=setting(least=1))
    """Entries, whiteouts included."""

    layer_bytes: ByteCount = field(default=64 << 30, metadata=setting(least=1))
    """Bytes of the uncompressed layer."""

    file_bytes: ByteCount = field(default=64 << 30, metadata=setting(least=1))
    """Bytes of one file, the holes of a sparse one included."""

    total_file_bytes: ByteCount = field(default=256 << 30, metadata=setting(least=1))
    """Bytes of all files together, holes included."""

    path_bytes: int = field(default=4095, metadata=setting(least=1))
    """Bytes of a path."""

    depth: int = field(default=256, metadata=setting(least=1))
    """Names in a path."""

    header_bytes: ByteCount = field(default=1 << 20, metadata=setting(least=1))
    """Bytes of one extended header, that is of long names and extended attributes."""

    list_bytes: ByteCount = field(default=128 << 20, metadata=setting(least=1))
    """Bytes of the entry list: names, attributes and files of up to 64 bytes."""

    sparse_segments: int = field(default=100_000, metadata=setting(least=1))
    """Data segments of one sparse file."""

    expansion: int = field(default=2000, metadata=setting(least=1))
    """How many times larger than its blob a layer may be once it is larger than the next."""

    expansion_free_bytes: ByteCount = field(default=1 << 30, metadata=setting(least=1))
    """Up to here any expansion is fine."""

    def __post_init__(self) -> None:
        """Raises SettingsInvalid where a limit permits nothing."""
        check_fields(self)

    def as_limits(self) -> LayerLimits:
        """The limits as the layer code takes them."""
        return LayerLimits(**asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializerSettings:
    """The materializer's own part."""

    workers: int = field(default=0, metadata=setting(least=0, most=64))
    """Processes that take layers apart at the same time; 0 is one for each CPU, at most 8."""

    blobs: BlobAccess = BlobAccess.SHARED
    """`shared`: from the gateway's store below the same state directory; `gateway`: by its RPCs."""

    registry_gateway: PeerSettings = field(default_factory=PeerSettings)
    """The gateway, where blobs come by its RPCs."""

    limits: LimitSettings = field(default_factory=LimitSettings)
    """The most that one layer may bring."""

    def __post_init__(self) -> None:
        """Raises SettingsInvalid where a number is out of range."""
        check_fields(self)

    @property
    def worker_count(self) -> int:
        """The number of worker processes in effect."""
        return self.workers or min(8, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializerProcess(ProcessSettings):
    """Settings of the process `python -m services.materializer`."""

    materializer: MaterializerSettings = field(default_factory=MaterializerSettings)
    """The materializer's own part."""
