"""What can be set of the resolver."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.chassis.settings import PeerSettings, ProcessSettings
from services.chassis.settings_checks import check_fields, refused_by
from services.chassis.settings_tree import setting
from services.chassis.settings_values import ByteCount
from services.core.platforms import Platform

_MOST = 64


def platform_problems(text: str) -> Iterable[str]:
    """Returns what is wrong with a platform; the empty one is this machine's."""
    return refused_by(Platform.parse)(text) if text else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverSettings:
    """The resolver's own part."""

    registry_gateway: PeerSettings = field(default_factory=PeerSettings)
    """The gateway that manifests come from."""

    platform: str = field(default="", metadata=setting(check=platform_problems))
    """`os/architecture[/variant]` of runs that name none. Empty: this machine's."""

    parallel_fetches: int = field(default=8, metadata=setting(least=1, most=_MOST))
    """Manifests that one resolution fetches at a time."""

    cache: ByteCount = field(default=64 << 20, metadata=setting(least=0))
    """How much of the manifests that have a digest is kept in memory."""

    def __post_init__(self) -> None:
        """Checks what the type hints cannot say.

        Raises:
            SettingsInvalid: the platform is malformed, or a number is out of range.
        """
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverProcess(ProcessSettings):
    """Settings of the process `python -m services.resolver`."""

    resolver: ResolverSettings = field(default_factory=ResolverSettings)
    """The resolver's own part."""
