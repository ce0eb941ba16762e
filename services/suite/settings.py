"""What can be set of the suite: each service's section, and its own."""

from dataclasses import dataclass, field, replace

from services.chassis.settings import (
    ProcessSettings,
    check_address,
    metrics_address_problems,
)
from services.chassis.settings_checks import check_fields, refused_by
from services.chassis.settings_tree import setting
from services.chassis.settings_values import ByteCount, Seconds
from services.materializer.settings import MaterializerSettings
from services.registry_gateway.settings import GatewaySettings
from services.resolver.settings import ResolverSettings
from services.vm_runner.settings import VmSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSettings:
    """The suite's own part."""

    patience: Seconds = 30.0
    """How long a starting suite waits for one that drains."""

    content_listen: tuple[str, ...] = field(
        default=(), metadata=setting(check=refused_by(check_address))
    )
    """Where the process of gateway, resolver and materializer listens, as `server.listen`, which is
    the VM runner's in the suite. Empty: `content.sock` in the state directory's `run`."""

    content_metrics: str = field(default="", metadata=setting(check=metrics_address_problems))
    """Where that process has its metrics, as `metrics.listen`. Empty: nowhere."""

    log_size: ByteCount = field(default=10 << 20, metadata=setting(least=1 << 10))
    """Size from which a new log file is begun."""

    log_files: int = field(default=3, metadata=setting(least=1, most=1000))
    """How many older log files are kept."""

    def __post_init__(self) -> None:
        """Raises SettingsInvalid where a setting cannot be used."""
        check_fields(self)


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


def of_runner(settings: SuiteProcess) -> VmSettings:
    """Returns the VM runner's settings, with what it has to know of the gateway beside it."""
    plain = (*settings.vm_runner.plain_registries, *settings.registry_gateway.plain_http)
    return replace(settings.vm_runner, plain_registries=plain)
