"""What can be set of the resolver."""

from dataclasses import dataclass, field

from services.chassis.settings import PeerSettings, ProcessSettings
from services.chassis.settings_values import ByteCount
from services.core.errors import LnsError, SettingsInvalid
from services.core.platforms import Platform

_MOST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverSettings:
    """The resolver's own part."""

    registry_gateway: PeerSettings = field(default_factory=PeerSettings)
    """The gateway that manifests come from."""

    platform: str = ""
    """`os/architecture[/variant]` of runs that name none. Empty: this machine's."""

    parallel_fetches: int = 8
    """Manifests that one resolution fetches at a time."""

    cache: ByteCount = 64 << 20
    """How much of the manifests that have a digest is kept in memory."""

    def __post_init__(self) -> None:
        """Checks what the type hints cannot say.

        Raises:
            SettingsInvalid: the platform is malformed, or a number is out of range.
        """
        try:
            if self.platform:
                Platform.parse(self.platform)
        except LnsError as error:
            raise SettingsInvalid(error.message, hint=error.hint) from error
        if not 1 <= self.parallel_fetches <= _MOST:
            raise SettingsInvalid(f"`parallel_fetches` must be between 1 and {_MOST}")
        if self.cache < 0:
            raise SettingsInvalid("`cache` must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverProcess(ProcessSettings):
    """Settings of the process `python -m services.resolver`."""

    resolver: ResolverSettings = field(default_factory=ResolverSettings)
    """The resolver's own part."""
