"""What can be set of the suite: each service's section, and its own."""

from dataclasses import dataclass, field, replace

from services.chassis.settings import ProcessSettings
from services.chassis.settings_tree import setting
from services.chassis.settings_values import ByteCount, Seconds
from services.core.errors import SettingsInvalid
from services.materializer.settings import MaterializerSettings
from services.registry_gateway.settings import GatewaySettings
from services.resolver.settings import ResolverSettings
from services.vm_runner.settings import VmSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSettings:
    """The suite's own part."""

    patience: Seconds = 30.0
    """How long a starting suite waits for one that drains."""

    content_listen: tuple[str, ...] = ()
    """Where the process of gateway, resolver and materializer listens, as `server.listen`, which is
    the VM runner's in the suite. Empty: `content.sock` in the state directory's `run`."""

    content_metrics: str = ""
    """Where that process has its metrics, as `metrics.listen`. Empty: nowhere."""

    log_size: ByteCount = 10 << 20
    """Size from which a new log file is begun."""

    log_files: int = 3
    """How many older log files are kept."""

    def __post_init__(self) -> None:
        """Raises SettingsInvalid if no older log file could be kept."""
        if self.log_files < 1:
            raise SettingsInvalid("`log_files` must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentProcess(ProcessSettings):
    """The settings of the process that reads foreign bytes."""

    registry_gateway: GatewaySettings = field(
        metadata=setting(default_from=GatewaySettings.of_environment)
    )
    """The gateway's part."""

    resolver: ResolverSettings = field(default_factory=ResolverSettings)
    """The resolver's part."""

    materializer: MaterializerSettings = field(default_factory=MaterializerSettings)
    """The materializer's part."""

    suite: SuiteSettings = field(default_factory=SuiteSettings)
    """The suite's own part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteProcess(ContentProcess):
    """Every setting of the suite."""

    vm_runner: VmSettings
    """The VM runner's part."""


def of_content(settings: ContentProcess) -> ContentProcess:
    """Returns the settings with the addresses of the process that reads foreign bytes."""
    own = settings.suite
    return replace(
        settings,
        server=replace(settings.server, listen=own.content_listen),
        metrics=replace(settings.metrics, listen=own.content_metrics),
    )
