"""The settings of the registry gateway."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from services.chassis.settings import SHORTEST, ProcessSettings
from services.chassis.settings_checks import check_fields, refused_by
from services.chassis.settings_tree import setting
from services.chassis.settings_values import ByteCount, Seconds
from services.core.platforms import Platform
from services.registry_gateway.logins import registry_host

_MOST = 64
_LEAST_PART = 64 << 10
_LARGEST_PART = 1 << 30
_DOCKER_SOCKET = Path("/var/run/docker.sock")


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment["HOME"]) if environment.get("HOME") else Path.home()


def _auth_path(environment: Mapping[str, str]) -> Path:
    if environment.get("LNS_REGISTRY_AUTH_PATH"):
        return Path(environment["LNS_REGISTRY_AUTH_PATH"]).expanduser()
    return _home(environment) / ".lns-registry-auth.json"


def _docker_config(environment: Mapping[str, str]) -> Path:
    directory = environment.get("DOCKER_CONFIG")
    return (Path(directory) if directory else _home(environment) / ".docker") / "config.json"


def _auth_file(environment: Mapping[str, str]) -> Path:
    if environment.get("REGISTRY_AUTH_FILE"):
        return Path(environment["REGISTRY_AUTH_FILE"])
    runtime = environment.get("XDG_RUNTIME_DIR")
    directory = Path(runtime) if runtime else _home(environment) / ".config"
    return directory / "containers" / "auth.json"


def _docker_socket(environment: Mapping[str, str]) -> Path:
    host = environment.get("DOCKER_HOST", "")
    return Path(host.removeprefix("unix://")) if host.startswith("unix://") else _DOCKER_SOCKET


def _proxy(environment: Mapping[str, str], scheme: str) -> str:
    """Returns the proxy of a scheme; lower case first, as curl has it."""
    names = (f"{scheme}_proxy", f"{scheme}_PROXY".upper(), "all_proxy", "ALL_PROXY")
    return next((environment[name] for name in names if environment.get(name)), "")


def _http_proxy(environment: Mapping[str, str]) -> str:
    return _proxy(environment, "http")


def _https_proxy(environment: Mapping[str, str]) -> str:
    return _proxy(environment, "https")


def _no_proxy(environment: Mapping[str, str]) -> tuple[str, ...]:
    text = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _plain_http(environment: Mapping[str, str]) -> tuple[str, ...]:
    text = environment.get("LNS_REGISTRY_PLAIN_HTTP", "")
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


_OF_ENVIRONMENT: Mapping[str, Callable[[Mapping[str, str]], object]] = {
    "auth_path": _auth_path,
    "docker_config": _docker_config,
    "auth_file": _auth_file,
    "docker_socket": _docker_socket,
    "plain_http": _plain_http,
    "http_proxy": _http_proxy,
    "https_proxy": _https_proxy,
    "no_proxy": _no_proxy,
}
"""What settings are where only the environment says something."""

_WINS_OVER_FILES: Mapping[str, str] = {
    "auth_path": "LNS_REGISTRY_AUTH_PATH",
    "plain_http": "LNS_REGISTRY_PLAIN_HTTP",
}


_HOST = refused_by(registry_host)


def _mirror_problems(mirrors: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    yield from _HOST(tuple(mirrors))
    for hosts in mirrors.values():
        yield from _HOST(hosts)


def _platform_problems(text: str) -> Iterable[str]:
    return refused_by(Platform.parse)(text) if text else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """How the gateway talks to registries, and what its store keeps free."""

    auth_path: Path = field(
        metadata=setting(variable="LNS_REGISTRY_AUTH_PATH", default_from=_auth_path)
    )
    """The file of the logins that `lns login` makes; mode 0600."""

    docker_config: Path = field(metadata=setting(default_from=_docker_config))
    """Docker's `config.json`, read for logins that lns does not have."""

    auth_file: Path = field(metadata=setting(default_from=_auth_file))
    """The `auth.json` of podman and skopeo, read after that."""

    docker_socket: Path = field(metadata=setting(default_from=_docker_socket))
    """The socket of the Docker daemon that `docker-daemon:` sources come from."""

    plain_http: tuple[str, ...] = field(
        default=(), metadata=setting(variable="LNS_REGISTRY_PLAIN_HTTP", check=_HOST)
    )
    """Hosts (`host` or `host:port`) that are spoken to without TLS; loopback always is."""

    loopback_tls: tuple[str, ...] = field(default=(), metadata=setting(check=_HOST))
    """Loopback hosts that are spoken to over TLS all the same."""

    default_registry: str = field(default="docker.io", metadata=setting(check=_HOST))
    """The registry of references that name none."""

    mirrors: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict, metadata=setting(check=_mirror_problems)
    )
    """Hosts that are asked before a host, for pulls: `{docker.io: [mirror.example:5000]}`."""

    ca_files: tuple[Path, ...] = ()
    """PEM files of authorities that are trusted beside the system's."""

    http_proxy: str = field(default="", metadata=setting(default_from=_http_proxy, secret=True))
    """The proxy for registries without TLS, `http://[user:password@]host:port`. Empty: none.
    Without this setting: `http_proxy`, `HTTP_PROXY`, `ALL_PROXY`."""

    https_proxy: str = field(default="", metadata=setting(default_from=_https_proxy, secret=True))
    """The proxy for registries with TLS; itself `http://` or `https://`. Without this setting:
    `https_proxy`, `HTTPS_PROXY`, `ALL_PROXY`."""

    no_proxy: tuple[str, ...] = field(default=(), metadata=setting(default_from=_no_proxy))
    """Hosts, domains, addresses and networks that are reached directly. Without this setting:
    `no_proxy`, `NO_PROXY`. This machine always is."""

    proxies: Mapping[str, str] = field(default_factory=dict, metadata=setting(secret=True))
    """Proxies of single registries, before all others: `{registry.example: http://proxy:3128}`;
    `direct` stands for no proxy."""

    platform: str = field(default="", metadata=setting(check=_platform_problems))
    """`os/architecture[/variant]` that indexes are followed to. Empty: this machine's."""

    use_keyring: bool = False
    """Whether `lns login` puts secrets into the OS keyring, where there is one."""

    connect_timeout: Seconds = field(default=10.0, metadata=setting(least=SHORTEST))
    """How long a registry may take to accept a connection."""

    stall_timeout: Seconds = field(default=30.0, metadata=setting(least=SHORTEST))
    """How long a connection may be silent."""

    rate_window: Seconds = field(default=30.0, metadata=setting(least=SHORTEST))
    """Over how long the least rate of a connection is measured."""

    least_rate: ByteCount = field(default=4 << 10, metadata=setting(least=1))
    """Bytes a second that a registry sends or takes at least; slower requests are ended."""

    request_timeout: Seconds = field(default=120.0, metadata=setting(least=SHORTEST))
    """How long a request may take, beside what its bytes take at the least rate."""

    attempts: int = field(default=5, metadata=setting(least=1, most=_MOST))
    """How often a request is tried in all."""

    parallel_blobs: int = field(default=4, metadata=setting(least=1, most=_MOST))
    """Blobs that are transferred at a time from or to one registry."""

    upload_chunk: ByteCount = field(
        default=32 << 20, metadata=setting(least=_LEAST_PART, most=_LARGEST_PART)
    )
    """The chunks in which large blobs are pushed: what a broken connection costs at most."""

    range_size: ByteCount = field(
        default=8 << 20, metadata=setting(least=_LEAST_PART, most=_LARGEST_PART)
    )
    """The ranges in which large blobs are pulled over slow links, four at a time."""

    range_latency: Seconds = 0.015
    """How long a registry's answers take at least for blobs to be pulled in ranges."""

    reserve: ByteCount = 256 << 20
    """What stays free on the disk of the store."""

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Self:
        """Returns the settings where nothing is set: the files of logins are this user's."""
        return cls(
            auth_path=_auth_path(environment),
            docker_config=_docker_config(environment),
            auth_file=_auth_file(environment),
            docker_socket=_docker_socket(environment),
            http_proxy=_http_proxy(environment),
            https_proxy=_https_proxy(environment),
            no_proxy=_no_proxy(environment),
        )

    def of_caller(self, own: Mapping[str, str], caller: Mapping[str, str]) -> Self:
        """Returns the settings as they were if a caller had started the gateway.

        What a file of settings says stays, except where a caller's variable wins over files.

        Args:
            own: the environment of the gateway.
            caller: the variables of the caller that concern it.
        """
        changes: dict[str, Any] = {
            name: compute(caller)
            for name, compute in _OF_ENVIRONMENT.items()
            if getattr(self, name) == compute(own) or caller.get(_WINS_OVER_FILES.get(name, ""))
        }
        return dataclasses.replace(self, **changes)

    def __post_init__(self) -> None:
        """Checks what the type hints cannot say.

        Raises:
            SettingsInvalid: a host or platform is malformed, or a number is out of range.
        """
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayProcess(ProcessSettings):
    """Every setting of a gateway that runs by itself."""

    registry_gateway: GatewaySettings = field(
        metadata=setting(default_from=GatewaySettings.of_environment)
    )
    """The gateway's own part."""
